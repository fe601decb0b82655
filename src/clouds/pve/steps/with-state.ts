// A deletion that stops half-way leaves a server that is off: whoever reads of the failure must not take it for running.
import type { RemoteServer } from "../../../core/cloud.ts";
import { isServiceError, ServiceError } from "../../../core/errors.ts";
import type { Issued, StepContext, Verdict } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import { remoteServerOf } from "../server.ts";
import { findTarget } from "./target.ts";

type Failed = Extract<Verdict, { kind: "failed" }>;

/** A refusal, answered or thrown, together with what the server is now. Whatever the engine asks again is left to it. */
export async function withState<T extends Issued | Verdict>(
  client: PveClient,
  context: StepContext,
  work: () => Promise<T>,
): Promise<T | Failed> {
  const outcome = await refusalOf(work);
  if (outcome.kind !== "failed" || outcome.server !== undefined) return outcome;
  const server = await look(client, context);
  return server === null ? outcome : { kind: "failed", error: outcome.error, server };
}

async function refusalOf<T extends Issued | Verdict>(work: () => Promise<T>): Promise<T | Failed> {
  try {
    return await work();
  } catch (error) {
    const isRefusal = isServiceError(
      error,
      "cloud_conflict",
      "cloud_failed",
      "cloud_invalid",
      "cloud_forbidden",
    );
    if (!isRefusal || error.retryable) throw error;
    return { kind: "failed", error };
  }
}

/** Null when that cannot be told now; the next synchronisation does. */
async function look(client: PveClient, context: StepContext): Promise<RemoteServer | null> {
  try {
    const vm = await findTarget(client, context);
    return vm === null ? null : await remoteServerOf(client, vm, context.signal);
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    client.log.warn({ err: error, cloud: client.cloud }, "what a server is could not be told");
    return null;
  }
}

/**
 * The first step of every mutating operation: what the plan assumed, asked of the cloud itself, before anything is
 * changed. A difference ends the operation as `drifted`.
 */
import { z } from "zod";
import { ProvisionOrder, type RemoteServer, Size, serverStates } from "../cloud.ts";
import { isServiceError, ServiceError } from "../errors.ts";
import { isAnother } from "../servers/identity.ts";
import { nodesInMaintenance } from "../servers/maintenance.ts";
import type { Issued, PlannedStep, StepContext, StepDefinition } from "./step.ts";

const minuteMs = 60_000;

const ServerExpectation = z.object({
  externalId: z.string(),
  /** Any of these. */
  states: z.array(z.enum(serverStates)),
  /** Compared when given. */
  size: Size.optional(),
  /** The cloud would not refuse to delete it. */
  unprotected: z.boolean().optional(),
  /** Being gone already is no difference (delete). */
  mayBeGone: z.boolean().optional(),
  /** Hands on what it was before anything was done to it, as `stateSeen`. */
  tellsState: z.boolean().optional(),
});
type ServerExpectation = z.infer<typeof ServerExpectation>;

export function preflightServer(expected: ServerExpectation): PlannedStep {
  return { name: "preflight.server", label: "Check the server", input: { ...expected } };
}

export function preflightProvision(order: ProvisionOrder): PlannedStep {
  return { name: "preflight.provision", label: "Check quota, image and network", input: { order } };
}

const provisionCheck: StepDefinition = {
  name: "preflight.provision",
  deadlineMs: 5 * minuteMs,
  callTimeoutMs: minuteMs,
  evidence: "none",
  async issue(context) {
    const { cloud, database, signal } = context;
    const avoid = await nodesInMaintenance(database, cloud.name);
    await cloud.preflightProvision(ProvisionOrder.parse(context.input["order"]), signal, { avoid });
    return { kind: "done" };
  },
};

const serverCheck: StepDefinition = {
  name: "preflight.server",
  deadlineMs: 5 * minuteMs,
  callTimeoutMs: minuteMs,
  evidence: "none",
  issue: checkServer,
};

async function checkServer(context: StepContext): Promise<Issued> {
  const expected = ServerExpectation.parse(context.input);
  // The steps were computed for what the server was then: a rebuild may have come between, and nobody answers for that one.
  if (context.externalId !== null && context.externalId !== expected.externalId) {
    const message =
      "The server has got another system since this was asked for. Nothing was changed. Ask again.";
    return { kind: "failed", error: new ServiceError("drifted", message) };
  }
  let server: RemoteServer;
  try {
    server = await context.cloud.inspect(expected.externalId, context.signal, {
      before: context.operation.id,
    });
  } catch (error) {
    if (!isServiceError(error, "cloud_not_found")) throw error;
    if (expected.mayBeGone) return { kind: "done", gone: true, note: "It was gone from the cloud already." };
    const message = "The cloud no longer has this server. Nothing was changed.";
    return { kind: "failed", error: new ServiceError("drifted", message, { cause: error }) };
  }
  // What it is like is nobody's business here. The steps do not touch it, and say so.
  if (isAnother(context.serverData, server)) return { kind: "done" };
  const difference = differs(expected, server);
  // As expected: the row keeps saying what is being done to it.
  if (difference === null) {
    return { kind: "done", ...(expected.tellsState === true ? { output: { stateSeen: server.state } } : {}) };
  }
  const why = server.fault === undefined ? {} : { staffDetail: server.fault };
  const error = new ServiceError("drifted", `${difference} Nothing was changed.`, why);
  return { kind: "failed", server, error };
}

function differs(expected: ServerExpectation, server: RemoteServer): string | null {
  // A deletion is the way out of a state that never ends; a cloud that cannot do it now says so itself.
  if (server.busy && expected.mayBeGone !== true)
    return "The cloud is still working on this server; try again when it has finished.";
  if (!expected.states.includes(server.state)) {
    return `The server is ${server.state} in the cloud, not ${expected.states.join(" or ")}.`;
  }
  if (expected.unprotected === true && server.deleteProtected === true) {
    return "The server is protected against deletion in the cloud: lift that first with /server protect and on:no.";
  }
  const size = expected.size;
  if (size === undefined) return null;
  if (size.vcpus === server.vcpus && size.memoryMib === server.memoryMib && size.diskGib === server.diskGib)
    return null;
  return (
    `The server has ${server.vcpus} vCPU, ${server.memoryMib} MiB and ${server.diskGib} GiB in the cloud, ` +
    `not ${size.vcpus} vCPU, ${size.memoryMib} MiB and ${size.diskGib} GiB as planned.`
  );
}

export const coreSteps: readonly StepDefinition[] = [provisionCheck, serverCheck];

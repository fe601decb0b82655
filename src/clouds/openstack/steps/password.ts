import { z } from "zod";
import { isServiceError, reworded, ServiceError } from "../../../core/errors.ts";
import type { PlannedStep, StepContext, StepDefinition, Verdict } from "../../../core/operations/step.ts";
import type { OpenStackClient } from "../client.ts";
import { actOnServer, findAction, findServer, remoteServerOf } from "../compute.ts";
import { serverCondition } from "../condition.ts";
import { isBusy, stateOf, statusOf } from "../state.ts";
import { failureOf, recordDetailOf, requestIdOf } from "./record.ts";

const Input = z.object({ serverId: z.string(), secretId: z.string() });
const PASSWORD = "openstack.password";

export function planPassword(serverId: string, secretId: string): PlannedStep {
  return { name: PASSWORD, label: "Set the new password", input: { serverId, secretId } };
}

/** Sets the stored password, so doing it twice is doing it once. */
export function passwordStep(client: OpenStackClient): StepDefinition {
  // Nova calls the host synchronously and gives up after 60 s; a dead host then leaves the server in PASSWORD for good.
  const callTimeoutMs = 75_000;
  return {
    name: PASSWORD,
    deadlineMs: 90_000,
    callTimeoutMs,
    evidence: "repeatable",
    async issue(context) {
      const { serverId, secretId } = Input.parse(context.input);
      const password = await context.readSecret(secretId);
      const answer = await actOnServer(
        client,
        serverId,
        { changePassword: { adminPass: password } },
        { timeoutMs: callTimeoutMs, signal: context.signal, secrets: [password] },
      ).catch((error: unknown) => {
        throw isServiceError(error, "cloud_conflict") ? notRunning(error) : error;
      });
      return {
        kind: "wait",
        reference: answer.requestId === undefined ? {} : { requestId: answer.requestId },
        condition: serverCondition(serverId),
      };
    },
    verify: (context) => verify(client, context),
  };
}

/** Locked and busy have their own sentences. */
function notRunning(error: ServiceError): ServiceError {
  if (error.facts["locked"] === true || error.retryable) return error;
  return reworded(
    error,
    "The server must be running for its password to be set, so nothing was changed. Start it, then try again.",
    { code: "cloud_conflict" },
  );
}

async function verify(client: OpenStackClient, context: StepContext): Promise<Verdict> {
  const { serverId } = Input.parse(context.input);
  const server = await findServer(client, serverId, context.signal);
  if (server === null) {
    return {
      kind: "failed",
      error: new ServiceError(
        "cloud_not_found",
        "The server is no longer there: it was removed in the cloud meanwhile.",
        {
          facts: { cloud: client.cloud },
        },
      ),
    };
  }
  if (isBusy(server) || statusOf(server) === "UNKNOWN") {
    return { kind: "pending", condition: serverCondition(serverId), note: "setting the password" };
  }
  const requestId = requestIdOf(context.reference);
  const record =
    requestId === undefined ? null : await findAction(client, serverId, requestId, context.signal);
  const remote = remoteServerOf(server);
  if (failureOf(record) === null && stateOf(server) === "active") {
    return { kind: "done", server: remote, note: "The guest has taken the new password." };
  }
  return {
    kind: "failed",
    server: remote,
    error: new ServiceError(
      "cloud_failed",
      "The cloud could not set the password in the guest. The old one is most likely still good; try again, or set it inside the server.",
      {
        facts: { cloud: client.cloud, status: statusOf(server) },
        staffDetail: `${client.cloud}: server ${serverId} is ${statusOf(server)}; ${recordDetailOf(record)}`,
      },
    ),
  };
}

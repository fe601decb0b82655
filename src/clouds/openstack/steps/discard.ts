// Undoes openstack.create: removes every server that carries this operation's marker, whatever the attempt, and no other. The
// engine begins it only when a create whose answer was lost can no longer be on its way.
import { z } from "zod";
import { isServiceError } from "../../../core/errors.ts";
import type { StepContext, StepDefinition } from "../../../core/operations/step.ts";
import type { OpenStackClient } from "../client.ts";
import { carriesMarker, deleteServer, findMarked, findServer } from "../compute.ts";
import type { DiscardCondition } from "../condition.ts";
import type { NovaServer } from "../schema.ts";
import { isGone, stateOf } from "../state.ts";
import { DISCARD } from "./create.ts";

const Input = z.object({ operationId: z.string(), serverId: z.string().nullable() });

const CALL_TIMEOUT_MS = 60_000;
const DONE = { kind: "done", gone: true, note: "Nothing of this order is left in the cloud." } as const;

export function discardStep(client: OpenStackClient): StepDefinition {
  return {
    name: DISCARD,
    deadlineMs: 10 * 60_000,
    callTimeoutMs: CALL_TIMEOUT_MS,
    evidence: "repeatable",

    async issue(context) {
      // Several deletes when there are twins: each is absolute, so the whole is repeated after a lost answer.
      const left = await removeMarked(client, context);
      if (left.length === 0) return DONE;
      const condition = conditionOf(left);
      return { kind: "wait", reference: { serverIds: condition.serverIds }, condition };
    },

    async verify(context) {
      // A twin may have turned up since: it is asked to go as well, because a decision to undo covers all of this operation's.
      const left = await removeMarked(client, context);
      return left.length === 0 ? DONE : { kind: "pending", condition: conditionOf(left) };
    },
  };
}

/** Asks every remaining one to go and returns them. */
async function removeMarked(client: OpenStackClient, context: StepContext): Promise<NovaServer[]> {
  const left = await remaining(client, context);
  for (const server of left) {
    if (stateOf(server) === "deleting") continue;
    try {
      // oxlint-disable-next-line no-await-in-loop -- one after the other: twins are rare, and a refusal must stop it
      await deleteServer(client, server.id, { timeoutMs: CALL_TIMEOUT_MS, signal: context.signal });
    } catch (error) {
      if (!isServiceError(error, "cloud_not_found")) throw error;
    }
  }
  return left;
}

async function remaining(client: OpenStackClient, context: StepContext): Promise<NovaServer[]> {
  const { operationId, serverId } = Input.parse(context.input);
  const found = await findMarked(client, operationId, context.signal);
  if (serverId !== null && !found.some((server) => server.id === serverId)) {
    // Lists may lag behind. The id alone is no licence to delete: the marker must be on it.
    const server = await findServer(client, serverId, context.signal);
    if (server !== null && carriesMarker(server, operationId)) found.push(server);
  }
  return found.filter((server) => !isGone(server));
}

function conditionOf(left: readonly NovaServer[]): DiscardCondition {
  return { kind: "discard", serverIds: left.map((server) => server.id) };
}

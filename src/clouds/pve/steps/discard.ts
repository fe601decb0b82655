// Undoes pve.clone: removes the VM under this operation's reserved VMID when it carries this operation's marker, and no other.
import { z } from "zod";
import { isServiceError, ServiceError } from "../../../core/errors.ts";
import type { Issued, StepContext, StepDefinition, Verdict } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import { type FoundVm, findVm, isGoodExit, isRunning, listTasks } from "../cluster.ts";
import { lookCondition } from "../condition.ts";
import { smbiosUuidOf } from "../config.ts";
import { taskError } from "../errors.ts";
import { spoil } from "../reservation.ts";
import { isAtWork } from "../server.ts";
import { DISCARD } from "./clone.ts";
import { destroy, halt } from "./delete.ts";
import { isOff } from "./power.ts";
import { isBeingMade } from "./reserve.ts";
import { carries, findMade, isHusk, recordOf, requireUnlocked } from "./target.ts";
import { judgeTask } from "./task.ts";

const Input = z.object({ operationId: z.string() });
const DONE_NOTE = "nothing of this order is left in the cloud.";

export function discardStep(client: PveClient): StepDefinition {
  return {
    name: DISCARD,
    deadlineMs: 60 * 60_000,
    callTimeoutMs: 2 * 60_000,
    evidence: "repeatable",
    issue: (context) => removeOwn(client, context),
    async verify(context): Promise<Verdict> {
      const judged = await judgeTask(client, context, "remove the unfinished server");
      if (judged.kind === "running") return judged.verdict;
      const refused = judged.kind === "failed" ? judged.error : await failedDestroy(client, context);
      if (refused !== null && !refused.retryable) {
        const left = await findOwn(client, context);
        // A twin of this call, or a person, may have been faster.
        if (left !== null && left !== "making") return { kind: "failed", error: refused };
      }
      // Switched off, or grown out of its lock: the next part.
      const issued = await removeOwn(client, context);
      if (issued.kind !== "wait") return issued;
      // The task's id is in the condition; after a lost worker the VM itself tells.
      return { kind: "pending", condition: issued.condition };
    },
  };
}

/** Why the last delete of this step ended badly: its task's id is known to the wait alone, the node's list has it too. */
async function failedDestroy(client: PveClient, context: StepContext): Promise<ServiceError | null> {
  const vm = await findOwn(client, context);
  if (vm === null || vm === "making") return null;
  const since = Math.floor((context.issuedAt.getTime() + client.clockOffsetMs()) / 1000);
  const tasks = await listTasks(client, vm.node, { since, vmid: vm.vmid, signal: context.signal });
  const last = tasks
    .filter((task) => task.type === "qmdestroy" && !isRunning(task))
    .toSorted((a, b) => b.starttime - a.starttime)[0];
  if (last === undefined || isGoodExit(last.status ?? "")) return null;
  return taskError(last.status ?? "", {
    cloud: client.cloud,
    upid: last.upid,
    what: "remove the unfinished server",
  });
}

/** One call at a time: off, then gone. Each is absolute. */
async function removeOwn(client: PveClient, context: StepContext): Promise<Issued> {
  const vm = await findOwn(client, context);
  if (vm === null) return done(context);
  if (vm === "making") {
    return { kind: "wait", reference: {}, condition: lookCondition("waiting for PVE to end its work on it") };
  }
  if (!(await isOff(client, vm, context.signal))) return halt(client, context, vm);
  const issued = await destroy(client, context, vm);
  return issued.kind === "done" ? done(context) : issued;
}

/** What was to replace a server is not the server. */
function done({ operation }: StepContext): Issued {
  const isRebuild = operation.output["retiring"] !== undefined;
  return { kind: "done", note: DONE_NOTE, ...(isRebuild ? {} : { gone: true }) };
}

/** Null when nothing of this operation is left. Throws for a lock that a dead task has left. */
async function findOwn(client: PveClient, context: StepContext): Promise<FoundVm | "making" | null> {
  const { operationId } = Input.parse(context.input);
  const { database, signal } = context;
  let found: FoundVm | null;
  try {
    found = await findMade(client, context, { operationId });
  } catch (error) {
    // A container, or a VM that we may not see: not what we made.
    if (isServiceError(error, "cloud_conflict")) return null;
    throw error;
  }
  if (found === null) return null;
  const { vmid } = found;
  if (isBeingMade(found) || isHusk(found)) {
    if (await isAtWork(client, found, signal)) return "making";
    const again = await findVm(client, vmid, { hint: found.node, signal });
    if (again === null) return null;
    // PVE removes the lock itself when a copy ends, so a lasting one is of a task that was killed.
    if (isBeingMade(again) || isHusk(again)) await requireUnlocked(client, again, signal);
    found = again;
  }
  if (!carries(found, operationId)) {
    await spoil(client, { database, operationId }, vmid);
    return null;
  }
  const recorded = recordOf(context, vmid)["smbiosUuid"];
  if (recorded === undefined || recorded === smbiosUuidOf(found.config)) return found;
  throw new ServiceError(
    "cloud_conflict",
    "What the cloud has under this server's number is not provably this server, so it was not removed. Our operators must look at it.",
    {
      facts: { cloud: client.cloud, foreign: true },
      staffDetail: `${client.cloud}: VM ${vmid} has another SMBIOS uuid than the one we recorded`,
    },
  );
}

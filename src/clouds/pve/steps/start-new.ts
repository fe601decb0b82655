// The new VM of a rebuild has the MAC addresses of the old one, so the two never run at the same time: the new one starts when
// the old one is off, and what is undone stops the new one before the old one starts again.
import { ServiceError } from "../../../core/errors.ts";
import type {
  Issued,
  PlannedStep,
  StepContext,
  StepDefinition,
  Verdict,
} from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import { type FoundVm, isRunning, listActiveTasks } from "../cluster.ts";
import { lookCondition } from "../condition.ts";
import { findRetiring, retiringOf } from "../retiring.ts";
import { remoteServerOf } from "../server.ts";
import { powerVm } from "../vm.ts";
import { halt } from "./delete.ts";
import { isOff, powerStep } from "./power.ts";
import { carries, findMade, requireUnlocked } from "./target.ts";
import { explained, judgeTask, refusal, waitFor } from "./task.ts";

const DEADLINE_MS = 10 * 60_000;
const CALL_TIMEOUT_MS = 2 * 60_000;
export const REVIVE = "pve.revive";
const STOP_NEW = "pve.stop_new";

export function planStartNew(): PlannedStep {
  return { name: "pve.start_new", label: "Start the new system", input: { verb: "start" } };
}

export function startNewStep(client: PveClient): StepDefinition {
  const power = powerStep(client);
  return {
    ...power,
    name: "pve.start_new",
    async issue(context) {
      const old = await findRetiring(client, context);
      if (old.kind === "there" && !(await isOff(client, old.vm, context.signal)))
        throw bothWouldRun(client, old.vm);
      return power.issue(context);
    },
    compensation: () => ({ name: STOP_NEW, label: "Switch the unfinished system off", input: {} }),
  };
}

/** Undoes pve.start_new. The VM itself goes with what undoes pve.clone. */
export function stopNewStep(client: PveClient): StepDefinition {
  return {
    name: STOP_NEW,
    deadlineMs: DEADLINE_MS,
    callTimeoutMs: CALL_TIMEOUT_MS,
    evidence: "repeatable",
    async issue(context): Promise<Issued> {
      const vm = await findOwnNew(client, context);
      if (vm === null) return { kind: "done" };
      if (await isStarting(client, vm, context.signal)) {
        return { kind: "wait", reference: {}, condition: lookCondition("waiting for its start to end") };
      }
      if (await isOff(client, vm, context.signal)) return { kind: "done" };
      return halt(client, context, vm);
    },
    async verify(context): Promise<Verdict> {
      const judged = await judgeTask(client, context, "switch the unfinished system off");
      if (judged.kind === "running") return judged.verdict;
      const vm = await findOwnNew(client, context);
      if (vm === null) return { kind: "done" };
      const starting = await isStarting(client, vm, context.signal);
      if (!starting && (await isOff(client, vm, context.signal))) return { kind: "done" };
      // It has come up, or comes up, only now: the next call switches it off.
      if (judged.kind === "unknown" && !starting) return { kind: "again", error: changedMeanwhile(client) };
      if (judged.kind === "failed") return refusal(client, context, { error: judged.error, vm });
      return { kind: "pending", condition: lookCondition("it is running still") };
    },
  };
}

/** Off is not off while the start that is undone is still at work: it would come up a moment later. */
function isStarting(client: PveClient, vm: FoundVm, signal: AbortSignal): Promise<boolean> {
  return isUnderWay(client, vm, { types: ["qmstart"], signal });
}

/** And running is not running while it is being shut down. */
function isStopping(client: PveClient, vm: FoundVm, signal: AbortSignal): Promise<boolean> {
  return isUnderWay(client, vm, { types: ["qmshutdown", "qmstop"], signal });
}

async function isUnderWay(
  client: PveClient,
  { node, vmid }: FoundVm,
  { types, signal }: { types: readonly string[]; signal: AbortSignal },
): Promise<boolean> {
  const tasks = await listActiveTasks(client, node, signal);
  return tasks.some((task) => isRunning(task) && types.includes(task.type) && task.id === String(vmid));
}

function changedMeanwhile(client: PveClient): ServiceError {
  return new ServiceError("cloud_conflict", "What was under way has just ended.", {
    retryable: true,
    facts: { cloud: client.cloud },
  });
}

/** Undoes pve.retire_halt: the old one runs again if it did before. */
export function reviveStep(client: PveClient): StepDefinition {
  return {
    name: REVIVE,
    deadlineMs: DEADLINE_MS,
    callTimeoutMs: CALL_TIMEOUT_MS,
    evidence: "repeatable",
    async issue(context): Promise<Issued> {
      const { signal } = context;
      const rested = await restingOld(client, context);
      if (rested.kind === "stopping") {
        return { kind: "wait", reference: {}, condition: lookCondition("waiting for its shutdown to end") };
      }
      if (rested.kind === "done") return rested;
      const { vm } = rested;
      const made = await findOwnNew(client, context);
      if (made !== null && !(await isOff(client, made, signal))) throw bothWouldRun(client, made);
      await requireUnlocked(client, vm, signal);
      const upid = await explained(client, { vm, signal }, () =>
        powerVm(client, vm, { call: "start" }, { signal }),
      );
      return upid === null ? { kind: "done" } : waitFor(upid);
    },
    async verify(context): Promise<Verdict> {
      const judged = await judgeTask(client, context, "start the old system");
      if (judged.kind === "running") return judged.verdict;
      const rested = await restingOld(client, context);
      if (rested.kind === "stopping") {
        return { kind: "pending", condition: lookCondition("waiting for its shutdown to end") };
      }
      if (rested.kind === "done") return rested;
      if (judged.kind === "failed") return refusal(client, context, { error: judged.error, vm: rested.vm });
      // It was being shut down, and is off only now: the next call starts it.
      if (judged.kind === "unknown") return { kind: "again", error: changedMeanwhile(client) };
      return { kind: "pending", condition: lookCondition("it is off still") };
    },
  };
}

/** The old one while it is still to be started; else why there is nothing to do. */
async function restingOld(
  client: PveClient,
  context: StepContext,
): Promise<{ kind: "stopping" } | { kind: "resting"; vm: FoundVm } | Extract<Verdict, { kind: "done" }>> {
  const old = await findRetiring(client, context);
  if (old.kind !== "there") {
    return {
      kind: "done",
      gone: true,
      note: "it was removed in the cloud meanwhile, so it cannot run again.",
    };
  }
  const { vm } = old;
  if (await isStopping(client, vm, context.signal)) return { kind: "stopping" };
  const isResting = await isOff(client, vm, context.signal);
  if (isResting && retiringOf(context).running) return { kind: "resting", vm };
  const server = await remoteServerOf(client, vm, context.signal);
  const note = isResting ? "it was off before, and stays off." : "it runs again.";
  return { kind: "done", server, note };
}

/** What this operation made; null when there is nothing of it. What PVE is just destroying is off, and carries nothing more. */
export async function findOwnNew(client: PveClient, context: StepContext): Promise<FoundVm | null> {
  const found = await findMade(client, context);
  return found !== null && carries(found, context.operation.id) ? found : null;
}

function bothWouldRun(client: PveClient, { node, vmid }: FoundVm): ServiceError {
  return new ServiceError(
    "cloud_conflict",
    "The old and the new system have the same addresses, and the other one is running, so this one was not started. Our operators must switch one off.",
    {
      facts: { cloud: client.cloud },
      staffDetail: `${client.cloud}: VM ${vmid} on ${node} is running`,
    },
  );
}

// How the old VM of a rebuild goes: off, so that its addresses are free for the new one; and, when the new one runs, deleted.
import type {
  Issued,
  PlannedStep,
  StepContext,
  StepDefinition,
  Verdict,
} from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import type { FoundVm } from "../cluster.ts";
import { lookCondition } from "../condition.ts";
import { findRetiring, retiringOf } from "../retiring.ts";
import { powerVm } from "../vm.ts";
import { destroy, notDeleted, requireUnprotected } from "./delete.ts";
import { isOff } from "./power.ts";
import { REVIVE } from "./start-new.ts";
import { requireUnlocked } from "./target.ts";
import { explained, judgeTask, refusal, waitFor } from "./task.ts";

const CALL_TIMEOUT_MS = 2 * 60_000;
/** How long its guest has to shut down; then the power is cut. */
const GUEST_S = 60;
const GONE_NOTE = "the old system was gone from the cloud already.";

export function planRetireHalt(): PlannedStep {
  return { name: "pve.retire_halt", label: "Switch the old system off", input: {} };
}

export function planRetire(): PlannedStep {
  return { name: "pve.retire", label: "Delete the old system", input: {} };
}

/** The guest is asked first: its disk may be needed again. */
export function retireHaltStep(client: PveClient): StepDefinition {
  return {
    name: "pve.retire_halt",
    deadlineMs: 10 * 60_000,
    callTimeoutMs: CALL_TIMEOUT_MS,
    evidence: "repeatable",
    async issue(context): Promise<Issued> {
      const { signal } = context;
      const { vm } = await findOld(client, context);
      if (vm === null) return { kind: "done", note: GONE_NOTE };
      requireUnprotected(client, vm);
      if (await isOff(client, vm, signal)) return { kind: "done", note: "it was off already." };
      await requireUnlocked(client, vm, signal);
      const parameters = { timeout: GUEST_S, forceStop: true };
      const upid = await explained(client, { vm, signal }, () =>
        powerVm(client, vm, { call: "shutdown", parameters }, { signal }),
      );
      return upid === null ? { kind: "done" } : waitFor(upid);
    },
    async verify(context): Promise<Verdict> {
      const judged = await judgeTask(client, context, "switch the old system off");
      if (judged.kind === "running") return judged.verdict;
      const { vm } = await findOld(client, context);
      if (vm === null) return { kind: "done", note: GONE_NOTE };
      if (await isOff(client, vm, context.signal)) return { kind: "done" };
      if (judged.kind === "failed") return refusal(client, context, { error: judged.error, vm });
      return { kind: "pending", condition: lookCondition("it is running still") };
    },
    compensation: () => ({ name: REVIVE, label: "Start the old system again", input: {} }),
  };
}

/**
 * The server's row names another VM by now (or, in place, none that is there), so the proof is what was recorded before the
 * first change. What is done again finds it gone.
 */
export function retireStep(client: PveClient): StepDefinition {
  return {
    name: "pve.retire",
    deadlineMs: 30 * 60_000,
    callTimeoutMs: CALL_TIMEOUT_MS,
    pointOfNoReturn: "The old system is deleted.",
    evidence: "repeatable",
    async issue(context): Promise<Issued> {
      const { vm, stranger } = await findOld(client, context);
      if (vm === null) return gone(context, stranger, GONE_NOTE);
      const issued = await destroy(client, context, vm);
      // Older versions delete at once.
      return issued.kind === "done" ? gone(context, null) : issued;
    },
    async verify(context): Promise<Verdict> {
      const judged = await judgeTask(client, context, "delete the old system");
      if (judged.kind === "running") return judged.verdict;
      const { vm, stranger } = await findOld(client, context);
      if (vm === null) return gone(context, stranger);
      if (judged.kind === "failed") return refusal(client, context, { error: judged.error, vm });
      return { kind: "failed", error: notDeleted(client, vm) };
    },
  };
}

interface Old {
  vm: FoundVm | null;
  /** Somebody else's VM under the number of the old one, which is gone. */
  stranger: FoundVm | null;
}

async function findOld(client: PveClient, context: StepContext): Promise<Old> {
  const found = await findRetiring(client, context);
  if (found.kind === "there") return { vm: found.vm, stranger: null };
  return { vm: null, stranger: found.kind === "replaced" ? found.vm : null };
}

/** Never `gone`: that would be the server. */
function gone(context: StepContext, stranger: FoundVm | null, note = "it is deleted.") {
  const { externalId } = retiringOf(context);
  return {
    kind: "done" as const,
    output: {
      retired: true,
      // In place nothing is left that the server could be: what it is if this operation is given up.
      ...(context.externalId === externalId ? { stateBefore: "missing" } : {}),
    },
    note,
    ...(stranger === null
      ? {}
      : {
          staffNote: `VM ${externalId} on ${stranger.node} is not the old system any more and was not touched.`,
        }),
  };
}

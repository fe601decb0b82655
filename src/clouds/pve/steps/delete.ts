// Deleting takes two steps, because PVE refuses to delete what runs: off, then gone. Each looks before it acts.
import { z } from "zod";
import { isServiceError, ServiceError } from "../../../core/errors.ts";
import type {
  Issued,
  PlannedStep,
  StepContext,
  StepDefinition,
  Verdict,
} from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import { type FoundVm, isFree } from "../cluster.ts";
import { lookCondition } from "../condition.ts";
import { isProtected } from "../config.ts";
import { vmidOf } from "../server.ts";
import { destroyVm, powerVm } from "../vm.ts";
import { isOff } from "./power.ts";
import { planPurge } from "./purge.ts";
import { findTarget, requireUnlocked } from "./target.ts";
import { explained, judgeTask, refusal, waitFor } from "./task.ts";
import { withState } from "./with-state.ts";

const Input = z.object({ externalId: z.string() });
const CALL_TIMEOUT_MS = 2 * 60_000;
const GONE = { kind: "done", gone: true, note: "It was gone from the cloud already." } as const;

/** What it is when the deletion is cancelled after this. */
const HALTED = { kind: "done", output: { stateBefore: "stopped" } } as const;

export function planDelete({
  externalId,
  backups = false,
}: {
  externalId: string;
  backups?: boolean;
}): PlannedStep[] {
  const input: z.infer<typeof Input> = { externalId };
  return [
    { name: "pve.halt", label: "Switch the server off", input },
    ...(backups ? [planPurge(externalId)] : []),
    { name: "pve.destroy", label: "Delete the server", input: { ...input } },
  ];
}

/** The protection is looked at first: a server that may not be deleted is not switched off for it either. */
export function haltStep(client: PveClient): StepDefinition {
  return {
    name: "pve.halt",
    deadlineMs: 10 * 60_000,
    callTimeoutMs: CALL_TIMEOUT_MS,
    evidence: "repeatable",
    async issue(context): Promise<Issued> {
      const vm = await findTarget(client, context, { justSeen: true });
      if (vm === null) return GONE;
      requireUnprotected(client, vm);
      if (await isOff(client, vm, context.signal)) return { ...HALTED, note: "It was already off." };
      return orGone(client, context, () => halt(client, context, vm));
    },
    async verify(context): Promise<Verdict> {
      const judged = await judgeTask(client, context, "switch the server off");
      if (judged.kind === "running") return judged.verdict;
      const vm = await findTarget(client, context);
      if (vm === null) return GONE;
      if (await isOff(client, vm, context.signal)) return HALTED;
      if (judged.kind === "failed") return refusal(client, context, { error: judged.error, vm });
      return { kind: "pending", condition: lookCondition("it is running still") };
    },
  };
}

export async function halt(client: PveClient, context: StepContext, vm: FoundVm): Promise<Issued> {
  await requireUnlocked(client, vm, context.signal);
  const upid = await explained(client, { vm, signal: context.signal }, () =>
    powerVm(client, vm, { call: "stop" }, { signal: context.signal }),
  );
  return upid === null ? { kind: "done" } : waitFor(upid);
}

export function requireUnprotected(client: PveClient, { vmid, config }: FoundVm): void {
  if (!isProtected(config)) return;
  throw new ServiceError(
    "cloud_conflict",
    "The server is protected against deletion in the cloud, so nothing was deleted. The protection must be switched off there first.",
    {
      facts: { cloud: client.cloud, protected: true },
      staffDetail: `${client.cloud}: VM ${vmid} has protection=1; qm set ${vmid} --protection 0 lifts it`,
    },
  );
}

export function destroyStep(client: PveClient): StepDefinition {
  return {
    name: "pve.destroy",
    deadlineMs: 30 * 60_000,
    callTimeoutMs: CALL_TIMEOUT_MS,
    pointOfNoReturn: "The cloud is already deleting the server.",
    evidence: "repeatable",
    issue: (context) => withState(client, context, () => issueDestroy(client, context)),
    verify: (context) => withState(client, context, () => verifyDestroy(client, context)),
  };
}

async function issueDestroy(client: PveClient, context: StepContext): Promise<Issued> {
  const vm = await findTarget(client, context, { justSeen: true });
  if (vm === null) return GONE;
  return orGone(client, context, () => destroy(client, context, vm));
}

/** Between our look and the call an earlier call of ours may have come to its end, or somebody else been faster. */
async function orGone(client: PveClient, context: StepContext, call: () => Promise<Issued>): Promise<Issued> {
  try {
    return await call();
  } catch (error) {
    if (!isServiceError(error, "cloud_not_found") || (await findTarget(client, context)) !== null)
      throw error;
    return GONE;
  }
}

async function verifyDestroy(client: PveClient, context: StepContext): Promise<Verdict> {
  const judged = await judgeTask(client, context, "delete the server");
  if (judged.kind === "running") return judged.verdict;
  const vmid = vmidOf(Input.parse(context.input).externalId);
  // Nobody in the whole cluster has the number.
  if (judged.kind === "ok" && vmid !== null && (await isFree(client, vmid, context.signal))) {
    return { kind: "done", gone: true };
  }
  const vm = await findTarget(client, context);
  if (vm === null) return { kind: "done", gone: true };
  if (judged.kind === "failed") return refusal(client, context, { error: judged.error, vm });
  return { kind: "failed", error: notDeleted(client, vm) };
}

export async function destroy(client: PveClient, context: StepContext, vm: FoundVm): Promise<Issued> {
  await requireUnlocked(client, vm, context.signal);
  const upid = await explained(client, { vm, signal: context.signal }, () =>
    destroyVm(client, vm, { signal: context.signal }),
  );
  return upid === null ? { kind: "done", gone: true } : waitFor(upid);
}

export function notDeleted(client: PveClient, { node, vmid }: FoundVm): ServiceError {
  return new ServiceError(
    "cloud_failed",
    "The cloud did not delete the server: it is still there. Try again, or have the operators look at it.",
    { facts: { cloud: client.cloud }, staffDetail: `${client.cloud}: VM ${vmid} is on ${node} still` },
  );
}

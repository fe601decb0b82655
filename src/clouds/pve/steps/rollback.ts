// Going back to a snapshot: looked at, gone back to, and given back the power that the server had.
import { z } from "zod";
import { reworded, ServiceError } from "../../../core/errors.ts";
import type {
  Issued,
  PlannedStep,
  Probe,
  StepContext,
  StepDefinition,
  Verdict,
} from "../../../core/operations/step.ts";
import { describeMemory } from "../../../core/servers/size.ts";
import type { PveClient } from "../client.ts";
import type { FoundVm } from "../cluster.ts";
import { lookCondition } from "../condition.ts";
import { coresOf, memoryMibOf, smbiosUuidOf } from "../config.ts";
import type { VmConfig } from "../schema.ts";
import { remoteServerOf } from "../server.ts";
import { goBackTo, listSnapshots, remoteSnapshots, snapshotConfig } from "../snapshots.ts";
import { limitsOf, limitsStep, planLimits } from "./limits.ts";
import { isOff, noTask, powerStep } from "./power.ts";
import { heldByLock, namedIn, refused } from "./snapshot-lock.ts";
import { findTarget, getTarget, outcomeFor, requireUnlocked, seen, vanished } from "./target.ts";
import { explained, judgeTask, staffNoteOf, taskSinceIntent, waitFor } from "./task.ts";
import { withWaitingSize } from "./waiting-size.ts";

const Input = z.object({
  externalId: z.string(),
  name: z.string(),
  takenAt: z.string().optional(),
  neverLarger: z.boolean().optional(),
});
type Input = z.infer<typeof Input>;

export function planRollback(order: Input): PlannedStep[] {
  const input = Input.parse(order);
  return [
    { name: "pve.rollback_check", label: "Check the snapshot", input },
    { name: "pve.rollback", label: "Go back to the snapshot", input: { ...input } },
    planLimits({ externalId: input.externalId }),
    {
      name: "pve.power_back",
      label: "Give it back the power it had",
      input: { externalId: input.externalId },
    },
  ];
}

export function rollbackSteps(client: PveClient): StepDefinition[] {
  return [checkStep(client), rollbackStep(client), limitsStep(client), powerBackStep(client)];
}

/** Also remembers what the way back needs: afterwards nothing tells any more whether the server ran, and its limits. */
function checkStep(client: PveClient): StepDefinition {
  return {
    name: "pve.rollback_check",
    deadlineMs: 5 * 60_000,
    callTimeoutMs: 60_000,
    evidence: "none",
    async issue(context): Promise<Issued> {
      const order = Input.parse(context.input);
      const { signal } = context;
      const vm = await getTarget(client, context);
      await requireUnlocked(client, vm, signal);
      const snapshot = namedIn(client, await listSnapshots(client, vm, signal), order);
      if (snapshot === undefined) throw gone(client, order);
      if (!snapshot.isComplete) throw unfinished(client, order);
      const past = await snapshotConfig(client, vm, { name: order.name, signal });
      requireSameVm(client, vm, { name: order.name, past });
      if (order.neverLarger === true) await requireNotLarger(client, vm, { name: order.name, past, signal });
      const runs = snapshot.withMemory || !(await isOff(client, vm, signal));
      return { kind: "done", output: { runsAfterRollback: runs, limits: limitsOf(vm.config) } };
    },
  };
}

function gone(client: PveClient, { name }: Input): ServiceError {
  return new ServiceError("drifted", `The snapshot ${name} is no longer there. Nothing was changed.`, {
    facts: { cloud: client.cloud, snapshot: name },
  });
}

function unfinished(client: PveClient, { name }: Input): ServiceError {
  return new ServiceError(
    "cloud_conflict",
    `The snapshot ${name} was never finished, so nothing was changed. Delete it.`,
    { facts: { cloud: client.cloud, snapshot: name } },
  );
}

/**
 * Going back keeps the description and with it our marker, but brings the SMBIOS uuid of that time (pve-guest-common,
 * AbstractConfig.pm, __snapshot_apply_config): with another one the VM could not be told to be ours afterwards.
 */
function requireSameVm(
  client: PveClient,
  vm: FoundVm,
  { name, past }: { name: string; past: VmConfig },
): void {
  const then = smbiosUuidOf(past);
  const now = smbiosUuidOf(vm.config);
  if (then === now) return;
  throw new ServiceError(
    "cloud_conflict",
    "The snapshot has another identity of the server, so it was not gone back to. Our operators must look at it.",
    {
      facts: { cloud: client.cloud, foreign: true },
      staffDetail: `${client.cloud}: VM ${vm.vmid}: SMBIOS uuid is ${now ?? "none"}, in ${name} ${then ?? "none"}`,
    },
  );
}

/** What is not paid for any more does not come back with a disk of that time. */
async function requireNotLarger(
  client: PveClient,
  vm: FoundVm,
  { name, past, signal }: { name: string; past: VmConfig; signal: AbortSignal },
): Promise<void> {
  const now = await remoteServerOf(client, vm, signal, { addresses: false });
  const { cores, sockets } = coresOf(past);
  const [vcpus, memoryMib] = [cores * sockets, memoryMibOf(past)];
  if (vcpus <= now.vcpus && memoryMib <= now.memoryMib) return;
  throw new ServiceError(
    "cloud_conflict",
    `With the snapshot ${name} the server would have ${vcpus} vCPU and ${describeMemory(memoryMib)} again, more than now, so nothing was changed. Resize it to at least that first, then go back.`,
    { facts: { cloud: client.cloud, snapshot: name, vcpus, memoryMib } },
  );
}

/** Happens each time it is asked for: after a lost answer the node's task list tells. */
function rollbackStep(client: PveClient): StepDefinition {
  return {
    name: "pve.rollback",
    deadlineMs: 2 * 60 * 60_000,
    callTimeoutMs: 2 * 60_000,
    pointOfNoReturn: "The cloud is already going back to the snapshot.",
    evidence: "record",
    issue: (context) => issue(client, context),
    probe: (context) => probe(client, context),
    verify: (context) => verify(client, context),
  };
}

async function issue(client: PveClient, context: StepContext): Promise<Issued> {
  const order = Input.parse(context.input);
  const { signal } = context;
  const vm = await getTarget(client, context);
  if (namedIn(client, await listSnapshots(client, vm, signal), order) === undefined)
    throw gone(client, order);
  await requireUnlocked(client, vm, signal);
  const upid = await explained(client, { vm, signal }, () => goBackTo(client, vm, order.name, { signal }));
  if (upid === null) throw noTask(client);
  return waitFor(upid);
}

async function probe(client: PveClient, context: StepContext): Promise<Probe> {
  const vm = await findTarget(client, context);
  if (vm === null) return { effect: "absent" };
  return taskSinceIntent(client, context, { vm, types: ["qmrollback"] });
}

async function verify(client: PveClient, context: StepContext): Promise<Verdict> {
  const { name } = Input.parse(context.input);
  const { signal } = context;
  const judged = await judgeTask(client, context, "go back to the snapshot");
  if (judged.kind === "running") return judged.verdict;
  const vm = await findTarget(client, context);
  if (vm === null) return { kind: "failed", error: vanished(client) };
  const held = await heldByLock(client, context, vm, {
    lock: "rollback",
    note: "going back to the snapshot",
  });
  if (held?.kind === "failed") return { kind: "failed", error: halfBack(held.error) };
  if (held !== null) return held;
  if (judged.kind === "failed") return refused(client, context, { error: judged.error, vm });
  // PVE has forgotten the task, or does not show it yet: the disk does not tell whether it was gone back.
  if (judged.kind === "unknown") {
    return { kind: "pending", condition: lookCondition("it is not known yet whether it has gone back") };
  }
  const list = await listSnapshots(client, vm, signal);
  // Going back drops what has waited.
  const server = await withWaitingSize(client, context, {
    vm,
    server: await remoteServerOf(client, vm, signal),
    always: true,
  });
  if (list.parent !== name) {
    return { kind: "failed", server, error: elsewhere(client, vm, { name, parent: list.parent }) };
  }
  return {
    kind: "done",
    ...outcomeFor(context, server),
    output: {
      rolledBackTo: name,
      size: { vcpus: server.vcpus, memoryMib: server.memoryMib, diskGib: server.diskGib },
    },
    snapshots: remoteSnapshots(list),
    ...staffNoteOf(judged.warnings),
  };
}

function halfBack(cause: ServiceError): ServiceError {
  return reworded(
    cause,
    "Going back was broken off in the cloud and left the server locked: its disk may be half of then and half of now. Our operators must unlock it; then go back once more.",
    { code: "cloud_failed" },
  );
}

function elsewhere(
  client: PveClient,
  { vmid }: FoundVm,
  { name, parent }: { name: string; parent: string | null },
): ServiceError {
  return new ServiceError(
    "cloud_failed",
    "The cloud went back, but not to this snapshot: somebody else was at work on it. Look at what is there before you try again.",
    {
      facts: { cloud: client.cloud },
      staffDetail: `${client.cloud}: VM ${vmid} is at ${parent ?? "no snapshot"}, not at ${name}`,
    },
  );
}

/** PVE leaves a VM off whose snapshot has no memory in it. */
function powerBackStep(client: PveClient): StepDefinition {
  const start = powerStep(client);
  const asStart = (context: StepContext): StepContext => ({
    ...context,
    input: { externalId: context.input["externalId"], verb: "start" },
  });
  return {
    ...start,
    name: "pve.power_back",
    async issue(context): Promise<Issued> {
      if (context.operation.output["runsAfterRollback"] === true) return start.issue(asStart(context));
      const vm = await getTarget(client, context);
      return { kind: "done", ...(await seen(client, context, vm)), note: "It is off, as it was." };
    },
    verify: async (context): Promise<Verdict> => (await start.verify?.(asStart(context))) ?? { kind: "done" },
  };
}

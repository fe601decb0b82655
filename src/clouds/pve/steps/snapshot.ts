// Taking and deleting a snapshot. Its name is ours only when the first line of its description is our marker.
import { z } from "zod";
import { ServiceError } from "../../../core/errors.ts";
import type {
  Issued,
  PlannedStep,
  Probe,
  StepContext,
  StepDefinition,
  Verdict,
} from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import type { FoundVm } from "../cluster.ts";
import { lookCondition } from "../condition.ts";
import { markerLine } from "../marker.ts";
import {
  canSnapshot,
  deleteSnapshot,
  type ListedSnapshot,
  listSnapshots,
  remoteSnapshots,
  takeSnapshot,
} from "../snapshots.ts";
import { noTask, unknownTask } from "./power.ts";
import { heldByLock, isMeant, namedIn, refused } from "./snapshot-lock.ts";
import { findTarget, getTarget, requireUnlocked, vanished } from "./target.ts";
import { explained, judgeTask, staffNoteOf, waitFor } from "./task.ts";

const CreateInput = z.object({
  externalId: z.string(),
  name: z.string(),
  description: z.string(),
  withMemory: z.boolean(),
});
type CreateInput = z.infer<typeof CreateInput>;
const RefInput = z.object({ externalId: z.string(), name: z.string(), takenAt: z.string().optional() });
type RefInput = z.infer<typeof RefInput>;

const CALL_TIMEOUT_MS = 2 * 60_000;
/** Memory of hundreds of GiB goes to a slow storage; old snapshots are merged for hours. */
const DEADLINE_MS = 6 * 60 * 60_000;

export function planSnapshot(order: CreateInput): PlannedStep[] {
  const input = CreateInput.parse(order);
  return [
    { name: "pve.snapshot_check", label: "Check that its disk can be snapshotted", input },
    { name: "pve.snapshot", label: "Take the snapshot", input },
  ];
}

export function planSnapshotDelete(order: RefInput): PlannedStep[] {
  return [{ name: "pve.snapshot_delete", label: "Delete the snapshot", input: RefInput.parse(order) }];
}

export function snapshotSteps(client: PveClient): StepDefinition[] {
  return [checkStep(client), createStep(client), deleteStep(client)];
}

function checkStep(client: PveClient): StepDefinition {
  return {
    name: "pve.snapshot_check",
    deadlineMs: 5 * 60_000,
    callTimeoutMs: 60_000,
    evidence: "none",
    async issue(context): Promise<Issued> {
      const { name } = CreateInput.parse(context.input);
      const vm = await getTarget(client, context);
      await requireUnlocked(client, vm, context.signal);
      requireFree(client, context, (await listSnapshots(client, vm, context.signal)).snapshots, name);
      if (await canSnapshot(client, vm, context.signal)) return { kind: "done" };
      throw new ServiceError(
        "unsupported",
        "The storage of this server's disk cannot take snapshots, so none was taken.",
        {
          facts: { cloud: client.cloud },
          staffDetail: `${client.cloud}: feature=snapshot of VM ${vm.vmid} is 0: a disk is on a storage or in a format without snapshots`,
        },
      );
    },
  };
}

function requireFree(
  client: PveClient,
  context: StepContext,
  snapshots: readonly ListedSnapshot[],
  name: string,
): void {
  const there = snapshots.find((one) => one.name === name);
  if (there === undefined || isOwn(there, context)) return;
  throw new ServiceError(
    "cloud_conflict",
    `The server has a snapshot ${name} already, which was not made for this, so none was taken. Choose another name.`,
    { facts: { cloud: client.cloud, snapshot: name } },
  );
}

function isOwn({ madeBy }: ListedSnapshot, { operation }: StepContext): boolean {
  return madeBy.includes(operation.id);
}

function createStep(client: PveClient): StepDefinition {
  return {
    name: "pve.snapshot",
    deadlineMs: DEADLINE_MS,
    callTimeoutMs: CALL_TIMEOUT_MS,
    pointOfNoReturn: "The cloud is already taking the snapshot.",
    evidence: "probe",
    issue: (context) => issueCreate(client, context),
    probe: (context) => probeCreate(client, context),
    verify: (context) => verifyCreate(client, context),
  };
}

async function issueCreate(client: PveClient, context: StepContext): Promise<Issued> {
  const { name, description, withMemory } = CreateInput.parse(context.input);
  const { signal } = context;
  const vm = await getTarget(client, context);
  const list = await listSnapshots(client, vm, signal);
  requireFree(client, context, list.snapshots, name);
  if (list.snapshots.some((one) => one.name === name)) {
    // An earlier call of ours has begun it.
    return { kind: "wait", reference: { name }, condition: lookCondition(TAKING, { soon: true }) };
  }
  await requireUnlocked(client, vm, signal);
  const text = [markerLine(context.marker), ...(description === "" ? [] : [description])].join("\n");
  const upid = await explained(client, { vm, signal }, () =>
    takeSnapshot(client, vm, { name, description: text, withMemory }, { signal }),
  );
  if (upid === null) throw noTask(client);
  return waitFor(upid, { more: { name } });
}

const TAKING = "taking the snapshot";
const DELETING = "deleting the snapshot";

async function probeCreate(client: PveClient, context: StepContext): Promise<Probe> {
  const { name } = CreateInput.parse(context.input);
  const vm = await findTarget(client, context);
  if (vm === null) return { effect: "absent" };
  const { snapshots } = await listSnapshots(client, vm, context.signal);
  // Somebody else's of that name: our call cannot succeed any more, and the next one says so.
  if (!snapshots.some((one) => one.name === name && isOwn(one, context))) return { effect: "absent" };
  return {
    effect: "present",
    reference: { name },
    condition: lookCondition(TAKING, { soon: true }),
    note: "The cloud's answer was lost, but the snapshot is there.",
  };
}

async function verifyCreate(client: PveClient, context: StepContext): Promise<Verdict> {
  const { name, withMemory } = CreateInput.parse(context.input);
  const judged = await judgeTask(client, context, "take the snapshot");
  if (judged.kind === "running") return judged.verdict;
  const vm = await findTarget(client, context);
  if (vm === null) return { kind: "failed", error: vanished(client) };
  const list = await listSnapshots(client, vm, context.signal);
  const own = list.snapshots.find((one) => one.name === name && isOwn(one, context));
  // PVE lifts the lock in the same write that completes it.
  if (own?.isComplete === true && vm.config["lock"] !== "snapshot") {
    return {
      kind: "done",
      snapshots: remoteSnapshots(list),
      ...(withMemory && !own.withMemory ? { note: "taken, but without memory: the server was off." } : {}),
      ...(judged.kind === "ok" ? staffNoteOf(judged.warnings) : {}),
    };
  }
  const held = await heldByLock(client, context, vm, { lock: "snapshot", note: TAKING });
  if (held !== null) return held;
  if (judged.kind === "failed") return refused(client, context, { error: judged.error, vm });
  if (judged.kind === "unknown" && own === undefined) return { kind: "again", error: unknownTask(client) };
  return { kind: "failed", error: notThere(client, vm, name) };
}

function notThere(client: PveClient, { vmid }: FoundVm, name: string): ServiceError {
  return new ServiceError(
    "cloud_failed",
    "The cloud did not finish the snapshot, so there is nothing to go back to. Our operators must look at it.",
    {
      facts: { cloud: client.cloud },
      staffDetail: `${client.cloud}: VM ${vmid} has no finished snapshot ${name} (qm listsnapshot ${vmid})`,
    },
  );
}

function deleteStep(client: PveClient): StepDefinition {
  return {
    name: "pve.snapshot_delete",
    deadlineMs: DEADLINE_MS,
    callTimeoutMs: CALL_TIMEOUT_MS,
    pointOfNoReturn: "The cloud is already deleting the snapshot.",
    evidence: "repeatable",
    issue: (context) => issueDelete(client, context),
    verify: (context) => verifyDelete(client, context),
  };
}

async function issueDelete(client: PveClient, context: StepContext): Promise<Issued> {
  const order = RefInput.parse(context.input);
  const { signal } = context;
  const vm = await getTarget(client, context);
  const list = await listSnapshots(client, vm, signal);
  if (namedIn(client, list, order) === undefined) {
    return { kind: "done", snapshots: remoteSnapshots(list), note: "It was gone already." };
  }
  if (vm.config["lock"] === "snapshot-delete") {
    // An earlier call of ours may be at it; verify tells a lock that was left behind.
    return { kind: "wait", reference: {}, condition: lookCondition(DELETING, { soon: true }) };
  }
  await requireUnlocked(client, vm, signal);
  const upid = await explained(client, { vm, signal }, () =>
    deleteSnapshot(client, vm, order.name, { signal }),
  );
  if (upid === null) throw noTask(client);
  return waitFor(upid);
}

async function verifyDelete(client: PveClient, context: StepContext): Promise<Verdict> {
  const order = RefInput.parse(context.input);
  const judged = await judgeTask(client, context, "delete the snapshot");
  if (judged.kind === "running") return judged.verdict;
  const vm = await findTarget(client, context);
  if (vm === null) return { kind: "failed", error: vanished(client) };
  const held = await heldByLock(client, context, vm, { lock: "snapshot-delete", note: DELETING });
  if (held !== null) return held;
  const list = await listSnapshots(client, vm, context.signal);
  if (!list.snapshots.some((one) => isMeant(one, order))) {
    return {
      kind: "done",
      snapshots: remoteSnapshots(list),
      ...(judged.kind === "ok" ? staffNoteOf(judged.warnings) : {}),
    };
  }
  if (judged.kind === "failed") return refused(client, context, { error: judged.error, vm });
  if (judged.kind === "unknown") return { kind: "again", error: unknownTask(client) };
  return {
    kind: "failed",
    error: new ServiceError(
      "cloud_failed",
      "The cloud did not delete the snapshot: it is still there. Try again, or have the operators look at it.",
      {
        facts: { cloud: client.cloud },
        staffDetail: `${client.cloud}: VM ${vm.vmid} has ${order.name} still`,
      },
    ),
  };
}

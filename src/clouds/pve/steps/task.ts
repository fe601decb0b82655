// What every step with a task does: dispatch it, and judge it when it has ended. Most refusals of PVE arrive inside the task.
import { isServiceError, type ServiceError } from "../../../core/errors.ts";
import type { Issued, Probe, StepContext, Verdict } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import { type FoundVm, isGoodExit, isRunning, listTasks, taskEnd, taskWarnings } from "../cluster.ts";
import { taskCondition } from "../condition.ts";
import { justMoved, taskError } from "../errors.ts";
import type { Task } from "../schema.ts";
import { parseUpid, type Upid } from "../upid.ts";
import { recordOf, withLockAdvice } from "./target.ts";

export function waitFor(
  upid: Upid,
  { more = {}, note }: { more?: Record<string, unknown>; note?: string } = {},
): Issued {
  return {
    kind: "wait",
    reference: { ...more, upid: upid.upid },
    condition: taskCondition(upid),
    ...(note === undefined ? {} : { note }),
  };
}

function upidOf(reference: Record<string, unknown> | null): Upid | null {
  return parseUpid(reference?.["upid"]);
}

export type Judged =
  | { kind: "running"; verdict: Verdict }
  /** No task is known: its id was lost, or PVE has forgotten it. The VM itself must tell. */
  | { kind: "unknown" }
  | { kind: "ok"; warnings: string | undefined }
  | { kind: "failed"; error: ServiceError };

/** The step's task, by the id in its reference. `what` completes "The cloud tried to …". */
export async function judgeTask(client: PveClient, context: StepContext, what: string): Promise<Judged> {
  const upid = upidOf(context.reference);
  if (upid === null) return { kind: "unknown" };
  const end = await taskEnd(client, upid, context.signal);
  if (end === "unknown") return { kind: "unknown" };
  if (end === null) return { kind: "running", verdict: { kind: "pending", condition: taskCondition(upid) } };
  if (!end.ok)
    return {
      kind: "failed",
      error: taskError(end.exitStatus, { cloud: client.cloud, upid: upid.upid, what }),
    };
  if (end.exitStatus === "OK") return { kind: "ok", warnings: undefined };
  const lines = await taskWarnings(client, upid, context.signal);
  return {
    kind: "ok",
    warnings: `PVE ended task ${upid.upid} with ${end.exitStatus}: ${lines.join(" ")}`.trim(),
  };
}

/** A refusal inside the task: a lock of a few seconds is asked past, a lasting one says what to do. */
export async function refusal(
  client: PveClient,
  context: StepContext,
  { error, vm }: { error: ServiceError; vm: FoundVm },
): Promise<Verdict> {
  if (error.retryable) return { kind: "again", error };
  // We have just seen it.
  if (error.code === "cloud_not_found") return { kind: "again", error: justMoved(error) };
  return { kind: "failed", error: await withLockAdvice(client, error, { vm, signal: context.signal }) };
}

/** The same for a refusal that is the call's own answer; thrown, because the engine asks again by itself. */
export async function explained<T>(
  client: PveClient,
  { vm, signal }: { vm: FoundVm; signal: AbortSignal },
  call: () => Promise<T>,
): Promise<T> {
  try {
    return await call();
  } catch (error) {
    if (isServiceError(error, "cloud_not_found")) throw justMoved(error);
    if (!isServiceError(error, "cloud_conflict")) throw error;
    throw await withLockAdvice(client, error, { vm, signal });
  }
}

export function staffNoteOf(warnings: string | undefined): { staffNote?: string } {
  return warnings === undefined ? {} : { staffNote: warnings };
}

/** Tasks are written with whole seconds, and so is the Date header by which the clocks are compared. */
const CLOCK_TOLERANCE_S = 3;

/**
 * The first task of such a type that began on this VM since the call was to be made, and that no other call of ours has begun.
 * One that PVE has refused counts only when there is none besides: it may be of the call before the lost one.
 */
async function firstTaskSince(
  client: PveClient,
  context: StepContext,
  { vm, types }: { vm: FoundVm; types: readonly string[] },
): Promise<Task | null> {
  const since = Math.floor((context.issuedAt.getTime() + client.clockOffsetMs()) / 1000) - CLOCK_TOLERANCE_S;
  // It may have moved since: the task is in the list of the node where it was.
  const { node: before } = recordOf(context, vm.vmid);
  const nodes = new Set([vm.node, ...(typeof before === "string" ? [before] : [])]);
  const lists = [...nodes].map((node) =>
    listTasks(client, node, { since, vmid: vm.vmid, signal: context.signal }),
  );
  const tasks = (await Promise.all(lists)).flat();
  const begun = tasks
    .filter((task) => types.includes(task.type))
    .toSorted((a, b) => a.starttime - b.starttime);
  const known = await knownTasks(context, vm);
  const own = begun.filter(({ upid }) => !known.has(upid));
  return own.find((task) => isRunning(task) || isGoodExit(task.status ?? "")) ?? own[0] ?? null;
}

/** Those that PVE has told us of when other steps called. */
async function knownTasks(
  { database, operation }: StepContext,
  { vmid }: FoundVm,
): Promise<ReadonlySet<string>> {
  const rows = await database.sql<{ upid: string }>(
    `SELECT s.reference->>'upid' AS upid FROM operation_steps s JOIN operations o ON o.id = s.operation_id
     JOIN servers v ON v.id = o.server_id WHERE v.external_id = $1 AND s.reference ? 'upid'
       AND NOT (o.id = $2 AND s.finished_at IS NULL)`,
    [String(vmid), operation.id],
  );
  return new Set(rows.map(({ upid }) => upid));
}

/** What is known after a lost answer to a call that begins such a task. */
export async function taskSinceIntent(
  client: PveClient,
  context: StepContext,
  wanted: { vm: FoundVm; types: readonly string[] },
): Promise<Probe> {
  const first = await firstTaskSince(client, context, wanted);
  if (first === null) return { effect: "absent" };
  return {
    effect: "present",
    reference: { upid: first.upid },
    condition: taskCondition(first),
    note: "The cloud's answer was lost, but it has begun.",
  };
}

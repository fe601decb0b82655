// The backups of a server that is being deleted. One call for one of them, one after the other; what is left is read anew
// each time, so that neither a lost answer nor a dead worker deletes anything twice or forgets one.
import { z } from "zod";
import { isServiceError, reworded, ServiceError } from "../../../core/errors.ts";
import type {
  Issued,
  PlannedStep,
  StepContext,
  StepDefinition,
  StepOutcome,
  Verdict,
} from "../../../core/operations/step.ts";
import { type Backup, deleteBackup, listBackups } from "../backups.ts";
import type { PveClient } from "../client.ts";
import { lookCondition } from "../condition.ts";
import { ownNumbers } from "../reservation.ts";
import { vmidOf } from "../server.ts";
import { findTarget, requireUnlocked } from "./target.ts";
import { judgeTask, waitFor } from "./task.ts";
import { withState } from "./with-state.ts";

const Input = z.object({ externalId: z.string() });
/** A storage that is not shared has the same names on every node. */
const Reference = z.object({ node: z.string(), volid: z.string() });
/** A task of its own for each, and a backup server takes its time. */
const DEADLINE_MS = 2 * 60 * 60_000;
const CALL_TIMEOUT_MS = 2 * 60_000;

export function planPurge(externalId: string): PlannedStep {
  const input: z.infer<typeof Input> = { externalId };
  return { name: "pve.purge_backups", label: "Delete its backups", input };
}

export function purgeStep(client: PveClient): StepDefinition {
  return {
    name: "pve.purge_backups",
    deadlineMs: DEADLINE_MS,
    callTimeoutMs: CALL_TIMEOUT_MS,
    pointOfNoReturn: "Backups of the server are being deleted already.",
    evidence: "repeatable",
    issue: (context) => withState(client, context, () => orServerKept(() => issue(client, context))),
    verify: (context) => withState(client, context, () => verify(client, context)),
  };
}

async function issue(client: PveClient, context: StepContext): Promise<Issued> {
  const vm = await findTarget(client, context);
  // One that is being written would come after our look.
  if (vm !== null) await requireUnlocked(client, vm, context.signal);
  const found = await survey(client, context);
  const [next] = found.ours;
  if (next === undefined) return { kind: "done", ...outcomeOf(found.left, "there is none to delete.") };
  const upid = await deleteBackup(client, next, { signal: context.signal });
  const reference = { node: next.node, volid: next.volid };
  if (upid !== null) return waitFor(upid, { more: reference });
  return { kind: "wait", reference, condition: lookCondition("deleting its backups", { soon: true }) };
}

/** The list tells, whatever the task says: it may have met what an earlier call of ours had begun. */
async function verify(client: PveClient, context: StepContext): Promise<Verdict> {
  const judged = await judgeTask(client, context, "delete a backup of the server");
  if (judged.kind === "running") return judged.verdict;
  const { node, volid } = Reference.parse(context.reference);
  const { ours, left } = await survey(client, context);
  if (!ours.some((backup) => backup.volid === volid && backup.node === node)) {
    if (ours.length === 0) return { kind: "done", ...outcomeOf(left, "they are gone.") };
    const still = ours.length === 1 ? "one is left." : `${ours.length} are left.`;
    return { kind: "done", more: `one is gone, ${still}` };
  }
  if (judged.kind === "failed") {
    if (judged.error.retryable) return { kind: "again", error: judged.error };
    return { kind: "failed", error: serverKept(judged.error) };
  }
  const error = new ServiceError("cloud_failed", "The cloud did not delete a backup: it is still there.", {
    facts: { cloud: client.cloud },
    staffDetail: `${client.cloud}: ${volid} on ${node} is still listed`,
  });
  // PVE has forgotten the task, which says nothing about the backup.
  return judged.kind === "unknown" ? { kind: "again", error } : { kind: "failed", error: serverKept(error) };
}

interface Survey {
  ours: Backup[];
  /** Why they stay, for staff. */
  left: string[];
}

/** Only what was taken while the number was this server's: an older one of the same number is a stranger's. */
async function survey(client: PveClient, context: StepContext): Promise<Survey> {
  const vmid = vmidOf(Input.parse(context.input).externalId);
  const numbers = vmid === null ? [] : await ownNumbers(client, context, vmid);
  const found: Survey = { ours: [], left: [] };
  for (const { vmid: number, since, until } of numbers) {
    // oxlint-disable-next-line no-await-in-loop -- seldom more than one: a rebuilt server has had several
    for (const backup of await listBackups(client, [number], context.signal)) {
      // PVE writes its own clock's time into the backup's name.
      const takenAt = backup.takenAt === null ? null : backup.takenAt.getTime() - client.clockOffsetMs();
      const isOurs =
        takenAt !== null && takenAt >= since.getTime() && takenAt <= (until?.getTime() ?? Infinity);
      const name = `${backup.volid} on ${backup.node}`;
      if (!isOurs) found.left.push(`${name} (not taken while the number was this server's)`);
      else if (backup.isProtected) found.left.push(`${name} (protected)`);
      else found.ours.push(backup);
    }
  }
  return found;
}

function outcomeOf(left: readonly string[], otherwise: string): StepOutcome {
  if (left.length === 0) return { note: otherwise };
  const which = left.length === 1 ? "one stays" : `${left.length} stay`;
  return {
    note: `done, but ${which}: protected, or not provably this server's.`,
    staffNote: `These backups were not deleted: ${left.join(", ")}.`,
  };
}

/** The server is off by now, and stays. */
function serverKept(cause: ServiceError): ServiceError {
  return reworded(
    cause,
    `${cause.message} The server was switched off and not deleted. Ask again, or delete it without its backups.`,
  );
}

/** What may work later, or is unknown, is the engine's to ask again. */
async function orServerKept(work: () => Promise<Issued>): Promise<Issued> {
  try {
    return await work();
  } catch (error) {
    if (!isServiceError(error, "cloud_conflict", "cloud_failed", "cloud_forbidden") || error.retryable)
      throw error;
    throw serverKept(error);
  }
}

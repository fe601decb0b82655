/** How a step's call or wait ends: with a wait, done, failed, or with a person. Each is one fenced transaction. */
import type { Transaction } from "../../database/client.ts";
import { newId } from "../../database/id.ts";
import type { RemoteServer } from "../cloud.ts";
import { isServiceError, type Problem } from "../errors.ts";
import { isAnother } from "../servers/identity.ts";
import { setMissing } from "../servers/observe.ts";
import { type Call, goOn } from "./boundary.ts";
import { pointOfNoReturn } from "./cancel.ts";
import { fenced, park } from "./claim.ts";
import { beginCompensation, undoOf } from "./compensate.ts";
import type { At } from "./context.ts";
import { applyOutcome, closeWaits, needAttention } from "./end.ts";
import type { Engine, Progress, Run } from "./engine.ts";
import { appendLog, type LogEntry, type OperationRow, readSteps, storeDone } from "./rows.ts";
import type { Issued, StepOutcome } from "./step.ts";

/** The honest "unknown". */
export async function giveUp(run: Run, at: At, reason: string): Promise<Progress> {
  await fenced(run.engine.database, run.claim, (tx, row) =>
    needAttention(run.engine, tx, row, {
      code: "unknown_outcome",
      message: `${at.step.label}: it is unknown whether this was done.`,
      staffDetail: reason,
    }),
  );
  return "ended";
}

/** Stores what the cloud answered, and the row that its watcher looks at. */
export async function awaitStep(
  run: Run,
  at: At,
  issued: Extract<Issued, { kind: "wait" }>,
): Promise<Progress> {
  const { engine } = run;
  await fenced(engine.database, run.claim, async (tx, row) => {
    await tx.sql(
      `UPDATE operation_steps SET state = 'waiting', reference = $3::jsonb, problem = NULL
       WHERE operation_id = $1 AND seq = $2`,
      [row.id, at.step.seq, issued.reference],
    );
    if (issued.note !== undefined) await appendLog(tx, row.id, [{ level: "info", text: issued.note }]);
    await openWait(tx, row, { seq: at.step.seq, condition: issued.condition, since: null });
    tx.afterCommit(() => nudgeWaiting(engine));
  });
  engine.reached("reference_stored", at.operation.id);
  engine.reached("waiting", at.operation.id);
  return "parked";
}

export function nudgeWaiting(engine: Engine) {
  engine.wake.nudge("waits");
  engine.wake.nudge("cards");
}

/** The deadline is the step's, and so is `since` when it is not given: the moment of its call. */
export async function openWait(
  tx: Transaction,
  row: OperationRow,
  { seq, condition, since }: { seq: number; condition: Record<string, unknown>; since: "now" | null },
) {
  await closeWaits(tx, row.id);
  const rows = await tx.sql<{ deadlineAt: Date }>(
    `INSERT INTO waits (id, operation_id, step_seq, cloud_id, condition, since, deadline_at)
     SELECT $3, s.operation_id, s.seq, $4, $5::jsonb, CASE WHEN $6 THEN clock() ELSE s.issued_at END, s.deadline_at
     FROM operation_steps s WHERE s.operation_id = $1 AND s.seq = $2
     RETURNING deadline_at AS "deadlineAt"`,
    [row.id, seq, newId(), row.cloudId, condition, since === "now"],
  );
  const deadlineAt = rows[0]?.deadlineAt;
  if (deadlineAt === undefined) throw new Error(`step ${seq} of ${row.publicId} has no deadline`);
  // A cancel that came during the call is looked at now, not when the wait is over.
  await park(tx, row.id, row.cancelRequestedAt === null ? { at: deadlineAt } : { afterMs: 0 });
}

/** Done, told, and followed by the intent of the next one, in one transaction. */
export async function finishStep(run: Run, at: At, outcome: StepOutcome): Promise<Progress | Call> {
  const text = outcome.note === undefined ? `${at.step.label}: done.` : `${at.step.label}: ${outcome.note}`;
  const lines: LogEntry[] = [{ level: "info", text }];
  if (outcome.staffNote !== undefined) {
    lines.push({ level: "warning", audience: "staff", text: outcome.staffNote });
  }
  return fenced(run.engine.database, run.claim, async (tx, row) => {
    await storeDone(tx, row.id, { seq: at.step.seq, output: outcome.output ?? {}, lines });
    // What was done at once has not been waited for.
    if (at.step.state === "waiting") await closeWaits(tx, row.id);
    await applyOutcome(tx, row, outcome);
    tx.afterCommit(() => run.engine.wake.nudge("cards"));
    return goOn(run, tx, { row, steps: await readSteps(tx, row.id) });
  });
}

export async function failStep(
  run: Run,
  at: At,
  problem: Problem,
  found: Pick<StepOutcome, "server" | "output"> = {},
): Promise<Progress> {
  const { engine } = run;
  const { output } = found;
  const server = found.server ?? (await lookAgain(run, at));
  return fenced(engine.database, run.claim, async (tx, row) => {
    await tx.sql(
      `UPDATE operation_steps SET state = 'failed', problem = $3::jsonb, finished_at = clock()
       WHERE operation_id = $1 AND seq = $2`,
      [row.id, at.step.seq, problem],
    );
    await closeWaits(tx, row.id);
    if (server === "missing" && row.serverId !== null)
      await setMissing(tx, { serverId: row.serverId, operationId: row.id });
    else if (server !== undefined && server !== "missing") await applyOutcome(tx, row, { server });
    if (output !== undefined) await applyOutcome(tx, row, { output });
    if (row.endState !== null) {
      const message = `${at.step.label} did not work: ${problem.message}`;
      await needAttention(engine, tx, row, { ...problem, message });
      return "ended";
    }
    const held = await heldByPointOfNoReturn(engine, tx, row);
    if (held === null) return beginCompensation(engine, tx, row, { end: "failed", problem });
    const message = `${at.step.label} did not work: ${problem.message} ${held} Nothing is undone; a retry goes on from here.`;
    await needAttention(engine, tx, row, { ...problem, message });
    return "ended";
  });
}

const lookAgainMs = 10_000;

/** Who reads that it did not work reads beside it what the server is now. A cloud that cannot tell leaves the row as it is. */
async function lookAgain(run: Run, at: At): Promise<RemoteServer | "missing" | undefined> {
  const { serverId, cloudName, endState } = at.operation;
  // What is just being made is undone, and what is being undone reports by itself.
  if (serverId === null || cloudName === null || endState !== null) return undefined;
  const rows = await run.engine.database.sql<{ externalId: string | null; data: Record<string, unknown> }>(
    `SELECT external_id AS "externalId", provider_data AS data FROM servers
     WHERE id = $1 AND deleted_at IS NULL AND state <> ALL('{pending,building}')`,
    [serverId],
  );
  const { externalId = null, data = {} } = rows[0] ?? {};
  if (externalId === null) return undefined;
  const signal = AbortSignal.any([run.signal, AbortSignal.timeout(lookAgainMs)]);
  try {
    const server = await run.engine.clouds.get(cloudName).inspect(externalId, signal);
    return isAnother(data, server) ? "missing" : server;
  } catch (error) {
    if (run.signal.aborted) throw run.signal.reason;
    if (isServiceError(error, "cloud_not_found")) return "missing";
    run.engine.log.info({ err: error, operation: at.operation.publicId }, "could not look at the server");
    return undefined;
  }
}

/** Why what was made must stay, or null when it may be undone. */
async function heldByPointOfNoReturn(
  engine: Engine,
  tx: Transaction,
  row: OperationRow,
): Promise<string | null> {
  const steps = await readSteps(tx, row.id);
  const undoable = undoOf(engine, row, steps).length > 0;
  return undoable ? pointOfNoReturn(engine, row, steps) : null;
}

/** By the database's clock. */
export async function isPast(engine: Engine, moment: Date | null, plusMs: number): Promise<boolean> {
  if (moment === null) return false;
  const rows = await engine.database.sql<{ past: boolean }>(
    `SELECT clock() > $1::timestamptz + make_interval(secs => $2::float8 / 1000) AS past`,
    [moment, plusMs],
  );
  return rows[0]?.past === true;
}

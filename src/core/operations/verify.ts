import type { Transaction } from "../../database/client.ts";
import { problemOf } from "../errors.ts";
import { issueAgain, issueMore, resumeStep } from "./attempt.ts";
import type { Call } from "./boundary.ts";
import { fenced, park } from "./claim.ts";
import { type At, askAgainMs, contextOf, isInDoubt, isWorthAnotherTry } from "./context.ts";
import type { Progress, Run } from "./engine.ts";
import type { OperationRow, StepRow } from "./rows.ts";
import { failStep, finishStep, giveUp, isPast, nudgeWaiting, openWait } from "./settle.ts";
import type { Verdict } from "./step.ts";

/** The watcher says it is settled, or the deadline has passed: now the cloud itself is asked. */
export async function verifyStep(run: Run, at: At): Promise<Progress | Call> {
  const { engine } = run;
  const { verify } = at.definition;
  // Nothing but its call says what is so: it is made again, as after a lost answer.
  if (verify === undefined) return resumeStep(run, at);
  engine.reached("verifying", at.operation.id);
  if (at.operation.endState !== null) engine.reached("compensating", at.operation.id);
  let verdict: Verdict;
  try {
    verdict = await verify(await contextOf(run, at));
  } catch (error) {
    if (run.signal.aborted) throw run.signal.reason;
    if (!isInDoubt(error) && !isWorthAnotherTry(error, at)) return failStep(run, at, problemOf(error));
    engine.log.warn({ err: error, operation: at.operation.publicId, step: at.step.name }, "could not verify");
    if (await isPast(engine, at.step.deadlineAt, engine.patienceMs))
      return giveUp(run, at, problemOf(error).message);
    await fenced(engine.database, run.claim, (tx, row) => park(tx, row.id, { afterMs: askAgainMs }));
    return "parked";
  }
  if (verdict.kind === "done")
    return verdict.more === undefined ? finishStep(run, at, verdict) : issueMore(run, at, verdict.more);
  if (verdict.kind === "failed") return failStep(run, at, problemOf(verdict.error), verdict);
  if (verdict.kind === "again") return issueAgain(run, at, problemOf(verdict.error));
  if (await isPast(engine, at.step.deadlineAt, 0)) {
    return giveUp(
      run,
      at,
      `not finished by its deadline${verdict.note === undefined ? "" : `: ${verdict.note}`}`,
    );
  }
  await fenced(engine.database, run.claim, async (tx, row) => {
    await openWait(tx, row, { seq: at.step.seq, condition: verdict.condition, since: "now" });
    tx.afterCommit(() => nudgeWaiting(engine));
  });
  return "parked";
}

/** True, and parked again, when a wait's end is not known yet and its deadline has not passed. */
export async function parkWhileOpen(tx: Transaction, row: OperationRow, step: StepRow): Promise<boolean> {
  if (step.state !== "waiting") return false;
  const open = await tx.sql<{ deadlineAt: Date }>(
    `SELECT deadline_at AS "deadlineAt" FROM waits
     WHERE operation_id = $1 AND step_seq = $2 AND resolved_at IS NULL AND deadline_at > clock()`,
    [row.id, step.seq],
  );
  if (open[0] === undefined) return false;
  await park(tx, row.id, { at: open[0].deadlineAt });
  return true;
}

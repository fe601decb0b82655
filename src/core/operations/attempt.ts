/**
 * One step's call: intent → issue → reference, and how it goes on after a lost answer or a lost worker. Nothing here
 * concludes without having asked: "absent" counts only when our call can no longer be on its way.
 */
import { type Problem, problemOf } from "../errors.ts";
import { type Call, isCancelling, recordIntent } from "./boundary.ts";
import { offerButtons } from "./capabilities.ts";
import { fenced, park } from "./claim.ts";
import { type At, askAgainMs, contextOf, isInDoubt, isWorthAnotherTry } from "./context.ts";
import { closeWaits } from "./end.ts";
import { cloudOf, type Progress, type Run } from "./engine.ts";
import { appendLog } from "./rows.ts";
import { awaitStep, failStep, finishStep, giveUp, isPast } from "./settle.ts";
import type { Issued, Probe, StepDefinition } from "./step.ts";

const probeEveryMs = 5_000;
const firstBackoffMs = 2_000;
const longestBackoffMs = 30_000;
/** After work that the cloud took and then refused; with the pauses between them they take a minute. */
const leastTries = 6;

/** Asks again. `next` when a cancel came first. */
async function issueStep(run: Run, at: At): Promise<Progress | Call> {
  const call = await fenced(run.engine.database, run.claim, async (tx, row) =>
    isCancelling(row) ? null : recordIntent(run, tx, at),
  );
  return call === null ? "next" : callStep(run, call);
}

export async function callStep(run: Run, { at, signal }: Call): Promise<Progress | Call> {
  const { engine } = run;
  engine.reached("after_intent", at.operation.id);
  let issued: Issued;
  try {
    issued = await at.definition.issue(await contextOf(run, at, signal));
  } catch (error) {
    if (run.signal.aborted) throw run.signal.reason;
    return afterFailedCall(run, at, error);
  }
  engine.reached("answer_before_reference", at.operation.id);
  if (issued.kind === "done") return finishStep(run, at, issued);
  if (issued.kind === "failed") return failStep(run, at, problemOf(issued.error), issued);
  return awaitStep(run, at, issued);
}

async function afterFailedCall(run: Run, at: At, error: unknown): Promise<Progress> {
  const problem = problemOf(error);
  if (isWorthAnotherTry(error, at)) return tryLater(run, at, problem);
  if (at.definition.evidence === "none" || !isInDoubt(error)) return failStep(run, at, problem);
  run.engine.log.warn(
    { err: error, operation: at.operation.publicId, step: at.step.name },
    "the outcome is unknown",
  );
  await fenced(run.engine.database, run.claim, async (tx, row) => {
    await tx.sql(
      `UPDATE operation_steps SET in_doubt = true, problem = $3::jsonb WHERE operation_id = $1 AND seq = $2`,
      [row.id, at.step.seq, problem],
    );
    if (!at.step.inDoubt) {
      const text = `${at.step.label}: no certain answer came back. Looking in the cloud whether it was done.`;
      await appendLog(tx, row.id, [{ level: "warning", text }, ...staffLine(problem)]);
    }
    await park(tx, row.id, { afterMs: askAgainMs });
  });
  return "parked";
}

function staffLine(problem: Problem) {
  if (problem.staffDetail === undefined) return [];
  return [{ level: "info" as const, audience: "staff" as const, text: problem.staffDetail }];
}

/** Nothing was done: the step is planned again, until patience ends. */
async function tryLater(run: Run, at: At, problem: Problem, { least = 1 } = {}): Promise<Progress> {
  const { engine } = run;
  // An earlier call may have done it, and without a probe nothing has told since: its deadline decides, not patience.
  const isUnknown = at.step.inDoubt && at.definition.probe === undefined;
  const patient = await fenced(engine.database, run.claim, async (tx, row) => {
    const left = await tx.sql<{ more: boolean }>(
      `SELECT CASE WHEN $4 THEN clock() < deadline_at
         ELSE attempt < $5 OR clock() < started_at + make_interval(secs => $3::float8 / 1000) END AS more
       FROM operation_steps WHERE operation_id = $1 AND seq = $2`,
      [row.id, at.step.seq, engine.patienceMs, isUnknown, least],
    );
    if (left[0]?.more !== true) return false;
    await tx.sql(
      `UPDATE operation_steps SET state = $3, problem = $4::jsonb, in_doubt = $5, reference = $6::jsonb
       WHERE operation_id = $1 AND seq = $2`,
      [
        row.id,
        at.step.seq,
        at.step.inDoubt ? "intent" : "planned",
        problem,
        at.step.inDoubt,
        at.step.reference,
      ],
    );
    await closeWaits(tx, row.id);
    if (at.step.attempt === 1) {
      const minutes = Math.max(1, Math.round(engine.patienceMs / 60_000));
      // What follows in the sentence is for the end: that nothing was changed, and what to do about it.
      const [what] = problem.message.split(/, so |\.(?: |$)/);
      const text = `${what}. Nothing was done; trying again for ${minutes} min.`;
      await appendLog(tx, row.id, [{ level: "warning", text }, ...staffLine(problem)]);
    }
    if (!at.step.inDoubt) await offerButtons(tx, row, "waiting");
    const backoffMs = Math.min(longestBackoffMs, firstBackoffMs * 2 ** (at.step.attempt - 1));
    await park(tx, row.id, { afterMs: backoffMs });
    tx.afterCommit(() => engine.wake.nudge("cards"));
    return true;
  });
  if (patient) return "parked";
  return isUnknown ? giveUp(run, at, problem.staffDetail ?? problem.message) : failStep(run, at, problem);
}

/** The outcome of the call is known, and it was "not now": nothing of it is in doubt any more. */
export async function issueAgain(run: Run, at: At, problem: Problem): Promise<Progress> {
  const known = { ...at, step: { ...at.step, inDoubt: false, reference: null } };
  return tryLater(run, known, problem, { least: leastTries });
}

/** One of several calls of the step is done; the next one is asked for in the same way, within the step's own time. */
export async function issueMore(run: Run, at: At, note: string): Promise<Progress> {
  await fenced(run.engine.database, run.claim, async (tx, row) => {
    await tx.sql(
      `UPDATE operation_steps SET state = 'planned', problem = NULL, in_doubt = false, reference = NULL,
         output = '{"begun": true}', started_at = clock()
       WHERE operation_id = $1 AND seq = $2`,
      [row.id, at.step.seq],
    );
    await closeWaits(tx, row.id);
    await appendLog(tx, row.id, [{ level: "info", text: `${at.step.label}: ${note}` }]);
    tx.afterCommit(() => run.engine.wake.nudge("cards"));
  });
  return "next";
}

/** Somebody asked and we do not know what came of it. */
export async function resumeStep(run: Run, found: At): Promise<Progress | Call> {
  const { engine } = run;
  const { definition } = found;
  if (engine.withoutProbe === true) return issueStep(run, found);
  if (definition.evidence === "none") {
    if (!(await isPast(engine, found.step.deadlineAt, 0))) return issueStep(run, found);
    return failStep(run, found, {
      code: "timeout",
      message: "It could not be looked at in time. Nothing was changed.",
    });
  }
  const at = await markInDoubt(run, found);
  const { step } = at;
  if (definition.probe === undefined) {
    if (await isPast(engine, step.deadlineAt, 0))
      return giveUp(run, at, "the outcome could not be found out in time");
    return issueStep(run, at);
  }
  // Before the look: what was not there earlier than this may still have come.
  const settleMs = at.operation.cloudName === null ? 0 : cloudOf(engine, at.operation).settleMs;
  const conclusive = await isPast(engine, step.callDeadline, settleMs);
  const probe = await probeEffect(run, at, definition.probe);
  if (probe.effect === "present") {
    const note = probe.note ?? "The first request had arrived.";
    return awaitStep(run, at, {
      ...probe,
      kind: "wait",
      note: `${step.label}: ${note} Going on with it.`,
    });
  }
  if (probe.effect === "absent" && conclusive) {
    // It begins only now, and so does its time.
    return issueStep(run, { ...at, step: { ...step, deadlineAt: null } });
  }
  if (await isPast(engine, step.deadlineAt, settleMs)) {
    return giveUp(run, at, probe.effect === "unknown" ? probe.reason : "the cloud shows nothing");
  }
  await fenced(engine.database, run.claim, (tx, row) => park(tx, row.id, { afterMs: probeEveryMs }));
  return "parked";
}

async function markInDoubt(run: Run, at: At): Promise<At> {
  const { step, operation } = at;
  if (step.inDoubt) return at;
  await fenced(run.engine.database, run.claim, async (tx) => {
    await tx.sql(`UPDATE operation_steps SET in_doubt = true WHERE operation_id = $1 AND seq = $2`, [
      operation.id,
      step.seq,
    ]);
  });
  return { ...at, step: { ...step, inDoubt: true } };
}

async function probeEffect(run: Run, at: At, probe: NonNullable<StepDefinition["probe"]>): Promise<Probe> {
  try {
    return await probe(await contextOf(run, at));
  } catch (error) {
    if (run.signal.aborted) throw run.signal.reason;
    run.engine.log.warn({ err: error, operation: at.operation.publicId }, "could not look for the effect");
    return { effect: "unknown", reason: problemOf(error).message };
  }
}

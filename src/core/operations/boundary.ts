/** Between two steps: what follows is decided and written down in the transaction that finds it out. */
import type { Transaction } from "../../database/client.ts";
import { type Problem, problemOf } from "../errors.ts";
import { callSignal } from "./call.ts";
import { withdrawCancel } from "./capabilities.ts";
import type { At } from "./context.ts";
import { needAttention } from "./end.ts";
import { type Engine, type Progress, type Run, stepDefinition } from "./engine.ts";
import type { OperationRow, StepRow } from "./rows.ts";
import type { StepDefinition } from "./step.ts";

/** A step whose intent is recorded: its call is due, whatever else has happened since. */
export interface Call {
  at: At;
  /** Of the call alone: it ends with the time that the intent allows. */
  signal: AbortSignal;
}

export function isCancelling({ cancelRequestedAt, endState }: OperationRow): boolean {
  return cancelRequestedAt !== null && endState === null;
}

export function openStep(steps: readonly StepRow[]): StepRow | undefined {
  return steps.find(({ state }) => state === "planned" || state === "intent" || state === "waiting");
}

/**
 * The next step's intent. `next` when that is not for this transaction to decide: nothing is left to do, the process stops,
 * somebody has asked for a cancel, or a step is under way already.
 */
export async function goOn(
  run: Run,
  tx: Transaction,
  { row, steps }: { row: OperationRow; steps: readonly StepRow[] },
): Promise<Progress | Call> {
  const step = openStep(steps);
  if (step === undefined || run.stopping.aborted || isCancelling(row)) return "next";
  if (step.state !== "planned") return "next";
  const at = locate(run.engine, row, step);
  if ("problem" in at) {
    await needAttention(run.engine, tx, row, at.problem);
    return "ended";
  }
  return recordIntent(run, tx, at);
}

/** Where a step stands with its definition, or why this process cannot run it. */
export function locate(engine: Engine, operation: OperationRow, step: StepRow): At | { problem: Problem } {
  let definition: StepDefinition | undefined;
  try {
    definition = stepDefinition(engine, operation, step.name);
  } catch (error) {
    // The cloud is no longer configured. What was asked of it is unknown to us from now on.
    return { problem: problemOf(error) };
  }
  if (definition !== undefined) return { operation, step, definition };
  const message = `This release does not know the step "${step.name}" that the operation was entered with.`;
  return { problem: { code: "internal", message } };
}

/** The row that says "we are about to ask", to be committed before we ask. */
export async function recordIntent(run: Run, tx: Transaction, at: At): Promise<Call> {
  const { operation, step, definition } = at;
  const signal = callSignal(run.signal, definition.callTimeoutMs);
  const rows = await tx.sql<Partial<StepRow>>(
    `WITH running AS (
       UPDATE operations SET state = CASE WHEN state = 'compensating' THEN state ELSE 'running' END, version = version + 1
       WHERE id = $1)
     UPDATE operation_steps SET state = 'intent', attempt = attempt + 1, issued_at = clock(),
       call_deadline = clock() + make_interval(secs => $3::float8 / 1000), started_at = COALESCE(started_at, clock()),
       deadline_at = COALESCE($5::timestamptz, clock() + make_interval(secs => $4::float8 / 1000))
     WHERE operation_id = $1 AND seq = $2
     RETURNING attempt, issued_at AS "issuedAt", call_deadline AS "callDeadline", started_at AS "startedAt",
       deadline_at AS "deadlineAt"`,
    [operation.id, step.seq, definition.callTimeoutMs, definition.deadlineMs, step.deadlineAt],
  );
  if (definition.pointOfNoReturn !== undefined) await withdrawCancel(tx, operation.id);
  tx.afterCommit(() => run.engine.wake.nudge("cards"));
  return { at: { ...at, step: { ...step, ...rows[0], state: "intent" } }, signal };
}

/** After a failure or a cancel: the steps that undo what was made, as journaled steps of the same operation. */
import type { Transaction } from "../../database/client.ts";
import type { Problem } from "../errors.ts";
import { closeWaits, endOperation } from "./end.ts";
import { cloudOf, type Engine, type Progress, stepDefinition } from "./engine.ts";
import { appendLog, type OperationRow, readSteps, type StepRow } from "./rows.ts";

/** Whether a step may have left something: only a refusal of a call that was never in doubt has surely not. */
function mayHaveEffect(step: StepRow): boolean {
  if (step.attempt === 0 || step.compensates !== null) return false;
  return step.reference !== null || step.inDoubt || step.state === "intent" || step.state === "done";
}

/** The last first. */
export function undoOf(engine: Engine, operation: OperationRow, steps: readonly StepRow[]) {
  return steps.toReversed().flatMap((step) => {
    const definition = mayHaveEffect(step) ? stepDefinition(engine, operation, step.name) : undefined;
    const planned = definition?.compensation?.({
      operation: { ...operation, plan: { ...operation.plan } },
      input: step.input,
      reference: step.reference,
    });
    return planned === undefined ? [] : [{ step, planned }];
  });
}

/** Ends the operation at once when there is nothing to undo. */
export async function beginCompensation(
  engine: Engine,
  tx: Transaction,
  operation: OperationRow,
  towards: { end: "failed" | "cancelled"; problem: Problem | null },
): Promise<Progress> {
  const steps = await readSteps(tx, operation.id);
  const undo = undoOf(engine, operation, steps);
  await tx.sql(`UPDATE operation_steps SET state = 'skipped' WHERE operation_id = $1 AND state = 'planned'`, [
    operation.id,
  ]);
  if (undo.length === 0) {
    await endOperation(engine, tx, operation, towards);
    return "ended";
  }
  let seq = Math.max(...steps.map((step) => step.seq));
  for (const { step, planned } of undo) {
    seq += 1;
    await tx.sql(
      `INSERT INTO operation_steps (operation_id, seq, name, label, compensates, input) VALUES ($1, $2, $3, $4, $5, $6::jsonb)`,
      [operation.id, seq, planned.name, planned.label, step.seq, planned.input],
    );
  }
  const settleMs = operation.cloudName === null ? 0 : cloudOf(engine, operation).settleMs;
  // A call whose answer we never had may still arrive: what is looked for before then proves nothing.
  const rows = await tx.sql<{ waits: boolean }>(
    `UPDATE operations o SET state = 'compensating', end_state = $2, problem = $3::jsonb, version = version + 1,
       lease_by = NULL, lease_until = NULL,
       next_run_at = GREATEST(clock(), (SELECT max(s.call_deadline) + make_interval(secs => $4::float8 / 1000)
         FROM operation_steps s WHERE s.operation_id = o.id AND s.state = 'intent'))
     WHERE id = $1 RETURNING next_run_at > clock() AS waits`,
    [operation.id, towards.end, towards.problem, settleMs],
  );
  await settleOpenSteps(tx, operation.id);
  await appendLog(tx, operation.id, [
    {
      level: "warning",
      text: `${towards.problem?.message ?? "Cancelled."} Undoing what was made${
        rows[0]?.waits === true ? ", as soon as the lost request can no longer arrive" : ""
      }.`,
    },
  ]);
  tx.afterCommit(() => {
    engine.wake.nudge("cards");
    engine.wake.nudge("operations");
  });
  return "parked";
}

/** What was under way is no longer followed: the compensation looks for itself. */
async function settleOpenSteps(tx: Transaction, operationId: string) {
  await tx.sql(
    `UPDATE operation_steps SET state = 'skipped', finished_at = clock()
     WHERE operation_id = $1 AND state IN ('intent', 'waiting') AND compensates IS NULL`,
    [operationId],
  );
  await closeWaits(tx, operationId);
}

/** Cancel is a flag that is seen at every boundary and wait; past the point of no return it is refused with the reason. */
import type { Transaction } from "../../database/client.ts";
import { fenced } from "./claim.ts";
import { beginCompensation } from "./compensate.ts";
import { type Engine, type Progress, type Run, stepDefinition } from "./engine.ts";
import { appendLog, type OperationRow, type StepRow } from "./rows.ts";

/** Why it is too late, or null while it is not. */
export function pointOfNoReturn(
  engine: Engine,
  operation: OperationRow,
  steps: readonly StepRow[],
): string | null {
  for (const step of steps) {
    if (step.attempt === 0 || step.state === "skipped" || step.compensates !== null) continue;
    const reason = stepDefinition(engine, operation, step.name)?.pointOfNoReturn;
    // Planned again means that nothing was done (an unreachable cloud), unless it is the next of several calls.
    const isUndone = step.state === "planned" || step.state === "failed";
    if (reason !== undefined && (!isUndone || step.output?.["begun"] === true)) return reason;
  }
  return null;
}

/** Null: not cancelled after all, go on. */
export async function cancelAtBoundary(
  run: Run,
  operation: OperationRow,
  steps: readonly StepRow[],
): Promise<Progress | null> {
  const { engine } = run;
  const active = steps.find(({ state }) => state === "planned" || state === "intent" || state === "waiting");
  const tooLate = active === undefined ? "it was done already." : pointOfNoReturn(engine, operation, steps);
  // What is under way and cannot be undone is followed to its end, or "cancelled" would be a guess.
  const undoable =
    active === undefined ||
    active.state === "planned" ||
    stepDefinition(engine, operation, active.name)?.compensation !== undefined;
  if (tooLate === null && !undoable) return null;
  return fenced(engine.database, run.claim, async (tx, row) => {
    if (tooLate !== null) {
      await refuseCancel(tx, row, tooLate);
      return null;
    }
    return beginCompensation(engine, tx, row, {
      end: "cancelled",
      problem: {
        code: "cancelled",
        message: "Cancelled.",
        // Only the name is kept, and it may be one of the team's.
        staffDetail: `Cancelled by ${row.cancelRequestedBy ?? "somebody"}.`,
      },
    });
  });
}

async function refuseCancel(tx: Transaction, row: OperationRow, reason: string) {
  await tx.sql(`UPDATE operations SET cancel_requested_at = NULL, cancel_requested_by = NULL WHERE id = $1`, [
    row.id,
  ]);
  await appendLog(tx, row.id, [{ level: "warning", text: `Too late to cancel: ${reason}` }]);
}

/** Runs a claimed operation from where it stands until it waits, ends, or the lease is lost. */
import type { Transaction } from "../../database/client.ts";
import type { ServerState } from "../cloud.ts";
import { problemOf } from "../errors.ts";
import { setServerState } from "../servers/observe.ts";
import { issueStep, resumeStep } from "./attempt.ts";
import { cancelAtBoundary } from "./cancel.ts";
import { type Claim, fenced, keepLease, LeaseLost } from "./claim.ts";
import { duringOf, endOperation, needAttention, operationData } from "./end.ts";
import { type Engine, type Progress, type Run, stepDefinition } from "./engine.ts";
import { recordEvent } from "./events.ts";
import { type OperationRow, readSteps, type StepRow } from "./rows.ts";
import type { StepDefinition } from "./step.ts";
import { verifyStep } from "./verify.ts";

/** Never throws for what a cloud or a step does; a lost lease or a stop ends it silently. */
export async function runOperation(engine: Engine, claim: Claim, stopping: AbortSignal): Promise<void> {
  const lost = new AbortController();
  const stopHeartbeat = keepLease(engine.database, claim, lost);
  // Stopping does not cut a call in flight: its answer is worth the wait. main.ts bounds how long.
  const run: Run = { engine, claim, signal: lost.signal };
  try {
    let progress: Progress = "next";
    while (progress === "next") {
      if (stopping.aborted) {
        await release(run);
        return;
      }
      progress = await advance(run);
    }
  } catch (error) {
    if (error instanceof LeaseLost) {
      engine.log.debug({ operationId: claim.operationId }, "lease lost");
      return;
    }
    // The database is away, or this is a defect. Nothing was concluded: the lease runs out and the next claim looks again.
    engine.log.error({ err: error, operationId: claim.operationId }, "running an operation was interrupted");
  } finally {
    stopHeartbeat();
  }
}

async function advance(run: Run): Promise<Progress> {
  const { engine } = run;
  const found = await fenced(engine.database, run.claim, async (tx, row) => {
    if (row.startedAt === null) await start(engine, tx, row);
    const steps = await readSteps(tx, row.id);
    if (!isCancelling(row) && openStep(steps) === undefined) {
      await endOperation(engine, tx, row, { end: row.endState ?? "succeeded" });
      return null;
    }
    return { operation: row, steps };
  });
  if (found === null) return "ended";
  const { operation, steps } = found;
  if (isCancelling(operation)) {
    const progress = await cancelAtBoundary(run, operation, steps);
    if (progress !== null) return progress;
  }
  const step = openStep(steps);
  if (step !== undefined) return advanceStep(run, operation, step);
  // A cancel that came too late to change anything.
  await fenced(engine.database, run.claim, (tx, row) =>
    endOperation(engine, tx, row, { end: row.endState ?? "succeeded" }),
  );
  return "ended";
}

function isCancelling({ cancelRequestedAt, endState }: OperationRow): boolean {
  return cancelRequestedAt !== null && endState === null;
}

function openStep(steps: readonly StepRow[]): StepRow | undefined {
  return steps.find(({ state }) => state === "planned" || state === "intent" || state === "waiting");
}

async function advanceStep(run: Run, operation: OperationRow, step: StepRow): Promise<Progress> {
  const { engine } = run;
  let definition: StepDefinition | undefined;
  try {
    definition = stepDefinition(engine, operation, step.name);
  } catch (error) {
    // The cloud is no longer configured. What was asked of it is unknown to us from now on.
    await fenced(engine.database, run.claim, (tx, row) => needAttention(engine, tx, row, problemOf(error)));
    return "ended";
  }
  if (definition === undefined) {
    const message = `This release does not know the step "${step.name}" that the operation was entered with.`;
    await fenced(engine.database, run.claim, (tx, row) =>
      needAttention(engine, tx, row, { code: "internal", message }),
    );
    return "ended";
  }
  const at = { operation, step, definition };
  switch (step.state) {
    case "planned":
      return issueStep(run, at);
    case "intent":
      return resumeStep(run, at);
    case "waiting":
      return verifyStep(run, at);
    case "done":
    case "failed":
    case "skipped":
      throw new Error(`step ${step.seq} of ${operation.publicId} is ${step.state} and was chosen to run`);
  }
}

async function start(engine: Engine, tx: Transaction, row: OperationRow) {
  const action = engine.registry.find(row.action);
  const during = action?.kind === "operation" ? duringOf(action, row.plan) : undefined;
  if (during !== undefined && row.serverId !== null) {
    const rows = await tx.sql<{ state: ServerState }>(`SELECT state FROM servers WHERE id = $1 FOR UPDATE`, [
      row.serverId,
    ]);
    row.output = { ...row.output, stateBefore: rows[0]?.state };
    await setServerState(tx, { serverId: row.serverId, state: during, operationId: row.id });
  }
  await tx.sql(
    `UPDATE operations SET started_at = clock(), state = 'running', output = $2::jsonb, version = version + 1 WHERE id = $1`,
    [row.id, row.output],
  );
  await recordEvent(tx, {
    type: `${row.action}.started`,
    serverId: row.serverId,
    operationId: row.id,
    customerId: row.customerId,
    data: operationData(row),
    staffData: { requestedBy: row.requesterName, source: row.source },
  });
  tx.afterCommit(() => {
    engine.wake.nudge("cards");
    engine.wake.nudge("events");
  });
}

/** At a boundary while the process stops: hand it over at once instead of letting the lease run out. */
async function release(run: Run): Promise<void> {
  await fenced(run.engine.database, run.claim, async (tx, row) => {
    await tx.sql(`UPDATE operations SET lease_by = NULL, lease_until = NULL WHERE id = $1`, [row.id]);
  });
}

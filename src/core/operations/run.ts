/** Runs a claimed operation from where it stands until it waits, ends, or the lease is lost. */
import type { Transaction } from "../../database/client.ts";
import type { ServerState } from "../cloud.ts";
import { setServerState } from "../servers/observe.ts";
import { callStep, resumeStep } from "./attempt.ts";
import { type Call, goOn, isCancelling, locate, openStep } from "./boundary.ts";
import { cancelAtBoundary } from "./cancel.ts";
import { type Claim, fenced, keepLease, LeaseLost } from "./claim.ts";
import { duringOf, endOperation, needAttention, operationData } from "./end.ts";
import type { Engine, Progress, Run } from "./engine.ts";
import { recordEvent } from "./events.ts";
import { type OperationRow, readSteps, type StepRow } from "./rows.ts";
import { parkWhileOpen, verifyStep } from "./verify.ts";

/** Never throws for what a cloud or a step does; a lost lease or a stop ends it silently. */
export async function runOperation(engine: Engine, claim: Claim, stopping: AbortSignal): Promise<void> {
  const lost = new AbortController();
  const stopHeartbeat = keepLease(engine.database, claim, lost);
  // Stopping does not cut a call in flight: its answer is worth the wait. main.ts bounds how long.
  const run: Run = { engine, claim, signal: lost.signal, stopping };
  try {
    let progress: Progress | Call = "next";
    while (progress !== "parked" && progress !== "ended") {
      if (progress !== "next") {
        progress = await callStep(run, progress);
      } else if (stopping.aborted) {
        await release(run);
        return;
      } else {
        progress = await advance(run);
      }
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

async function advance(run: Run): Promise<Progress | Call> {
  const { engine, claim } = run;
  const found = await fenced(engine.database, claim, async (tx, row) => {
    if (row.startedAt === null) await start(engine, tx, row);
    const steps = await readSteps(tx, row.id);
    const next = await goOn(run, tx, { row, steps });
    if (next !== "next") return next;
    const step = openStep(steps);
    if (isCancelling(row)) return { operation: row, steps };
    if (step === undefined) return conclude(engine, tx, row);
    return (await parkWhileOpen(tx, row, step)) ? "parked" : { operation: row, steps };
  });
  if (typeof found === "string" || "at" in found) return found;
  const { operation, steps } = found;
  const step = openStep(steps);
  if (isCancelling(operation)) {
    const progress = await cancelAtBoundary(run, operation, steps);
    if (progress !== null) return progress;
    // A cancel that came too late to change anything.
    if (step === undefined) return fenced(engine.database, claim, (tx, row) => conclude(engine, tx, row));
    if (await fenced(engine.database, claim, (tx, row) => parkWhileOpen(tx, row, step))) return "parked";
  }
  return step === undefined || step.state === "planned" ? "next" : followStep(run, operation, step);
}

/** Nothing is left to do. A transaction of its own: what the cloud has answered is kept, whatever goes wrong in here. */
async function conclude(engine: Engine, tx: Transaction, row: OperationRow): Promise<Progress> {
  await endOperation(engine, tx, row, { end: row.endState ?? "succeeded" });
  return "ended";
}

/** A step that is under way already. */
async function followStep(run: Run, operation: OperationRow, step: StepRow): Promise<Progress | Call> {
  const { engine, claim } = run;
  const at = locate(engine, operation, step);
  if ("problem" in at) {
    await fenced(engine.database, claim, (tx, row) => needAttention(engine, tx, row, at.problem));
    return "ended";
  }
  return step.state === "intent" ? resumeStep(run, at) : verifyStep(run, at);
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

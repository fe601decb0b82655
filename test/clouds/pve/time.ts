/** Time for a whole Ratatosk on the simulator: the database's clock and ours are moved, only PVE's tasks take real moments. */
import { setTimeout as delay } from "node:timers/promises";
import type { OperationRow } from "../../../src/core/operations/rows.ts";
import { createWorker } from "../../../src/core/operations/worker.ts";
import type { Database } from "../../../src/database/client.ts";
import { moveClock } from "../../support/database.ts";
import type { PveWorld } from "./world.ts";

export interface Time {
  /** For whatever of ours has a clock of its own. */
  now(): number;
  later(ms: number): Promise<void>;
}

export async function createTime(database: Database): Promise<Time> {
  let offsetMs = 0;
  await moveClock(database, 0);
  return {
    now: () => Date.now() + offsetMs,
    async later(ms) {
      offsetMs += ms;
      await moveClock(database, offsetMs);
    },
  };
}

const resting = new Set(["succeeded", "failed", "cancelled", "needs_attention", "awaiting_confirmation"]);
const ROUNDS = 4_000;
/** How often a wait is looked at in vain before time passes; a task of the simulator has ended long before. */
const VAIN_LOOKS = 8;
const LONGEST_MOVE_MS = 10_000;

interface FinishOptions {
  operationId: string;
  worker?: string;
  /** Of the clock, while something is waited for in vain. */
  longestMoveMs?: number;
  /** Of the clock, when nothing is due. */
  leastMoveMs?: number;
  /** Of real time, between two rounds. */
  pauseMs?: number;
}

/** One worker alone, until the operation rests. When nothing is due any more, time passes. */
export async function finish(
  world: PveWorld,
  time: Time,
  {
    operationId,
    worker: name = "finisher",
    longestMoveMs = LONGEST_MOVE_MS,
    leastMoveMs = 1,
    pauseMs = 1,
  }: FinishOptions,
): Promise<OperationRow> {
  const engine = { ...world.engine, worker: name, reached: () => undefined };
  const worker = createWorker(engine, { concurrency: 4, now: time.now });
  let vain = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    await worker.tick();
    const operation = await world.operation(operationId);
    if (resting.has(operation.state)) return operation;
    if ((await worker.watcher.tick()) > 0) {
      vain = 0;
      continue;
    }
    const { dueInMs, isWatched } = await outlook(world.database, operationId);
    if (!isWatched) await time.later(Math.max(leastMoveMs, dueInMs));
    vain += 1;
    if (isWatched && vain % VAIN_LOOKS === 0)
      await time.later(Math.min(longestMoveMs, (vain / VAIN_LOOKS) ** 2 * 1_000));
    await delay(pauseMs);
  }
  throw new Error(`it did not rest: ${JSON.stringify(await world.steps(operationId))}`);
}

async function outlook(database: Database, operationId: string) {
  const rows = await database.sql<{ dueInMs: number; isWatched: boolean }>(
    `SELECT (1000 * EXTRACT(EPOCH FROM GREATEST(o.next_run_at, o.lease_until) - clock()))::float8 AS "dueInMs",
       EXISTS (SELECT FROM waits w WHERE w.operation_id = o.id AND w.resolved_at IS NULL) AS "isWatched"
     FROM operations o WHERE o.id = $1`,
    [operationId],
  );
  const row = rows[0];
  if (row === undefined) throw new Error(`no operation ${operationId}`);
  return row;
}

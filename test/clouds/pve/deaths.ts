/** The same order again and again, whose worker dies one moment later each time, until one lives through it. */
import { expect } from "vitest";
import type { OperationRow } from "../../../src/core/operations/rows.ts";
import type { OperationState } from "../../../src/core/operations/state.ts";
import { createWorker } from "../../../src/core/operations/worker.ts";
import { stride } from "../../support/thorough.ts";
import { finish, type Time } from "./time.ts";
import type { PveWorld } from "./world.ts";

const MOST = 120;
const ROUNDS = 2_000;
/** A worker's lease, and then the watch of the cloud, which was its own, too. */
const LEASE_MS = 20_000;

export type TimedPve = PveWorld & { time: Time };

export interface Campaign {
  /** Asked, and not begun. `order` counts from 1. */
  begin(order: number): Promise<string>;
  /** When another worker has ended it. */
  after(order: number, end: OperationRow, nth: number): unknown;
  /** How each of them ends; default "succeeded". */
  state?: OperationState;
  /** Only every such moment, of those that have much in common. */
  every?: number;
  /** And every such one of these in a short run. */
  some?: number;
}

/** Another worker ends each of them. Returns how often it was ordered, and at how many moments one could die. */
export async function surviveDeaths(
  at: TimedPve,
  { begin, after, state = "succeeded", every = 1, some = 3 }: Campaign,
): Promise<{ orders: number; moments: number }> {
  let orders = 0;
  for (let nth = 1; nth < MOST; nth += every * stride(some)) {
    orders += 1;
    await at.time.later(LEASE_MS);
    const operationId = await begin(orders);
    const lived = await dieAt(at, { operationId, nth });
    await at.time.later(LEASE_MS);
    const end = await finish(at, at.time, { operationId, worker: `second-${nth}` });
    expect(end, `death ${nth}: ${JSON.stringify(end.problem)}`).toMatchObject({ state });
    await after(orders, end, nth);
    if (lived) return { orders, moments: nth };
  }
  throw new Error(`it has more than ${MOST} moments`);
}

/** True when it has lived to see the end. */
async function dieAt(
  at: TimedPve,
  { operationId, nth }: { operationId: string; nth: number },
): Promise<boolean> {
  const life = { left: nth };
  const engine = {
    ...at.engine,
    worker: `first-${nth}`,
    reached() {
      life.left -= 1;
      if (life.left === 0) throw new Error("dies here");
    },
  };
  const first = createWorker(engine, { concurrency: 4, now: at.time.now });
  for (let round = 0; round < ROUNDS; round += 1) {
    await first.tick();
    if (life.left <= 0) return false;
    await first.watcher.tick();
    if ((await at.operation(operationId)).finishedAt !== null) return true;
    await new Promise((done) => setImmediate(done));
    if (round % 50 === 49) await at.time.later(5_000);
  }
  throw new Error(`it neither died nor ended: ${JSON.stringify(await at.steps(operationId))}`);
}

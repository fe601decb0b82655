/** The same order again and again, whose worker dies one moment later each time, until one lives through it. */
import { expect } from "vitest";
import { createWorker } from "../../../src/core/operations/worker.ts";
import { stride } from "../../support/thorough.ts";
import type { Scene } from "./rebuild-scene.ts";

const MOST = 60;
const ROUNDS = 2_000;

/** Another worker ends each of them well. Returns how often it was ordered, and how many moments there were. */
export async function surviveDeaths(
  at: Scene,
  { begin, after }: { begin(order: number): Promise<string>; after(order: number): unknown },
): Promise<{ orders: number; moments: number }> {
  let orders = 0;
  for (let nth = 1; nth < MOST; nth += stride(3)) {
    orders += 1;
    // The watch of the cloud was another process's.
    await at.time.later(20_000);
    const operationId = await begin(orders);
    const lived = await dieAt(at, { operationId, nth });
    await at.time.later(16_000);
    const end = await at.finish(operationId, "second");
    expect(end, `death ${nth}: ${JSON.stringify(end.problem)}`).toMatchObject({ state: "succeeded" });
    await after(orders);
    if (lived) return { orders, moments: nth };
  }
  throw new Error("it never lived through");
}

async function dieAt(
  at: Scene,
  { operationId, nth }: { operationId: string; nth: number },
): Promise<boolean> {
  const life = { left: nth };
  const engine = {
    ...at.engine,
    worker: `w${nth}`,
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

/** A world whose workers can die at a named moment, and whose time can be moved on. */
import { setTimeout as delay } from "node:timers/promises";
import type { CrashPoint, Engine } from "../../../src/core/operations/engine.ts";
import type { OperationRow } from "../../../src/core/operations/rows.ts";
import { createWorker } from "../../../src/core/operations/worker.ts";
import type { Database } from "../../../src/database/client.ts";
import { clean, moveClock } from "../../support/database.ts";
import { createWorld, type World, type WorldOptions } from "../../support/world.ts";

export class Death extends Error {}

export interface Scene extends World {
  /** Both clocks, the database's and our processes', go on by this much. */
  later(ms: number): Promise<void>;
  /** Another process. Its `tick` and watcher are its own. */
  process(name: string, engine?: Partial<Engine>): ReturnType<typeof createWorker>;
  /** Every point that was reached so far. */
  trace: CrashPoint[];
  /** The worker that reaches a point for the nth time from now dies there; null: nobody does. */
  dieAtStep(nth: number | null): void;
  died(): boolean;
  /** This process alone runs everything until the operation rests; time passes while nothing happens. */
  finish(name: string, operationId: string): Promise<OperationRow>;
  order(name: string, options?: Record<string, string>): Promise<OperationRow>;
  /** Servers that the cloud has now. */
  live(): World["simulator"]["state"]["servers"];
  /** What must be true of every operation that has ended. */
  leftovers(): Promise<{ slots: number; waits: number; leases: number; openSteps: number }>;
}

export const order = { customer: "ada", plan: "s", image: "debian-12" };
const resting = new Set([
  "succeeded",
  "failed",
  "cancelled",
  "expired",
  "needs_attention",
  "awaiting_confirmation",
]);

export async function createScene(options: WorldOptions): Promise<Scene> {
  const { database } = options;
  let offsetMs = 0;
  let left: number | null = null;
  let dead = false;
  const trace: CrashPoint[] = [];
  await clean(database);
  await moveClock(database, 0);
  const reached = (point: CrashPoint) => {
    trace.push(point);
    if (left === null) return;
    left -= 1;
    if (left > 0) return;
    left = null;
    dead = true;
    throw new Death(point);
  };
  const world = await createWorld({
    now: () => Date.now() + offsetMs,
    ...options,
    engine: { reached, ...options.engine },
  });
  const later = async (ms: number) => {
    offsetMs += ms;
    await moveClock(database, offsetMs);
  };
  const process: Scene["process"] = (name, engine) =>
    createWorker(
      { ...world.engine, worker: name, ...engine },
      { concurrency: 4, now: () => Date.now() + offsetMs },
    );
  // By the process that takes over elsewhere too: the watch of the cloud is its own for a while.
  const run: Scene["run"] = async (principal, action, asked) => {
    const answer = await world.ask(principal, action, asked);
    if (answer.kind !== "operation") throw new Error(`${action}: ${JSON.stringify(answer)}`);
    const rest = () => finish({ world, worker: process("second"), later }, answer.operationId);
    const first = await rest();
    if (first.state !== "awaiting_confirmation") return first;
    await world.ask(world.rita, "ops.confirm", { operation: answer.publicId });
    return rest();
  };
  return {
    ...world,
    later,
    process,
    trace,
    dieAtStep(nth) {
      left = nth;
      dead = false;
    },
    died: () => dead,
    finish: (name, operationId) => finish({ world, worker: process(name), later }, operationId),
    run,
    async order(name, extra) {
      const done = await run(world.sam, "server.provision", { ...order, name, ...extra });
      if (done.state !== "succeeded")
        throw new Error(`${name}: ${done.state} ${JSON.stringify(done.problem)}`);
      return done;
    },
    live: () => world.simulator.state.servers.filter((server) => !server.deleted),
    leftovers: () => leftovers(database),
  };
}

async function finish(
  { world, worker, later }: { world: World; worker: ReturnType<typeof createWorker>; later: Scene["later"] },
  operationId: string,
): Promise<OperationRow> {
  for (let round = 1; round <= 1_500; round += 1) {
    await worker.tick();
    const now = await world.operation(operationId);
    if (resting.has(now.state)) return now;
    await worker.watcher.tick();
    // The simulator works in real time, in milliseconds; leases, pauses and settle times pass here.
    await delay(4);
    if (round % 15 === 0) await later(5_000);
  }
  const stuck = await world.operation(operationId);
  throw new Error(`did not rest: ${stuck.state} ${JSON.stringify(await world.steps(operationId))}`);
}

async function leftovers(database: Database) {
  const ended = "('succeeded', 'failed', 'cancelled', 'expired')";
  const rows = await database.sql<{ slots: number; waits: number; leases: number; openSteps: number }>(`SELECT
    (SELECT count(*)::int FROM slots s JOIN operations o ON o.id = s.operation_id WHERE o.state IN ${ended}) AS slots,
    (SELECT count(*)::int FROM waits w JOIN operations o ON o.id = w.operation_id
       WHERE o.state IN ${ended} AND w.resolved_at IS NULL) AS waits,
    (SELECT count(*)::int FROM operations WHERE state IN ${ended} AND lease_until IS NOT NULL) AS leases,
    (SELECT count(*)::int FROM operation_steps t JOIN operations o ON o.id = t.operation_id
       WHERE o.state IN ${ended} AND t.state IN ('planned', 'intent', 'waiting')) AS "openSteps"`);
  if (rows[0] === undefined) throw new Error("no counts");
  return rows[0];
}

export const nothingLeft = { slots: 0, waits: 0, leases: 0, openSteps: 0 };

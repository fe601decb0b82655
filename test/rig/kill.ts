/**
 * npm run rig:kill -- --orders 300 [--workers 2] [--seed 1] [--frozen 0.12] [--without-probe] [--crash-points]
 *
 * Orders are entered, workers are killed with SIGKILL (or suspended beyond their lease) while they run them, the cloud
 * loses answers. Afterwards the cloud's own list must show one server for each order. With --without-probe the engine
 * asks again without looking first, and the rig must show duplicates: a rig that cannot fail proves nothing.
 * With TEST_REDIS_URL the processes wake each other up through Redis.
 */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { loadavg } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { crashPoints } from "../../src/core/operations/engine.ts";
import { type Database, openDatabase } from "../../src/database/client.ts";
import { createPostgresDatabase } from "../support/postgres.ts";
import { build, longestHoldMs, type RigConfig, type SimulatorAddress, settleMs } from "./build.ts";
import { countResting, type Findings, inspect } from "./inspect.ts";
import { armFaults, enterOrders, furnish, type Order } from "./stage.ts";
import { type Supervisor, spawn, supervise } from "./supervise.ts";

const { values } = parseArgs({
  options: {
    orders: { type: "string", default: "300" },
    workers: { type: "string", default: "2" },
    seed: { type: "string", default: "1" },
    /** Of 1: how many workers are suspended beyond their lease and woken up again, instead of killed. */
    frozen: { type: "string", default: "0.12" },
    "without-probe": { type: "boolean", default: false },
    "crash-points": { type: "boolean", default: false },
    /** At each named point. */
    times: { type: "string", default: "5" },
    "limit-seconds": { type: "string", default: "600" },
    /** Shows how the orders stand, every five seconds. */
    verbose: { type: "boolean", default: false },
  },
});
const wanted = {
  orders: Number(values.orders),
  workers: Number(values.workers),
  seed: Number(values.seed),
  withoutProbe: values["without-probe"],
  timesEachPoint: values["crash-points"] ? Number(values.times) : null,
  limitMs: Number(values["limit-seconds"]) * 1_000,
};
const lostAnswers = 0.08;
const speed = 0.1;

function randomOf(seed: number): () => number {
  let state = seed;
  // mulberry32: small, and good enough to choose moments.
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

async function run(serverUrl: string): Promise<boolean> {
  const { url: databaseUrl, drop } = await createPostgresDatabase(serverUrl);
  const cloud = spawn("./simulator.ts", {
    RIG_SIMULATOR: JSON.stringify({ orders: wanted.orders, seed: wanted.seed, speed }),
  });
  try {
    const [simulator] = (await once(cloud, "message")) as [SimulatorAddress];
    await (await openDatabase({ url: databaseUrl })).close();
    const redisUrl = process.env["TEST_REDIS_URL"] ?? null;
    const config = { databaseUrl, redisUrl, simulator, withoutProbe: wanted.withoutProbe, concurrency: 8 };
    return await play(config, cloud);
  } finally {
    cloud.kill();
    await drop();
  }
}

async function play(config: Omit<RigConfig, "worker" | "crashAt">, cloud: ChildProcess): Promise<boolean> {
  const own = await build({ ...config, worker: "rig-entrance", crashAt: null }, () => undefined);
  try {
    await furnish(own);
    const began = performance.now();
    const failingEvery = wanted.timesEachPoint === null ? 25 : 5;
    const orders = await enterOrders(own, { from: 0, count: wanted.orders, failingEvery });
    const enteredMs = performance.now() - began;
    await armFaults(config.simulator.url, lostAnswers);
    const supervisor = supervise({
      config,
      workers: wanted.workers,
      timesEachPoint: wanted.timesEachPoint,
      frozenShare: Number(values.frozen),
      random: randomOf(wanted.seed),
    });
    await untilDone(own.database, began, orders.length);
    while (supervisor.openPoints().length > 0 && performance.now() - began < wanted.limitMs) {
      orders.push(...(await enterOrders(own, { from: orders.length, count: 20, failingEvery })));
      await untilDone(own.database, began, orders.length);
    }
    const tookMs = performance.now() - began;
    await supervisor.stop();
    cloud.send("longest pause");
    const [pausedMs] = (await once(cloud, "message")) as [number];
    const findings = await inspect(own.database, config.simulator.url, orders);
    const outcome = { findings, supervisor, orders, enteredMs, tookMs, heldMs: pausedMs + longestHoldMs };
    print(outcome);
    return judge(outcome);
  } finally {
    await own.close();
  }
}

async function untilDone(database: Database, began: number, count: number): Promise<void> {
  for (let round = 0; performance.now() - began < wanted.limitMs; round += 1) {
    const done = await countResting(database);
    if (values.verbose && round % 10 === 0) console.log(`${done} of ${count} ended`);
    if (done === count) return;
    await delay(500);
  }
}

interface Outcome {
  findings: Findings;
  supervisor: Supervisor;
  orders: readonly Order[];
  enteredMs: number;
  tookMs: number;
  /** How long the cloud can have held a request, its own pauses included. */
  heldMs: number;
}

function print({ findings, supervisor, orders, enteredMs, tookMs, heldMs }: Outcome): void {
  const crashes = crashPoints.map((point) => `${point} ${supervisor.crashes[point]}`).join(", ");
  const lines: [string, string | number][] = [
    [
      "orders",
      `${orders.length}, of which ${orders.filter((order) => order.meantToFail).length} with a build that fails`,
    ],
    ["entered in", `${(enteredMs / 1000).toFixed(1)} s`],
    ["workers at a time", wanted.workers],
    ["nudges", process.env["TEST_REDIS_URL"] === undefined ? "none between processes" : "through Redis"],
    ["kills", supervisor.kills],
    ["suspended beyond their lease", supervisor.freezes],
    ...(wanted.timesEachPoint === null ? [] : [["crashes by name", crashes] as [string, string]]),
    ["faults of the cloud", list(findings.faults)],
    ["requests held", `at most ${heldMs} ms; "not there" counts after ${settleMs} ms`],
    ["adoptions", `${findings.adoptions} orders went on with a server whose answer was lost`],
    ["servers per order", list(findings.histogram)],
    ["ended as", list(findings.states)],
    ["succeeded without a person", `${(findings.withoutPerson * 100).toFixed(2)} % of those that could`],
    ["failed as meant, nothing left", findings.failedAsMeant],
    ["needs_attention", findings.needAttention],
    ["stuck", findings.stuck],
    ["orders with duplicates", findings.duplicates],
    ["marked servers that no row refers to", findings.unreferenced],
    ["events", `${findings.events}, servers with gaps ${findings.serversWithGaps}`],
    ["duration", `${(tookMs / 1000).toFixed(1)} s`],
    [
      "machine load",
      loadavg()
        .map((load) => load.toFixed(1))
        .join(" "),
    ],
  ];
  console.log(`kill rig, seed ${wanted.seed}${wanted.withoutProbe ? ", WITHOUT PROBE" : ""}`);
  for (const [name, value] of lines) console.log(`  ${`${name}:`.padEnd(38)} ${value}`);
  for (const problem of findings.problems.slice(0, 20)) console.log(`  ! ${problem}`);
  if (wanted.withoutProbe) return;
  for (const twin of findings.twins.slice(0, 40)) console.log(`  2 ${twin}`);
}

function list(counts: Record<string, number>): string {
  return Object.entries(counts)
    .map(([name, count]) => `${name}: ${count}`)
    .join(", ");
}

function judge({ findings, supervisor, orders, heldMs }: Outcome): boolean {
  const meantToFail = orders.filter((order) => order.meantToFail).length;
  const checks: [string, boolean][] = wanted.withoutProbe
    ? [["without the probe there are duplicates, so the rig can fail", findings.duplicates > 0]]
    : [
        ["one server for each order that succeeded, and the one our row names", findings.wrongServer === 0],
        ["no order has two servers", findings.duplicates === 0],
        [
          "orders that failed left nothing",
          findings.leftBehind === 0 && findings.failedAsMeant === meantToFail,
        ],
        ["99 % succeeded without a person", findings.withoutPerson >= 0.99],
        ["none is stuck", findings.stuck === 0],
        ["no marked server is unknown to us", findings.unreferenced === 0],
        ["events of each server are without gaps", findings.serversWithGaps === 0],
        ["the audit chain holds", findings.brokenAuditLinks === 0],
        [
          "no slot is held and no wait is open",
          findings.needAttention > 0 || findings.heldSlots + findings.openWaits === 0,
        ],
        ["the cloud held no request longer than we wait for it", heldMs < settleMs],
        ["workers died, and none by itself", supervisor.accidents === 0 && died(supervisor)],
      ];
  for (const [name, ok] of checks) console.log(`${ok ? "ok    " : "FAILED"} ${name}`);
  const failed = checks.filter(([, ok]) => !ok).length;
  console.log(`${checks.length - failed} passed, ${failed} failed`);
  return failed === 0;
}

function died(supervisor: Supervisor): boolean {
  return wanted.timesEachPoint === null ? supervisor.kills > 0 : supervisor.openPoints().length === 0;
}

const serverUrl = process.env["TEST_DATABASE_URL"];
if (serverUrl === undefined) {
  console.error(
    "The kill rig needs a real PostgreSQL server: set TEST_DATABASE_URL, e.g. postgresql://postgres@127.0.0.1:5432/postgres. It makes and drops a database of its own there.",
  );
  process.exitCode = 78;
} else {
  process.exitCode = (await run(serverUrl)) ? 0 : 1;
}

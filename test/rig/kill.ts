/**
 * npm run rig:kill -- --orders 1500 --kills 200 --own-servers
 *   [--clouds both|openstack|pve] [--life 0.5] [--workers 2] [--seed 1] [--frozen 0.1] [--crash-points [--times 20]] [--without-probe]
 *
 * Orders are entered by processes that die after a commit; workers are killed with SIGKILL (or suspended beyond their lease)
 * while they run them, one of them always has a clock that is ten minutes wrong; the clouds lose answers and hold requests;
 * strangers take VMIDs; a share of the PVE servers is resized, rebuilt, switched, snapshotted and deleted meanwhile; a dispatcher that is killed, too, tells a receiver of every event. Afterwards the clouds' own lists
 * must show one server for each order, and the receiver must have heard the truth. With --without-probe the engine asks again
 * without looking first, and the rig must show duplicates: a rig that cannot fail proves nothing.
 *
 * --own-servers starts PostgreSQL and Redis from Debian's packages, flushes and kills Redis and restarts PostgreSQL in the
 * middle of it; else TEST_DATABASE_URL and, if set, TEST_REDIS_URL are used and left running.
 */
import { type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { openDatabase } from "../../src/database/client.ts";
import { startReceiver } from "../../src/sandbox/receiver.ts";
import { generateSecret } from "../../src/webhooks/signature.ts";
import { createPostgresDatabase } from "../support/postgres.ts";
import type { CloudAddress } from "./address.ts";
import { build, longestHoldMs, type RigConfig } from "./build.ts";
import { createDisturbances, type Disturbances } from "./disturb.ts";
import { type EnteredOrders, enterOrders } from "./enter.ts";
import { inspect, strangersOf } from "./inspect.ts";
import { type Life, planLives, progressOf } from "./life.ts";
import type { LifeNews } from "./life-entrance.ts";
import { emptyNotes, inspectLives, type LifeNotes, note } from "./lived.ts";
import { readOptions } from "./options.ts";
import { judge, print } from "./report.ts";
import { type OwnServers, startOwnServers } from "./servers.ts";
import type { SimulatorConfig } from "./simulator.ts";
import { addStrangers, armFaults, furnish, planOrders } from "./stage.ts";
import { type Supervisor, spawn, supervise } from "./supervise.ts";
import { inspectTold, untilAllTold } from "./told.ts";

const wanted = readOptions();
const lostAnswers = 0.08;
const speed = 0.1;
const clockOffMs = 10 * 60_000;
/** In a random run; each costs the start of a process. */
const entranceCrashes = wanted.orders < 300 ? 2 : 5;
/** Of those who ask for the changes. */
const lifeCrashes = wanted.orders < 300 ? 2 : 5;
/** The last orders are left to end: each kill holds them up for a lease, and the next one comes before that. */
const killedShare = wanted.orders < 300 ? 0.7 : 0.95;
/** When there are no more than these, and crashes or kills are missing, more orders come. */
const fewLeft = 20;
const tellWithinMs = 120_000;
/** Of the workers of a random run: so short that the kills come to be many. */
const longestLifeMs = 5_000;

type Shared = Omit<RigConfig, "worker" | "crashAt" | "clockOffMs">;

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

async function run(serverUrl: string, servers: OwnServers | null): Promise<boolean> {
  const { url: databaseUrl, drop } = await createPostgresDatabase(serverUrl);
  const simulators = wanted.clouds.map((kind) => {
    const config: SimulatorConfig = {
      kind,
      name: `sim-${kind}`,
      orders: wanted.orders,
      seed: wanted.seed,
      speed,
    };
    return spawn("./simulator.ts", { RIG_SIMULATOR: JSON.stringify(config) });
  });
  try {
    const told = await Promise.all(simulators.map((child) => once(child, "message")));
    const clouds = told.map(([address]) => address as CloudAddress);
    await (await openDatabase({ url: databaseUrl })).close();
    const redisUrl = servers?.redisUrl ?? process.env["TEST_REDIS_URL"] ?? null;
    const { withoutProbe } = wanted;
    return await play(
      { databaseUrl, redisUrl, clouds, withoutProbe, concurrency: 8 },
      { simulators, servers },
    );
  } finally {
    for (const child of simulators) child.kill();
    await drop();
  }
}

async function play(
  config: Shared,
  { simulators, servers }: { simulators: readonly ChildProcess[]; servers: OwnServers | null },
): Promise<boolean> {
  const { clouds } = config;
  const random = randomOf(wanted.seed);
  const own = await build(
    { ...config, redisUrl: null, worker: "rig", crashAt: null, clockOffMs: 0 },
    () => undefined,
  );
  const secret = generateSecret();
  const receiver = await startReceiver({ secret });
  const dispatcher = keepDispatcher(config);
  const notes = emptyNotes();
  let strangers = new Map<string, string>();
  const living = keepLiving(config, { notes, random, onNews: (news) => note(notes, news, strangers) });
  try {
    for (const cloud of clouds) await addStrangers(cloud);
    await furnish(own, { clouds, receiver: { url: receiver.url, secret } });
    for (const cloud of clouds) await armFaults(cloud, lostAnswers);
    strangers = await strangersOf(clouds);
    const began = performance.now();
    const entered = await enterFirst(config, random);
    const enteredMs = performance.now() - began;
    const { timesEachPoint, workers, frozen } = wanted;
    const [minimumKills, batch, failingEvery] = timesEachPoint === null ? [wanted.kills, 50, 25] : [0, 30, 2];
    const supervisor = supervise({
      config,
      workers,
      timesEachPoint,
      frozenShare: frozen,
      longestLifeMs,
      random,
      clockOffMs,
    });
    const killDispatcher = dispatcher.kill;
    const disturbances = createDisturbances({ clouds, servers, supervisor, killDispatcher, receiver });
    const wantsMore = () =>
      supervisor.openPoints().length > 0 || supervisor.kills + supervisor.freezes < minimumKills;
    let lives = planLives(entered.orders, wanted.life);
    living.follow(lives);
    const progress = () => progressOf(own.database, entered.orders, { lives, givenUp: notes.refused });
    const until: Until = { began, progress, wantsMore, disturbances, supervisor };
    while (!(await untilDone(until)) && performance.now() - began < wanted.limitMs) {
      const more = planOrders(clouds, { from: entered.orders.length, count: batch, failingEvery });
      entered.orders.push(...(await enterOrders(more, { config, crashes: 0, random })).orders);
      lives = planLives(entered.orders, wanted.life);
      living.follow(lives);
    }
    const tookMs = performance.now() - began;
    await living.stop();
    await supervisor.stop();
    await untilAllTold(own.database, receiver.deliveries, tellWithinMs);
    const outcome = {
      wanted,
      findings: await inspect(own.database, clouds, entered.orders),
      told: await inspectTold(own.database, clouds, receiver.deliveries),
      lived: await inspectLives(own.database, clouds, { lives, notes }),
      lifeNotes: notes,
      supervisor,
      disturbed: disturbances.counts,
      orders: entered.orders,
      entrance: entered,
      strangers: await compareStrangers(strangers, clouds),
      enteredMs,
      tookMs,
      heldMs: Math.max(...(await Promise.all(simulators.map(longestPause)))) + longestHoldMs,
    };
    print(outcome);
    return judge(outcome);
  } finally {
    await living.stop();
    await dispatcher.stop();
    await receiver.close();
    await own.close();
  }
}

async function enterFirst(config: Shared, random: () => number): Promise<EnteredOrders> {
  const failingEvery = wanted.timesEachPoint === null ? 25 : 5;
  const planned = planOrders(config.clouds, { from: 0, count: wanted.orders, failingEvery });
  return enterOrders(planned, { config, crashes: wanted.timesEachPoint ?? entranceCrashes, random });
}

async function longestPause(simulator: ChildProcess): Promise<number> {
  simulator.send("longest pause");
  const [ms] = (await once(simulator, "message")) as [number];
  return ms;
}

async function compareStrangers(before: Map<string, string>, clouds: readonly CloudAddress[]) {
  const after = await strangersOf(clouds);
  const added = [...after.keys()].filter((key) => !before.has(key));
  return {
    before: before.size,
    changed: [...before].filter(([key, was]) => after.get(key) !== was).map(([key]) => key),
    thieves: added.length,
  };
}

/** There is always one, however often it is killed. */
function keepDispatcher(config: Shared) {
  let stopping = false;
  let child = start();

  function start(): ChildProcess {
    const own: RigConfig = { ...config, worker: "rig-dispatcher", crashAt: null, clockOffMs: 0 };
    const made = spawn("./dispatcher.ts", { RIG_CONFIG: JSON.stringify(own) });
    made.once("exit", () => {
      if (!stopping) child = start();
    });
    return made;
  }

  return {
    kill: () => void child.kill("SIGKILL"),
    async stop() {
      stopping = true;
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, "exit");
      child.send("stop");
      await ended;
    },
  };
}

/** Whoever asks for the changes dies after a commit now and then; the next one asks again. */
function keepLiving(
  config: Shared,
  { notes, random, onNews }: { notes: LifeNotes; random: () => number; onNews: (news: LifeNews) => void },
) {
  let lives: readonly Life[] = [];
  let stopping = false;
  let child: ChildProcess | null = null;

  function start(): ChildProcess {
    const nth = 1 + Math.floor(random() * 4);
    const crashAt = notes.crashes < lifeCrashes ? { point: "after_commit" as const, nth } : null;
    const own: RigConfig = { ...config, worker: "rig-life", crashAt, clockOffMs: 0 };
    const made = spawn("./life-entrance.ts", { RIG_CONFIG: JSON.stringify(own) });
    made.on("message", (message: "ready" | LifeNews) => {
      if (message === "ready") made.send([...lives]);
      else onNews(message);
    });
    made.once("exit", (_code, signal) => {
      if (signal === "SIGKILL") notes.crashes += 1;
      if (!stopping) child = start();
    });
    return made;
  }

  return {
    follow(wantedLives: readonly Life[]) {
      lives = wantedLives;
      if (lives.length === 0) return;
      if (child === null) child = start();
      else if (child.connected) child.send([...lives]);
    },
    async stop() {
      stopping = true;
      if (child === null || child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, "exit");
      child.send("stop");
      await ended;
    },
  };
}

interface Until {
  began: number;
  progress: () => ReturnType<typeof progressOf>;
  disturbances: Disturbances;
  supervisor: Supervisor;
  wantsMore: () => boolean;
}

/** True when all orders and all changes have ended; false when few are left and more are wanted, or the time is over. */
async function untilDone(until: Until): Promise<boolean> {
  const { began, progress, disturbances, supervisor, wantsMore } = until;
  for (let round = 0; performance.now() - began < wanted.limitMs; round += 1) {
    // oxlint-disable-next-line no-await-in-loop -- a poll; null while PostgreSQL restarts
    const now = await progress().catch(() => null);
    if (wanted.verbose && round % 10 === 0) console.log(`${now?.done ?? "?"} of ${now?.all ?? "?"} ended`);
    if (now !== null) {
      const share = now.done / now.all;
      if (wantsMore() && now.all - now.done < fewLeft) return false;
      if (now.done === now.all) return true;
      supervisor.calm(!wantsMore() && share > killedShare);
      // oxlint-disable-next-line no-await-in-loop
      await disturbances.at(share);
    }
    // oxlint-disable-next-line no-await-in-loop
    await delay(500);
  }
  return false;
}

async function main(): Promise<number> {
  if (wanted.ownServers) {
    const servers = await startOwnServers();
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      process.once(signal, () => void servers.stop().finally(() => process.exit(130)));
    }
    try {
      return (await run(servers.databaseUrl, servers)) ? 0 : 1;
    } finally {
      await servers.stop();
    }
  }
  const serverUrl = process.env["TEST_DATABASE_URL"];
  if (serverUrl !== undefined) return (await run(serverUrl, null)) ? 0 : 1;
  console.error(
    "The kill rig needs a real PostgreSQL server: give --own-servers with Debian's postgresql and redis-server installed, or set TEST_DATABASE_URL, e.g. postgresql://postgres@127.0.0.1:5432/postgres. It makes and drops a database of its own there.",
  );
  return 78;
}

process.exitCode = await main();

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createServer } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { Redis } from "ioredis";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Database } from "../../src/database/client.ts";
import { createJobs, type Jobs } from "../../src/jobs/jobs.ts";
import { eachBackend, testDatabase } from "../support/database.ts";

const log = pino({ level: "silent" });
const TEST_REDIS_URL = process.env["TEST_REDIS_URL"];

/** A port that nobody listens on (any more). */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  return typeof address === "object" && address !== null ? address.port : 0;
}

async function until(what: string, condition: () => boolean, withinMs = 10_000): Promise<void> {
  const end = Date.now() + withinMs;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`${what} did not happen within ${withinMs} ms`);
    await delay(2);
  }
}

function behaviour(database: () => Database, redisUrl?: string): void {
  let a: Jobs;
  let b: Jobs;

  beforeEach(async () => {
    a = await createJobs({ database: database(), redisUrl, log });
    b = await createJobs({ database: database(), redisUrl, log });
    for (const jobs of [a, b]) await untilReady(jobs);
  });
  afterEach(async () => {
    await Promise.all([a.close(), b.close()]);
  });

  test("a nudge wakes this process at once and the other one soon, also from a process that listens to something else", async () => {
    const heard: string[] = [];
    a.wake.onNudge("cards", () => heard.push("a cards"));
    b.wake.onNudge("operations", () => heard.push("b operations"));
    // Its worker takes a moment to listen, and a nudge that nobody takes is passed on a few times only: the sweeper's then.
    await until("the other one's worker", () => {
      a.wake.nudge("operations");
      return heard.includes("b operations");
    });
    heard.length = 0;

    a.wake.nudge("cards");
    expect(heard).toContain("a cards");
    a.wake.nudge("operations");
    await until("the nudge", () => heard.includes("b operations"));

    // A Redis that others use too may hold nudges of theirs (the kill rig's).
    const most = redisUrl === undefined ? 1 : Number.POSITIVE_INFINITY;
    expect(heard.filter((line) => line === "a cards").length).toBeLessThanOrEqual(most);
  });

  test("a burst is a handful of jobs, and the last nudge is never swallowed", async () => {
    let heard = 0;
    b.wake.onNudge("operations", () => (heard += 1));
    for (let n = 0; n < 500; n += 1) a.wake.nudge("operations");
    await until("the burst", () => heard >= 1);
    const afterBurst = heard;
    expect(afterBurst).toBeLessThan(5);

    a.wake.nudge("operations");
    await until("the last one", () => heard > afterBurst);
  });

  test("who has ended the subscription hears nothing more", async () => {
    let ended = 0;
    let kept = 0;
    const end = b.wake.onNudge("events", () => (ended += 1));
    b.wake.onNudge("events", () => (kept += 1));
    end();

    a.wake.nudge("events");
    await until("the nudge", () => kept > 0);

    expect(ended).toBe(0);
  });

  test("a schedule runs in one of them each time, and again after a failure", async () => {
    const everyMs = 300;
    const started = Date.now();
    let runs = 0;
    for (const jobs of [a, b]) {
      jobs.schedule("tidy", everyMs, () => {
        runs += 1;
        return Promise.reject(new Error("the first and every time"));
      });
    }

    await until("three runs", () => runs >= 3);

    expect(runs).toBeLessThanOrEqual(Math.ceil((Date.now() - started) / (everyMs * 0.9)) + 1);
  });

  test("a nudge inside a transaction is a fault, and one in afterCommit is not", async () => {
    let heard = 0;
    a.wake.onNudge("events", () => (heard += 1));

    await expect(database().transaction(async () => a.wake.nudge("events"))).rejects.toThrow(
      /inside a transaction/,
    );
    await database().transaction(async (tx) => tx.afterCommit(() => a.wake.nudge("events")));

    expect(heard).toBe(1);
  });

  test("after close nothing is sent and nothing fails", async () => {
    await a.close();

    expect(() => a.wake.nudge("operations")).not.toThrow();
  });
}

eachBackend("jobs of two processes", behaviour);

describe.skipIf(TEST_REDIS_URL === undefined)("jobs of two processes (Redis: TEST_REDIS_URL)", () => {
  const database = embedded();
  behaviour(database, TEST_REDIS_URL);
});

describe("a process that has its database to itself", () => {
  const database = embedded();

  test("wakes its own listeners at once and puts no nudge into the queue, which still serves its schedules", async () => {
    const jobs = await createJobs({ database: database(), log, alone: true });
    let [heard, ran] = [0, 0];
    jobs.wake.onNudge("operations", () => (heard += 1));
    jobs.schedule("tidy", 50, () => {
      ran += 1;
      return Promise.resolve();
    });

    for (let n = 0; n < 100; n += 1) jobs.wake.nudge("operations");
    expect(heard).toBe(100);
    await until("the schedule", () => ran > 0);

    const { rows } = await database().queuePool.query("SELECT DISTINCT queue FROM bullmq.meta");
    expect(rows).toEqual([{ queue: "schedules" }]);
    await jobs.close();
  });
});

describe("Redis away", () => {
  const database = embedded();

  test("from the start: nudges work inside the process, nothing throws or hangs, and closing is quick", async () => {
    const jobs = await createJobs({
      database: database(),
      redisUrl: `redis://127.0.0.1:${await freePort()}`,
      log,
    });
    let heard = 0;
    jobs.wake.onNudge("operations", () => (heard += 1));
    jobs.schedule("tidy", 50, () => Promise.resolve());

    for (let n = 0; n < 100; n += 1) jobs.wake.nudge("operations");
    expect(heard).toBe(100);
    await expect(jobs.ping()).rejects.toThrow(/not connected/);

    const started = Date.now();
    await jobs.close(500);
    expect(Date.now() - started).toBeLessThan(3_000);
  });

  describe.skipIf(!spawnable("redis-server"))("with a server of our own", () => {
    let server: ChildProcess;
    let port: number;
    let jobs: Jobs;
    let other: Jobs;

    async function startServer(): Promise<void> {
      server = spawn("redis-server", ["--port", String(port), "--save", "", "--appendonly", "no"], {
        stdio: "ignore",
      });
      await once(server, "spawn");
    }
    async function stopServer(): Promise<void> {
      if (server.exitCode !== null || server.signalCode !== null) return;
      server.kill("SIGKILL");
      await once(server, "exit");
    }

    beforeEach(async () => {
      port = await freePort();
      await startServer();
      const redisUrl = `redis://127.0.0.1:${port}`;
      jobs = await createJobs({ database: database(), redisUrl, log });
      other = await createJobs({ database: database(), redisUrl, log });
      for (const one of [jobs, other]) await untilReady(one);
    });
    afterEach(async () => {
      await Promise.all([jobs.close(500), other.close(500)]);
      await stopServer();
    });

    test("emptied: the next nudge and the next turn of a schedule come all the same", async () => {
      let heard = 0;
      let runs = 0;
      other.wake.onNudge("waits", () => (heard += 1));
      other.schedule("tidy", 200, () => {
        runs += 1;
        return Promise.resolve();
      });
      await until("a run", () => runs > 0);
      const client = new Redis(port);
      await client.flushall();
      client.disconnect();
      const before = runs;

      jobs.wake.nudge("waits");

      await until("the nudge", () => heard > 0);
      await until("another run", () => runs > before);
      expect(heard).toBe(1);
    });

    test("killed: nudges are lost without an error; back again: they arrive", async () => {
      let heard = 0;
      other.wake.onNudge("waits", () => (heard += 1));
      jobs.wake.nudge("waits");
      await until("the first nudge", () => heard === 1);

      await stopServer();
      for (let n = 0; n < 20; n += 1) {
        expect(() => jobs.wake.nudge("waits")).not.toThrow();
        await delay(5);
      }
      await expect(jobs.ping()).rejects.toThrow(/not connected|closed|ECONN|no answer/);
      await startServer();
      await untilReady(jobs);
      const before = heard;

      await until("a nudge again", () => {
        jobs.wake.nudge("waits");
        return heard > before;
      });
      expect(heard).toBeGreaterThan(before);
    });
  });
});

function embedded(): () => Database {
  let database: Database;
  beforeAll(async () => {
    database = await testDatabase();
  });
  afterAll(() => database.close());
  return () => database;
}

async function untilReady(jobs: Jobs): Promise<void> {
  const end = Date.now() + 10_000;
  for (;;) {
    try {
      await jobs.ping();
      return;
    } catch (error) {
      if (Date.now() > end) throw error;
      await delay(20);
    }
  }
}

function spawnable(command: string): boolean {
  const paths = (process.env["PATH"] ?? "").split(":");
  return paths.some((path) => existsSync(`${path}/${command}`));
}

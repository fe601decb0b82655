/** Operations per second from asking to succeeded, with a cloud that answers at once, against BullMQ's no-op jobs. */
import { setTimeout as delay } from "node:timers/promises";
import { createWorker } from "../src/core/operations/worker.ts";
import type { Entrance } from "../src/core/request.ts";
import type { Database, Transaction } from "../src/database/client.ts";
import { onPostgres, onRedis } from "../src/jobs/connect.ts";
import { createJobs } from "../src/jobs/jobs.ts";
import { instantCloud } from "./instant-cloud.ts";
import { cpuMeter, figure, heading, ms, ratio } from "./report.ts";
import { type Backend, backends, engineOn, furnish, log, sam } from "./stage.ts";

/** As many people ask at a time, and as many operations run at a time, in both. */
const askers = 8;
const concurrency = 16;
const patienceMs = 120_000;

export async function benchEngine({ short }: { short: boolean }): Promise<void> {
  for (const backend of backends()) {
    heading(`engine: enter → succeeded, ${backend.name}`);
    const opened = await backend.open();
    try {
      await measure(backend, opened.database, short ? 50 : 500);
    } finally {
      await opened.close();
    }
  }
}

async function measure({ redisUrl }: Backend, database: Database, count: number): Promise<void> {
  await furnish(database, instantCloud, { slots: concurrency * 2, servers: count * 2 });
  const jobs = await createJobs({ database, redisUrl, log, alone: database.mode === "embedded" });
  const counted = counting(database);
  const { engine, entrance } = engineOn(counted.database, instantCloud, jobs.wake);
  const worker = createWorker(engine, { concurrency });
  worker.start();
  try {
    // The first half is for the compilers, on both sides.
    await operations({ entrance, database }, { from: 1, count });
    const before = counted.statements();
    const cpu = cpuMeter();
    const ours = await operations({ entrance, database }, { from: count + 1, count });
    const [oursCpu, statements] = [cpu().ms / count, (counted.statements() - before) / count];
    await noOps({ database, redisUrl }, count);
    const baselineCpu = cpuMeter();
    const baseline = await noOps({ database, redisUrl }, count * 4);
    const noOpCpu = baselineCpu().ms / (count * 4);
    figure("operations (two steps each)", `${ours.toFixed(0)}/s, ${count} of them`);
    figure("statements per operation, idle looks included", statements.toFixed(1));
    figure("BullMQ's no-op jobs", `${baseline.toFixed(0)}/s, ${count * 4} of them`);
    ratio("time of an operation in no-op jobs", { ours: baseline, baseline: ours });
    figure("processor time of an operation, of a no-op job", `${ms(oursCpu)}, ${ms(noOpCpu)}`);
    ratio("processor time of an operation in no-op jobs", { ours: oursCpu, baseline: noOpCpu });
  } finally {
    await worker.stop();
    await jobs.close();
  }
}

/** A second. */
async function operations(
  { entrance, database }: { entrance: Entrance; database: Database },
  { from, count }: { from: number; count: number },
): Promise<number> {
  const began = performance.now();
  await inParallel(count, async (index) => {
    const answer = await entrance.dispatch({
      action: "server.power",
      options: { server: `web-${from + index}`, action: "reboot" },
      principal: sam,
      source: "console",
      idempotencyKey: `bench:${from + index}`,
      origin: null,
    });
    if (answer.kind !== "operation") throw new Error(`it was answered ${JSON.stringify(answer)}`);
  });
  await until(async () => {
    const rows = await database.sql<{ open: number; bad: number }>(
      `SELECT count(*)::int AS open, count(*) FILTER (WHERE state IN ('failed', 'needs_attention'))::int AS bad
       FROM operations WHERE state <> 'succeeded'`,
    );
    if ((rows[0]?.bad ?? 0) > 0) throw new Error("an operation of the bench did not succeed");
    return rows[0]?.open === 0;
  });
  return (count * 1000) / (performance.now() - began);
}

/** A second. */
async function noOps(
  { database, redisUrl }: { database: Database; redisUrl: string | undefined },
  count: number,
): Promise<number> {
  const onError = (error: Error) => log.warn({ err: error }, "the bench's queue");
  const backend = redisUrl === undefined ? await onPostgres(database) : onRedis(redisUrl, onError);
  await until(() => Promise.resolve(isReady(backend)));
  const name = `bench-${process.pid}-${count}`;
  const queue = new backend.Queue(name, {
    connection: backend.producer,
    defaultJobOptions: { removeOnComplete: true },
  });
  let done = 0;
  const worker = new backend.Worker(
    name,
    () => {
      done += 1;
      return Promise.resolve();
    },
    { connection: backend.consumer, concurrency },
  );
  queue.on("error", onError);
  worker.on("error", onError);
  try {
    await worker.waitUntilReady();
    const began = performance.now();
    await inParallel(count, async (index) => void (await queue.add("no-op", { index })));
    await until(() => Promise.resolve(done === count));
    return (count * 1000) / (performance.now() - began);
  } finally {
    await worker.close();
    await queue.obliterate({ force: true });
    await queue.close();
    backend.disconnect();
  }
}

function isReady(backend: { assertReady(): void }): boolean {
  try {
    backend.assertReady();
    return true;
  } catch {
    return false;
  }
}

async function inParallel(count: number, work: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const some = async () => {
    for (let index = next++; index < count; index = next++) await work(index);
  };
  await Promise.all(Array.from({ length: askers }, some));
}

async function until(check: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + patienceMs;
  while (!(await check())) {
    if (performance.now() > end) throw new Error(`the bench gave up after ${patienceMs / 1000} s`);
    await delay(20);
  }
}

/** Counts what goes to the database: each statement is a round trip, and so are BEGIN and COMMIT. */
function counting(database: Database): { database: Database; statements(): number } {
  let count = 0;
  const counted: Database = {
    ...database,
    sql: (text, values) => {
      count += 1;
      return database.sql(text, values);
    },
    transaction: (work, options) => {
      count += 2;
      return database.transaction((tx) => {
        const inside: Transaction = {
          ...tx,
          sql: (text, values) => {
            count += 1;
            return tx.sql(text, values);
          },
        };
        return work(inside);
      }, options);
    },
  };
  return { database: counted, statements: () => count };
}

/**
 * Wake-ups and schedules across processes, over two queues. A nudge wakes all who listen in this process at once, and one
 * process elsewhere; whoever it misses looks by itself within a second. An empty or absent queue costs time only.
 */
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import type { Queue, Worker } from "bullmq";
import type { Logger } from "pino";
import { localWake, type Wake, type WakeTopic, wakeTopics } from "../core/wake.ts";
import type { Database } from "../database/client.ts";
import { assertOutsideTransaction } from "../database/transaction.ts";
import { onPostgres, onRedis } from "./connect.ts";

export interface Jobs {
  wake: Wake;
  /** Runs `run` in one of the processes that schedule this name, about every `everyMs`. What it throws is logged. */
  schedule(name: string, everyMs: number, run: () => Promise<void>): void;
  /** Rejects, in at most 2 s, while the queue is away. */
  ping(): Promise<void>;
  /** In at most `deadlineMs`: BullMQ's own close waits for ever while Redis is away. */
  close(deadlineMs?: number): Promise<void>;
}

const COALESCE_MS = 10;
const TIMEOUT_MS = 2_000;
const PASS_ON_MS = 20;
const MAX_HOPS = 3;
const FIRST_TURN_MS = 30_000;
const COMPLAIN_EVERY_MS = 10_000;
// A nudge has no history: nothing is kept, and the stream of events stays short.
const KEEP_NOTHING = {
  defaultJobOptions: { removeOnComplete: true, removeOnFail: true },
  streams: { events: { maxLen: 100 } },
};

/** Throws when PostgreSQL cannot hold the queue; Redis may come later. */
export async function createJobs(options: {
  database: Database;
  redisUrl?: string | undefined;
  log: Logger;
  /** No other process can have this database: nudges need no queue, and the queue's work would delay everybody's. */
  alone?: boolean | undefined;
}): Promise<Jobs> {
  const queues = await openQueues(options);
  const timers: NodeJS.Timeout[] = [];
  const runs = new Map<string, () => Promise<void>>();
  return {
    wake: createWake(queues, { alone: options.alone === true }),
    schedule(name, everyMs, run) {
      runs.set(name, run);
      queues.work("schedules", 4, async (job) => {
        await runs
          .get(job.name)?.()
          .catch((error: unknown) => queues.complain(`the scheduled ${job.name} failed`, error));
      });
      // Every process asks, and the queue takes one of them each time: nothing is lost with an emptied Redis.
      const ask = () =>
        void queues.add(
          "schedules",
          name,
          {},
          { deduplication: { id: name, ttl: Math.round(everyMs * 0.9) } },
        );
      // The first turn comes early, or a process that restarts often would never get to it.
      timers.push(setTimeout(ask, Math.min(everyMs / 2, FIRST_TURN_MS)), setInterval(ask, everyMs));
    },
    ping: queues.ping,
    async close(deadlineMs = 5_000) {
      for (const timer of timers) clearTimeout(timer);
      await queues.close(deadlineMs);
    },
  };
}

type Queues = Awaited<ReturnType<typeof openQueues>>;
type Nudge = { from: string; hops: number };

function createWake(queues: Queues, { alone }: { alone: boolean }): Wake {
  const me = randomUUID();
  const local = localWake();
  const listening = new Map<WakeTopic, number>();
  const pending = new Set<WakeTopic>();

  async function receive({ name, data }: { name: string; data: Nudge }): Promise<void> {
    const topic = wakeTopics.find((candidate) => candidate === name);
    if (topic === undefined) return;
    if ((listening.get(topic) ?? 0) > 0) {
      // Our own listeners were woken when we sent it.
      if (data.from !== me) local.nudge(topic);
    } else if (data.hops < MAX_HOPS) {
      // Meant for a process with another role, which gets it while this worker is still busy with it.
      await queues.add("nudges", topic, { ...data, hops: data.hops + 1 });
      await delay(PASS_ON_MS);
    }
  }

  return {
    nudge(topic) {
      assertOutsideTransaction("The queue");
      local.nudge(topic);
      if (alone || pending.has(topic)) return;
      pending.add(topic);
      setTimeout(() => {
        pending.delete(topic);
        void queues.add("nudges", topic, { from: me, hops: 0 });
      }, COALESCE_MS).unref();
    },
    onNudge(topic, listener) {
      if (!alone) queues.work("nudges", 1, receive);
      listening.set(topic, (listening.get(topic) ?? 0) + 1);
      const end = local.onNudge(topic, listener);
      return () => {
        end();
        listening.set(topic, (listening.get(topic) ?? 1) - 1);
      };
    },
  };
}

async function openQueues({ database, redisUrl, log }: Parameters<typeof createJobs>[0]) {
  const told = new Map<string, number>();
  // While Redis or PostgreSQL is away, the same error comes by the hundred.
  const complain = (what: string, error: unknown): void => {
    if (Date.now() - (told.get(what) ?? 0) < COMPLAIN_EVERY_MS) return;
    told.set(what, Date.now());
    log.warn({ err: error }, what);
  };
  // Its stack would only say where we noticed.
  const onError = (error: unknown) =>
    complain(
      "the queue is away or ill: wake-ups are late, nothing is lost",
      error instanceof Error ? error.message : error,
    );
  const backend = redisUrl === undefined ? await onPostgres(database) : onRedis(redisUrl, onError);
  const queues = new Map<string, Queue>();
  const workers = new Map<string, Worker>();
  let closed = false;

  function queueOf(name: string): Queue {
    // Not before Redis answers for the first time: BullMQ asks for its version at once, and never again.
    backend.assertReady();
    const queue =
      queues.get(name) ?? new backend.Queue(name, { ...KEEP_NOTHING, connection: backend.producer });
    if (!queues.has(name)) queues.set(name, queue.on("error", onError));
    return queue;
  }

  return {
    complain,
    /** Never throws and never hangs. */
    async add(queue: string, name: string, data: object, jobOptions = {}): Promise<void> {
      if (closed) return;
      try {
        await within(TIMEOUT_MS, async () => queueOf(queue).add(name, data, jobOptions));
      } catch (error) {
        onError(error);
      }
    },
    work(
      queue: string,
      concurrency: number,
      run: (job: { name: string; data: Nudge }) => Promise<void>,
    ): void {
      if (workers.has(queue)) return;
      const worker = new backend.Worker(queue, run, { connection: backend.consumer, concurrency });
      workers.set(queue, worker.on("error", onError));
    },
    ping: () =>
      within(TIMEOUT_MS, async () => {
        backend.assertReady();
        await backend.ping();
      }),
    async close(deadlineMs: number): Promise<void> {
      closed = true;
      const ends = [...workers.values(), ...queues.values()].map((part) =>
        within(deadlineMs, () => part.close()),
      );
      for (const end of await Promise.allSettled(ends)) {
        if (end.status === "rejected") onError(end.reason);
      }
      backend.disconnect();
    },
  };
}

async function within<T>(ms: number, work: () => Promise<T>): Promise<T> {
  const stop = new AbortController();
  const late = delay(ms, undefined, { signal: stop.signal }).then(() => {
    throw new Error(`no answer within ${ms} ms`);
  });
  return await Promise.race([work(), late]).finally(() => stop.abort());
}

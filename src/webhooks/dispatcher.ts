/**
 * Brings events to endpoints, at least once: fan out, claim, send, record. Truth is in the database; what this process
 * holds is only leased, and is somebody else's when the lease is over.
 */
import { randomUUID } from "node:crypto";
import type { Logger } from "pino";
import type { SecretBox } from "../core/secrets/box.ts";
import type { Wake } from "../core/wake.ts";
import type { Database } from "../database/client.ts";
import type { Connector } from "../net/connector.ts";
import { type AttemptContext, attempt } from "./attempt.ts";
import { claim } from "./claim.ts";
import { FAN_OUT_BATCH, fanOut } from "./fan-out.ts";
import { createLanes } from "./lanes.ts";
import { createLoop } from "./loop.ts";
import { createRecorder } from "./recorder.ts";
import { parseSecrets } from "./signature.ts";

export interface DispatcherOptions {
  readonly database: Database;
  readonly secrets: Pick<SecretBox, "read">;
  readonly connector: Connector;
  readonly log: Logger;
  /** Wakes `start()`'s loop; without it the sweep alone does. */
  readonly wake?: Wake;
  /** For people: an endpoint was disabled, deliveries were given up. Never a URL or a secret. */
  readonly onAlert?: (text: string) => void;
  readonly random?: () => number;
  readonly userAgent?: string;
  /** How long a claimed delivery is ours; more than any endpoint's timeout. Default: 30000. */
  readonly leaseMs?: number;
  /** Calls at a time to one endpoint. Default: 4. */
  readonly laneWidth?: number;
  /** Deliveries claimed at a time for one endpoint. Default: 32. */
  readonly laneLimit?: number;
  /** Default: 1000. */
  readonly sweepMs?: number;
}

/** What one `tick()` did. */
export interface Tick {
  /** Events that got their position. */
  events: number;
  /** Deliveries made of them. */
  deliveries: number;
  claimed: number;
  delivered: number;
  /** Attempts after which another one follows. */
  retried: number;
  dead: number;
  /** Claimed and given back untried: the endpoint asked for a pause, is gone, or there was no time left. */
  released: number;
}

export interface Dispatcher {
  /** One round, to its end: all that was claimed is sent and recorded. Not to be mixed with `start()`. */
  tick(): Promise<Tick>;
  start(): void;
  /** Ends the loop, gives back what is not under way, and waits for the rest, at most this long. Default: 20000. */
  stop(timeoutMs?: number): Promise<void>;
}

/** Kept free between an attempt's deadline and the end of its lease, to write down what came of it. */
const RECORDING_MARGIN_MS = 3_000;

export function createDispatcher(options: DispatcherOptions): Dispatcher {
  const { database, log, leaseMs = 30_000, laneLimit = 32, sweepMs = 1_000 } = options;
  const owner = randomUUID();
  const context: AttemptContext = {
    connector: options.connector,
    log,
    random: options.random ?? Math.random,
    userAgent: options.userAgent ?? "ratatosk",
    maxTimeoutMs: leaseMs - RECORDING_MARGIN_MS,
    keys: keyring(options),
  };
  const counts = emptyTick();
  const recorder = createRecorder({
    ...options,
    counts,
    // The notices written with dead deliveries are events too.
    onNotice: () => loop.kick(),
  });
  const lanes = createLanes({
    width: options.laneWidth ?? 4,
    mayStillSend: ({ endpoint, claimedAtSteadyMs }) => {
      const neededMs = Math.min(endpoint.timeoutMs, context.maxTimeoutMs) + RECORDING_MARGIN_MS;
      return performance.now() - claimedAtSteadyMs + neededMs <= leaseMs;
    },
    send: (claimed) => attempt(claimed, context),
    record: recorder.record,
    release: recorder.release,
    onRoom: () => loop.kick(),
  });
  const loop = createLoop({
    work: round,
    onError: (error) => log.error({ err: error }, "webhook dispatch failed; the next sweep tries again"),
    sweepMs,
    subscribe: (kick) => options.wake?.onNudge("events", kick),
  });
  let claimNumber = 0;

  async function round(): Promise<void> {
    const { events, deliveries } = await fanOut(database);
    counts.events += events;
    counts.deliveries += deliveries;
    if (events >= FAN_OUT_BATCH) loop.kick();
    claimNumber += 1;
    const loads = lanes.loads();
    for (const [endpointId, load] of loads) {
      if (load >= laneLimit) lanes.expectMore(endpointId);
    }
    const { claimed, filled, moreLanes } = await claim(database, {
      owner,
      claimNumber,
      leaseMs,
      laneLimit,
      loads,
    });
    counts.claimed += claimed.length;
    lanes.admit(claimed);
    for (const endpointId of filled) lanes.expectMore(endpointId);
    if (moreLanes) loop.kick();
  }

  return {
    async tick() {
      const before = { ...counts };
      await round();
      await lanes.idle();
      return difference(counts, before);
    },
    start: loop.start,
    async stop(timeoutMs = 20_000) {
      const { promise: tooLong, resolve } = Promise.withResolvers<void>();
      const deadline = setTimeout(resolve, timeoutMs);
      const drained = (async () => {
        await loop.stop();
        lanes.releaseQueued();
        await lanes.idle();
      })();
      await Promise.race([drained, tooLong]);
      clearTimeout(deadline);
    },
  };
}

function keyring({ database, secrets }: DispatcherOptions): (secretId: string) => Promise<readonly Buffer[]> {
  // A secret's row never changes; a new secret is a new row.
  const known = new Map<string, readonly Buffer[]>();
  return async (secretId) => {
    const keys = known.get(secretId) ?? parseSecrets(await secrets.read(database, secretId));
    known.set(secretId, keys);
    return keys;
  };
}

function emptyTick(): Tick {
  return { events: 0, deliveries: 0, claimed: 0, delivered: 0, retried: 0, dead: 0, released: 0 };
}

function difference(now: Tick, before: Tick): Tick {
  return {
    events: now.events - before.events,
    deliveries: now.deliveries - before.deliveries,
    claimed: now.claimed - before.claimed,
    delivered: now.delivered - before.delivered,
    retried: now.retried - before.retried,
    dead: now.dead - before.dead,
    released: now.released - before.released,
  };
}

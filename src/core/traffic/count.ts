/**
 * Counts what the servers of a cloud send and receive: one look at its counters, one statement for all servers. A process that
 * is not the only one at it, or comes too late with its figures, writes nothing.
 */
import { randomUUID } from "node:crypto";
import type { Logger } from "pino";
import type { Database, Transaction } from "../../database/client.ts";
import type { Cloud, TrafficSample } from "../cloud.ts";
import { problemOf } from "../errors.ts";
import type { Wake } from "../wake.ts";
import { BOOK, type Booked } from "./book.ts";
import { tellThresholds } from "./threshold.ts";

export interface CountOptions {
  database: Database;
  cloud: Cloud;
  wake: Wake;
  log: Logger;
  /** How often it is asked for; a look that another process took less than half of it ago is enough. */
  everyMs: number;
}

/** `skipped`: another process is or was at it. `late`: its turn was over when the figures came. */
export type Counted =
  | { outcome: "counted"; servers: number; told: number }
  | { outcome: "skipped" | "failed" | "late" | "unsupported" };

const LEASE_MS = 120_000;
const WRITE_MS = 25_000;
/** The cloud has to answer in this time, so that the figures can still be written within the lease. */
const ANSWER_MS = 90_000;

/** Never throws because of the cloud: what it did not say is counted, or said to be lost, at a later look. */
export async function countTraffic(options: CountOptions): Promise<Counted> {
  const { database, cloud, log } = options;
  if (cloud.traffic === undefined) return { outcome: "unsupported" };
  const turn = await takeTurn(options);
  if (turn === null) return { outcome: "skipped" };
  let samples: TrafficSample[];
  try {
    samples = await cloud.traffic(AbortSignal.timeout(ANSWER_MS));
  } catch (error) {
    await giveUp(database, turn);
    // At the first time only: it is asked again every minute.
    log[turn.wasAway ? "debug" : "warn"](
      { cloud: cloud.name, problem: problemOf(error) },
      "the cloud gave no traffic counters; what was sent since the last look is counted when it does",
    );
    return { outcome: "failed" };
  }
  const counted = await database.transaction((tx) => write(tx, { turn, samples, wake: options.wake }), {
    timeoutMs: WRITE_MS,
  });
  if (counted.outcome === "counted" && counted.told > 0) {
    log.info({ cloud: cloud.name, told: counted.told }, "servers' traffic has come to a threshold");
  }
  if (counted.outcome === "late")
    log.warn({ cloud: cloud.name }, "traffic counters came too late to be used");
  return counted;
}

interface Turn {
  cloudId: string;
  by: string;
  /** It did not answer at the look before this one. */
  wasAway: boolean;
}

async function takeTurn({ database, cloud, everyMs }: CountOptions): Promise<Turn | null> {
  const by = randomUUID();
  const rows = await database.sql<{ cloudId: string; wasAway: boolean }>(
    `INSERT INTO traffic_samplers AS t (cloud_id, lease_by, lease_until)
     SELECT id, $2, clock() + $3::float8 * interval '1 millisecond' FROM clouds WHERE name = $1
     ON CONFLICT (cloud_id) DO UPDATE SET lease_by = excluded.lease_by, lease_until = excluded.lease_until
       WHERE (t.lease_until IS NULL OR t.lease_until <= clock())
         AND (t.counted_at IS NULL OR t.counted_at <= clock() - $4::float8 * interval '1 millisecond')
     RETURNING cloud_id AS "cloudId", COALESCE(failed_at > COALESCE(counted_at, '-infinity'), false) AS "wasAway"`,
    [cloud.name, by, LEASE_MS, everyMs / 2],
  );
  const [row] = rows;
  return row === undefined ? null : { ...row, by };
}

async function giveUp(database: Database, { cloudId, by }: Turn): Promise<void> {
  await database.sql(
    `UPDATE traffic_samplers SET failed_at = clock(), lease_by = NULL, lease_until = NULL
     WHERE cloud_id = $1 AND lease_by = $2`,
    [cloudId, by],
  );
}

async function write(
  tx: Transaction,
  { turn, samples, wake }: { turn: Turn; samples: readonly TrafficSample[]; wake: Wake },
): Promise<Counted> {
  // Figures that lay about in a process that slept are older than they look, and an old uptime reads as a restart.
  const held = await tx.sql(
    `SELECT FROM traffic_samplers WHERE cloud_id = $1 AND lease_by = $2 AND lease_until > clock() FOR UPDATE`,
    [turn.cloudId, turn.by],
  );
  if (held.length === 0) return { outcome: "late" };
  // A plan that was kept from when there were few servers compares each with each.
  await tx.sql(`SET LOCAL plan_cache_mode = 'force_custom_plan'`);
  const [booked] = await tx.sql<Booked>(BOOK, [
    turn.cloudId,
    samples.map(({ externalId }) => externalId),
    samples.map(({ uptimeS }) => String(uptimeS)),
    samples.map(({ inBytes }) => String(inBytes)),
    samples.map(({ outBytes }) => String(outBytes)),
  ]);
  if (booked === undefined) throw new Error("the statement that counts traffic answers one row");
  await tx.sql(
    `UPDATE traffic_samplers SET counted_at = clock(), lease_by = NULL, lease_until = NULL WHERE cloud_id = $1`,
    [turn.cloudId],
  );
  const told = await tellThresholds(tx, { cloudId: turn.cloudId, month: booked.month });
  if (told > 0) tx.afterCommit(() => wake.nudge("events"));
  return { outcome: "counted", servers: booked.servers, told };
}

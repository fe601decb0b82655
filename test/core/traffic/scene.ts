/** Servers of one cloud whose counters, and the time, are what a test says. */
import type { Cloud, TrafficSample } from "../../../src/core/cloud.ts";
import { type Counted, type CountOptions, countTraffic } from "../../../src/core/traffic/count.ts";
import { localWake } from "../../../src/core/wake.ts";
import type { Database } from "../../../src/database/client.ts";
import { newId } from "../../../src/database/id.ts";
import { clean } from "../../support/database.ts";
import { silent } from "../../support/world.ts";

export const GIB = 2n ** 30n;
/** Of the scene's clock when it begins. */
export const START = "2026-11-10T12:00:00.000Z";

export interface Scene {
  database: Database;
  cloud: Cloud;
  /** From now on `clock()` is this. */
  at(time: string): Promise<void>;
  /** A running server, found to be ours at this time. Answers its id. */
  server(server?: Partial<NewServer>): Promise<string>;
  /** The row's own look at the cloud. */
  prove(serverId: string, time?: string): Promise<void>;
  /** What the cloud says at the next look; nothing else. An error: it does not answer. */
  says(...samples: (TrafficSample | Error)[]): void;
  count(options?: Partial<CountOptions>): Promise<Counted>;
  months(serverId: string): Promise<{ month: string; inBytes: bigint; outBytes: bigint }[]>;
  gaps(serverId: string): Promise<{ kind: string; cause: string; from: string; to: string }[]>;
  thresholds(): Promise<{ month: string; percent: number }[]>;
}

interface NewServer {
  name: string;
  externalId: string;
  customerId: string | null;
  createdAt: string;
  bandwidthGib: number | null;
  planCode: string | null;
}

/** One that runs since so many seconds. */
export function running(
  uptimeS: number,
  counters: { in?: bigint; out?: bigint; externalId?: string } = {},
): TrafficSample {
  return {
    externalId: counters.externalId ?? "100001",
    uptimeS,
    inBytes: counters.in ?? 0n,
    outBytes: counters.out ?? 0n,
  };
}

export function off(externalId = "100001"): TrafficSample {
  return { externalId, uptimeS: 0, inBytes: 0n, outBytes: 0n };
}

export async function createScene(database: Database): Promise<Scene> {
  await clean(database);
  const cloudId = newId();
  await database.sql(`INSERT INTO clouds (id, name, provider) VALUES ($1, 'pve1', 'pve')`, [cloudId]);
  let next: (TrafficSample | Error)[] = [];
  // Counting asks a cloud for nothing else.
  const cloud = { name: "pve1", traffic: () => answer(next) } as unknown as Cloud;
  const at = (time: string) => setClock(database, time);
  await at(START);
  return {
    database,
    cloud,
    at,
    async server(given = {}) {
      const id = newId();
      const { name = "web-1", externalId = "100001", customerId = null, planCode = null } = given;
      await database.sql(
        `INSERT INTO servers (id, public_id, customer_id, cloud_id, external_id, name, plan_code, state, vcpus, memory_mib,
           disk_gib, bandwidth_gib, created_at, synced_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, 'active', 1, 512, 10, $8, $9, clock())`,
        [
          id,
          `srv-${id.slice(-8)}`,
          customerId,
          cloudId,
          externalId,
          name,
          planCode,
          given.bandwidthGib ?? null,
          given.createdAt ?? "2026-01-01T00:00:00Z",
        ],
      );
      return id;
    },
    async prove(serverId, time) {
      await database.sql(`UPDATE servers SET synced_at = COALESCE($2::timestamptz, clock()) WHERE id = $1`, [
        serverId,
        time ?? null,
      ]);
    },
    says: (...samples) => {
      next = samples;
    },
    count: (options) =>
      countTraffic({ database, cloud, wake: localWake(), log: silent, everyMs: 0, ...options }),
    months: (serverId) =>
      database.sql(
        `SELECT to_char(month, 'YYYY-MM') AS month, in_bytes AS "inBytes", out_bytes AS "outBytes" FROM traffic_months
         WHERE server_id = $1 ORDER BY month, counted_from`,
        [serverId],
      ),
    gaps: (serverId) =>
      database.sql(
        `SELECT kind, cause, to_char(from_at AT TIME ZONE 'UTC', 'DD HH24:MI') AS from, to_char(to_at AT TIME ZONE 'UTC', 'DD HH24:MI') AS to
         FROM traffic_gaps WHERE server_id = $1 ORDER BY from_at`,
        [serverId],
      ),
    thresholds: () =>
      database.sql(
        `SELECT data->>'month' AS month, (data->>'percent')::int AS percent FROM events
         WHERE type = 'server.bandwidth.threshold' ORDER BY sequence, occurred_at`,
      ),
  };
}

function answer(next: readonly (TrafficSample | Error)[]): Promise<TrafficSample[]> {
  const failure = next.find((each) => each instanceof Error);
  if (failure !== undefined) return Promise.reject(failure);
  return Promise.resolve(next.flatMap((each) => (each instanceof Error ? [] : [each])));
}

async function setClock(database: Database, time: string): Promise<void> {
  await database.sql(
    `CREATE OR REPLACE FUNCTION public.clock() RETURNS timestamptz LANGUAGE sql STABLE
     AS $$ SELECT timestamptz '${new Date(time).toISOString()}' $$`,
  );
}

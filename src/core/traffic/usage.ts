/** What was counted of one server, for those who may see it. */

import type { Queryable } from "../../database/client.ts";
import { ownRows, type Principal, tenantOf } from "../access.ts";

export interface UsageMonth {
  /** "2026-11". */
  month: string;
  inBytes: bigint;
  outBytes: bigint;
  countedFrom: Date;
  /** By the last count of the month; null: unlimited. */
  allowanceGib: number | null;
  /** Whose it was then, if not the one whose it is. Staff only. */
  ofAnother: string | null;
}

export type Cause = "cloud" | "figures" | "us";

export interface UsageGap {
  from: Date;
  to: Date;
  kind: "lost" | "reset" | "carried";
  cause: Cause;
  inBytes: bigint;
  outBytes: bigint;
}

export interface Usage {
  /** By the database's clock. */
  now: Date;
  month: string;
  /** Now; null: unlimited. */
  allowanceGib: number | null;
  /** Up to when it is counted; null: nothing is yet. */
  measuredAt: Date | null;
  /** Why not further, in so far as it is not. */
  cause: Cause;
  /** Newest first; the present one, where there is one, and twelve before it. */
  months: UsageMonth[];
  /** Of these months, newest first. */
  gaps: UsageGap[];
}

const MONTHS_BEFORE = 12;

export interface CountedServer {
  id: string;
  name: string;
  cloudName: string;
  /** Its last months are billed when it is gone. */
  isDeleted: boolean;
}

/** A deleted one, by its public id alone: its name may be another's by now. Null when there is none. */
export async function findDeleted(
  database: Queryable,
  principal: Principal,
  publicId: string,
): Promise<CountedServer | null> {
  const rows = await database.sql<CountedServer>(
    `SELECT s.id, s.name, c.name AS "cloudName", true AS "isDeleted" FROM servers s JOIN clouds c ON c.id = s.cloud_id
     WHERE s.public_id = $2 AND s.deleted_at IS NOT NULL AND ${ownRows("s.customer_id", 1)}`,
    [tenantOf(principal), publicId],
  );
  return rows[0] ?? null;
}

/** A customer's is what was counted since the server is theirs. */
export async function usageOf(
  database: Queryable,
  principal: Principal,
  { id: serverId }: { id: string },
): Promise<Usage> {
  const [head] = await database.sql<Omit<Usage, "months" | "gaps">>(
    `SELECT clock() AS now, to_char(clock() AT TIME ZONE 'UTC', 'YYYY-MM') AS month, c.measured_at AS "measuredAt",
       NULLIF(COALESCE(s.bandwidth_gib, p.bandwidth_gib), 0) AS "allowanceGib",
       CASE WHEN t.failed_at > COALESCE(t.counted_at, '-infinity') THEN 'cloud'
         WHEN t.counted_at > clock() - interval '5 minutes' THEN 'figures' ELSE 'us' END AS cause
     FROM servers s LEFT JOIN plans p ON p.code = s.plan_code LEFT JOIN traffic_counters c ON c.server_id = s.id
       LEFT JOIN traffic_samplers t ON t.cloud_id = s.cloud_id WHERE s.id = $1`,
    [serverId],
  );
  if (head === undefined) throw new Error(`no server ${serverId}`);
  const parameters = [serverId, tenantOf(principal), `${head.month}-01`];
  const since = `($3::date - interval '${MONTHS_BEFORE} months')`;
  const months = await database.sql<UsageMonth>(
    `SELECT to_char(t.month, 'YYYY-MM') AS month, t.in_bytes AS "inBytes", t.out_bytes AS "outBytes",
       t.counted_from AS "countedFrom", t.allowance_gib AS "allowanceGib",
       CASE WHEN t.customer_id IS DISTINCT FROM s.customer_id THEN COALESCE(k.name, 'nobody') END AS "ofAnother"
     FROM traffic_months t JOIN servers s ON s.id = t.server_id LEFT JOIN customers k ON k.id = t.customer_id
     WHERE t.server_id = $1 AND ${ownRows("t.customer_id", 2)} AND t.month >= ${since}
     ORDER BY t.month DESC, t.counted_from DESC`,
    parameters,
  );
  const gaps = await database.sql<UsageGap>(
    `SELECT g.from_at AS "from", g.to_at AS "to", g.kind, g.cause, g.in_bytes AS "inBytes", g.out_bytes AS "outBytes"
     FROM traffic_gaps g WHERE g.server_id = $1 AND ${ownRows("g.customer_id", 2)}
       AND g.to_at >= ${since} AT TIME ZONE 'UTC' ORDER BY g.from_at DESC`,
    parameters,
  );
  return { ...head, months, gaps };
}

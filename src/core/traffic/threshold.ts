/** Says once in a month, for each server and threshold, that its traffic has come so far. */
import type { Transaction } from "../../database/client.ts";
import { recordEvent } from "../operations/events.ts";
import { payloadBytes } from "./bytes.ts";

const thresholds = [80, 90, 100] as const;

interface Reached {
  serverId: string;
  customerId: string | null;
  inBytes: bigint;
  outBytes: bigint;
  allowanceGib: number;
  /** The highest one that there was an event of, and is one of now. */
  before: number;
  percent: number;
}

const LEVEL = thresholds
  .toReversed()
  .map(
    (percent) =>
      `WHEN (t.in_bytes::numeric + t.out_bytes) * 100 >= ${percent} * t.allowance_gib::numeric * 1073741824 THEN ${percent}`,
  )
  .join(" ");

/** In the caller's transaction, which holds the cloud's turn. Answers how many events there are. */
export async function tellThresholds(
  tx: Transaction,
  { cloudId, month }: { cloudId: string; month: string },
): Promise<number> {
  const reached = await tx.sql<Reached>(
    `WITH reached AS (
       SELECT t.id, t.told_percent, CASE ${LEVEL} ELSE 0 END AS percent FROM traffic_months t JOIN servers s ON s.id = t.server_id
       WHERE s.cloud_id = $1 AND s.deleted_at IS NULL AND t.month = $2::date AND t.allowance_gib > 0
         AND t.customer_id IS NOT DISTINCT FROM s.customer_id)
     UPDATE traffic_months t SET told_percent = r.percent FROM reached r WHERE t.id = r.id AND r.percent > r.told_percent
     RETURNING t.server_id AS "serverId", t.customer_id AS "customerId", t.in_bytes AS "inBytes", t.out_bytes AS "outBytes",
       t.allowance_gib AS "allowanceGib", r.told_percent AS before, r.percent`,
    [cloudId, month],
  );
  let told = 0;
  // Servers' rows are locked in the order of their ids.
  for (const row of reached.toSorted((a, b) => (a.serverId < b.serverId ? -1 : 1))) {
    for (const percent of thresholds.filter((each) => each > row.before && each <= row.percent)) {
      // oxlint-disable-next-line no-await-in-loop -- one transaction, one connection
      await recordEvent(tx, {
        type: "server.bandwidth.threshold",
        serverId: row.serverId,
        customerId: row.customerId,
        data: {
          month: month.slice(0, 7),
          percent,
          allowanceGib: row.allowanceGib,
          inBytes: payloadBytes(row.inBytes),
          outBytes: payloadBytes(row.outBytes),
          totalBytes: payloadBytes(row.inBytes + row.outBytes),
        },
      });
      told += 1;
    }
  }
  return told;
}

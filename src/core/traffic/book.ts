/**
 * From counters to months, in one statement.
 *
 * A server's counters belong to one life of it: from being switched on to being switched off. As long as a life lasts, the
 * difference to the last look is what was sent since, however long ago that was. A life that nobody has seen before counts from
 * its beginning, but only once the row's own look at the cloud (synchronisation, or an operation) has found the server to be ours
 * since it began: somebody else may have got its number. What was sent between the last look and the end of a life is lost.
 */

/** A loss, or a difference across a month's end, that is shorter is not written down. */
export const GAP_MS = 5 * 60_000;
/** How old a cloud's figures may be (core/cloud.ts). */
const STALE_S = 300;
/** How old they are when nothing is wrong, and how far clocks are apart. */
const LAG_S = 30;

export interface Booked {
  /** The first day of the month in which it was booked, "2026-11-01". */
  month: string;
  /** How many servers' counters were written down. */
  servers: number;
}

export const NOBODY = `'00000000-0000-0000-0000-000000000000'::uuid`;

const apart = (from: string, to: string) => `(${to} - ${from} > interval '${GAP_MS} milliseconds')`;

// `seen`: beside the figures what is known of their server. The start is an estimate that is never too early.
const SEEN = `
  SELECT s.id AS server_id, s.customer_id, s.created_at, NULLIF(COALESCE(s.bandwidth_gib, p.bandwidth_gib), 0) AS allowance_gib,
    g.*, m.*, m.at - g.uptime_s * interval '1 second' AS started_at,
    COALESCE(s.synced_at >= m.at - (g.uptime_s + ${LAG_S}) * interval '1 second', false) AS proven,
    c.external_id AS last_id, c.uptime_s AS last_uptime_s, c.in_bytes AS last_in, c.out_bytes AS last_out,
    c.measured_at AS last_at, extract(epoch FROM m.at - c.measured_at) AS elapsed_s,
    CASE WHEN t.failed_at > c.measured_at THEN 'cloud' WHEN ${apart("c.measured_at", "t.counted_at")} THEN 'figures' ELSE 'us' END AS cause
  FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) AS g(external_id, uptime_s, in_bytes, out_bytes)
  CROSS JOIN moment m
  JOIN traffic_samplers t ON t.cloud_id = $1
  JOIN servers s ON s.cloud_id = $1 AND s.external_id = g.external_id AND s.deleted_at IS NULL AND s.state NOT IN ('missing', 'deleted')
  LEFT JOIN plans p ON p.code = s.plan_code
  LEFT JOIN traffic_counters c ON c.server_id = s.id`;

// A life that began after the last look is at most as old as that look. One that was off then, or had higher counters, and is
// older all the same, contradicts itself: its counters are where the next difference is taken from, and no more. Figures that have
// stood still, or are older than the last ones, are not used.
const VERDICT = `
  CASE
    WHEN uptime_s = 0 THEN 'off'
    WHEN last_at IS NULL THEN 'first'
    WHEN last_id <> external_id THEN 'life'
    WHEN last_uptime_s = 0 THEN CASE WHEN uptime_s <= elapsed_s + ${STALE_S} THEN 'life' ELSE 'reset' END
    WHEN uptime_s = last_uptime_s AND in_bytes = last_in AND out_bytes = last_out THEN 'still'
    WHEN uptime_s <= elapsed_s + ${STALE_S} AND (uptime_s < last_uptime_s OR uptime_s < last_uptime_s + elapsed_s - ${STALE_S}) THEN 'life'
    WHEN uptime_s < last_uptime_s THEN 'still'
    WHEN in_bytes >= last_in AND out_bytes >= last_out THEN 'on'
    WHEN uptime_s <= elapsed_s + ${LAG_S} THEN 'life'
    ELSE 'reset'
  END`;

/**
 * A first row of a server locks the server's against deletion: in the order in which others lock several.
 *
 * $1 the cloud's id; $2 to $5 the samples' external ids, uptimes in seconds, bytes in and out, as arrays of one length without a
 * double. Answers `Booked`.
 */
export const BOOK = `
WITH moment AS (
  SELECT at, date_trunc('month', at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS month_start, date_trunc('month', at AT TIME ZONE 'UTC')::date AS month
  FROM (SELECT date_trunc('milliseconds', clock()) AS at) now
), seen AS (${SEEN}
), judged AS (
  SELECT *, ${VERDICT} AS verdict FROM seen
), believed AS (
  SELECT *, verdict = 'first' AND started_at >= GREATEST(month_start, created_at) AS whole FROM judged
  WHERE verdict IN ('off', 'on', 'reset') OR (verdict IN ('first', 'life') AND proven)
), counted AS (
  SELECT *,
    CASE WHEN verdict = 'on' THEN in_bytes - last_in WHEN verdict = 'life' OR whole THEN in_bytes ELSE 0 END AS more_in,
    CASE WHEN verdict = 'on' THEN out_bytes - last_out WHEN verdict = 'life' OR whole THEN out_bytes ELSE 0 END AS more_out,
    CASE verdict WHEN 'on' THEN last_at WHEN 'life' THEN started_at END AS sent_from,
    CASE verdict WHEN 'life' THEN started_at WHEN 'off' THEN at WHEN 'reset' THEN at END AS lost_to
  FROM believed
), counters AS (
  INSERT INTO traffic_counters (server_id, external_id, uptime_s, in_bytes, out_bytes, measured_at)
  SELECT server_id, external_id, uptime_s, in_bytes, out_bytes, at FROM counted ORDER BY server_id
  ON CONFLICT (server_id) DO UPDATE SET external_id = excluded.external_id, uptime_s = excluded.uptime_s,
    in_bytes = excluded.in_bytes, out_bytes = excluded.out_bytes, measured_at = excluded.measured_at
), months AS (
  INSERT INTO traffic_months AS t (id, server_id, customer_id, month, in_bytes, out_bytes, counted_from, allowance_gib)
  SELECT gen_random_uuid(), server_id, customer_id, month, more_in, more_out,
    CASE WHEN whole THEN started_at ELSE GREATEST(month_start, COALESCE(last_at, at)) END, allowance_gib FROM counted ORDER BY server_id
  ON CONFLICT (server_id, month, COALESCE(customer_id, ${NOBODY})) DO UPDATE SET in_bytes = t.in_bytes + excluded.in_bytes,
    out_bytes = t.out_bytes + excluded.out_bytes, allowance_gib = excluded.allowance_gib
    WHERE excluded.in_bytes > 0 OR excluded.out_bytes > 0 OR t.allowance_gib IS DISTINCT FROM excluded.allowance_gib
), gaps AS (
  INSERT INTO traffic_gaps (id, server_id, customer_id, from_at, to_at, kind, cause, in_bytes, out_bytes)
  SELECT gen_random_uuid(), server_id, customer_id, last_at, lost_to, CASE verdict WHEN 'reset' THEN 'reset' ELSE 'lost' END,
    CASE verdict WHEN 'reset' THEN 'figures' ELSE cause END, 0, 0 FROM counted
   WHERE verdict = 'reset' OR ${apart("last_at", "lost_to")}
  UNION ALL
  SELECT gen_random_uuid(), server_id, customer_id, sent_from, at, 'carried', cause, more_in, more_out FROM counted
   WHERE sent_from < month_start AND ${apart("sent_from", "at")} AND more_in + more_out > 0
)
SELECT month::text AS month, (SELECT count(*)::int FROM counted) AS servers FROM moment`;

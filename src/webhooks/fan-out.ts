/**
 * Gives committed events their place in the global feed and each endpoint its deliveries. One writer at a time, so that
 * a reader who has seen position n will never be shown a smaller one later.
 */
import type { Database } from "../database/client.ts";

// Any constant that is used for nothing else; the audit chain has 72707370.
const FAN_OUT_LOCK = 72_707_371;
export const FAN_OUT_BATCH = 500;

export interface FannedOut {
  events: number;
  deliveries: number;
}

const NOTHING: FannedOut = { events: 0, deliveries: 0 };

// `chosen`: the oldest, and whatever earlier events of their servers are still without a position: a server's events are
// committed in the order of their sequence, but statement times may be out of order when one waited for the other's lock.
// `at`: for the same reason an event counts as no older than its server's previous one.
// A delivery's id is a UUIDv7 made here, because thousands of ids would otherwise travel to and fro: milliseconds, a counter
// in place of rand_a (RFC 9562 §6.2 method 1), so that what is due at the same moment is claimed in the order of the feed, and
// the second half of a random one.
const FAN_OUT = `
WITH oldest AS (
  SELECT id, server_id, sequence FROM public.events
   WHERE position IS NULL ORDER BY occurred_at, id LIMIT $1
), servers AS (
  SELECT server_id, max(sequence) AS up_to FROM oldest WHERE server_id IS NOT NULL GROUP BY server_id
), chosen AS (
  SELECT id FROM oldest
  UNION
  SELECT e.id FROM servers s
    JOIN public.events e ON e.server_id = s.server_id AND e.sequence < s.up_to AND e.position IS NULL
), timed AS (
  SELECT e.id, e.server_id, e.sequence,
         CASE WHEN e.server_id IS NULL THEN e.occurred_at
              ELSE max(e.occurred_at) OVER (PARTITION BY e.server_id ORDER BY e.sequence) END AS at
    FROM chosen JOIN public.events e USING (id)
), numbered AS (
  SELECT id, row_number() OVER (ORDER BY at, server_id, sequence, id) AS rank FROM timed
), placed AS (
  UPDATE public.events e SET position = n.rank + (SELECT COALESCE(max(position), 0) FROM public.events)
    FROM numbered n WHERE e.id = n.id AND e.position IS NULL
  RETURNING e.id, e.type, e.customer_id, n.rank
), inserted AS (
  INSERT INTO public.deliveries (id, endpoint_id, event_id, state, next_attempt_at)
  SELECT (lpad(to_hex(floor(extract(epoch FROM clock()) * 1000)::bigint), 12, '0')
          || '7' || lpad(to_hex(LEAST(placed.rank, 4095)), 3, '0')
          || substr(replace(gen_random_uuid()::text, '-', ''), 17))::uuid,
         endpoint.id, placed.id, 'pending', clock()
    FROM placed
    JOIN public.endpoints endpoint
      ON endpoint.disabled_at IS NULL
     AND (endpoint.customer_id IS NULL OR endpoint.customer_id = placed.customer_id)
     AND EXISTS (
           SELECT 1 FROM unnest(endpoint.event_types) AS pattern
            WHERE pattern = '*' OR pattern = placed.type
               OR (pattern LIKE '%.*' AND starts_with(placed.type, left(pattern, -1))))
  ON CONFLICT (endpoint_id, event_id) DO NOTHING
  RETURNING 1
)
SELECT (SELECT count(*)::int FROM placed) AS events, (SELECT count(*)::int FROM inserted) AS deliveries`;

/** One batch. Nothing to do, or another process is at it: zeros. */
export async function fanOut(database: Database, batch = FAN_OUT_BATCH): Promise<FannedOut> {
  const [waiting] = await database.sql<{ any: boolean }>(
    "SELECT EXISTS (SELECT 1 FROM public.events WHERE position IS NULL) AS any",
  );
  if (waiting?.any !== true) return NOTHING;
  return await database.transaction(async (tx) => {
    // A statement of its own: the next one's snapshot must be taken when the lock is held, or it would miss the positions
    // given by the holder before.
    const [lock] = await tx.sql<{ held: boolean }>("SELECT pg_try_advisory_xact_lock($1) AS held", [
      FAN_OUT_LOCK,
    ]);
    if (lock?.held !== true) return NOTHING;
    const [done] = await tx.sql<FannedOut>(FAN_OUT, [batch]);
    return done ?? NOTHING;
  });
}

/** Writes down a group of attempts in one transaction: deliveries, attempts, pauses, disabled endpoints, notices. */
import { recordEvent } from "../core/operations/events.ts";
import type { Database, Transaction } from "../database/client.ts";
import type { AttemptRecord } from "./attempt.ts";
import type { Claimed } from "./claim.ts";

export const GONE_REASON = "The receiver answered that it wants nothing any more (410 Gone).";
/** Events about webhooks themselves. What fails to tell of a failure makes no further notice, or it would never end. */
const NOTICE_PREFIX = "webhook.";

export interface Recorded {
  /** Those whose lease was still ours. */
  readonly written: AttemptRecord[];
  /** Names of endpoints that this group disabled. */
  readonly disabled: string[];
  /** The database's time. */
  readonly at: Date;
}

// Only what is pending has a lease. Saying so here as well would make the planner go through the whole backlog by the index of
// the pending ones, when it has no statistics yet.
const WRITE_ATTEMPTS = `
WITH attempt AS (
  SELECT * FROM jsonb_to_recordset($1::jsonb) AS a(
    "deliveryId" uuid, lease text, "startedAt" timestamptz, "durationMs" int, "httpStatus" int, outcome text,
    error text, response text, state text, "nextInMs" float8)
), updated AS (
  UPDATE public.deliveries d
     SET attempt_count = d.attempt_count + 1, state = a.state, lease_by = NULL, lease_until = NULL,
         next_attempt_at = CASE WHEN a.state = 'pending' THEN clock() + a."nextInMs" * interval '1 millisecond' END,
         delivered_at = CASE WHEN a.state = 'delivered' THEN clock() END
    FROM attempt a
   WHERE d.id = a."deliveryId" AND d.lease_by = a.lease
  RETURNING d.id, d.attempt_count
), inserted AS (
  INSERT INTO public.attempts
    (delivery_id, n, started_at, duration_ms, http_status, outcome, error, response)
  SELECT u.id, u.attempt_count, a."startedAt", a."durationMs", a."httpStatus", a.outcome, a.error, a.response
    FROM updated u JOIN attempt a ON a."deliveryId" = u.id
)
SELECT id, clock() AS at FROM updated`;

export async function recordAttempts(
  database: Database,
  records: readonly AttemptRecord[],
): Promise<Recorded> {
  return await database.transaction(async (tx) => {
    const rows = await tx.sql<{ id: string; at: Date }>(WRITE_ATTEMPTS, [JSON.stringify(records.map(asRow))]);
    const ids = new Set(rows.map(({ id }) => id));
    const written = records.filter(({ claimed }) => ids.has(claimed.deliveryId));
    await pauseEndpoints(tx, written);
    const disabled = await disableGoneEndpoints(tx, written);
    for (const record of written) {
      if (record.state === "dead") await noteDeadDelivery(tx, record);
    }
    return { written, disabled, at: rows[0]?.at ?? new Date(0) };
  });
}

function asRow(record: AttemptRecord): Record<string, unknown> {
  const { claimed, ...attempt } = record;
  return { ...attempt, deliveryId: claimed.deliveryId, lease: claimed.lease };
}

async function pauseEndpoints(tx: Transaction, records: readonly AttemptRecord[]): Promise<void> {
  const pauses = new Map<string, number>();
  for (const { claimed, pauseMs } of records) {
    if (pauseMs !== null)
      pauses.set(claimed.endpoint.id, Math.max(pauseMs, pauses.get(claimed.endpoint.id) ?? 0));
  }
  // In id order, as every writer of several endpoints does.
  for (const [endpointId, pauseMs] of [...pauses].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    await tx.sql(
      `UPDATE public.endpoints
          SET paused_until = GREATEST(paused_until, clock() + $2::float8 * interval '1 millisecond')
        WHERE id = $1`,
      [endpointId, pauseMs],
    );
  }
}

async function disableGoneEndpoints(tx: Transaction, records: readonly AttemptRecord[]): Promise<string[]> {
  const gone = records.filter(({ outcome }) => outcome === "gone").map(({ claimed }) => claimed.endpoint.id);
  if (gone.length === 0) return [];
  const disabled = await tx.sql<{ id: string; name: string }>(
    `UPDATE public.endpoints SET disabled_at = clock(), disabled_reason = $2
      WHERE id = ANY ($1::uuid[]) AND disabled_at IS NULL RETURNING id, name`,
    [gone, GONE_REASON],
  );
  for (const { name } of disabled) {
    await recordEvent(tx, {
      type: "webhook.endpoint.disabled",
      serverId: null,
      data: { endpoint: name, reason: GONE_REASON },
    });
  }
  return disabled.map(({ name }) => name);
}

/** Only our own endpoints hear of it (no customer), and somebody who reads the feed. */
async function noteDeadDelivery(tx: Transaction, record: AttemptRecord): Promise<void> {
  const { event, endpoint, deliveryId, attemptCount } = record.claimed;
  if (event.type.startsWith(NOTICE_PREFIX)) return;
  await recordEvent(tx, {
    type: "webhook.delivery.dead",
    serverId: null,
    data: {
      endpoint: endpoint.name,
      delivery: deliveryId,
      event: event.id,
      eventType: event.type,
      attempts: attemptCount + 1,
      outcome: record.outcome,
      httpStatus: record.httpStatus,
      error: record.error,
    },
  });
}

/** Gives back what was claimed and not tried: at once due again, for whoever comes. */
export async function releaseDeliveries(database: Database, claimed: readonly Claimed[]): Promise<void> {
  await database.sql(
    `UPDATE public.deliveries d SET lease_by = NULL, lease_until = NULL, next_attempt_at = clock()
       FROM unnest($1::uuid[], $2::text[]) AS given(id, lease)
      WHERE d.id = given.id AND d.lease_by = given.lease`,
    [claimed.map(({ deliveryId }) => deliveryId), claimed.map(({ lease }) => lease)],
  );
}

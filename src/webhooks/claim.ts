/** Takes due deliveries under a lease, lane by lane: a lane is an endpoint, and one dispatcher at a time works on it. */
import type { Database, Transaction } from "../database/client.ts";
import type { OutgoingEvent } from "./formats/format.ts";

export interface Claimed {
  readonly deliveryId: string;
  /** The fencing token: a record that does not carry the present one changes nothing. */
  readonly lease: string;
  /** Attempts made before. */
  readonly attemptCount: number;
  readonly endpoint: {
    readonly id: string;
    readonly name: string;
    readonly url: string;
    readonly format: string;
    readonly audience: "staff" | "customer";
    readonly secretId: string;
    readonly timeoutMs: number;
  };
  readonly event: OutgoingEvent;
  /** The database's time of the claim, and this process's steady clock just before it: together they give the time of an attempt. */
  readonly claimedAt: Date;
  readonly claimedAtSteadyMs: number;
}

export interface ClaimOptions {
  /** Names this dispatcher; leases begin with it. */
  readonly owner: string;
  /** Unique for each claim of this owner. */
  readonly claimNumber: number;
  readonly leaseMs: number;
  /** How many deliveries one lane may hold. */
  readonly laneLimit: number;
  /** How many each lane of ours holds already. */
  readonly loads: ReadonlyMap<string, number>;
}

/** Lanes of one claim; the oldest due first, so that the others have their turn in the next one. */
const LANES_PER_CLAIM = 100;

const LIVE_LEASE_OF_ANOTHER = `EXISTS (
  SELECT 1 FROM public.deliveries l
   WHERE l.endpoint_id = e.id AND l.lease_by IS NOT NULL AND l.lease_until > clock()
     AND NOT starts_with(l.lease_by, $1 || '/'))`;

const LOCK_LANES = `
SELECT e.id FROM public.endpoints e
  CROSS JOIN LATERAL (
    SELECT d.next_attempt_at AS due_at FROM public.deliveries d
     WHERE d.endpoint_id = e.id AND d.state = 'pending' AND d.next_attempt_at <= clock()
     ORDER BY d.next_attempt_at LIMIT 1) oldest
 WHERE e.disabled_at IS NULL AND (e.paused_until IS NULL OR e.paused_until <= clock())
   AND e.id <> ALL ($2::uuid[]) AND NOT ${LIVE_LEASE_OF_ANOTHER}
 ORDER BY oldest.due_at
 LIMIT ${LANES_PER_CLAIM}
   FOR NO KEY UPDATE OF e SKIP LOCKED`;

// next_attempt_at becomes the end of the lease: what a dead dispatcher held is simply due again then.
const CLAIM = `
WITH due AS (
  SELECT d.id FROM unnest($2::uuid[], $3::int[]) AS lane(endpoint_id, room)
    JOIN public.endpoints e ON e.id = lane.endpoint_id AND NOT ${LIVE_LEASE_OF_ANOTHER}
   CROSS JOIN LATERAL (
     SELECT id FROM public.deliveries
      WHERE endpoint_id = lane.endpoint_id AND state = 'pending' AND next_attempt_at <= clock()
      ORDER BY next_attempt_at, id LIMIT lane.room FOR UPDATE SKIP LOCKED) d
), claimed AS (
  UPDATE public.deliveries d
     SET lease_by = $4, lease_until = clock() + $5::float8 * interval '1 millisecond',
         next_attempt_at = clock() + $5::float8 * interval '1 millisecond'
    FROM due WHERE d.id = due.id
  RETURNING d.id, d.endpoint_id, d.event_id, d.attempt_count
)
SELECT c.id AS "deliveryId", c.attempt_count AS "attemptCount", clock() AS "claimedAt",
       n.id AS "endpointId", n.name AS "endpointName", n.url, n.format, n.customer_id IS NULL AS "forStaff",
       n.secret_id AS "secretId", n.timeout_ms AS "timeoutMs",
       e.id AS "eventId", e.type, e.occurred_at AS "occurredAt", e.position, e.sequence,
       e.data::text AS "dataJson", e.staff_data::text AS "staffDataJson",
       s.public_id AS "serverPublicId", o.public_id AS "operationPublicId", p.ref AS "customerRef"
  FROM claimed c
  JOIN public.endpoints n ON n.id = c.endpoint_id
  JOIN public.events e ON e.id = c.event_id
  LEFT JOIN public.servers s ON s.id = e.server_id
  LEFT JOIN public.operations o ON o.id = e.operation_id
  LEFT JOIN public.customers p ON p.id = e.customer_id
 ORDER BY e.position`;

interface ClaimedRow {
  deliveryId: string;
  attemptCount: number;
  claimedAt: Date;
  endpointId: string;
  endpointName: string;
  url: string;
  format: string;
  forStaff: boolean;
  secretId: string;
  timeoutMs: number;
  eventId: string;
  type: string;
  occurredAt: Date;
  position: bigint;
  sequence: bigint | null;
  dataJson: string;
  staffDataJson: string;
  serverPublicId: string | null;
  operationPublicId: string | null;
  customerRef: string | null;
}

export interface Claim {
  /** In the order of the feed. */
  readonly claimed: Claimed[];
  /** Endpoints that were given all they had room for, so more may be waiting. */
  readonly filled: string[];
  /** There may be endpoints with something due that this claim did not come to. */
  readonly moreLanes: boolean;
}

const NOTHING: Claim = { claimed: [], filled: [], moreLanes: false };

export async function claim(database: Database, options: ClaimOptions): Promise<Claim> {
  const [waiting] = await database.sql<{ any: boolean }>(
    "SELECT EXISTS (SELECT 1 FROM public.deliveries WHERE state = 'pending' AND next_attempt_at <= clock()) AS any",
  );
  if (waiting?.any !== true) return NOTHING;
  return await database.transaction((tx) => claimInside(tx, options));
}

async function claimInside(tx: Transaction, options: ClaimOptions): Promise<Claim> {
  const { owner, loads, laneLimit } = options;
  const full = [...loads].filter(([, load]) => load >= laneLimit).map(([endpointId]) => endpointId);
  const lanes = await tx.sql<{ id: string }>(LOCK_LANES, [owner, full]);
  if (lanes.length === 0) return NOTHING;
  const lease = `${owner}/${options.claimNumber}`;
  const rooms = new Map(lanes.map(({ id }) => [id, laneLimit - (loads.get(id) ?? 0)]));
  const claimedAtSteadyMs = performance.now();
  // A second statement, because its snapshot must be taken under the locks: the first one's may be older than a claim that
  // another dispatcher has just committed.
  const rows = await tx.sql<ClaimedRow>(CLAIM, [
    owner,
    [...rooms.keys()],
    [...rooms.values()],
    lease,
    options.leaseMs,
  ]);
  const claimed = rows.map((row) => claimedFrom(row, lease, claimedAtSteadyMs));
  const counts = Map.groupBy(claimed, ({ endpoint }) => endpoint.id);
  return {
    claimed,
    filled: [...rooms].filter(([id, room]) => counts.get(id)?.length === room).map(([id]) => id),
    moreLanes: lanes.length === LANES_PER_CLAIM && claimed.length > 0,
  };
}

function claimedFrom(row: ClaimedRow, lease: string, claimedAtSteadyMs: number): Claimed {
  const { deliveryId, attemptCount, claimedAt, endpointId, endpointName, url, format, ...rest } = row;
  const { forStaff, secretId, timeoutMs, eventId, ...event } = rest;
  const audience = forStaff ? "staff" : "customer";
  return {
    deliveryId,
    lease,
    attemptCount,
    endpoint: { id: endpointId, name: endpointName, url, format, audience, secretId, timeoutMs },
    event: { id: eventId, ...event },
    claimedAt,
    claimedAtSteadyMs,
  };
}

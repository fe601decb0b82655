// Which VMID an operation was given. PVE reserves none (two calls of /cluster/nextid give the same), so we do: a row, unique
// for ever, of a range that nobody else uses. Somebody who takes one all the same spoils it, and is never touched.
import { ServiceError } from "../../core/errors.ts";
import type { Queryable } from "../../database/client.ts";
import { isUniqueViolation } from "../../database/errors.ts";
import type { PveClient } from "./client.ts";
import { isFree, listResourcesLately } from "./cluster.ts";

/** The step that makes a VM under the number. */
export const CLONE = "pve.clone";

/** More orders than this do not ask for a number in the same moment. */
const MAX_TRIES = 200;

interface ForOperation {
  database: Queryable;
  operationId: string;
}

/** The VMID that this operation may make and remove; null when it has none. */
export async function reservedVmid(
  client: PveClient,
  { database, operationId }: ForOperation,
): Promise<number | null> {
  const rows = await database.sql<{ vmid: number }>(
    `SELECT r.vmid FROM vmid_reservations r JOIN clouds c ON c.id = r.cloud_id
     WHERE c.name = $1 AND r.operation_id = $2 AND r.spoilt_at IS NULL`,
    [client.cloud, operationId],
  );
  return rows[0]?.vmid ?? null;
}

/** The operation that a VMID was given to; null when it is none of ours. */
export async function holderOf(client: PveClient, database: Queryable, vmid: number): Promise<string | null> {
  const rows = await database.sql<{ operationId: string }>(
    `SELECT r.operation_id AS "operationId" FROM vmid_reservations r JOIN clouds c ON c.id = r.cloud_id
     WHERE c.name = $1 AND r.vmid = $2 AND r.spoilt_at IS NULL`,
    [client.cloud, vmid],
  );
  return rows[0]?.operationId ?? null;
}

interface OwnNumber {
  vmid: number;
  /** By the database's clock. */
  since: Date;
  /** When a rebuild had put another one in its place; null for the one that it has now. */
  until: Date | null;
}

/** The VMID of a server and those that it had before it was rebuilt, with the time in which they were its. */
export async function ownNumbers(
  client: PveClient,
  { database, operation }: { database: Queryable; operation: { id: string } },
  vmid: number,
): Promise<OwnNumber[]> {
  return database.sql<OwnNumber>(
    `SELECT r.vmid, r.created_at AS since, CASE WHEN r.vmid = $2 THEN NULL ELSE COALESCE(
         (SELECT min(o.finished_at) FROM vmid_reservations h JOIN operations o ON o.id = h.operation_id
           WHERE h.cloud_id = r.cloud_id AND h.created_at > r.created_at AND o.output->>'switched' = 'true'
             AND o.server_id = own.server_id AND (own.action NOT IN ('server.rebuild', 'server.reinstall')
               OR own.output->>'switched' = 'true')),
         own.finished_at) END AS until
     FROM vmid_reservations r JOIN clouds c ON c.id = r.cloud_id LEFT JOIN operations own ON own.id = r.operation_id
     WHERE c.name = $1 AND r.spoilt_at IS NULL AND (r.vmid = $2 OR r.operation_id IN (
       SELECT o.id FROM operations o JOIN operations self ON self.server_id = o.server_id WHERE self.id = $3))
     ORDER BY r.vmid`,
    [client.cloud, vmid, operation.id],
  );
}

/**
 * A stranger has it: it is not ours any more, and nobody of ours gets it again. Only as the number of this operation: a worker
 * that wakes up late would take what another operation has made under it meanwhile for a stranger's.
 */
export async function spoil(
  client: PveClient,
  { database, operationId }: ForOperation,
  vmid: number,
): Promise<void> {
  client.log.warn({ cloud: client.cloud, vmid }, "somebody else uses a VMID of our range");
  await database.sql(
    `UPDATE vmid_reservations r SET spoilt_at = clock() FROM clouds c
     WHERE c.id = r.cloud_id AND c.name = $1 AND r.vmid = $2 AND r.operation_id = $3 AND r.spoilt_at IS NULL`,
    [client.cloud, vmid, operationId],
  );
}

/** A free one, reserved. Throws `capacity` when the range is used up. */
export async function reserveVmid(
  client: PveClient,
  { database, operationId }: ForOperation,
  signal: AbortSignal,
): Promise<number> {
  const { guests } = await listResourcesLately(client, signal);
  const used = new Set(guests.map((guest) => guest.vmid));
  for (let attempt = 0; attempt < MAX_TRIES; attempt += 1) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other: each sees what the others took
    const vmid = await takeNext(client, { database, operationId }, used);
    // Another one may have been faster; the next look sees it.
    if (vmid === null) continue;
    // The list shows only what the credential sees; this asks for all.
    // oxlint-disable-next-line no-await-in-loop
    if (await isFree(client, vmid, signal)) return vmid;
    // oxlint-disable-next-line no-await-in-loop
    await spoil(client, { database, operationId }, vmid);
    used.add(vmid);
  }
  throw new ServiceError("capacity", "No free number for the server could be reserved. Try again later.", {
    facts: { cloud: client.cloud },
    staffDetail: `${client.cloud}: ${MAX_TRIES} VMIDs in a row were taken by others`,
  });
}

async function takeNext(
  client: PveClient,
  { database, operationId }: ForOperation,
  used: ReadonlySet<number>,
): Promise<number | null> {
  const own = await reservedVmid(client, { database, operationId });
  if (own !== null) return own;
  const next = await nextOf(client, database, used);
  if (next === null) {
    const released = await takeReleased(client, { database, operationId }, used);
    if (released !== null) return released;
  }
  const candidate = next ?? (await gapOf(client, database, used));
  const rows = await database.sql<{ vmid: number }>(
    `INSERT INTO vmid_reservations (cloud_id, vmid, operation_id)
     SELECT id, $2, $3 FROM clouds WHERE name = $1 ON CONFLICT DO NOTHING RETURNING vmid`,
    [client.cloud, candidate, operationId],
  );
  return rows[0]?.vmid ?? null;
}

/** Upwards, because a number that was somebody's still names their backups. Null: the end is reached. */
async function nextOf(
  client: PveClient,
  database: Queryable,
  used: ReadonlySet<number>,
): Promise<number | null> {
  const [from, to] = client.options.vmidRange;
  const rows = await database.sql<{ last: number | null }>(
    `SELECT max(r.vmid) AS last FROM vmid_reservations r JOIN clouds c ON c.id = r.cloud_id
     WHERE c.name = $1 AND r.vmid BETWEEN $2 AND $3`,
    [client.cloud, from, to],
  );
  let next = Math.max(from, (rows[0]?.last ?? 0) + 1);
  while (next <= to && used.has(next)) next += 1;
  return next <= to ? next : null;
}

/**
 * SQL: a number under which nothing was ever asked for. Its operation has ended, so nothing of it can begin any more, and its
 * step that makes the VM had not begun: its first intent is on record before its first call can be sent.
 */
const isReleased = `r.spoilt_at IS NULL AND o.state IN ('failed', 'cancelled')
  AND EXISTS (SELECT FROM operation_steps t WHERE t.operation_id = o.id AND t.name = '${CLONE}')
  AND NOT EXISTS (SELECT FROM operation_steps t WHERE t.operation_id = o.id AND t.name = '${CLONE}'
    AND (t.attempt > 0 OR t.issued_at IS NOT NULL OR t.reference IS NOT NULL))`;

/** The number of an order that was cancelled, or failed, before it made anything; null when there is none. */
async function takeReleased(
  client: PveClient,
  { database, operationId }: ForOperation,
  used: ReadonlySet<number>,
): Promise<number | null> {
  const [from, to] = client.options.vmidRange;
  try {
    const rows = await database.sql<{ vmid: number }>(
      `WITH released AS (
         SELECT r.cloud_id, r.vmid FROM vmid_reservations r JOIN clouds c ON c.id = r.cloud_id
           JOIN operations o ON o.id = r.operation_id
         WHERE c.name = $1 AND r.vmid BETWEEN $3 AND $4 AND NOT r.vmid = ANY($5::int[]) AND ${isReleased}
         ORDER BY r.vmid LIMIT 1 FOR UPDATE OF r SKIP LOCKED)
       UPDATE vmid_reservations r SET operation_id = $2, created_at = clock() FROM released
       WHERE r.cloud_id = released.cloud_id AND r.vmid = released.vmid RETURNING r.vmid`,
      [client.cloud, operationId, from, to, [...used]],
    );
    return rows[0]?.vmid ?? null;
  } catch (error) {
    if (!isUniqueViolation(error)) throw error;
    // Another worker has just reserved one for the same operation.
    return reservedVmid(client, { database, operationId });
  }
}

/** One below the end that nobody ever took. Throws `capacity` when there is none. */
async function gapOf(client: PveClient, database: Queryable, used: ReadonlySet<number>): Promise<number> {
  const [from, to] = client.options.vmidRange;
  const gaps = await database.sql<{ vmid: number }>(
    `SELECT g AS vmid FROM generate_series($2::int, $3::int) g
     WHERE NOT g = ANY($4::int[]) AND NOT EXISTS (SELECT FROM vmid_reservations r JOIN clouds c ON c.id = r.cloud_id
       WHERE c.name = $1 AND r.vmid = g) ORDER BY g LIMIT 1`,
    [client.cloud, from, to, [...used]],
  );
  const gap = gaps[0]?.vmid;
  if (gap !== undefined) return gap;
  throw new ServiceError(
    "capacity",
    "All numbers for servers of this cloud are used up. Our operators must widen the range in the configuration.",
    {
      facts: { cloud: client.cloud },
      staffDetail: `${client.cloud}: vmidRange ${from}-${to} has no free VMID left; widen clouds.${client.cloud}.vmidRange`,
    },
  );
}

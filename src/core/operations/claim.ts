/** Who may run an operation: a lease that expires, and a fence that makes a late writer's writes hit nothing. */
import type { Database, Transaction } from "../../database/client.ts";
import { isUniqueViolation } from "../../database/errors.ts";
import { type OperationRow, operationColumns } from "./rows.ts";
import { claimableStates } from "./state.ts";

export const leaseMs = 15_000;
export const heartbeatMs = 5_000;

export interface Claim {
  operationId: string;
  fence: number;
  worker: string;
}

/** Somebody else runs it now, or it was moved on by a person. The holder stops without a trace. */
export class LeaseLost extends Error {
  constructor(claim: Claim) {
    super(`the lease on operation ${claim.operationId} was lost (fence ${claim.fence})`);
    this.name = "LeaseLost";
  }
}

/**
 * Takes the next runnable operation: due, not leased, and with a place on its cloud. `null` when there is none.
 * Oldest due first; a cloud without a free place holds up nobody but its own.
 */
export async function claimNext(database: Database, worker: string): Promise<Claim | null> {
  const full: string[] = [];
  for (;;) {
    try {
      const found = await takeDue(database, worker, full);
      if (found === null) return null;
      const { id, fence, cloudId } = found;
      if (fence !== null) return { operationId: id, fence, worker };
      // Two workers saw the same free place, and the other one has it: nothing was claimed. Look past that cloud.
      if (cloudId !== null) full.push(cloudId);
    } catch (error) {
      // It had been given its place since this statement began: nothing was claimed. Look again.
      if (!isUniqueViolation(error, "slots_operation_id_key")) throw error;
    }
  }
}

/** One statement, and so one transaction: the place is taken with the claim or not at all. Without a fence: neither was. */
async function takeDue(database: Database, worker: string, fullClouds: string[]) {
  const rows = await database.sql<{ id: string; cloudId: string | null; fence: number | null }>(
    `WITH due AS (
       SELECT o.id, o.cloud_id,
         o.cloud_id IS NULL OR EXISTS (SELECT 1 FROM slots s WHERE s.operation_id = o.id) AS has_place
       FROM operations o
       WHERE o.next_run_at <= clock() AND (o.lease_until IS NULL OR o.lease_until < clock())
         AND o.state = ANY($2::text[])
         AND (o.cloud_id IS NULL
           OR EXISTS (SELECT 1 FROM slots s WHERE s.operation_id = o.id)
           OR (o.cloud_id <> ALL($3::uuid[])
             AND EXISTS (SELECT 1 FROM slots s WHERE s.cloud_id = o.cloud_id AND s.operation_id IS NULL)))
       ORDER BY o.next_run_at LIMIT 1 FOR UPDATE OF o SKIP LOCKED),
     free AS (
       SELECT s.cloud_id, s.n FROM due JOIN slots s ON s.cloud_id = due.cloud_id
       WHERE NOT due.has_place AND s.operation_id IS NULL ORDER BY s.n LIMIT 1 FOR UPDATE OF s SKIP LOCKED),
     taken AS (
       UPDATE slots s SET operation_id = due.id FROM due, free WHERE s.cloud_id = free.cloud_id AND s.n = free.n
       RETURNING s.n),
     claimed AS (
       UPDATE operations o SET fence = o.fence + 1, lease_by = $1,
         lease_until = clock() + make_interval(secs => $4::float8 / 1000)
       FROM due WHERE o.id = due.id AND (due.has_place OR EXISTS (SELECT 1 FROM taken))
       RETURNING o.fence)
     SELECT due.id, due.cloud_id AS "cloudId", (SELECT fence FROM claimed) AS fence FROM due`,
    [worker, [...claimableStates], fullClouds, leaseMs],
  );
  return rows[0] ?? null;
}

export async function freeSlot(tx: Transaction, operationId: string): Promise<void> {
  await tx.sql(`UPDATE slots SET operation_id = NULL WHERE operation_id = $1`, [operationId]);
}

/** One transaction under the fence: throws LeaseLost and writes nothing when the claim is no longer ours. */
export async function fenced<T>(
  database: Database,
  claim: Claim,
  work: (tx: Transaction, operation: OperationRow) => Promise<T>,
): Promise<T> {
  return database.transaction(async (tx) => {
    const rows = await tx.sql<OperationRow>(
      `SELECT ${operationColumns} FROM operations o
       WHERE o.id = $1 AND o.fence = $2 AND o.lease_by = $3 FOR UPDATE`,
      [claim.operationId, claim.fence, claim.worker],
    );
    const operation = rows[0];
    if (operation === undefined) throw new LeaseLost(claim);
    return work(tx, operation);
  });
}

/** Ends the claim and says when to look again. Compensating operations keep their state while they wait. */
export async function park(
  tx: Transaction,
  operationId: string,
  when: { afterMs: number } | { at: Date },
): Promise<void> {
  const due = "at" in when ? "$2::timestamptz" : "clock() + make_interval(secs => $2::float8 / 1000)";
  await tx.sql(
    `UPDATE operations SET state = CASE WHEN state = 'compensating' THEN state ELSE 'waiting' END, next_run_at = ${due},
       lease_by = NULL, lease_until = NULL, version = version + 1 WHERE id = $1`,
    [operationId, "at" in when ? when.at : when.afterMs],
  );
}

/** Keeps the lease while a call is in flight; aborts the signal when it is lost. Returns the function that stops it. */
export function keepLease(database: Database, claim: Claim, lost: AbortController): () => void {
  let running = false;
  const timer = setInterval(() => {
    if (running) return;
    running = true;
    database
      .sql(
        `UPDATE operations SET lease_until = clock() + make_interval(secs => $4::float8 / 1000)
         WHERE id = $1 AND fence = $2 AND lease_by = $3 RETURNING id`,
        [claim.operationId, claim.fence, claim.worker, leaseMs],
      )
      .then((rows) => {
        if (rows.length === 0) lost.abort(new LeaseLost(claim));
      })
      // The database is away: the lease runs out by itself, and the next write fails under the fence.
      .catch(() => undefined)
      .finally(() => {
        running = false;
      });
  }, heartbeatMs);
  timer.unref();
  return () => clearInterval(timer);
}

/** For a database that only this process can have open: whoever held a lease is gone. */
export async function releaseLeases(database: Database): Promise<void> {
  await database.sql(
    `UPDATE operations SET lease_by = NULL, lease_until = NULL WHERE lease_until IS NOT NULL`,
  );
}

/** Who may run an operation: a lease that expires, and a fence that makes a late writer's writes hit nothing. */
import type { Database, Transaction } from "../../database/client.ts";
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

class NoSlot extends Error {}

/**
 * Takes the next runnable operation: due, not leased, and with a place on its cloud. `null` when there is none.
 * Oldest due first; a cloud without a free place holds up nobody but its own.
 */
export async function claimNext(database: Database, worker: string): Promise<Claim | null> {
  const full: string[] = [];
  for (;;) {
    let cloudId: string | null = null;
    try {
      return await database.transaction(async (tx) => {
        const claimed = await takeDue(tx, worker, full);
        if (claimed === null) return null;
        cloudId = claimed.cloudId;
        if (cloudId !== null && !(await takeSlot(tx, cloudId, claimed.id))) throw new NoSlot();
        return { operationId: claimed.id, fence: claimed.fence, worker };
      });
    } catch (error) {
      // Two workers saw the same free place. The claim was rolled back with the transaction; look past that cloud.
      if (!(error instanceof NoSlot) || cloudId === null) throw error;
      full.push(cloudId);
    }
  }
}

async function takeDue(tx: Transaction, worker: string, fullClouds: string[]) {
  const rows = await tx.sql<{ id: string; fence: number; cloudId: string | null }>(
    `WITH due AS (
       SELECT o.id FROM operations o
       WHERE o.next_run_at <= clock() AND (o.lease_until IS NULL OR o.lease_until < clock())
         AND o.state = ANY($2::text[])
         AND (o.cloud_id IS NULL
           OR EXISTS (SELECT 1 FROM slots s WHERE s.operation_id = o.id)
           OR (o.cloud_id <> ALL($3::uuid[])
             AND EXISTS (SELECT 1 FROM slots s WHERE s.cloud_id = o.cloud_id AND s.operation_id IS NULL)))
       ORDER BY o.next_run_at LIMIT 1 FOR UPDATE OF o SKIP LOCKED)
     UPDATE operations o SET fence = o.fence + 1, lease_by = $1,
       lease_until = clock() + make_interval(secs => $4::float8 / 1000)
     FROM due WHERE o.id = due.id
     RETURNING o.id, o.fence, o.cloud_id AS "cloudId"`,
    [worker, [...claimableStates], fullClouds, leaseMs],
  );
  return rows[0] ?? null;
}

async function takeSlot(tx: Transaction, cloudId: string, operationId: string): Promise<boolean> {
  const held = await tx.sql(`SELECT 1 FROM slots WHERE operation_id = $1`, [operationId]);
  if (held.length > 0) return true;
  const taken = await tx.sql(
    `UPDATE slots SET operation_id = $2 WHERE (cloud_id, n) = (
       SELECT cloud_id, n FROM slots WHERE cloud_id = $1 AND operation_id IS NULL ORDER BY n LIMIT 1 FOR UPDATE SKIP LOCKED)
     RETURNING n`,
    [cloudId, operationId],
  );
  return taken.length > 0;
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

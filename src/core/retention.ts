/** What is kept only for a time. Events, operations and audit entries are not here: they stay. */
import type { Database } from "../database/client.ts";

export interface Retention {
  syncRunsDays: number;
  deliveriesDays: number;
}

const BATCH = 5_000;

/** Deletes what is older; in batches, so that no transaction is long. Returns how many rows. */
export async function dropOldRows(
  database: Database,
  { syncRunsDays, deliveriesDays }: Retention,
): Promise<number> {
  const runs = await inBatches(() =>
    database.sql(
      `DELETE FROM sync_runs WHERE id IN (SELECT id FROM sync_runs
        WHERE state <> 'running' AND finished_at < clock() - $1::int * interval '1 day' LIMIT ${BATCH}) RETURNING id`,
      [syncRunsDays],
    ),
  );
  // Attempts go with their delivery. One that is still pending is not old, whatever its age.
  const deliveries = await inBatches(() =>
    database.sql(
      `DELETE FROM deliveries WHERE id IN (SELECT d.id FROM deliveries d JOIN events e ON e.id = d.event_id
        WHERE d.state <> 'pending' AND e.occurred_at < clock() - $1::int * interval '1 day' LIMIT ${BATCH}) RETURNING id`,
      [deliveriesDays],
    ),
  );
  return runs + deliveries;
}

async function inBatches(drop: () => Promise<unknown[]>): Promise<number> {
  let total = 0;
  for (;;) {
    const { length } = await drop();
    total += length;
    if (length < BATCH) return total;
  }
}

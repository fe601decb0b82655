/** Rows of snapshots follow what the cloud lists: they are never the truth themselves. */
import type { Queryable } from "../../database/client.ts";
import { newId } from "../../database/id.ts";
import type { RemoteSnapshot } from "../cloud.ts";

/** `snapshots` are all that the server has. */
export async function replaceSnapshots(
  database: Queryable,
  { serverId, snapshots }: { serverId: string; snapshots: readonly RemoteSnapshot[] },
): Promise<void> {
  await database.sql(`DELETE FROM snapshots WHERE server_id = $1 AND NOT name = ANY($2::text[])`, [
    serverId,
    snapshots.map(({ name }) => name),
  ]);
  if (snapshots.length === 0) return;
  await database.sql(
    `INSERT INTO snapshots (id, server_id, name, description, with_memory, taken_at, synced_at)
     SELECT id, $1, name, description, with_memory, taken_at, clock()
       FROM jsonb_to_recordset($2::jsonb) AS r(id uuid, name text, description text, with_memory boolean, taken_at timestamptz)
     ON CONFLICT (server_id, name) DO UPDATE SET description = excluded.description, with_memory = excluded.with_memory,
       taken_at = excluded.taken_at, synced_at = excluded.synced_at`,
    [
      serverId,
      JSON.stringify(
        snapshots.map((one) => ({
          id: newId(),
          name: one.name,
          description: one.description,
          with_memory: one.withMemory,
          taken_at: one.takenAt,
        })),
      ),
    ],
  );
}

/** Rows of snapshots follow what the cloud lists: they are never the truth themselves. */
import type { Queryable } from "../../database/client.ts";
import { newId } from "../../database/id.ts";
import type { RemoteSnapshot } from "../cloud.ts";
import { ServiceError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { shortened } from "../option-values.ts";
import { named } from "./change.ts";
import type { ServerRow } from "./find.ts";

export interface SnapshotRow {
  name: string;
  description: string;
  withMemory: boolean;
  takenAt: Date | null;
  syncedAt: Date;
}

/** Oldest first. */
export async function listSnapshots(database: Queryable, serverId: string): Promise<SnapshotRow[]> {
  return database.sql<SnapshotRow>(
    `SELECT name, description, with_memory AS "withMemory", taken_at AS "takenAt", synced_at AS "syncedAt"
     FROM snapshots WHERE server_id = $1 ORDER BY taken_at NULLS FIRST, name`,
    [serverId],
  );
}

/** Throws `not_found` with the nearest one of this server. */
export async function findSnapshot(
  database: Queryable,
  server: Pick<ServerRow, "id" | "name" | "publicId">,
  typed: string,
): Promise<SnapshotRow> {
  const rows = await listSnapshots(database, server.id);
  const lower = typed.toLowerCase();
  const alike = rows.filter(({ name }) => name.toLowerCase() === lower);
  // Clouds tell upper from lower case, people mostly do not.
  const found = alike.find(({ name }) => name === typed) ?? (alike.length === 1 ? alike[0] : undefined);
  if (found !== undefined) return found;
  const names = rows.map(({ name }) => name);
  const guess = nearest(typed, names);
  const has =
    names.length === 0 ? "It has none that we know of." : `It has ${names.slice(0, 10).join(", ")}.`;
  throw new ServiceError(
    "not_found",
    `${named(server)} has no snapshot "${shortened(typed)}". ${guess === undefined ? has : `Did you mean ${guess}?`}`,
    { facts: { option: "snapshot" } },
  );
}

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

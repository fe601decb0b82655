/** Rows of snapshots follow the cloud: from the list of servers where it brings them, else asked for where we know of some. */
import type { RemoteServer, RemoteSnapshot } from "../cloud.ts";
import { isServiceError, problemOf } from "../errors.ts";
import { replaceSnapshots } from "../servers/snapshots.ts";
import { type SyncPass, writeServers } from "./pass.ts";

interface Known {
  id: string;
  externalId: string;
}

interface Seen extends Known {
  snapshots: readonly RemoteSnapshot[];
}

/**
 * `unworked` is SQL about a server `s`: no operation is at work on it or was since the list was asked for; $1 and $2 are its
 * parameters.
 */
export async function syncSnapshots(
  pass: SyncPass,
  {
    known,
    remote,
    unworked,
  }: {
    known: readonly Known[];
    remote: ReadonlyMap<string, RemoteServer>;
    unworked: { sql: string; parameters: readonly [unknown, unknown] };
  },
): Promise<void> {
  const seen = await lookAt(pass, known, remote);
  await writeServers(pass, seen, async (tx, some) => {
    const free = await tx.sql<{ id: string }>(
      `SELECT s.id FROM servers s WHERE s.id = ANY($3::uuid[]) AND ${unworked.sql} ORDER BY s.id FOR UPDATE OF s`,
      [...unworked.parameters, some.map(({ id }) => id)],
    );
    for (const { id } of free) {
      const snapshots = some.find((one) => one.id === id)?.snapshots ?? [];
      await replaceSnapshots(tx, { serverId: id, snapshots });
    }
    return free.length;
  });
}

/** Of most servers nothing is asked: they have none, and none are known. */
async function lookAt(
  pass: SyncPass,
  known: readonly Known[],
  remote: ReadonlyMap<string, RemoteServer>,
): Promise<Seen[]> {
  const { snapshots } = pass.cloud;
  if (snapshots === undefined) return [];
  const rows = await pass.database.sql<{ id: string }>(
    `SELECT DISTINCT server_id AS id FROM snapshots WHERE server_id = ANY($1::uuid[])`,
    [known.map(({ id }) => id)],
  );
  const some = new Set(rows.map(({ id }) => id));
  const seen: Seen[] = [];
  for (const { id, externalId } of known) {
    const now = remote.get(externalId);
    if (now?.snapshots !== undefined) seen.push({ id, externalId, snapshots: now.snapshots });
    else if (now !== undefined && some.has(id)) {
      try {
        seen.push({ id, externalId, snapshots: await snapshots.list(externalId) });
      } catch (error) {
        if (isServiceError(error, "cloud_not_found")) continue;
        pass.counts.errors.push(
          `Which snapshots the server ${externalId} has is not known: ${problemOf(error).message}`,
        );
      }
    }
  }
  return seen;
}

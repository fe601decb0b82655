import type { Queryable } from "../../database/client.ts";
import type { RemoteServer, ServerState } from "../cloud.ts";
import { recordEvent } from "../operations/events.ts";

interface Before {
  state: ServerState;
  externalId: string | null;
}

const namedTransitions: Partial<Record<ServerState, string>> = {
  building: "server.building",
  active: "server.active",
  error: "server.error",
};

/** Sets the state and, when it moved, records `server.state.changed` (and the named event of a first build). */
export async function setServerState(
  database: Queryable,
  change: { serverId: string; state: ServerState; operationId: string | null },
): Promise<void> {
  const rows = await database.sql<{ state: ServerState }>(
    `SELECT state FROM servers WHERE id = $1 FOR UPDATE`,
    [change.serverId],
  );
  const before = rows[0]?.state;
  if (before === undefined || before === change.state) return;
  await database.sql(`UPDATE servers SET state = $2 WHERE id = $1`, [change.serverId, change.state]);
  await recordStateChange(database, { ...change, before });
}

/** Brings a server's row in line with what its cloud says, and records what changed. */
export async function applyObserved(
  database: Queryable,
  seen: { serverId: string; remote: RemoteServer; operationId: string | null },
): Promise<void> {
  const { serverId, remote } = seen;
  const rows = await database.sql<Before>(
    `SELECT state, external_id AS "externalId" FROM servers WHERE id = $1 FOR UPDATE`,
    [serverId],
  );
  const before = rows[0];
  if (before === undefined) throw new Error(`no server ${serverId} to observe`);
  if (before.externalId !== null && before.externalId !== remote.externalId) {
    throw new Error(`server ${serverId} is ${before.externalId} in its cloud, not ${remote.externalId}`);
  }
  await database.sql(
    `UPDATE servers SET external_id = $2, state = $3, provider_status = $4, vcpus = COALESCE(NULLIF($5::int, 0), vcpus),
       memory_mib = COALESCE(NULLIF($6::int, 0), memory_mib), disk_gib = COALESCE(NULLIF($7::int, 0), disk_gib),
       addresses = $8, provider_data = provider_data || $9::jsonb, synced_at = clock(), missing_since = NULL WHERE id = $1`,
    [
      serverId,
      remote.externalId,
      remote.state,
      remote.providerStatus,
      remote.vcpus,
      remote.memoryMib,
      remote.diskGib,
      remote.addresses,
      remote.data ?? {},
    ],
  );
  if (before.state !== remote.state) {
    await recordStateChange(database, { ...seen, state: remote.state, before: before.state });
  }
}

async function recordStateChange(
  database: Queryable,
  change: { serverId: string; state: ServerState; before: ServerState; operationId: string | null },
): Promise<void> {
  const base = { serverId: change.serverId, operationId: change.operationId };
  const named = namedTransitions[change.state];
  if (named !== undefined && (change.before === "pending" || change.before === "building")) {
    await recordEvent(database, { ...base, type: named });
  }
  await recordEvent(database, {
    ...base,
    type: "server.state.changed",
    data: { from: change.before, to: change.state },
  });
}

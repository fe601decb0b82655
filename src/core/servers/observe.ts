import type { Queryable } from "../../database/client.ts";
import type { RemoteServer, ServerState } from "../cloud.ts";
import { recordEvent } from "../operations/events.ts";
import { isAnother } from "./identity.ts";
import { followSize, type Sold, soldColumns } from "./size-change.ts";

interface Before extends Sold {
  state: ServerState;
  externalId: string | null;
  deleteProtected: boolean;
  data: Record<string, unknown>;
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

/** Its cloud has it no more, or somebody else under its id; it stays ours until somebody decides. */
export async function setMissing(
  database: Queryable,
  { serverId, operationId }: { serverId: string; operationId: string | null },
): Promise<void> {
  await database.sql(
    `UPDATE servers SET missing_since = COALESCE(missing_since, clock()), synced_at = clock(), provider_status = NULL
     WHERE id = $1`,
    [serverId],
  );
  await setServerState(database, { serverId, state: "missing", operationId });
}

interface Observed {
  serverId: string;
  remote: RemoteServer;
  operationId: string | null;
  /** The external id that `remote` takes over from; what the provider kept of that one is forgotten. */
  replaces?: string | undefined;
}

/** Brings a server's row in line with what its cloud says, and records what changed. */
export async function applyObserved(database: Queryable, seen: Observed): Promise<void> {
  const { serverId, remote, replaces } = seen;
  const rows = await database.sql<Before>(
    `SELECT state, external_id AS "externalId", delete_protected AS "deleteProtected", provider_data AS data, ${soldColumns}
     FROM servers WHERE id = $1 FOR UPDATE`,
    [serverId],
  );
  const before = rows[0];
  if (before === undefined) throw new Error(`no server ${serverId} to observe`);
  const known = [null, remote.externalId, replaces];
  if (!known.includes(before.externalId)) {
    throw new Error(`server ${serverId} is ${before.externalId} in its cloud, not ${remote.externalId}`);
  }
  if (before.externalId === remote.externalId && isAnother(before.data, remote)) {
    await setMissing(database, seen);
    return;
  }
  await database.sql(
    `UPDATE servers SET external_id = $2, state = $3, provider_status = $4, vcpus = COALESCE(NULLIF($5::int, 0), vcpus),
       memory_mib = COALESCE(NULLIF($6::int, 0), memory_mib), disk_gib = COALESCE(NULLIF($7::int, 0), disk_gib),
       addresses = COALESCE($8::text[], addresses), provider_data = CASE WHEN external_id IS DISTINCT FROM $2 THEN '{}'::jsonb ELSE provider_data END || $9::jsonb,
       delete_protected = COALESCE($10::boolean, delete_protected), synced_at = clock(), missing_since = NULL WHERE id = $1`,
    [
      serverId,
      remote.externalId,
      remote.state,
      remote.providerStatus,
      remote.vcpus,
      remote.memoryMib,
      remote.diskGib,
      remote.addresses ?? null,
      remote.data ?? {},
      remote.deleteProtected ?? null,
    ],
  );
  const { operationId } = seen;
  await recordProtection(database, {
    serverId,
    operationId,
    before: before.deleteProtected,
    now: remote.deleteProtected,
  });
  await followSize(database, {
    serverId,
    operationId,
    before,
    now: {
      vcpus: remote.vcpus || before.vcpus,
      memoryMib: remote.memoryMib || before.memoryMib,
      diskGib: remote.diskGib || before.diskGib,
    },
    state: remote.state,
    sizeWaits: sizeWaitsOf(remote),
    isReplaced: before.externalId !== null && before.externalId !== remote.externalId,
  });
  if (before.state !== remote.state) {
    await recordStateChange(database, { serverId, operationId, state: remote.state, before: before.state });
  }
}

/** As its cloud was asked for it; absent when it was not. */
function sizeWaitsOf({ data = {} }: RemoteServer): boolean | undefined {
  return typeof data["sizeWaits"] === "boolean" ? data["sizeWaits"] : undefined;
}

/** Whoever changed it: an operation, or somebody in the cloud. `now`: absent when nothing was said of it. */
export async function recordProtection(
  database: Queryable,
  change: {
    serverId: string;
    operationId: string | null;
    before: boolean | undefined;
    now: boolean | undefined;
  },
): Promise<void> {
  const { serverId, operationId, before, now } = change;
  if (before === undefined || now === undefined || before === now) return;
  const data = { protected: now };
  await recordEvent(database, { type: "server.protection.changed", serverId, operationId, data });
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

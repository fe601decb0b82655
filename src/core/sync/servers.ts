/**
 * Servers: rows of ours are brought in line with what the cloud says, unless an operation is at work on them or was since
 * the list was asked for. Nothing is adopted and nothing is deleted: a server that is gone becomes `missing`.
 */
import { isDeepStrictEqual } from "node:util";
import type { Transaction } from "../../database/client.ts";
import { storable } from "../../database/storable.ts";
import type { RemoteServer, ServerState } from "../cloud.ts";
import { isServiceError, problemOf } from "../errors.ts";
import { liveStates } from "../operations/state.ts";
import { isAnother } from "../servers/identity.ts";
import { applyObserved, setMissing } from "../servers/observe.ts";
import { believe, type LateTwin, listed, type SyncPass, writeServers } from "./pass.ts";
import { syncSnapshots } from "./snapshots.ts";

interface Known {
  id: string;
  externalId: string;
  state: ServerState;
  providerStatus: string | null;
  vcpus: number;
  memoryMib: number;
  diskGib: number;
  addresses: string[];
  deleteProtected: boolean;
  data: Record<string, unknown>;
}

const columns = `s.id, s.external_id AS "externalId", s.state, s.provider_status AS "providerStatus", s.vcpus,
  s.memory_mib AS "memoryMib", s.disk_gib AS "diskGib", s.addresses, s.delete_protected AS "deleteProtected",
  s.provider_data AS data`;

/** SQL: nobody knows better than the list. $1 is the live states, $2 when the list was asked for. */
const unworked = `NOT EXISTS (SELECT FROM operations o WHERE (o.lock_key = 'server:' || s.id OR o.server_id = s.id)
    AND (o.state = ANY($1::text[]) OR o.finished_at >= $2))`;
const untouched = `s.deleted_at IS NULL AND s.state <> 'deleted' AND s.external_id IS NOT NULL
  AND (s.synced_at IS NULL OR s.synced_at <= $2) AND ${unworked}`;

export async function syncServers(pass: SyncPass): Promise<void> {
  const servers = await listed(pass, () => pass.cloud.listServers());
  pass.counts.seen = servers.length;
  const remote = new Map<string, RemoteServer>();
  for (const server of servers) {
    if (typeof server.externalId !== "string" || server.externalId === "") {
      pass.counts.errors.push("A server without an id was listed.");
    } else if (server.state !== "deleted") {
      remote.set(server.externalId, server);
      if (server.state === "unknown" && server.fault !== undefined) {
        pass.counts.errors.push(`What the server ${server.externalId} is could not be told: ${server.fault}`);
      }
    }
  }
  const known = await pass.database.sql<Known>(
    `SELECT ${columns} FROM servers s WHERE s.cloud_id = $3 AND ${untouched} ORDER BY s.id`,
    [[...liveStates], pass.listedAt, pass.cloudId],
  );
  await updateChanged(pass, known, remote);
  const parameters = [[...liveStates], pass.listedAt] as const;
  await syncSnapshots(pass, { known, remote, unworked: { sql: unworked, parameters } });
  pass.counts.lateTwins.push(...(await findLateTwins(pass, [...remote.values()])));
  await noteMissing(
    pass,
    known.filter((server) => !remote.has(server.externalId) && server.state !== "missing"),
    {
      listed: servers.length,
      known: known.filter((server) => server.state !== "missing").length,
    },
  );
}

async function updateChanged(
  pass: SyncPass,
  known: readonly Known[],
  remote: ReadonlyMap<string, RemoteServer>,
) {
  const changed: Known[] = [];
  const same: string[] = [];
  for (const server of known) {
    const now = remote.get(server.externalId);
    // A cell that is down is listed as UNKNOWN: that says nothing about the server.
    if (now === undefined || now.state === "unknown") continue;
    if (isSame(server, now)) same.push(server.id);
    else changed.push(server);
  }
  pass.counts.updated += await writeServers(pass, changed, async (tx, some) => {
    let updated = 0;
    for (const server of await lockUntouched(tx, pass, some)) {
      const now = remote.get(server.externalId);
      if (now === undefined) continue;
      await applyObserved(tx, { serverId: server.id, remote: now, operationId: null });
      updated += 1;
    }
    return updated;
  });
  if (same.length > 0) {
    await pass.database.sql(
      `UPDATE servers s SET synced_at = clock() WHERE s.id = ANY($3::uuid[]) AND ${untouched}`,
      [[...liveStates], pass.listedAt, same],
    );
  }
}

/** In id order, which is the order in which their events are numbered. */
async function lockUntouched(tx: Transaction, pass: SyncPass, servers: readonly Known[]): Promise<Known[]> {
  return await tx.sql<Known>(
    `SELECT ${columns} FROM servers s WHERE s.id = ANY($3::uuid[]) AND ${untouched} ORDER BY s.id FOR UPDATE OF s`,
    [[...liveStates], pass.listedAt, servers.map(({ id }) => id)],
  );
}

function isSame(server: Known, now: RemoteServer): boolean {
  const size = (kept: number, seen: number) => seen === 0 || kept === seen;
  return (
    // Somebody else's may look just the same.
    !isAnother(server.data, now) &&
    server.state === now.state &&
    server.providerStatus === now.providerStatus &&
    size(server.vcpus, now.vcpus) &&
    size(server.memoryMib, now.memoryMib) &&
    size(server.diskGib, now.diskGib) &&
    server.deleteProtected === (now.deleteProtected ?? server.deleteProtected) &&
    isKept(server.data, now.data ?? {}) &&
    server.addresses.toSorted().join() === (now.addresses ?? server.addresses).toSorted().join()
  );
}

/** A server may be on another node by now, and be all the same otherwise. What was not seen this time stays as it is. */
function isKept(kept: Readonly<Record<string, unknown>>, seen: Readonly<Record<string, unknown>>): boolean {
  return Object.entries(seen).every(
    ([key, value]) => value === undefined || isDeepStrictEqual(kept[key], value),
  );
}

/** Lists skip servers of an unreachable cell silently, so each missing one is asked for by itself. */
async function noteMissing(
  pass: SyncPass,
  missing: readonly Known[],
  sizes: { listed: number; known: number },
): Promise<void> {
  if (missing.length === 0) return;
  // With force a person says that it may all be gone; each one is still confirmed.
  if (!pass.force) believe(pass, { ...sizes, missing: missing.length });
  const gone: Known[] = [];
  for (const server of missing) {
    try {
      const now = await pass.cloud.inspect(server.externalId);
      if (now.state === "deleted") gone.push(server);
    } catch (error) {
      if (isServiceError(error, "cloud_not_found")) gone.push(server);
      else
        pass.counts.errors.push(
          `Whether the server ${server.externalId} still exists is not known: ${problemOf(error).message}`,
        );
    }
  }
  pass.counts.missing += await writeServers(pass, gone, async (tx, some) => {
    const untouchedOnes = await lockUntouched(tx, pass, some);
    for (const server of untouchedOnes) await setMissing(tx, { serverId: server.id, operationId: null });
    return untouchedOnes.length;
  });
}

const MARKER = /^op=([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\.\d+$/;

/**
 * Marked by us, but neither a row's server nor the work of an operation that is or was just now under way, nor what such a one
 * is about to delete because another server has taken its place.
 */
async function findLateTwins(pass: SyncPass, servers: readonly RemoteServer[]): Promise<LateTwin[]> {
  const marked = servers.flatMap(({ externalId, name, markers }) =>
    markers.flatMap((marker) => {
      const operationId = MARKER.exec(marker)?.[1];
      return operationId === undefined ? [] : [{ externalId, name: storable(name), operationId, marker }];
    }),
  );
  if (marked.length === 0) return [];
  const strange = await pass.database.sql<{ n: number }>(
    `SELECT x.n::int AS n FROM unnest($4::text[], $5::uuid[]) WITH ORDINALITY AS x(external_id, operation_id, n)
      WHERE NOT EXISTS (SELECT FROM servers s WHERE s.cloud_id = $3 AND s.external_id = x.external_id AND s.deleted_at IS NULL)
        AND NOT EXISTS (SELECT FROM operations o WHERE o.id = x.operation_id
          AND (o.state = ANY($1::text[]) OR o.finished_at >= $2))
        AND NOT EXISTS (SELECT FROM operations o WHERE o.cloud_id = $3 AND o.output->'retiring'->>'externalId' = x.external_id
          AND (o.state = ANY($1::text[]) OR o.finished_at >= $2))
      ORDER BY x.n`,
    [
      [...liveStates],
      pass.listedAt,
      pass.cloudId,
      marked.map((twin) => twin.externalId),
      marked.map((twin) => twin.operationId),
    ],
  );
  const twins = strange.flatMap(({ n }) => marked[n - 1] ?? []);
  return twins.filter(
    (twin, index) => twins.findIndex(({ externalId }) => externalId === twin.externalId) === index,
  );
}

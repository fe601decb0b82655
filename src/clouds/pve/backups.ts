// Backups of a VM in the cluster's storages. PVE keeps them when the VM is deleted, and names them by its number alone.
import { ServiceError } from "../../core/errors.ts";
import type { PveClient } from "./client.ts";
import { listResources } from "./cluster.ts";
import { type BackupRow, BackupRows, BackupStorages, Permissions } from "./schema.ts";
import type { Upid } from "./upid.ts";
import type { WriteOptions } from "./vm.ts";

export interface Backup {
  node: string;
  storage: string;
  /** local:backup/vzdump-qemu-100000-2026_11_20-10_18_05.vma.zst */
  volid: string;
  /** By the cluster's clock; null when PVE does not say. */
  takenAt: Date | null;
  isProtected: boolean;
}

/**
 * Every backup of these VMIDs on every node: a VM that moved has left some behind. PVE leaves out silently what a credential
 * may not see, so the privileges are looked at first. Throws `cloud_forbidden` when one is missing, `unreachable` when a node
 * or a storage cannot be looked at: a shorter list is never taken for all there is.
 */
export async function listBackups(
  client: PveClient,
  vmids: readonly number[],
  signal: AbortSignal,
): Promise<Backup[]> {
  const granted = await client.read({ path: "/access/permissions", signal }, Permissions);
  for (const vmid of vmids)
    requirePrivilege(client, granted, { path: `/vms/${vmid}`, privilege: "VM.Backup" });
  const backups: Backup[] = [];
  for (const { node, storage } of await storagesOf(client, signal)) {
    requirePrivilege(client, granted, { path: `/storage/${storage}`, privilege: "Datastore.AllocateSpace" });
    for (const vmid of vmids) {
      // oxlint-disable-next-line no-await-in-loop -- one storage after the other: a backup server is slow enough
      backups.push(...(await contentOf(client, { node, storage, vmid }, signal)));
    }
  }
  return backups;
}

interface Place {
  node: string;
  storage: string;
}

/** Where backups may be: the storages of each node, shared ones once. */
async function storagesOf(client: PveClient, signal: AbortSignal): Promise<Place[]> {
  const { nodes } = await listResources(client, signal);
  const away = nodes.find((row) => !row.online);
  if (away !== undefined) throw notSeen(client, `node ${away.node} is offline`);
  const places: Place[] = [];
  const shared = new Set<string>();
  for (const { node } of nodes) {
    const path = `/nodes/${encodeURIComponent(node)}/storage`;
    // oxlint-disable-next-line no-await-in-loop
    const rows = await client.read({ path, parameters: { content: "backup" }, signal }, BackupStorages);
    for (const row of rows) {
      if (shared.has(row.storage)) continue;
      if (row.enabled === false || row.active === false)
        throw notSeen(client, `storage ${row.storage} on ${node} is not active`);
      if (row.shared === true) shared.add(row.storage);
      places.push({ node, storage: row.storage });
    }
  }
  return places;
}

async function contentOf(
  client: PveClient,
  { node, storage, vmid }: Place & { vmid: number },
  signal: AbortSignal,
): Promise<Backup[]> {
  const path = `${pathOf({ node, storage })}/content`;
  const rows = await client.read({ path, parameters: { content: "backup", vmid }, signal }, BackupRows);
  return rows.filter(isOfVm).map((row) => ({
    node,
    storage,
    volid: row.volid,
    takenAt: row.ctime === undefined ? null : new Date(row.ctime * 1000),
    isProtected: row.protected === true,
  }));
}

/** A container's backup is listed under the same number. */
function isOfVm({ subtype }: BackupRow): boolean {
  return subtype === undefined || subtype === "qemu";
}

export function deleteBackup(
  client: PveClient,
  { node, storage, volid }: Backup,
  options: WriteOptions,
): Promise<Upid | null> {
  const path = `${pathOf({ node, storage })}/content/${encodeURIComponent(volid)}`;
  return client.begin({ method: "DELETE", path, ...options });
}

function pathOf({ node, storage }: Place): string {
  return `/nodes/${encodeURIComponent(node)}/storage/${encodeURIComponent(storage)}`;
}

function requirePrivilege(
  client: PveClient,
  granted: Permissions,
  { path, privilege }: { path: string; privilege: string },
): void {
  if (holds(granted, path, privilege)) return;
  throw new ServiceError(
    "cloud_forbidden",
    "Our credential may not see or delete all of this server's backups in the cloud. The operators must give it the privilege.",
    {
      facts: { cloud: client.cloud },
      staffDetail: `${client.cloud}: the credential lacks ${privilege} on ${path} (docs/pve.md)`,
    },
  );
}

/** The nearest path that has rights of its own decides; those above it count only when they are passed on (1). */
function holds(granted: Permissions, path: string, privilege: string): boolean {
  if (path in granted) return granted[path]?.[privilege] !== undefined;
  const above = path.slice(0, path.lastIndexOf("/"));
  return [above, "/"].some(
    (one, index, all) =>
      all.slice(0, index).every((nearer) => !(nearer in granted)) &&
      Number(granted[one]?.[privilege] ?? 0) === 1,
  );
}

function notSeen(client: PveClient, detail: string): ServiceError {
  return new ServiceError(
    "unreachable",
    "Not all places where this server's backups may be can be looked at now. Try again later.",
    { retryable: true, facts: { cloud: client.cloud }, staffDetail: `${client.cloud}: ${detail}` },
  );
}

// PVE's calls about the snapshots of one VM, and what its list says.
import type { RemoteSnapshot } from "../../core/cloud.ts";
import { storable } from "../../database/storable.ts";
import type { PveClient } from "./client.ts";
import { markersIn, markerText } from "./marker.ts";
import { Feature, Snapshots, VmConfig } from "./schema.ts";
import type { Upid } from "./upid.ts";
import { pathOf, type VmAddress, type WriteOptions } from "./vm.ts";

export interface ListedSnapshot extends RemoteSnapshot {
  /** The operations of its markers. */
  madeBy: readonly string[];
  /** It is not being taken or deleted, and no such work was broken off. */
  isComplete: boolean;
}

export interface SnapshotList {
  snapshots: ListedSnapshot[];
  /** The snapshot that the VM's present state came from: taken or gone back to last. */
  parent: string | null;
}

export async function listSnapshots(
  client: PveClient,
  at: VmAddress,
  signal?: AbortSignal,
): Promise<SnapshotList> {
  const rows = await client.read({ path: `${pathOf(at)}/snapshot`, signal }, Snapshots);
  return {
    // The list ends with a pseudo entry for the present state.
    snapshots: rows.filter(({ name }) => name !== "current").map(listed),
    parent: rows.find(({ name }) => name === "current")?.parent ?? null,
  };
}

function listed(row: Snapshots[number]): ListedSnapshot {
  const [first = "", ...rest] = (row.description ?? "").trimEnd().split("\n");
  // On the first line only: what a person wrote stands below and can say anything.
  const markers = markersIn(first);
  // What somebody wrote in PVE was not written for customers, who read this.
  const text = markers.length === 0 ? "" : storable(rest.join("\n"));
  const isComplete = row.snapstate === undefined;
  return {
    name: row.name,
    description: isComplete ? text : `Unfinished. ${text}`.trim(),
    withMemory: row.vmstate ?? false,
    takenAt: (row.snaptime ?? 0) > 0 ? new Date((row.snaptime ?? 0) * 1000) : null,
    markers: markers.map(markerText),
    madeBy: markers.map(({ operationId }) => operationId),
    isComplete,
  };
}

/** As core/cloud.ts wants them. */
export function remoteSnapshots({ snapshots }: SnapshotList): RemoteSnapshot[] {
  return snapshots.map(({ name, description, withMemory, takenAt, markers }) => ({
    name,
    description,
    withMemory,
    takenAt,
    markers,
  }));
}

/** Whether the storages of all its disks can take one. */
export async function canSnapshot(client: PveClient, at: VmAddress, signal: AbortSignal): Promise<boolean> {
  const parameters = { feature: "snapshot" };
  return (await client.read({ path: `${pathOf(at)}/feature`, parameters, signal }, Feature)).hasFeature;
}

/** The settings that the VM had, and gets again by going back. */
export function snapshotConfig(
  client: PveClient,
  at: VmAddress,
  { name, signal }: { name: string; signal: AbortSignal },
): Promise<VmConfig> {
  return client.read({ path: `${snapshotPath(at, name)}/config`, signal }, VmConfig);
}

function snapshotPath(at: VmAddress, name: string): string {
  return `${pathOf(at)}/snapshot/${encodeURIComponent(name)}`;
}

export function takeSnapshot(
  client: PveClient,
  at: VmAddress,
  { name, description, withMemory }: { name: string; description: string; withMemory: boolean },
  options: WriteOptions,
): Promise<Upid | null> {
  const parameters = { snapname: name, description, vmstate: withMemory };
  return client.begin({ method: "POST", path: `${pathOf(at)}/snapshot`, parameters, ...options });
}

export function goBackTo(
  client: PveClient,
  at: VmAddress,
  name: string,
  options: WriteOptions,
): Promise<Upid | null> {
  return client.begin({ method: "POST", path: `${snapshotPath(at, name)}/rollback`, ...options });
}

export function deleteSnapshot(
  client: PveClient,
  at: VmAddress,
  name: string,
  options: WriteOptions,
): Promise<Upid | null> {
  return client.begin({ method: "DELETE", path: snapshotPath(at, name), ...options });
}

// PVE's calls about one VM, one function each. https://pve.proxmox.com/pve-docs/api-viewer/

import { isServiceError } from "../../core/errors.ts";
import type { PveClient } from "./client.ts";
import { justMoved } from "./errors.ts";
import type { Parameters } from "./form.ts";
import { FirewallOptions, Pending, VmConfig, VmStatus } from "./schema.ts";
import type { Upid } from "./upid.ts";

export interface VmAddress {
  node: string;
  vmid: number;
  /** What PVE was asked about it at this moment of `recent.now()` or later need not be asked again. */
  since?: number | undefined;
}

export interface WriteOptions {
  signal: AbortSignal;
  secrets?: readonly string[];
}

export function pathOf({ node, vmid }: VmAddress): string {
  return `/nodes/${encodeURIComponent(node)}/qemu/${vmid}`;
}

/** Null when this node has no such VM. Values that wait for a restart are left out. */
export async function findConfig(
  client: PveClient,
  at: VmAddress,
  signal?: AbortSignal,
): Promise<VmConfig | null> {
  try {
    return await client.read(
      { path: `${pathOf(at)}/config`, parameters: { current: true }, signal, since: at.since },
      VmConfig,
    );
  } catch (error) {
    if (isServiceError(error, "cloud_not_found")) return null;
    throw error;
  }
}

/** Of a VM that was there a moment ago. */
export async function ofFound<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (isServiceError(error, "cloud_not_found")) throw justMoved(error);
    throw error;
  }
}

export function getStatus(client: PveClient, at: VmAddress, signal?: AbortSignal): Promise<VmStatus> {
  const path = `${pathOf(at)}/status/current`;
  return ofFound(() => client.read({ path, signal, since: at.since }, VmStatus));
}

/** Whether rules of its own keep anything out of it. */
export async function isFirewallOn(client: PveClient, at: VmAddress, signal?: AbortSignal): Promise<boolean> {
  const path = `${pathOf(at)}/firewall/options`;
  return (await client.read({ path, signal }, FirewallOptions)).enable === true;
}

function pendingOf(client: PveClient, at: VmAddress, signal?: AbortSignal) {
  const path = `${pathOf(at)}/pending`;
  return ofFound(() => client.read({ path, signal, since: at.since }, Pending));
}

/** The keys whose new value waits for a real restart. */
export async function pendingKeys(client: PveClient, at: VmAddress, signal?: AbortSignal): Promise<string[]> {
  const rows = await pendingOf(client, at, signal);
  return rows
    .filter((row) => row.pending !== undefined || (row.delete ?? 0) > 0)
    .map((row) => row.key)
    .filter((key) => key !== "digest");
}

/** The configuration as it will be after a restart: with what is pending. */
export async function wantedConfig(
  client: PveClient,
  at: VmAddress,
  signal?: AbortSignal,
): Promise<VmConfig> {
  const rows = await pendingOf(client, at, signal);
  return Object.fromEntries(
    rows.flatMap(({ key, value, pending, delete: doomed }) => {
      const wanted = (doomed ?? 0) > 0 ? undefined : (pending ?? value);
      return wanted === undefined ? [] : [[key, String(wanted)]];
    }),
  );
}

interface CloneOrder {
  newid: number;
  name: string;
  description: string;
  full: boolean;
  storage?: string | undefined;
  target?: string | undefined;
}

export function cloneVm(
  client: PveClient,
  source: VmAddress,
  { newid, name, description, full, storage, target }: CloneOrder,
  options: WriteOptions,
): Promise<Upid | null> {
  const parameters = { newid, name, description, full, storage, target };
  return client.begin({ method: "POST", path: `${pathOf(source)}/clone`, parameters, ...options });
}

/** At once, without a task. */
export async function setConfig(
  client: PveClient,
  at: VmAddress,
  parameters: Parameters,
  options: WriteOptions,
): Promise<void> {
  await client.call({ method: "PUT", path: `${pathOf(at)}/config`, parameters, ...options });
}

/** To an absolute size. A task since qemu-server 8.0.2; null on PVE 7, which does it at once. */
export function resizeDisk(
  client: PveClient,
  at: VmAddress,
  { disk, gib }: { disk: string; gib: number },
  options: WriteOptions,
): Promise<Upid | null> {
  const parameters = { disk, size: `${gib}G` };
  return client.begin({ method: "PUT", path: `${pathOf(at)}/resize`, parameters, ...options });
}

export type PowerCall = "start" | "stop" | "shutdown" | "reboot" | "reset" | "suspend" | "resume";

export function powerVm(
  client: PveClient,
  at: VmAddress,
  { call, parameters }: { call: PowerCall; parameters?: Parameters },
  options: WriteOptions,
): Promise<Upid | null> {
  const path = `${pathOf(at)}/status/${call}`;
  return client.begin({
    method: "POST",
    path,
    ...(parameters === undefined ? {} : { parameters }),
    ...options,
  });
}

/** With its disks, and its entries in backup jobs, replication and HA. Backups themselves stay. */
export function destroyVm(client: PveClient, at: VmAddress, options: WriteOptions): Promise<Upid | null> {
  const parameters = { purge: true, "destroy-unreferenced-disks": true };
  return client.begin({ method: "DELETE", path: pathOf(at), parameters, ...options });
}

/** Makes the cloud-init drive anew, so that the next boot sees it. */
export async function renewCloudInit(client: PveClient, at: VmAddress, options: WriteOptions): Promise<void> {
  await client.call({ method: "PUT", path: `${pathOf(at)}/cloudinit`, ...options });
}

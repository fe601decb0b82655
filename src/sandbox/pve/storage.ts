/** Storages, their room, and the volumes on them. */
import { type Cluster, checkProtection, GIB, MIB } from "./cluster.ts";
import type { Work } from "./tasks.ts";
import type { Storage, Vm, Volume } from "./types.ts";
import { PveError, paramError, parseProperties, printProperties } from "./wire.ts";

export function volumeKey(cluster: Cluster, node: string, volid: string): string {
  const shared = cluster.storages.get(storageOf(volid))?.shared === true;
  return `${shared ? "" : node} ${volid}`;
}

export function storageOf(volid: string): string {
  return volid.split(":")[0] ?? "";
}

export function findVolume(cluster: Cluster, node: string, volid: string): Volume | undefined {
  return cluster.volumes.get(volumeKey(cluster, node, volid));
}

/** PVE::Storage::storage_check_enabled. */
export function needStorage(cluster: Cluster, id: string, node: string): Storage {
  const storage = cluster.storages.get(id);
  if (!storage) throw new PveError(500, `storage '${id}' does not exist\n`);
  if (!storage.enabled) throw new PveError(500, `storage '${id}' is disabled\n`);
  if (storage.nodes && !storage.nodes.includes(node)) {
    throw new PveError(500, `storage '${id}' is not available on node '${node}'\n`);
  }
  return storage;
}

export function needImageStorage(cluster: Cluster, id: string, node: string): Storage {
  const storage = needStorage(cluster, id, node);
  if (!storage.content.includes("images")) {
    throw paramError({ storage: `storage '${id}' does not support vm images` });
  }
  return storage;
}

export function usedBytes(cluster: Cluster, id: string, node: string): number {
  const shared = cluster.storages.get(id)?.shared === true;
  let used = 0;
  for (const volume of cluster.volumes.values()) {
    if (volume.storage === id && (shared || volume.node === node)) used += volume.sizeBytes;
  }
  return used;
}

/** qemu-img's size in a configuration: the largest unit that says it exactly. */
export function printSize(bytes: number): string {
  for (const [unit, size] of [
    ["T", 1024 * GIB],
    ["G", GIB],
    ["M", MIB],
    ["K", 1024],
  ] as const) {
    if (bytes >= size && bytes % size === 0) return `${bytes / size}${unit}`;
  }
  return String(bytes);
}

const UNITS: Readonly<Record<string, number>> = { K: 1024, M: MIB, G: GIB, T: 1024 * GIB };

export function parseSize(text: string): number {
  const [, digits = "0", unit = ""] = /^(\d+(?:\.\d+)?)([KMGT]?)$/.exec(text) ?? [];
  return Math.floor(Number(digits) * (UNITS[unit] ?? 1));
}

/** The volume's name as its storage makes it: `local:100/vm-100-disk-0.qcow2`, `local-lvm:vm-100-disk-0`. */
export function volumeName(storage: Storage, vmid: number, file: { name: string; format: string }): string {
  if (storage.type === "lvmthin") return `${storage.id}:${file.name}`;
  return `${storage.id}:${vmid}/${file.name}.${file.format}`;
}

export function freeDiskName(cluster: Cluster, storage: Storage, vmid: number, kind = "disk"): string {
  const taken = new Set<string>();
  for (const volume of cluster.volumes.values()) {
    // Its own only: with thousands of VMs this is asked at every clone.
    if (volume.vmid === vmid && volume.storage === storage.id) taken.add(volume.volid);
  }
  for (let index = 0; ; index += 1) {
    const name = `vm-${vmid}-${kind}-${index}`;
    const used = ["qcow2", "raw", "vmdk"].some((format) =>
      taken.has(volumeName(storage, vmid, { name, format })),
    );
    if (!used) return name;
  }
}

export interface Allocation {
  node: string;
  storage: Storage;
  vmid: number;
  sizeBytes: number;
  format: string;
  name?: string;
  base?: string;
  content?: Volume["content"];
}

/** Takes room, or fails as a full disk does. */
export function allocate(cluster: Cluster, work: Pick<Work, "log">, wanted: Allocation): Volume {
  const { storage, node, vmid } = wanted;
  const name = wanted.name ?? freeDiskName(cluster, storage, vmid);
  const format = storage.type === "lvmthin" ? "raw" : wanted.format;
  const own = volumeName(storage, vmid, { name, format });
  // A thin LV forgets where it came from; a qcow2 overlay carries its base in its name.
  const overlay = wanted.base !== undefined && storage.type !== "lvmthin";
  const volid = overlay ? `${wanted.base}/${own.slice(storage.id.length + 1)}` : own;
  const free = storage.totalBytes - usedBytes(cluster, storage.id, node);
  // A linked clone's overlay takes next to nothing.
  const takes = wanted.base === undefined ? wanted.sizeBytes : 0;
  if (takes > free) throw noSpace(storage, volid, wanted.sizeBytes);
  const volume: Volume = {
    volid,
    storage: storage.id,
    node: storage.shared ? "" : node,
    vmid,
    sizeBytes: wanted.sizeBytes,
    format,
    content: wanted.content ?? "images",
    base: overlay ? wanted.base : undefined,
    createdAt: Date.now(),
  };
  cluster.volumes.set(volumeKey(cluster, node, volid), volume);
  if (storage.type === "dir" && format === "qcow2") {
    const path = `/var/lib/vz/images/${vmid}/${name}.qcow2`;
    work.log(
      `Formatting '${path}', fmt=qcow2 cluster_size=65536 extended_l2=off preallocation=metadata compression_type=zlib size=${wanted.sizeBytes} lazy_refcounts=off refcount_bits=16`,
    );
  }
  return volume;
}

function noSpace(storage: Storage, volid: string, sizeBytes: number): PveError {
  if (storage.type === "lvmthin") {
    return new PveError(
      500,
      `lvcreate '${storage.id}/${volid}' error:   Cannot create new thin volume, free space in thin pool ${storage.id} reached threshold.\n`,
    );
  }
  return new PveError(
    500,
    `unable to create image: qemu-img: ${volid}: Could not resize image to ${sizeBytes} bytes: No space left on device\n`,
  );
}

export function freeVolume(cluster: Cluster, node: string, volid: string): void {
  cluster.volumes.delete(volumeKey(cluster, node, volid));
}

export function isBaseInUse(cluster: Cluster, volid: string): boolean {
  return [...cluster.volumes.values()].some(({ base }) => base === volid);
}

export interface Drive {
  key: string;
  volid: string;
  cdrom: boolean;
  cloudInit: boolean;
  properties: Map<string, string>;
}

export function parseDrive(key: string, value: string): Drive {
  const properties = parseProperties(value, "file");
  const volid = properties.get("file") ?? "";
  const cloudInit = /vm-\d+-cloudinit|:cloudinit$/.test(volid);
  return { key, volid, cdrom: properties.get("media") === "cdrom", cloudInit, properties };
}

export function printDrive(drive: Drive, change: Record<string, string> = {}): string {
  const properties = new Map(drive.properties);
  for (const [key, value] of Object.entries(change)) properties.set(key, value);
  return printProperties(properties, "file");
}

export function drivesOf(config: ReadonlyMap<string, string>): Drive[] {
  return [...config]
    .filter(([key]) => /^(?:(?:ide|sata|scsi|virtio|unused)\d+|efidisk0|tpmstate0)$/.test(key))
    .map(([key, value]) => parseDrive(key, value));
}

/** The disk it boots from, whose size is `maxdisk`. */
export function bootDisk(config: ReadonlyMap<string, string>): Drive | undefined {
  const order =
    parseProperties(config.get("boot") ?? "", "legacy")
      .get("order")
      ?.split(";") ?? [];
  const disks = drivesOf(config).filter(({ key, cdrom }) => !cdrom && /^(?:ide|sata|scsi|virtio)/.test(key));
  return order.map((key) => disks.find((disk) => disk.key === key)).find(Boolean) ?? disks[0];
}

/** Takes a disk out of the configuration but keeps it, as `unusedN`. */
export function addUnused(vm: Vm, volid: string): string {
  for (let index = 0; ; index += 1) {
    const key = `unused${index}`;
    if (vm.config.has(key)) continue;
    vm.config.set(key, volid);
    return key;
  }
}

export function checkUnusedProtection(vm: Vm, volid: string): void {
  checkProtection(vm, `can't remove unused disk '${volid}'`);
}

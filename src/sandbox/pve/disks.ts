/** What a drive option means for the storages: `local:8` makes a disk, `local:cloudinit` a cloud-init drive. */
import { type Cluster, GIB } from "./cluster.ts";
import {
  allocate,
  findVolume,
  needImageStorage,
  needStorage,
  parseDrive,
  printDrive,
  printSize,
  storageOf,
} from "./storage.ts";
import type { Work } from "./tasks.ts";
import type { Vm } from "./types.ts";
import { PveError } from "./wire.ts";

export const CLOUD_INIT_BYTES = 4 * 1024 ** 2;

export function createDrive(
  cluster: Cluster,
  work: Pick<Work, "log">,
  vm: Pick<Vm, "vmid" | "node">,
  { key, value }: { key: string; value: string },
): string {
  const drive = parseDrive(key, value);
  if (drive.volid === "none" || drive.volid === "cdrom") return value;
  if (drive.volid.startsWith("/")) {
    throw new PveError(500, "Only root can pass arbitrary filesystem paths.\n");
  }
  const [, storageId = "", wanted = ""] = /^([^:]+):(cloudinit|\d+(?:\.\d+)?)$/.exec(drive.volid) ?? [];
  if (wanted === "cloudinit") return cloudInitDrive(cluster, work, vm, storageId);
  if (wanted !== "") {
    const storage = needImageStorage(cluster, storageId, vm.node);
    const format = drive.properties.get("format") ?? (storage.type === "lvmthin" ? "raw" : "qcow2");
    const volume = allocate(cluster, work, { ...vm, storage, sizeBytes: Number(wanted) * GIB, format });
    const made = {
      ...drive,
      properties: new Map([...drive.properties].filter(([name]) => name !== "format")),
    };
    return printDrive(made, { file: volume.volid, size: printSize(volume.sizeBytes) });
  }
  needStorage(cluster, storageOf(drive.volid), vm.node);
  const volume = findVolume(cluster, vm.node, drive.volid);
  if (!volume) throw new PveError(500, `volume '${drive.volid}' does not exist\n`);
  return printDrive(drive, { size: printSize(volume.sizeBytes) });
}

function cloudInitDrive(
  cluster: Cluster,
  work: Pick<Work, "log">,
  vm: Pick<Vm, "vmid" | "node">,
  storageId: string,
): string {
  const storage = needImageStorage(cluster, storageId, vm.node);
  const name = `vm-${vm.vmid}-cloudinit`;
  const format = storage.type === "lvmthin" ? "raw" : "qcow2";
  const taken = [...cluster.volumes.values()].some(
    (volume) => volume.storage === storageId && volume.volid.includes(name),
  );
  if (taken) {
    throw new PveError(500, `disk image '/var/lib/vz/images/${vm.vmid}/${name}.${format}' already exists\n`);
  }
  const volume = allocate(cluster, work, { ...vm, storage, sizeBytes: CLOUD_INIT_BYTES, format, name });
  return `${volume.volid},media=cdrom,size=4M`;
}

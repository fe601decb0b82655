/** POST clone: early checks, then everything again inside the task, where the race for a VMID is lost. */
import { check, may } from "./access.ts";
import {
  type Cluster,
  checkLock,
  checkQuorum,
  copyGuest,
  findVm,
  isTemplate,
  newMac,
  newUuid,
  newVm,
} from "./cluster.ts";
import { CLOUD_INIT_BYTES } from "./disks.ts";
import * as format from "./formats.ts";
import { has } from "./knobs.ts";
import { withLock } from "./locks.ts";
import { type Call, type Method, method } from "./router.ts";
import { boolean, integer, needed, string } from "./schema.ts";
import { addStranger } from "./seed.ts";
import {
  allocate,
  type Drive,
  drivesOf,
  findVolume,
  freeVolume,
  needImageStorage,
  needStorage,
  printDrive,
  printSize,
  storageOf,
} from "./storage.ts";
import { forkWorker, Interrupted, type Work } from "./tasks.ts";
import type { Vm } from "./types.ts";
import { flag, needText, PveError, parseProperties, printProperties, text } from "./wire.ts";

export const cloneMethods: Method[] = [
  method("POST", "/nodes/{node}/qemu/{vmid}/clone", {
    permission: { path: "/vms/{vmid}", privileges: ["VM.Clone"] },
    schema: {
      node: needed(format.node()),
      vmid: needed(format.vmid()),
      newid: needed(format.vmid()),
      bwlimit: integer({ minimum: 0 }),
      description: string(),
      format: string({ enum: ["raw", "qcow2", "vmdk"] }),
      full: boolean(),
      name: string({ format: format.dnsName }),
      pool: string({ format: format.poolId }),
      snapname: format.snapshotName(),
      storage: format.storage(),
      target: format.node(),
    },
    handler: clone,
  }),
];

interface Plan {
  source: Vm;
  config: Map<string, string>;
  disks: Drive[];
  full: boolean;
  target: string;
  newid: number;
}

function clone(call: Call): string {
  const { cluster, node, vmid, who, params } = call;
  const newid = Number(needText(params, "newid"));
  const pool = text(params, "pool");
  const allowed =
    may(who.account, `/vms/${newid}`, ["VM.Allocate"]) ||
    (pool !== undefined && may(who.account, `/pool/${pool}`, ["VM.Allocate"]));
  if (!allowed) check(who.account, `/vms/${newid}`, ["VM.Allocate"]);
  if (pool !== undefined) throw new PveError(500, `pool '${pool}' does not exist\n`);
  prepare(call, newid);
  steal(cluster, node, newid);
  const fork = { node, type: "qmclone", id: String(vmid), user: who.id, vmids: [vmid, newid] };
  return forkWorker(cluster, fork, (work) => {
    const source = findVm(cluster, node, vmid);
    // A running source is locked for it alone, a stopped one is shared; either waits for a second only.
    const lock = { vmid, timeoutMs: 1000, shared: source.run === undefined };
    return withLock(cluster, work, lock, () =>
      withLock(cluster, work, { vmid: newid, timeoutMs: 1000 }, () => copy(call, work, newid)),
    );
  });
}

/** The trap: somebody takes the VMID between the early check and the task. */
function steal(cluster: Cluster, node: string, newid: number): void {
  const left = cluster.traps.stealVmids ?? 0;
  if (left <= 0) return;
  cluster.traps.stealVmids = left - 1;
  addStranger(cluster, { vmid: newid, node, name: `thief-${newid}` });
}

/** load_and_check of clone_vm: done before the fork and again in the task. */
function prepare(call: Call, newid: number): Plan {
  const { cluster, node, vmid, params, who } = call;
  const target = text(params, "target") ?? node;
  if (!cluster.nodes.has(target)) throw new PveError(500, `no such cluster node '${target}'\n`);
  const storageId = text(params, "storage");
  if (storageId !== undefined) {
    const storage = needImageStorage(cluster, storageId, node);
    if (target !== node) {
      needStorage(cluster, storageId, target);
      if (!storage.shared) throw new PveError(500, `can't clone to non-shared storage '${storageId}'\n`);
    }
  }
  checkQuorum(cluster);
  const source = cluster.vms.get(vmid);
  if (source?.node !== node) {
    throw new PveError(500, `unable to find configuration file for VM ${vmid} on node '${node}'\n`);
  }
  checkLock(source);
  const snapname = text(params, "snapname");
  const snapshot = snapname === undefined ? undefined : source.snapshots.get(snapname);
  if (snapname !== undefined && !snapshot) throw new PveError(500, `snapshot '${snapname}' does not exist\n`);
  const full = flag(params, "full") ?? !isTemplate(source);
  for (const key of ["storage", "format"]) {
    if (params.has(key) && !full)
      throw new PveError(500, `parameter '${key}' not allowed for linked clones\n`);
  }
  const old = snapshot?.config ?? source.config;
  const disks = drivesOf(old).filter(
    ({ key, cdrom, cloudInit }) => (!cdrom || cloudInit) && !key.startsWith("unused"),
  );
  for (const disk of disks)
    check(who.account, `/storage/${storageId ?? storageOf(disk.volid)}`, ["Datastore.AllocateSpace"]);
  checkBridges(call, old);
  const local = disks.some(({ volid }) => cluster.storages.get(storageOf(volid))?.shared !== true);
  if (target !== node && local) {
    throw new PveError(500, `can't clone VM to node '${target}' (VM uses local storage)\n`);
  }
  if (cluster.vms.has(newid)) {
    throw new PveError(500, `unable to create VM ${newid}: config file already exists\n`);
  }
  if (!full) checkLinkable(source, disks);
  return { source, config: old, disks, full, target, newid };
}

/** Since 9.x (and 8.x with SDN) a clone needs the bridge as well. */
function checkBridges(call: Call, config: ReadonlyMap<string, string>): void {
  for (const [key, value] of config) {
    const bridge = /^net\d+$/.test(key) ? parseProperties(value, "model").get("bridge") : undefined;
    if (bridge !== undefined) check(call.who.account, `/sdn/zones/localnetwork/${bridge}`, ["SDN.Use"]);
  }
}

function checkLinkable(source: Vm, disks: readonly Drive[]): void {
  if (isTemplate(source)) return;
  const disk = disks.find(({ cloudInit }) => !cloudInit);
  if (disk) {
    throw new PveError(500, `Linked clone feature is not supported for '${disk.volid}' (${disk.key})\n`);
  }
}

async function copy(call: Call, work: Work, newid: number): Promise<void> {
  const { cluster, node, vmid } = call;
  const plan = prepare(call, newid);
  work.log(`creating a clone of VM ${vmid} with ID ${newid}`);
  // Until the first disk is there the file says no more than this: no name, no description, no marker.
  const made = newVm(cluster, { vmid: newid, node, config: new Map([["lock", "clone"]]) });
  const volumes: string[] = [];
  try {
    const config = newConfig(call, plan);
    // As the source's file lock is held in real time too, a slow clone blocks a running source.
    await work.pause(plan.full ? 500 : 150);
    if (has({ config }, "sim-slow-clone")) await slowly(work);
    for (const disk of plan.disks) {
      config.set(disk.key, await copyDisk(call, work, { plan, disk, config, volumes }));
      made.config = new Map([...config, ["lock", "clone"]]);
    }
    if (has({ config }, "sim-kill-clone")) cluster.tasks.get(work.upid)?.kill();
    await work.pause(plan.full ? 2000 : 300);
    if (has({ config }, "sim-fail-clone")) throw new PveError(500, "copy failed: simulated failure\n");
    made.config = config;
    made.guest = copyGuest(plan.source.guest);
    made.plainPassword = plan.source.plainPassword;
    made.firewall = structuredClone(plan.source.firewall);
    made.node = plan.target;
  } catch (error) {
    for (const volid of volumes) freeVolume(cluster, node, volid);
    cluster.vms.delete(newid);
    const message = error instanceof Error ? error.message : String(error);
    const copying = "copy failed: command '/usr/bin/qemu-img convert' failed: interrupted by signal\n";
    throw new PveError(500, `clone failed: ${error instanceof Interrupted ? copying : message}`);
  }
}

/** 30 s whatever the speed, in steps so that it can be stopped. */
async function slowly(work: Work): Promise<void> {
  const end = Date.now() + 30_000;
  while (Date.now() < end) await work.pause(100);
}

function newConfig(call: Call, { source, config, disks }: Plan): Map<string, string> {
  const { params, vmid } = call;
  const made = new Map<string, string>();
  const copied = new Set(disks.map(({ key }) => key));
  for (const [key, value] of config) {
    if (/^(?:unused\d+|lock|template|parent|vmstate|snapstate)$/.test(key) || copied.has(key)) continue;
    // Always another MAC.
    if (/^net\d+$/.test(key)) {
      const properties = parseProperties(value, "model");
      const [model = "virtio"] = properties.keys();
      properties.set(model, newMac());
      made.set(key, printProperties(properties));
    } else made.set(key, value);
  }
  const smbios = parseProperties(config.get("smbios1") ?? "uuid=", "uuid");
  smbios.set("uuid", newUuid());
  made.set("smbios1", printProperties(smbios));
  if (config.has("vmgenid")) made.set("vmgenid", newUuid());
  made.set("name", text(params, "name") ?? `Copy-of-VM-${source.config.get("name") ?? vmid}`);
  const description = text(params, "description");
  if (description !== undefined) made.set("description", description.replace(/\s+$/, ""));
  return made;
}

interface DiskCopy {
  plan: Plan;
  disk: Drive;
  config: ReadonlyMap<string, string>;
  volumes: string[];
}

async function copyDisk(call: Call, work: Work, { plan, disk, config, volumes }: DiskCopy): Promise<string> {
  const { cluster, node, params } = call;
  const linked = !plan.full && !disk.cloudInit;
  work.log(`create ${linked ? "linked" : "full"} clone of drive ${disk.key} (${disk.volid})`);
  const from = findVolume(cluster, node, disk.volid);
  if (!from) throw new PveError(500, `volume '${disk.volid}' does not exist\n`);
  const storage = needImageStorage(cluster, text(params, "storage") ?? from.storage, node);
  const full = has({ config }, "sim-full") && !disk.cloudInit;
  const volume = allocate(cluster, work, {
    node,
    storage: full ? { ...storage, totalBytes: 0 } : storage,
    vmid: plan.newid,
    sizeBytes: disk.cloudInit ? CLOUD_INIT_BYTES : from.sizeBytes,
    format: text(params, "format") ?? (storage.type === "lvmthin" ? "raw" : "qcow2"),
    ...(disk.cloudInit ? { name: `vm-${plan.newid}-cloudinit` } : {}),
    ...(linked && !full ? { base: from.volid } : {}),
  });
  volumes.push(volume.volid);
  await work.pause(linked ? 100 : 400);
  return printDrive(disk, { file: volume.volid, size: printSize(volume.sizeBytes) });
}

/** The VMs of a node: list, create, destroy, template. */
import { check, may } from "./access.ts";
import {
  type Cluster,
  checkLock,
  checkProtection,
  checkQuorum,
  findVm,
  isTemplate,
  MIB,
  newUuid,
  newVm,
} from "./cluster.ts";
import { checkOptionRights, checkSshKeys, crypt, isCrypt, normalNet, uniqueTags } from "./config.ts";
import { createDrive } from "./disks.ts";
import * as format from "./formats.ts";
import { agentEnabled } from "./guest.ts";
import { has } from "./knobs.ts";
import { withLock } from "./locks.ts";
import { isDrive, vmOptions } from "./options.ts";
import { fork, locked, rootOnly, startVm } from "./power.ts";
import { type Call, type Method, method } from "./router.ts";
import { boolean, integer, needed, string } from "./schema.ts";
import { bootDisk, drivesOf, findVolume, freeVolume, isBaseInUse, storageOf, volumeKey } from "./storage.ts";
import { forkWorker, type Work } from "./tasks.ts";
import { figuresAt } from "./traffic.ts";
import type { Vm } from "./types.ts";
import { flag, notPlayed, PveError, parseProperties, text } from "./wire.ts";

const ids = { node: needed(format.node()), vmid: needed(format.vmid()) };
const audit = { path: "/vms/{vmid}", privileges: ["VM.Audit"] };

const CREATE_ONLY = new Set(
  "node vmid archive bwlimit force ha-managed import-working-storage live-restore pool start storage unique".split(
    " ",
  ),
);

export const qemuMethods: Method[] = [
  method("GET", "/nodes/{node}/qemu", {
    permission: "all",
    protected: true,
    schema: { node: ids.node, full: boolean() },
    handler: ({ cluster, node, who }) =>
      [...cluster.vms.values()]
        .filter((vm) => vm.node === node && may(who.account, `/vms/${vm.vmid}`, ["VM.Audit"]))
        .map((vm) => statusOf(cluster, vm)),
  }),
  method("POST", "/nodes/{node}/qemu", {
    permission: "all",
    schema: {
      ...ids,
      ...vmOptions,
      archive: string({ maxLength: 255 }),
      bwlimit: integer({ minimum: 0 }),
      force: boolean({ requires: "archive" }),
      "ha-managed": boolean({ since: "9.2" }),
      "import-working-storage": format.storage(),
      "live-restore": boolean({ requires: "archive" }),
      pool: string({ format: format.poolId }),
      start: boolean(),
      storage: format.storage(),
      unique: boolean({ requires: "archive" }),
    },
    handler: create,
  }),
  method("GET", "/nodes/{node}/qemu/{vmid}", {
    permission: "all",
    schema: ids,
    handler: () =>
      ["config", "pending", "status", "snapshot", "agent", "firewall", "cloudinit", "feature"].map(
        (subdir) => ({ subdir }),
      ),
  }),
  method("DELETE", "/nodes/{node}/qemu/{vmid}", {
    permission: { path: "/vms/{vmid}", privileges: ["VM.Allocate"] },
    schema: { ...ids, "destroy-unreferenced-disks": boolean(), purge: boolean(), skiplock: boolean() },
    handler: (call) => {
      rootOnly(call, "skiplock");
      checkDestroyable(call);
      return fork(call, "qmdestroy", (work) => locked(call, work, (vm) => destroy(call, work, vm)));
    },
  }),
  method("GET", "/nodes/{node}/qemu/{vmid}/status/current", {
    permission: audit,
    protected: true,
    schema: ids,
    handler: ({ cluster, node, vmid }) => currentOf(cluster, findVm(cluster, node, vmid)),
  }),
  method("POST", "/nodes/{node}/qemu/{vmid}/template", {
    permission: { path: "/vms/{vmid}", privileges: ["VM.Allocate"] },
    schema: { ...ids, disk: format.diskName() },
    handler: (call) => {
      checkTemplatable(call);
      return fork(call, "qmtemplate", (work) =>
        locked(call, work, async (vm) => {
          checkTemplatable(call);
          await work.pause(300);
          makeTemplate(call.cluster, vm);
        }),
      );
    },
  }),
];

/** An entry of GET qemu. */
export function statusOf(cluster: Cluster, vm: Vm): Record<string, unknown> {
  const { config } = vm;
  const disk = bootDisk(config);
  const size = disk ? (findVolume(cluster, vm.node, disk.volid)?.sizeBytes ?? 0) : 0;
  const cpus = Number(config.get("sockets") ?? 1) * Number(config.get("cores") ?? 1);
  const bytes = memoryBytes(config);
  return {
    vmid: vm.vmid,
    name: config.get("name") ?? `VM ${vm.vmid}`,
    status: vm.run ? "running" : "stopped",
    cpus: config.has("vcpus") ? Number(config.get("vcpus")) : cpus,
    maxmem: bytes,
    maxdisk: size,
    disk: 0,
    ...figuresAt(vm, Date.now()),
    cpu: vm.run ? 0.01 : 0,
    mem: vm.run ? Math.floor(bytes / 2) : 0,
    ...(cluster.options.version === "9.2" ? { memhost: vm.run ? Math.floor(bytes / 2) : 0 } : {}),
    diskread: 0,
    diskwrite: 0,
    ...(vm.run ? { pid: vm.run.pid } : {}),
    ...(isTemplate(vm) ? { template: 1 } : {}),
    ...([...config.keys()].some((key) => /^serial\d/.test(key)) ? { serial: 1 } : {}),
    ...(config.has("lock") ? { lock: config.get("lock") } : {}),
    ...(config.has("tags") ? { tags: config.get("tags") } : {}),
  };
}

export function memoryBytes(config: ReadonlyMap<string, string>): number {
  return Number(parseProperties(config.get("memory") ?? "512", "current").get("current")) * MIB;
}

function currentOf(cluster: Cluster, vm: Vm): Record<string, unknown> {
  const qmpstatus = vm.run ? (vm.run.paused ? "paused" : "running") : "stopped";
  return {
    ...statusOf(cluster, vm),
    ha: { managed: 0 },
    qmpstatus,
    ...(agentEnabled(vm) ? { agent: 1 } : {}),
  };
}

function create(call: Call): string {
  const { cluster, node, vmid, who, params } = call;
  checkQuorum(cluster);
  if (params.has("archive")) throw notPlayed("a restore from a backup");
  if (params.has("pool")) throw new PveError(500, `pool '${text(params, "pool")}' does not exist\n`);
  if (flag(params, "start") === true) check(who.account, `/vms/${vmid}`, ["VM.PowerMgmt"]);
  check(who.account, `/vms/${vmid}`, ["VM.Allocate"]);
  const set = new Map<string, string>();
  for (const [key, value] of params) {
    if (!CREATE_ONLY.has(key) && typeof value === "string") set.set(key === "cdrom" ? "ide2" : key, value);
  }
  checkSshKeys(set.get("sshkeys"));
  for (const [key, value] of set) {
    if (isDrive(key)) check(who.account, `/storage/${storageOf(value)}`, ["Datastore.AllocateSpace"]);
  }
  checkOptionRights(who, vmid, { set, remove: [] });
  const taken = cluster.vms.get(vmid);
  if (taken) {
    throw new PveError(
      500,
      `unable to create VM ${vmid} - VM ${vmid} already exists on node '${taken.node}'\n`,
    );
  }
  // The empty, locked configuration is there before the task is.
  const vm = newVm(cluster, { vmid, node, config: new Map([["lock", "create"]]) });
  return forkWorker(cluster, { node, type: "qmcreate", id: String(vmid), user: who.id }, async (work) => {
    try {
      await withLock(cluster, work, { vmid, timeoutMs: 1000 }, () => build(call, work, { vm, set }));
    } catch (error) {
      for (const volume of cluster.volumes.values()) {
        if (volume.vmid === vmid) freeVolume(cluster, node, volume.volid);
      }
      if (cluster.vms.get(vmid) === vm) cluster.vms.delete(vmid);
      const message = error instanceof Error ? error.message : String(error);
      throw new PveError(500, `unable to create VM ${vmid} - ${message}`);
    }
    if (flag(params, "start") === true) await locked(call, work, (made) => startVm(call, work, made));
  });
}

async function build(
  call: Call,
  work: Work,
  { vm, set }: { vm: Vm; set: ReadonlyMap<string, string> },
): Promise<void> {
  await work.pause(300);
  const config = new Map<string, string>();
  for (const [key, value] of set) {
    if (isDrive(key)) config.set(key, createDrive(call.cluster, work, vm, { key, value }));
    else if (/^net\d+$/.test(key)) config.set(key, normalNet(value));
    else if (key === "tags") config.set(key, uniqueTags(value));
    else if (key === "cipassword") {
      vm.plainPassword = isCrypt(value) ? undefined : value;
      config.set(key, isCrypt(value) ? value : crypt(value));
    } else config.set(key, value);
  }
  if (!config.has("boot")) {
    const devices = [...config].filter(
      ([key, value]) => /^(?:scsi|virtio|sata|ide)\d/.test(key) && !value.includes("cloudinit"),
    );
    config.set("boot", `order=${devices.map(([key]) => key).join(";")}`);
  }
  if (!config.has("smbios1")) config.set("smbios1", `uuid=${newUuid()}`);
  if (!config.has("vmgenid") || config.get("vmgenid") === "1") config.set("vmgenid", newUuid());
  config.set("meta", `creation-qemu=10.1.2,ctime=${Math.floor(Date.now() / 1000)}`);
  vm.config = config;
}

/** What is refused before there is a task; the task looks again. */
function checkDestroyable({ cluster, node, vmid, params }: Call): Vm {
  const vm = findVm(cluster, node, vmid);
  checkProtection(vm, `can't remove VM ${vmid}`);
  if (vm.run) throw new PveError(500, `VM ${vmid} is running - destroy failed\n`);
  if (has(vm, "sim-ha") && flag(params, "purge") !== true) {
    throw new PveError(
      500,
      `unable to remove VM ${vmid} - used in HA resources and purge parameter not set.\n`,
    );
  }
  return vm;
}

async function destroy(call: Call, work: Work, vm: Vm): Promise<void> {
  const { cluster, node, vmid, params } = call;
  checkDestroyable(call);
  if (flag(params, "skiplock") !== true && vm.config.get("lock") !== "suspended") checkLock(vm);
  if (has(vm, "sim-fail-delete")) throw new PveError(500, "lvremove 'pve/vm' error: simulated failure\n");
  const disks = [...drivesOf(vm.config), ...drivesOf(vm.pending)].filter(
    ({ cdrom, cloudInit }) => !cdrom || cloudInit,
  );
  const used = isTemplate(vm) ? disks.find(({ volid }) => isBaseInUse(cluster, volid)) : undefined;
  if (used) throw new PveError(500, `base volume '${used.volid}' is still in use by linked cloned\n`);
  await work.pause(400);
  for (const disk of disks) {
    const volume = findVolume(cluster, node, disk.volid);
    if (volume?.vmid === vmid) freeVolume(cluster, node, disk.volid);
  }
  for (const key of [vm.config.get("vmstate"), ...[...vm.snapshots.values()].map(({ vmstate }) => vmstate)]) {
    if (key !== undefined) freeVolume(cluster, node, key);
  }
  if (flag(params, "destroy-unreferenced-disks") === true) {
    for (const volume of cluster.volumes.values()) {
      const here = volume.node === node || volume.node === "";
      if (volume.vmid === vmid && here && volume.content === "images")
        freeVolume(cluster, node, volume.volid);
    }
  }
  vm.config = new Map([["lock", "destroyed"]]);
  await work.pause(100);
  if (flag(params, "purge") === true) work.log(`purging VM ${vmid} from related configurations..`);
  cluster.vms.delete(vmid);
}

function checkTemplatable(call: Call): void {
  const vm = findVm(call.cluster, call.node, call.vmid);
  checkLock(vm);
  if (vm.snapshots.size > 0)
    throw new PveError(500, "unable to create template, because VM contains snapshots\n");
  if (isTemplate(vm) && !call.params.has("disk")) {
    throw new PveError(500, "you can't convert a template to a template\n");
  }
  if (vm.run) throw new PveError(500, "you can't convert a VM to template if VM is running\n");
}

/** Disks become base images: `base-9000-disk-0`. */
export function makeTemplate(cluster: Cluster, vm: Vm): void {
  vm.config.set("template", "1");
  for (const disk of drivesOf(vm.config)) {
    const volume = disk.cdrom ? undefined : findVolume(cluster, vm.node, disk.volid);
    if (!volume) continue;
    const volid = volume.volid.replace(/\/?vm-(\d+)-disk/, (found) => found.replace("vm-", "base-"));
    freeVolume(cluster, vm.node, volume.volid);
    cluster.volumes.set(volumeKey(cluster, vm.node, volid), { ...volume, volid });
    vm.config.set(disk.key, vm.config.get(disk.key)?.replace(disk.volid, volid) ?? "");
  }
}

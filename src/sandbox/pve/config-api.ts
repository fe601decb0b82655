/** GET, PUT and POST config, pending, cloudinit, unlink, and the operations on disks. */

import { withoutUndefined } from "../defined.ts";
import { pause } from "../pace.ts";
import { check } from "./access.ts";
import { type Cluster, checkLock, digestOf, findVm, isTemplate } from "./cluster.ts";
import {
  applyChange,
  checkChange,
  cloudInitValues,
  configJson,
  configView,
  pendingView,
  readChange,
} from "./config.ts";
import * as format from "./formats.ts";
import { makeCloudInit } from "./guest.ts";
import { has } from "./knobs.ts";
import { holdLock } from "./locks.ts";
import { isCloudInit, isDrive, vmOptions } from "./options.ts";
import { fork, locked, rootOnly } from "./power.ts";
import { type Call, type Method, method } from "./router.ts";
import { boolean, integer, needed, oneOf, type Schema, string } from "./schema.ts";
import {
  addUnused,
  allocate,
  findVolume,
  freeVolume,
  needImageStorage,
  parseDrive,
  parseSize,
  printDrive,
  printSize,
  storageOf,
  usedBytes,
} from "./storage.ts";
import type { Work } from "./tasks.ts";
import type { Vm } from "./types.ts";
import { flag, needText, notPlayed, number, PveError, paramError, text } from "./wire.ts";

const ids = { node: needed(format.node()), vmid: needed(format.vmid()) };
const audit = { path: "/vms/{vmid}", privileges: ["VM.Audit"] };
const configure = {
  path: "/vms/{vmid}",
  privileges: "Disk CDROM CPU Memory Network HWType Options Cloudinit"
    .split(" ")
    .map((name) => `VM.Config.${name}`),
  any: true,
};
const disks = { path: "/vms/{vmid}", privileges: ["VM.Config.Disk"] };

const change: Schema = {
  ...ids,
  ...vmOptions,
  delete: string({ format: format.configIdList }),
  digest: format.digest(),
  force: boolean({ requires: "delete" }),
  revert: string({ format: format.configIdList }),
  skiplock: boolean(),
};

export const configMethods: Method[] = [
  method("GET", "/nodes/{node}/qemu/{vmid}/config", {
    permission: audit,
    schema: { ...ids, current: boolean(), snapshot: format.snapshotName() },
    handler: readConfig,
  }),
  method("PUT", "/nodes/{node}/qemu/{vmid}/config", {
    permission: configure,
    schema: change,
    handler: updateNow,
  }),
  method("POST", "/nodes/{node}/qemu/{vmid}/config", {
    permission: configure,
    schema: {
      ...change,
      background_delay: integer({ minimum: 1, maximum: 30 }),
      "import-working-storage": format.storage(),
    },
    handler: updateInTask,
  }),
  method("PUT", "/nodes/{node}/qemu/{vmid}/unlink", {
    permission: disks,
    schema: { ...ids, force: boolean(), idlist: needed(string({ format: format.configIdList })) },
    handler: async (call) => {
      const params = new Map([...call.params, ["delete", needText(call.params, "idlist")]]);
      params.delete("idlist");
      await updateNow({ ...call, params });
    },
  }),
  method("GET", "/nodes/{node}/qemu/{vmid}/pending", {
    permission: audit,
    schema: ids,
    handler: ({ cluster, node, vmid }) => pendingView(findVm(cluster, node, vmid)),
  }),
  method("GET", "/nodes/{node}/qemu/{vmid}/cloudinit", {
    permission: audit,
    schema: ids,
    handler: ({ cluster, node, vmid }) => cloudInitView(findVm(cluster, node, vmid)),
  }),
  method("PUT", "/nodes/{node}/qemu/{vmid}/cloudinit", {
    permission: { path: "/vms/{vmid}", privileges: ["VM.Config.Cloudinit"] },
    schema: ids,
    handler: ({ cluster, node, vmid }) => {
      const vm = findVm(cluster, node, vmid);
      checkLock(vm);
      makeCloudInit(vm);
    },
  }),
  method("GET", "/nodes/{node}/qemu/{vmid}/cloudinit/dump", {
    permission: audit,
    schema: { ...ids, type: needed(oneOf("user", "network", "meta")) },
    handler: () => {
      throw notPlayed("the generated cloud-init files");
    },
  }),
  method("GET", "/nodes/{node}/qemu/{vmid}/feature", {
    permission: audit,
    protected: true,
    schema: { ...ids, feature: needed(oneOf("snapshot", "clone", "copy")), snapname: format.snapshotName() },
    handler: ({ cluster, node, vmid, params }) =>
      feature(cluster, findVm(cluster, node, vmid), needText(params, "feature")),
  }),
  method("PUT", "/nodes/{node}/qemu/{vmid}/resize", {
    permission: disks,
    schema: {
      ...ids,
      digest: format.digest(),
      disk: needed(format.diskName()),
      size: needed(string({ pattern: /\+?\d+(\.\d+)?[KMGT]?/ })),
      skiplock: boolean(),
    },
    handler: (call) => {
      rootOnly(call, "skiplock");
      return fork(call, "resize", (work) => locked(call, work, (vm) => resize(call, work, vm)));
    },
  }),
  method("POST", "/nodes/{node}/qemu/{vmid}/move_disk", {
    permission: disks,
    schema: {
      ...ids,
      bwlimit: integer({ minimum: 0 }),
      delete: boolean(),
      digest: format.digest(),
      disk: needed(format.diskOrUnused()),
      format: oneOf("raw", "qcow2", "vmdk"),
      storage: format.storage(),
      "target-digest": format.digest(),
      "target-disk": format.diskOrUnused(),
      "target-vmid": format.vmid(),
    },
    handler: (call) => {
      if (call.params.has("target-vmid")) throw notPlayed("the move of a disk to another VM");
      checkMove(call);
      return fork(call, "qmmove", (work) => locked(call, work, (vm) => move(call, work, vm)));
    },
  }),
];

function readConfig({ cluster, node, vmid, params }: Call): Record<string, unknown> {
  const vm = findVm(cluster, node, vmid);
  const name = text(params, "snapshot");
  if (name === undefined) return configView(vm, flag(params, "current") === true);
  if (params.has("current")) {
    throw new PveError(400, "Parameter verification failed.\n", {
      snapshot: "cannot use 'snapshot' parameter with 'current'",
    });
  }
  const snapshot = vm.snapshots.get(name);
  if (!snapshot) throw new PveError(500, `snapshot '${name}' does not exist\n`);
  return { ...configJson(snapshot.config), digest: digestOf(vm) };
}

const silent: Pick<Work, "log" | "warn"> = { log: () => undefined, warn: () => undefined };

/** Synchronous: null when it is done. */
async function updateNow(call: Call): Promise<null> {
  const { cluster, who, node, params } = call;
  const wanted = readChange(who, node, params);
  const vm = checkChange(cluster, wanted);
  if (has(vm, "sim-fail-config"))
    throw new PveError(500, "unable to write configuration: simulated failure\n");
  const release = await holdLock(cluster, wanted.vmid);
  try {
    await pause(cluster, 50);
    applyChange(cluster, silent, wanted);
  } finally {
    release();
  }
  return null;
}

/** A task; null when it is done within `background_delay`, else its UPID. */
async function updateInTask(call: Call): Promise<string | null> {
  const { cluster, who, node, params } = call;
  const wanted = readChange(who, node, params);
  checkChange(cluster, wanted);
  const upid = fork(call, "qmconfig", (work) =>
    locked(call, work, async (vm) => {
      const told = [...wanted.set].map(
        ([key, value]) => `-${key} ${key === "cipassword" ? "<hidden>" : value}`,
      );
      work.log(
        `update VM ${wanted.vmid}: ${[...told, ...wanted.remove.map((key) => `-delete ${key}`)].join(" ")}`,
      );
      await work.pause(100);
      if (has(vm, "sim-fail-config"))
        throw new PveError(500, "unable to write configuration: simulated failure\n");
      applyChange(cluster, work, wanted);
    }),
  );
  const delay = number(params, "background_delay");
  if (delay === undefined) return upid;
  for (let waited = 0; waited < delay * 1000; waited += 100) {
    await pause(cluster, 100);
    const task = cluster.tasks.get(upid);
    if (task?.endedAt === undefined) continue;
    if (task.exitstatus !== "OK") throw new PveError(500, `${task.exitstatus}\n`);
    return null;
  }
  return upid;
}

/** What differs from the image the guest has seen. */
function cloudInitView(vm: Vm): object[] {
  const now = cloudInitValues(vm);
  const hide = (key: string, value: string): string => (key === "cipassword" ? "**********" : value);
  return [...new Set([...now.keys(), ...vm.cloudInit.keys()])]
    .filter((key) => isCloudInit(key) || vm.cloudInit.get(key) !== now.get(key))
    .map((key) => {
      const [was, is] = [vm.cloudInit.get(key), now.get(key)];
      if (was === is) return { key, value: hide(key, is ?? "") };
      return withoutUndefined({
        key,
        value: was === undefined ? undefined : hide(key, was),
        pending: is === undefined ? undefined : hide(key, is),
        delete: is === undefined ? 1 : undefined,
      });
    });
}

function feature(cluster: Cluster, vm: Vm, name: string): object {
  const drives = [...vm.config].filter(([key]) => isDrive(key)).map(([key, value]) => parseDrive(key, value));
  const own = drives.filter(({ cdrom }) => !cdrom);
  const able = own.every(({ volid }) => {
    const volume = findVolume(cluster, vm.node, volid);
    if (name === "copy" || !volume) return true;
    if (name === "clone") return isTemplate(vm);
    return volume.format === "qcow2" || cluster.storages.get(volume.storage)?.thin === true;
  });
  return { hasFeature: able ? 1 : 0, nodes: [vm.node] };
}

async function resize(call: Call, work: Work, vm: Vm): Promise<void> {
  const { cluster, node, params, who } = call;
  const digest = text(params, "digest");
  if (digest !== undefined && digest !== digestOf(vm)) {
    throw new PveError(500, "checksum mismatch (file change by other user?)\n");
  }
  if (flag(params, "skiplock") !== true) checkLock(vm);
  const key = needText(params, "disk");
  const value = vm.config.get(key);
  if (value === undefined) throw new PveError(500, `disk '${key}' does not exist\n`);
  const drive = parseDrive(key, value);
  if (drive.cdrom) throw new PveError(500, "you can't resize a cdrom\n");
  check(who.account, `/storage/${storageOf(drive.volid)}`, ["Datastore.AllocateSpace"]);
  const volume = findVolume(cluster, node, drive.volid);
  if (!volume) throw new PveError(500, `Could not determine current size of volume '${drive.volid}'\n`);
  const wanted = needText(params, "size");
  const grows = wanted.startsWith("+");
  const size = parseSize(grows ? wanted.slice(1) : wanted) + (grows ? volume.sizeBytes : 0);
  if (size < volume.sizeBytes) throw new PveError(500, "shrinking disks is not supported\n");
  if (size === volume.sizeBytes) return;
  if (has(vm, "sim-fail-resize")) throw new PveError(500, "qemu-img: simulated failure\n");
  await work.pause(200);
  const storage = needImageStorage(cluster, volume.storage, node);
  if (size - volume.sizeBytes > storage.totalBytes - usedBytes(cluster, storage.id, node)) {
    throw new PveError(500, `command '/usr/bin/qemu-img resize' failed: No space left on device\n`);
  }
  volume.sizeBytes = size;
  vm.config.set(key, printDrive(drive, { size: printSize(size) }));
}

function checkMove({ cluster, node, vmid, params }: Call): Vm {
  const vm = findVm(cluster, node, vmid);
  checkLock(vm);
  const digest = text(params, "digest");
  if (digest !== undefined && digest !== digestOf(vm)) {
    throw new PveError(500, "detected modified configuration - file changed by other user? Try again.\n");
  }
  const key = needText(params, "disk");
  const value = vm.config.get(key);
  if (value === undefined) throw new PveError(500, `disk '${key}' does not exist\n`);
  const drive = parseDrive(key, value);
  if (drive.cdrom) throw new PveError(500, "you can't move a cdrom\n");
  const target = text(params, "storage");
  if (target === undefined) {
    const message = "both 'storage' and 'target-vmid' missing, either needs to be set";
    throw paramError({ "target-vmid": message, storage: message });
  }
  const volume = findVolume(cluster, node, drive.volid);
  const wanted = text(params, "format");
  if (volume?.storage === target && (wanted === undefined || wanted === volume.format)) {
    throw new PveError(500, "you can't move to the same storage with same format\n");
  }
  needImageStorage(cluster, target, node);
  const snapshotted = [...vm.snapshots.values()].some(({ sizes }) => sizes.has(drive.volid));
  if (snapshotted && flag(params, "delete") === true) {
    throw new PveError(500, "you can't move a disk with snapshots and delete the source\n");
  }
  return vm;
}

async function move(call: Call, work: Work, vm: Vm): Promise<void> {
  const { cluster, node, params } = call;
  checkMove(call);
  const key = needText(params, "disk");
  const drive = parseDrive(key, vm.config.get(key) ?? "");
  const from = findVolume(cluster, node, drive.volid);
  if (!from) throw new PveError(500, `volume '${drive.volid}' does not exist\n`);
  const storage = needImageStorage(cluster, needText(params, "storage"), node);
  work.log(`create full clone of drive ${key} (${drive.volid})`);
  const made = allocate(cluster, work, {
    node,
    storage,
    vmid: vm.vmid,
    sizeBytes: from.sizeBytes,
    format: text(params, "format") ?? from.format,
  });
  try {
    await work.pause(1500);
  } catch (error) {
    freeVolume(cluster, node, made.volid);
    throw new PveError(
      500,
      `storage migration failed: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  vm.config.set(key, printDrive(drive, { file: made.volid, size: printSize(made.sizeBytes) }));
  if (flag(params, "delete") === true) freeVolume(cluster, node, from.volid);
  else addUnused(vm, from.volid);
}

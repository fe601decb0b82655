/** Snapshots: with and without RAM, rollback, delete. */
import { withoutUndefined } from "../defined.ts";
import { check } from "./access.ts";
import { type Cluster, checkLock, copyGuest, digestOf, findVm } from "./cluster.ts";
import { configJson } from "./config.ts";
import * as format from "./formats.ts";
import { has } from "./knobs.ts";
import { fork, locked, run, startVm, stopped } from "./power.ts";
import { type Call, type Method, method } from "./router.ts";
import { boolean, needed, string } from "./schema.ts";
import {
  addUnused,
  allocate,
  type Drive,
  drivesOf,
  findVolume,
  freeVolume,
  needImageStorage,
  storageOf,
} from "./storage.ts";
import type { Work } from "./tasks.ts";
import type { Snapshot, Vm } from "./types.ts";
import { flag, needText, PveError, text } from "./wire.ts";

const ids = { node: needed(format.node()), vmid: needed(format.vmid()) };
const named = { ...ids, snapname: needed(format.snapshotName()) };
const snapshotRight = { path: "/vms/{vmid}", privileges: ["VM.Snapshot"] };
const BASE = "/nodes/{node}/qemu/{vmid}/snapshot";

export const snapshotMethods: Method[] = [
  method("GET", BASE, {
    permission: { path: "/vms/{vmid}", privileges: ["VM.Audit"] },
    protected: true,
    schema: ids,
    handler: ({ cluster, node, vmid }) => list(findVm(cluster, node, vmid)),
  }),
  method("POST", BASE, {
    permission: snapshotRight,
    schema: { ...named, description: string(), vmstate: boolean() },
    handler: (call) => {
      const name = needText(call.params, "snapname");
      if (name === "current" || name.toLowerCase() === "pending") {
        throw new PveError(500, `unable to use snapshot name '${name}' (reserved name)\n`);
      }
      findVm(call.cluster, call.node, call.vmid);
      return fork(call, "qmsnapshot", (work) => create(call, work, name));
    },
  }),
  method("GET", `${BASE}/{snapname}`, {
    permission: "all",
    proxied: false,
    schema: named,
    handler: () => ["rollback", "config"].map((cmd) => ({ cmd })),
  }),
  method("DELETE", `${BASE}/{snapname}`, {
    permission: snapshotRight,
    schema: { ...named, force: boolean() },
    handler: (call) =>
      fork(call, "qmdelsnapshot", (work) => locked(call, work, (vm) => remove(call, work, vm))),
  }),
  method("GET", `${BASE}/{snapname}/config`, {
    permission: {
      path: "/vms/{vmid}",
      privileges: ["VM.Snapshot", "VM.Snapshot.Rollback", "VM.Audit"],
      any: true,
    },
    schema: named,
    handler: ({ cluster, node, vmid, params }) => {
      const { name, config, description, time, parent } = find(
        findVm(cluster, node, vmid),
        needText(params, "snapname"),
      );
      return {
        ...configJson(config),
        name,
        snaptime: time,
        description,
        ...(parent === undefined ? {} : { parent }),
      };
    },
  }),
  method("PUT", `${BASE}/{snapname}/config`, {
    permission: snapshotRight,
    schema: { ...named, description: string() },
    handler: ({ cluster, node, vmid, params }) => {
      const vm = findVm(cluster, node, vmid);
      checkLock(vm);
      const description = text(params, "description");
      if (description !== undefined) find(vm, needText(params, "snapname")).description = description;
    },
  }),
  method("POST", `${BASE}/{snapname}/rollback`, {
    permission: { path: "/vms/{vmid}", privileges: ["VM.Snapshot", "VM.Snapshot.Rollback"], any: true },
    schema: { ...named, start: boolean() },
    handler: (call) => {
      const start = flag(call.params, "start") === true;
      if (start) check(call.who.account, `/vms/${call.vmid}`, ["VM.PowerMgmt"]);
      return fork(call, "qmrollback", async (work) => {
        await locked(call, work, (vm) => rollback(call, work, vm));
        const vm = findVm(call.cluster, call.node, call.vmid);
        if (start && !vm.run) await locked(call, work, (found) => startVm(call, work, found));
      });
    },
  }),
];

function find(vm: Vm, name: string): Snapshot {
  const snapshot = vm.snapshots.get(name);
  if (!snapshot) throw new PveError(500, `snapshot '${name}' does not exist\n`);
  return snapshot;
}

/** With the pseudo entry `current` at its end. */
function list(vm: Vm): object[] {
  const parent = vm.config.get("parent");
  const rows = [...vm.snapshots.values()].map((snapshot) =>
    withoutUndefined({
      name: snapshot.name,
      snaptime: snapshot.time,
      vmstate: snapshot.vmstate === undefined ? 0 : 1,
      description: snapshot.description,
      parent: snapshot.parent,
      snapstate: snapshot.state,
    }),
  );
  const current = {
    name: "current",
    digest: digestOf(vm),
    running: vm.run ? 1 : 0,
    description: "You are here!",
    ...(parent === undefined ? {} : { parent }),
  };
  return [...rows, current];
}

function disksOf(vm: Pick<Vm, "config">): Drive[] {
  return drivesOf(vm.config).filter(({ cdrom, key }) => !cdrom && !key.startsWith("unused"));
}

/** PVE::AbstractConfig: prepare, snapshot each volume, commit; what fails is cleaned up, what is killed stays as it was. */
async function create(call: Call, work: Work, name: string): Promise<void> {
  const { vm, snapshot } = await locked(call, work, (found) => prepare(call, work, { vm: found, name }));
  if (has(vm, "sim-fail-snapshot")) throw new PveError(500, "unable to read tail (got 0 bytes)\n");
  try {
    await work.pause(400);
    for (const disk of disksOf(vm)) {
      work.log(`snapshotting 'drive-${disk.key}' (${disk.volid})`);
      work.log("internal qemu snapshot");
    }
  } catch (error) {
    work.log("snapshot create failed: starting cleanup");
    if (snapshot.vmstate !== undefined) freeVolume(call.cluster, call.node, snapshot.vmstate);
    vm.snapshots.delete(name);
    vm.config.delete("lock");
    throw new PveError(500, error instanceof Error ? error.message : String(error));
  }
  snapshot.state = undefined;
  snapshot.guest = copyGuest(vm.guest);
  vm.config.set("parent", name);
  vm.config.delete("lock");
}

async function prepare(
  { cluster, params, ...call }: Call,
  work: Work,
  { vm, name }: { vm: Vm; name: string },
): Promise<{ vm: Vm; snapshot: Snapshot }> {
  checkLock(vm);
  if (vm.snapshots.has(name)) throw new PveError(500, `snapshot name '${name}' already used\n`);
  const unable = disksOf(vm).find((disk) => !canSnapshot(cluster, vm, disk));
  if (unable) throw new PveError(500, "snapshot feature is not available\n");
  vm.config.set("lock", "snapshot");
  const snapshot: Snapshot = {
    name,
    description: text(params, "description") ?? "",
    time: Math.floor(Date.now() / 1000),
    parent: vm.config.get("parent"),
    state: "prepare",
    vmstate: undefined,
    config: new Map([...vm.config].filter(([key]) => isKept(key))),
    sizes: sizesOf(cluster, vm),
    running: false,
    guest: copyGuest(vm.guest),
  };
  vm.snapshots.set(name, snapshot);
  if (flag(params, "vmstate") === true && vm.run) {
    snapshot.vmstate = await saveState({ cluster, params, ...call }, work, { vm, name });
    snapshot.running = true;
  }
  return { vm, snapshot };
}

/** __snapshot_copy_config: neither the description nor unused disks belong to a snapshot. */
function isKept(key: string): boolean {
  return key !== "lock" && key !== "parent" && key !== "description" && !key.startsWith("unused");
}

function canSnapshot(cluster: Cluster, vm: Vm, disk: Drive): boolean {
  const volume = findVolume(cluster, vm.node, disk.volid);
  return volume?.format === "qcow2" || cluster.storages.get(volume?.storage ?? "")?.thin === true;
}

function sizesOf(cluster: Cluster, vm: Vm): Map<string, number> {
  return new Map(
    disksOf(vm).map(({ volid }) => [volid, findVolume(cluster, vm.node, volid)?.sizeBytes ?? 0]),
  );
}

async function saveState(
  { cluster, node }: Call,
  work: Work,
  { vm, name }: { vm: Vm; name: string },
): Promise<string> {
  const storageId = vm.config.get("vmstatestorage") ?? storageOf(disksOf(vm)[0]?.volid ?? "local");
  const storage = needImageStorage(cluster, storageId, node);
  const sizeBytes = Number(vm.config.get("memory") ?? 512) * 1024 ** 2 * 2 + 500 * 1024 ** 2;
  const file = {
    node,
    storage,
    vmid: vm.vmid,
    sizeBytes,
    format: "raw",
    name: `vm-${vm.vmid}-state-${name}`,
  };
  const volume = allocate(cluster, work, file);
  work.log(`saving VM state and RAM using storage '${storageId}'`);
  await work.pause(1000);
  work.log("completed saving the VM state in 0s, saved 92.78 MiB");
  return volume.volid;
}

async function rollback(call: Call, work: Work, vm: Vm): Promise<void> {
  const { cluster, node } = call;
  const snapshot = find(vm, needText(call.params, "snapname"));
  if (snapshot.state !== undefined) {
    throw new PveError(500, `unable to rollback to incomplete snapshot (snapstate = ${snapshot.state})\n`);
  }
  checkLock(vm);
  const gone = [...snapshot.sizes.keys()].find((volid) => !findVolume(cluster, node, volid));
  if (gone !== undefined) throw new PveError(500, `volume '${gone}' does not exist\n`);
  vm.config.set("lock", "rollback");
  // qmeventd's clean-up waits for our lock, and takes it when we are done.
  if (vm.run) stopped(cluster, vm);
  await work.pause(600);
  if (has(vm, "sim-fail-rollback")) throw new PveError(500, "qemu-img: simulated failure\n");
  const before = disksOf(vm);
  for (const [volid, size] of snapshot.sizes) {
    const volume = findVolume(cluster, node, volid);
    if (volume) volume.sizeBytes = size;
  }
  // __snapshot_apply_config: these two stay what they are.
  const stays = [...vm.config].filter(([key]) => key === "description" || key.startsWith("unused"));
  vm.config = new Map([...stays, ...snapshot.config, ["parent", snapshot.name]]);
  for (const { volid } of before) {
    const used = disksOf(vm).some((disk) => disk.volid === volid);
    if (!used) addUnused(vm, volid);
  }
  vm.pending.clear();
  vm.pendingDelete.clear();
  vm.guest = copyGuest(snapshot.guest);
  if (snapshot.vmstate === undefined) return;
  const { instanceId, boots } = vm.guest;
  run(cluster, vm);
  Object.assign(vm.guest, { instanceId, boots });
}

async function remove(call: Call, work: Work, vm: Vm): Promise<void> {
  const { cluster, node } = call;
  const name = needText(call.params, "snapname");
  const snapshot = find(vm, name);
  checkLock(vm);
  vm.config.set("lock", "snapshot-delete");
  snapshot.state = "delete";
  await work.pause(400);
  for (const other of vm.snapshots.values()) {
    if (other.parent === name) other.parent = snapshot.parent;
  }
  if (vm.config.get("parent") === name) {
    if (snapshot.parent === undefined) vm.config.delete("parent");
    else vm.config.set("parent", snapshot.parent);
  }
  if (snapshot.vmstate !== undefined) freeVolume(cluster, node, snapshot.vmstate);
  vm.snapshots.delete(name);
  vm.config.delete("lock");
}

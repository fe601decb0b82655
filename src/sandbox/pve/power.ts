/** Power: every verb is a task, and what is wrong is mostly found inside it. */
import { pause, pauseExactly } from "../pace.ts";
import { type Cluster, checkLock, findVm, isTemplate, untilTraps } from "./cluster.ts";
import { applyPending } from "./config.ts";
import * as format from "./formats.ts";
import { agentAnswers, agentEnabled, boot, makeCloudInit } from "./guest.ts";
import { has } from "./knobs.ts";
import { holdLock, withLock } from "./locks.ts";
import { noteMacClashes } from "./macs.ts";
import { type Call, type Method, method } from "./router.ts";
import { boolean, integer, string } from "./schema.ts";
import {
  allocate,
  bootDisk,
  drivesOf,
  findVolume,
  freeVolume,
  needImageStorage,
  storageOf,
} from "./storage.ts";
import { forkWorker, type Work } from "./tasks.ts";
import type { Vm } from "./types.ts";
import { flag, number, PveError, paramError, parseProperties, text } from "./wire.ts";

const permission = { path: "/vms/{vmid}", privileges: ["VM.PowerMgmt"] };
const ids = { node: { ...format.node(), optional: false }, vmid: { ...format.vmid(), optional: false } };
/** PVE::AbstractConfig::lock_config. */
const LOCK_MS = 10_000;

export const powerMethods: Method[] = [
  method("POST", "/nodes/{node}/qemu/{vmid}/status/start", {
    permission,
    schema: {
      ...ids,
      "force-cpu": string(),
      machine: string(),
      migratedfrom: format.node(),
      migration_network: string(),
      migration_type: string({ enum: ["secure", "insecure"] }),
      "nets-host-mtu": string({ since: "9.2" }),
      skiplock: boolean(),
      stateuri: string({ maxLength: 128 }),
      targetstorage: string(),
      timeout: integer({ minimum: 0 }),
      "with-conntrack-state": boolean({ since: "9.2" }),
    },
    handler: (call) => {
      rootOnly(
        call,
        "skiplock",
        "stateuri",
        "migratedfrom",
        "migration_type",
        "migration_network",
        "force-cpu",
      );
      return fork(call, "qmstart", (work) => locked(call, work, (vm) => startVm(call, work, vm)));
    },
  }),
  method("POST", "/nodes/{node}/qemu/{vmid}/status/stop", {
    permission,
    schema: {
      ...ids,
      keepActive: boolean(),
      migratedfrom: format.node(),
      "overrule-shutdown": boolean(),
      skiplock: boolean(),
      timeout: integer({ minimum: 0 }),
    },
    handler: (call) => {
      rootOnly(call, "skiplock", "keepActive", "migratedfrom");
      return fork(call, "qmstop", async (work) => {
        if (flag(call.params, "overrule-shutdown") === true) overruleShutdowns(call, work);
        await lockedIfThere(call, work, (vm) => stopVm(call, work, { vm, shutdown: false, force: true }));
      });
    },
  }),
  method("POST", "/nodes/{node}/qemu/{vmid}/status/shutdown", {
    permission,
    schema: {
      ...ids,
      forceStop: boolean(),
      keepActive: boolean(),
      skiplock: boolean(),
      timeout: integer({ minimum: 0 }),
    },
    handler: (call) => {
      rootOnly(call, "skiplock", "keepActive");
      const force = flag(call.params, "forceStop") === true;
      const paused = call.cluster.vms.get(call.vmid)?.run?.paused === true;
      if (paused && !force) throw new PveError(500, "VM is paused - cannot shutdown\n");
      return fork(call, "qmshutdown", (work) =>
        lockedIfThere(call, work, (vm) => stopVm(call, work, { vm, shutdown: !paused, force })),
      );
    },
  }),
  method("POST", "/nodes/{node}/qemu/{vmid}/status/reboot", {
    permission,
    schema: { ...ids, timeout: integer({ minimum: 0 }) },
    handler: (call) => {
      if (call.cluster.vms.get(call.vmid)?.run?.paused === true) {
        throw new PveError(500, "VM is paused - cannot shutdown\n");
      }
      needRunning(call);
      return fork(call, "qmreboot", async (work) => {
        await lockedIfThere(call, work, (vm) => stopVm(call, work, { vm, shutdown: true, force: false }));
        // The task is over when the VM is down; qmeventd starts it again a moment later.
        void restart(call);
      });
    },
  }),
  method("POST", "/nodes/{node}/qemu/{vmid}/status/reset", {
    permission,
    schema: { ...ids, skiplock: boolean() },
    handler: (call) => {
      rootOnly(call, "skiplock");
      needRunning(call);
      return fork(call, "qmreset", (work) =>
        locked(call, work, async (vm) => {
          if (flag(call.params, "skiplock") !== true) checkLock(vm);
          await work.pause(100);
          boot(call.cluster, vm);
        }),
      );
    },
  }),
  method("POST", "/nodes/{node}/qemu/{vmid}/status/suspend", {
    permission,
    schema: {
      ...ids,
      skiplock: boolean(),
      statestorage: string({ format: format.storageId, requires: "todisk" }),
      todisk: boolean(),
    },
    handler: (call) => {
      rootOnly(call, "skiplock");
      needRunning(call);
      const todisk = flag(call.params, "todisk") === true;
      return fork(call, todisk ? "qmsuspend" : "qmpause", (work) => suspend(call, work, todisk));
    },
  }),
  method("POST", "/nodes/{node}/qemu/{vmid}/status/resume", {
    permission,
    schema: { ...ids, nocheck: boolean(), skiplock: boolean() },
    handler: (call) => {
      rootOnly(call, "skiplock", "nocheck");
      const suspended = call.cluster.vms.get(call.vmid)?.config.get("lock") === "suspended";
      if (!suspended) needRunning(call);
      return fork(call, "qmresume", (work) => locked(call, work, (vm) => resume(call, work, vm)));
    },
  }),
];

export function rootOnly(call: Pick<Call, "params" | "who">, ...keys: string[]): void {
  for (const key of keys) {
    const value = text(call.params, key);
    if (value !== undefined && value !== "0" && call.who.id !== "root@pam") {
      throw paramError({ [key]: "Only root may use this option." });
    }
  }
}

export function fork(call: Call, type: string, work: (work: Work) => Promise<void>): string {
  const { node, vmid, who, cluster } = call;
  return forkWorker(cluster, { node, type, id: String(vmid), user: who.id }, async (tools) => {
    const vm = cluster.vms.get(vmid);
    if (vm && has(vm, "sim-slow")) await pauseExactly(cluster, 10_000);
    await work(tools);
  });
}

/** check_running's own words for a VM that is not there, unlike load_config's. */
function assertExists(cluster: Cluster, node: string, vmid: number): Vm {
  const vm = cluster.vms.get(vmid);
  if (vm?.node === node) return vm;
  throw new PveError(500, `unable to find configuration file for VM ${vmid} on node '${node}'\n`);
}

/** The same, for a worker that asks first whether the VM runs. */
function lockedIfThere(call: Call, work: Work, action: (vm: Vm) => Promise<void>): Promise<void> {
  const { cluster, node, vmid } = call;
  return withLock(cluster, work, { vmid, timeoutMs: LOCK_MS }, () =>
    action(assertExists(cluster, node, vmid)),
  );
}

/** The VM under its file lock; it may be gone by now. */
export function locked<T>(call: Call, work: Work, action: (vm: Vm) => Promise<T>): Promise<T> {
  const { cluster, node, vmid } = call;
  return withLock(cluster, work, { vmid, timeoutMs: LOCK_MS }, () => action(findVm(cluster, node, vmid)));
}

/** A VM that isn't running, or isn't here, is refused before there is a task. */
function needRunning(call: Call): Vm {
  const { cluster, node, vmid } = call;
  const vm = assertExists(cluster, node, vmid);
  if (!vm.run) throw new PveError(500, `VM ${vmid} not running\n`);
  return vm;
}

/** vm_start, under the lock. */
export async function startVm(call: Pick<Call, "cluster" | "params">, work: Work, vm: Vm): Promise<void> {
  const { cluster } = call;
  if (isTemplate(vm)) throw new PveError(500, "you can't start a vm if it's a template\n");
  const lock = vm.config.get("lock");
  if (lock === "suspended") {
    await wakeUp(cluster, work, vm);
    return;
  }
  if (flag(call.params, "skiplock") !== true) checkLock(vm);
  if (vm.run) throw new PveError(500, `VM ${vm.vmid} already running\n`);
  applyPending(cluster, vm);
  checkDrives(cluster, vm);
  if (makeCloudInit(vm)) work.log("generating cloud-init ISO");
  await work.pause(800);
  if (has(vm, "sim-fail-start")) throw new PveError(500, "start failed: QEMU exited with code 1\n");
  if (has(vm, "sim-warn-start") || iothreadWarning(vm)) {
    work.warn("iothread is only valid with virtio disk or virtio-scsi-single controller, ignoring");
  }
  run(cluster, vm);
}

function iothreadWarning(vm: Vm): boolean {
  const single = vm.config.get("scsihw") === "virtio-scsi-single";
  const wants = [...vm.config].some(
    ([key, value]) => /^scsi\d+$/.test(key) && /(?:^|,)iothread=1/.test(value),
  );
  return wants && !single;
}

function checkDrives(cluster: Cluster, vm: Vm): void {
  const images = drivesOf(vm.config).filter(({ volid }) => volid.includes(":iso/"));
  for (const drive of [bootDisk(vm.config), ...images]) {
    if (drive && !findVolume(cluster, vm.node, drive.volid)) {
      throw new PveError(500, `volume '${drive.volid}' does not exist\n`);
    }
  }
}

let processes = 10_000;

export function run(cluster: Cluster, vm: Vm): void {
  processes += 1;
  noteMacClashes(cluster, vm, { how: "started", isRival: (other) => other.run !== undefined });
  vm.run = { startedAt: Date.now(), pid: processes, paused: false, agentAt: Infinity, commands: new Map() };
  boot(cluster, vm);
}

interface Stop {
  vm: Vm;
  /** Ask the guest, instead of ending QEMU. */
  shutdown: boolean;
  force: boolean;
}

/** _do_vm_stop: nothing to do is a success. */
export async function stopVm(call: Call, work: Work, { vm, shutdown, force }: Stop): Promise<void> {
  const { cluster, params } = call;
  if (!vm.run) return;
  if (flag(params, "skiplock") !== true) checkLock(vm);
  if (!shutdown && has(vm, "sim-fail-stop")) {
    await work.pause(300);
    throw new PveError(500, "VM quit/powerdown failed\n");
  }
  if (shutdown) await powerDown(call, work, { vm, force });
  else await work.pause(300);
  stopped(cluster, vm);
  // vm_stop_cleanup does it here, so that it shows before the next start; a guest that powers off by itself doesn't.
  applyPending(cluster, vm);
}

async function powerDown(call: Call, work: Work, { vm, force }: { vm: Vm; force: boolean }): Promise<void> {
  const { cluster, params } = call;
  const down = parseProperties(vm.config.get("startup") ?? "", "order").get("down");
  const seconds = number(params, "timeout") ?? (down === undefined ? 60 : Number(down));
  const hears =
    !(cluster.traps.deafGuests === true || has(vm, "sim-deaf")) && (listens(vm) || !agentEnabled(vm));
  const needs = 2;
  if (hears && needs <= seconds) {
    await work.pause(needs * 1000);
    return;
  }
  await work.pause(seconds * 1000);
  if (!force) throw new PveError(500, "VM quit/powerdown failed - got timeout\n");
  work.log("VM still running - terminating now with SIGTERM");
  await work.pause(500);
}

/** ACPI is heard by a guest that has booted; an agent that is not up yet makes PVE fall back to ACPI. */
function listens(vm: Vm): boolean {
  return agentAnswers(vm) || vm.config.get("acpi") !== "0";
}

/** QEMU is gone. qmeventd then cleans up, under the VM's file lock. */
export function stopped(cluster: Cluster, vm: Vm): void {
  vm.run = undefined;
  const cleanupMs = cluster.traps.cleanupLockMs ?? 0;
  if (cleanupMs === 0) return;
  void holdLock(cluster, vm.vmid)
    .then(async (release) => {
      await pause(cluster, cleanupMs);
      release();
    })
    .catch(() => undefined);
}

/** What qmeventd does after a reboot request: a start without a task of its own. */
async function restart({ cluster, vmid }: Call): Promise<void> {
  await pause(cluster, 1500);
  await untilTraps(cluster, () => cluster.traps.busyQmeventd !== true);
  const vm = cluster.vms.get(vmid);
  if (!vm || vm.run || vm.config.has("lock")) return;
  applyPending(cluster, vm);
  makeCloudInit(vm);
  run(cluster, vm);
}

function overruleShutdowns(call: Call, work: Work): void {
  const { cluster, node, vmid } = call;
  const hanging = [...(cluster.nodes.get(node)?.active ?? [])].filter(
    (task) => task.type === "qmshutdown" && task.id === String(vmid) && task.endedAt === undefined,
  );
  if (hanging.length === 0) return;
  for (const task of hanging) task.stop();
  work.log(`overruled qmshutdown tasks: ${hanging.map(({ upid }) => upid).join(", ")}`);
}

async function suspend(call: Call, work: Work, todisk: boolean): Promise<void> {
  const { cluster } = call;
  if (!todisk) {
    await locked(call, work, async (vm) => {
      if (flag(call.params, "skiplock") !== true) checkLock(vm);
      await work.pause(100);
      if (vm.run) vm.run.paused = true;
    });
    return;
  }
  const vm = await locked(call, work, async (found) => {
    checkLock(found);
    const disk = bootDisk(found.config);
    const id = text(call.params, "statestorage") ?? storageOf(disk?.volid ?? "local");
    const storage = needImageStorage(cluster, id, found.node);
    const sizeBytes = Number(found.config.get("memory") ?? 512) * 1024 ** 2 * 2;
    const name = `vm-${found.vmid}-state-suspend-${new Date().toISOString().slice(0, 10)}`;
    found.config.set("lock", "suspending");
    const state = allocate(cluster, work, { ...found, storage, sizeBytes, format: "raw", name });
    found.config.set("vmstate", state.volid);
    return found;
  });
  await work.pause(1500);
  work.log("State saved, quitting");
  vm.config.set("lock", "suspended");
  stopped(cluster, vm);
}

async function resume(call: Call, work: Work, vm: Vm): Promise<void> {
  if (vm.config.get("lock") === "suspended") return wakeUp(call.cluster, work, vm);
  if (vm.run?.paused !== true) return;
  if (flag(call.params, "skiplock") !== true) checkLock(vm);
  await work.pause(100);
  vm.run.paused = false;
}

async function wakeUp(cluster: Cluster, work: Work, vm: Vm): Promise<void> {
  work.log("Resuming suspended VM");
  await work.pause(1000);
  const state = vm.config.get("vmstate");
  if (state !== undefined) freeVolume(cluster, vm.node, state);
  vm.config.delete("vmstate");
  vm.config.delete("lock");
  const { instanceId, boots } = vm.guest;
  run(cluster, vm);
  // It goes on where it was: nothing boots.
  Object.assign(vm.guest, { instanceId, boots });
  work.log("Resumed VM, removing state");
}

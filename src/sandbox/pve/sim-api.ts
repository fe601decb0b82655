import { z } from "zod";
import { withoutUndefined } from "../defined.ts";
import { readFaults, shownFault } from "../faults.ts";
import { type Cluster, setTraps } from "./cluster.ts";
import { addBackup } from "./content-api.ts";
import { sentinelNames } from "./knobs.ts";
import { faultPresets } from "./presets.ts";
import { addStranger } from "./seed.ts";
import { drivesOf, findVolume } from "./storage.ts";
import { armTaskFault, type Task } from "./tasks.ts";
import { setTraffic, TrafficChange } from "./traffic.ts";
import type { ArmedTaskFault, Vm } from "./types.ts";
import type { Answer, Exchange } from "./wire.ts";

/** A VM as a test wants to see it: everything, past PVE's API. */
export interface SimulatedVm {
  vmid: number;
  node: string;
  name: string;
  status: "running" | "stopped" | "paused";
  lock: string | undefined;
  template: boolean;
  stranger: boolean;
  description: string;
  tags: string;
  uuid: string;
  config: Record<string, string>;
  pending: Record<string, string>;
  snapshots: string[];
  disks: Record<string, { volid: string; sizeBytes: number }>;
  /** What the guest itself knows: passwords by user, keys, addresses, how often it booted. */
  guest: {
    hostname: string;
    typed: string;
    passwords: Record<string, string>;
    sshKeys: string[];
    addresses: Record<string, string>;
    boots: number;
  };
}

export interface SimulatedTask {
  upid: string;
  node: string;
  type: string;
  id: string;
  user: string;
  status: "running" | "stopped";
  exitstatus: string | undefined;
  log: string[];
}

export function describeVm(cluster: Cluster, vm: Vm): SimulatedVm {
  const disks = drivesOf(vm.config).filter(({ cdrom }) => !cdrom);
  return {
    vmid: vm.vmid,
    node: vm.node,
    name: vm.config.get("name") ?? "",
    status: vm.run ? (vm.run.paused ? "paused" : "running") : "stopped",
    lock: vm.config.get("lock"),
    template: vm.config.get("template") === "1",
    stranger: vm.stranger,
    description: vm.config.get("description") ?? "",
    tags: vm.config.get("tags") ?? "",
    uuid: /uuid=([0-9a-f-]+)/.exec(vm.config.get("smbios1") ?? "")?.[1] ?? "",
    config: Object.fromEntries(vm.config),
    pending: Object.fromEntries(vm.pending),
    snapshots: [...vm.snapshots.keys()],
    disks: Object.fromEntries(
      disks.map(({ key, volid }) => [
        key,
        { volid, sizeBytes: findVolume(cluster, vm.node, volid)?.sizeBytes ?? 0 },
      ]),
    ),
    guest: {
      hostname: vm.guest.hostname,
      typed: vm.guest.typed,
      passwords: Object.fromEntries(vm.guest.users),
      sshKeys: [...vm.guest.sshKeys],
      addresses: Object.fromEntries(vm.guest.addresses),
      boots: vm.guest.boots,
    },
  };
}

export function describeTask(task: Task): SimulatedTask {
  const { upid, node, type, id, user, exitstatus, log } = task;
  return {
    upid,
    node,
    type,
    id,
    user,
    exitstatus,
    log: [...log],
    status: task.endedAt === undefined ? "running" : "stopped",
  };
}

const StrangerBody = z.strictObject({
  vmid: z.number().int().min(100).optional(),
  node: z.string().optional(),
  name: z.string().optional(),
  tags: z.string().optional(),
  description: z.string().optional(),
  running: z.boolean().optional(),
  storage: z.string().optional(),
  protection: z.boolean().optional(),
  lock: z.string().optional(),
});

/** What somebody else does to a VM: lock or unlock it, move it, change options behind PVE's back. */
export const VmChange = z.strictObject({
  lock: z.string().nullable().optional(),
  node: z.string().optional(),
  config: z.record(z.string(), z.string().nullable()).optional(),
  /** Its process is gone, as when the guest shuts itself down. */
  running: z.literal(false).optional(),
  /** As after "stop" in QEMU's monitor. */
  paused: z.boolean().optional(),
  /** What its network cards have counted, and how fast they go on. */
  traffic: TrafficChange.optional(),
});
export type VmChange = z.infer<typeof VmChange>;

const TrapsBody = z.strictObject({
  offlineNodes: z.array(z.string()).optional(),
  frozenNodes: z.array(z.string()).optional(),
  resourcesLagMs: z.number().optional(),
  statsEveryMs: z.number().optional(),
  archiveLagMs: z.number().optional(),
  authDelayMs: z.number().optional(),
  cleanupLockMs: z.number().optional(),
  errorStyle: z.enum(["json", "reason"]).optional(),
  stealVmids: z.number().optional(),
  forkDelayMs: z.number().optional(),
  tasksTakeMs: z.tuple([z.number(), z.number()]).optional(),
  deafGuests: z.boolean().optional(),
  busyQmeventd: z.boolean().optional(),
  agentAfterMs: z.number().optional(),
  vncWaitMs: z.number().optional(),
  noQuorum: z.boolean().optional(),
});

const BackupBody = z.strictObject({
  vmid: z.number().int().min(100),
  storage: z.string().optional(),
  node: z.string().optional(),
  takenAt: z.number().optional(),
  protected: z.boolean().optional(),
});

const TaskFaultBody = z.strictObject({
  id: z.string().optional(),
  task: z.string().optional(),
  vmid: z.number().optional(),
  times: z.number().int().min(0).optional(),
  probability: z.number().min(0).max(1).optional(),
  outcome: z.enum(["fail", "warn", "kill", "hang"]),
  at: z.enum(["start", "middle", "end"]).optional(),
  message: z.string().optional(),
});

const StorageBody = z.strictObject({ totalBytes: z.number().optional(), enabled: z.boolean().optional() });

export function changeVm(cluster: Cluster, vmid: number, change: VmChange): Vm {
  const vm = cluster.vms.get(vmid);
  if (!vm) throw new TypeError(`there is no VM ${vmid}`);
  if (change.node !== undefined) moveVm(cluster, vm, change.node);
  if (change.running === false) vm.run = undefined;
  if (change.paused !== undefined && vm.run) vm.run.paused = change.paused;
  if (change.traffic !== undefined) setTraffic(vm, change.traffic);
  const lock = change.lock === undefined ? {} : { lock: change.lock };
  for (const [key, value] of Object.entries({ ...change.config, ...lock })) {
    if (value === null) vm.config.delete(key);
    else vm.config.set(key, value);
  }
  return vm;
}

/** As after a migration: its own disks go with it. */
function moveVm(cluster: Cluster, vm: Vm, node: string): void {
  if (!cluster.nodes.has(node)) throw new TypeError(`there is no node ${node}`);
  const own = [...cluster.volumes].filter(([, volume]) => volume.vmid === vm.vmid && volume.node !== "");
  for (const [key, volume] of own) {
    cluster.volumes.delete(key);
    volume.node = node;
    cluster.volumes.set(`${node} ${volume.volid}`, volume);
  }
  vm.node = node;
}

/** Our own door into the simulator, for tests whose simulator lives in another process. No token needed. */
export function simApi(cluster: Cluster, exchange: Exchange, path: string): Answer {
  try {
    const [, kind = "", id = "", verb = ""] = path.split("/").map(decodeURIComponent);
    return dispatch(cluster, exchange, { kind, id, verb });
  } catch (error) {
    return { status: 400, body: { error: error instanceof Error ? error.message : String(error) } };
  }
}

interface Door {
  kind: string;
  id: string;
  verb: string;
}

function dispatch(cluster: Cluster, exchange: Exchange, door: Door): Answer {
  const read = (): unknown => JSON.parse(exchange.rawBody === "" ? "{}" : exchange.rawBody);
  const ok = (body: unknown): Answer => ({ status: 200, body });
  const call = `${exchange.method} /${door.kind}${door.id === "" ? "" : "/{id}"}${door.verb === "" ? "" : `/${door.verb}`}`;
  switch (call) {
    case "GET /vms":
      return ok({ vms: [...cluster.vms.values()].map((vm) => describeVm(cluster, vm)) });
    case "POST /vms":
      return {
        status: 201,
        body: { vm: describeVm(cluster, addStranger(cluster, StrangerBody.parse(read()))) },
      };
    case "PUT /vms/{id}":
      return ok({ vm: describeVm(cluster, changeVm(cluster, Number(door.id), VmChange.parse(read()))) });
    case "DELETE /vms/{id}":
      cluster.vms.delete(Number(door.id));
      return { status: 204 };
    case "POST /backups":
      return { status: 201, body: { volid: addBackup(cluster, BackupBody.parse(read())) } };
    case "GET /tasks":
      return ok({ tasks: [...cluster.tasks.values()].map(describeTask) });
    case "POST /tasks/{id}/kill":
      killTask(cluster, door.id);
      return { status: 204 };
    case "POST /tasks/{id}/release":
      releaseTask(cluster, door.id);
      return { status: 204 };
    case "GET /storages":
      return ok({ storages: [...cluster.storages.values()], volumes: [...cluster.volumes.values()] });
    case "PUT /storages/{id}":
      return ok({ storage: changeStorage(cluster, door.id, read()) });
    case "GET /requests":
      return ok({ requests: cluster.requests, counts: Object.fromEntries(cluster.counts) });
    case "DELETE /requests":
      cluster.requests.length = 0;
      cluster.counts.clear();
      return { status: 204 };
    default:
      return dispatchTrouble(cluster, call, read);
  }
}

function dispatchTrouble(cluster: Cluster, call: string, read: () => unknown): Answer {
  switch (call) {
    case "GET /faults":
      return {
        status: 200,
        body: { faults: cluster.faults.map(shownFault), presets: faultPresets, sentinels: sentinelNames },
      };
    case "POST /faults": {
      const armed = readFaults(read(), faultPresets);
      cluster.faults.push(...armed);
      return { status: 201, body: { faults: armed.map(shownFault) } };
    }
    case "DELETE /faults":
      cluster.faults.length = 0;
      cluster.taskFaults.length = 0;
      return { status: 204 };
    case "GET /task-faults":
      return { status: 200, body: { taskFaults: cluster.taskFaults.map(shownTaskFault) } };
    case "POST /task-faults": {
      const armed = armTaskFault(withoutUndefined(TaskFaultBody.parse(read())));
      cluster.taskFaults.push(armed);
      return { status: 201, body: { taskFaults: [shownTaskFault(armed)] } };
    }
    case "GET /traps":
      return { status: 200, body: { traps: cluster.traps } };
    case "PUT /traps":
      setTraps(cluster, withoutUndefined(TrapsBody.parse(read())));
      return { status: 200, body: { traps: cluster.traps } };
    case "DELETE /tickets":
      expireTickets(cluster);
      return { status: 204 };
    default:
      return { status: 404, body: { error: `the simulator has no ${call}` } };
  }
}

export function killTask(cluster: Cluster, upid: string): void {
  needTask(cluster, upid).kill();
}

export function releaseTask(cluster: Cluster, upid: string): void {
  needTask(cluster, upid).release();
}

function needTask(cluster: Cluster, upid: string): Task {
  const task = cluster.tasks.get(upid);
  if (!task) throw new TypeError(`there is no task ${upid}`);
  return task;
}

/** Every ticket given so far is worth nothing any more. */
export function expireTickets(cluster: Cluster): void {
  cluster.ticketKey = Buffer.from(cluster.ticketKey.map((byte) => byte ^ 0xff));
}

function changeStorage(cluster: Cluster, id: string, input: unknown): object {
  const storage = cluster.storages.get(id);
  if (!storage) throw new TypeError(`there is no storage ${id}`);
  return Object.assign(storage, withoutUndefined(StorageBody.parse(input)));
}

function shownTaskFault({ left, ...fault }: ArmedTaskFault): object {
  return { ...fault, left: Number.isFinite(left) ? left : null };
}

import { createHash, randomInt, randomUUID } from "node:crypto";
import type { Duplex } from "node:stream";
import type { ArmedFault } from "../faults.ts";
import type { Paced } from "../pace.ts";
import type { VncPort } from "./console.ts";
import type { Hooks } from "./hooks.ts";
import type { Lock } from "./locks.ts";
import type { Task } from "./tasks.ts";
import type { Account, ArmedTaskFault, Firewall, PveVersion, Storage, Traps, Vm, Volume } from "./types.ts";
import { PveError } from "./wire.ts";

export const MIB = 1024 ** 2;
export const GIB = 1024 ** 3;

export interface RequestLogEntry {
  at: string;
  method: string;
  path: string;
  /** 0: never answered, or cut. */
  status: number;
  /** The method of PVE's API, `/nodes/{node}/qemu/{vmid}/config`; undefined when there is none. */
  template: string | undefined;
  /** As they came, decoded; secrets are hidden. Only of known methods. */
  params: Record<string, unknown>;
  user: string | undefined;
  /** Kind of the fault that hit it. */
  fault?: string;
}

export interface Node {
  name: string;
  cpus: number;
  memoryBytes: number;
  bootedAt: number;
  nextPid: number;
  /** Running, and finished ones not yet archived. */
  active: Set<Task>;
  /** Oldest first: /var/log/pve/tasks/index.1, then index. */
  archive: { previous: Task[]; current: Task[]; bytes: number };
  fingerprint: string;
}

/** Everything the simulated cluster knows. One process, one event loop. */
export interface Cluster extends Paced {
  options: { speed: number; version: PveVersion };
  traps: Traps;
  faults: ArmedFault[];
  taskFaults: ArmedTaskFault[];
  nodes: Map<string, Node>;
  /** The node that is spoken to. */
  localNode: string;
  accounts: Map<string, Account>;
  /** Signs tickets. */
  ticketKey: Buffer;
  storages: Map<string, Storage>;
  /** By `node volid`; see volumeKey. */
  volumes: Map<string, Volume>;
  vms: Map<number, Vm>;
  tasks: Map<string, Task>;
  locks: Map<number, Lock>;
  requests: RequestLogEntry[];
  counts: Map<string, number>;
  /** When two VMs that ran, or would start with their node, had one MAC address: PVE lets them, and their network breaks. */
  macClashes: string[];
  /** Called when the traps change. */
  watchers: Set<() => void>;
  hooks: Hooks;
  /** Where vncproxy listens. */
  vncPorts: Map<number, VncPort>;
  /** Connections that are no HTTP any more, and that closing the server does not end. */
  upgraded: Set<Duplex>;
}

/** Resolves when `look` is true; it is asked again whenever the traps change. */
export function untilTraps(cluster: Cluster, look: () => boolean): Promise<void> {
  return new Promise((resolve) => {
    const watcher = (): void => {
      if (!look()) return;
      cluster.watchers.delete(watcher);
      resolve();
    };
    cluster.watchers.add(watcher);
    watcher();
  });
}

export function setTraps(cluster: Cluster, traps: Traps): void {
  cluster.traps = traps;
  for (const watcher of cluster.watchers) watcher();
}

/** As on a real node: a VM that isn't there is a 500 that names its file. */
export function findVm(cluster: Cluster, node: string, vmid: number): Vm {
  const vm = cluster.vms.get(vmid);
  if (!vm || vm.node !== node) {
    throw new PveError(500, `Configuration file 'nodes/${node}/qemu-server/${vmid}.conf' does not exist\n`);
  }
  return vm;
}

/** PVE::AbstractConfig::check_lock. */
export function checkLock(vm: Vm): void {
  const lock = vm.config.get("lock");
  if (lock !== undefined) throw new PveError(500, `VM is locked (${lock})\n`);
}

export function checkProtection(vm: Vm, what: string): void {
  if (vm.config.get("protection") === "1") {
    throw new PveError(500, `${what} - protection mode enabled\n`);
  }
}

export function checkQuorum(cluster: Cluster): void {
  if (cluster.traps.noQuorum === true) throw new PveError(500, "cluster not ready - no quorum?\n");
}

/** What `digest` guards: the text of the configuration file, pending changes and snapshots included. */
export function digestOf(vm: Vm): string {
  const lines = (section: Map<string, string>): string[] =>
    [...section].map(([key, value]) => `${key}: ${value}`).toSorted();
  const text = [
    ...lines(vm.config),
    "[PENDING]",
    ...lines(vm.pending),
    [...vm.pendingDelete.keys()].join(","),
    ...[...vm.snapshots.values()].flatMap(({ name, config }) => [`[${name}]`].concat(lines(config))),
  ].join("\n");
  return createHash("sha1").update(text).digest("hex");
}

// One after the other: three random bytes would meet among a few hundred VMs once in a while.
let lastMac = randomInt(0x1_00_00_00);

/** PVE's own prefix since 8.1. */
export function newMac(): string {
  lastMac = (lastMac + 1) % 0x1_00_00_00;
  const tail = lastMac.toString(16).toUpperCase().padStart(6, "0").match(/../g) ?? [];
  return `BC:24:11:${tail.join(":")}`;
}

export function newUuid(): string {
  return randomUUID();
}

export function newFirewall(): Firewall {
  return { options: new Map(), ipsets: new Map(), rules: [] };
}

export function newVm(cluster: Cluster, input: Pick<Vm, "vmid" | "node" | "config">): Vm {
  const vm: Vm = {
    ...input,
    pending: new Map(),
    pendingDelete: new Map(),
    snapshots: new Map(),
    run: undefined,
    guest: newGuest(),
    plainPassword: undefined,
    cloudInit: new Map(),
    firewall: newFirewall(),
    createdAt: Date.now(),
    stranger: false,
  };
  cluster.vms.set(vm.vmid, vm);
  return vm;
}

export function newGuest(): Vm["guest"] {
  return {
    hostname: "localhost",
    typed: "",
    users: new Map([
      ["root", ""],
      ["debian", ""],
    ]),
    sshKeys: [],
    addresses: new Map(),
    instanceId: "",
    boots: 0,
  };
}

export function copyGuest(guest: Vm["guest"]): Vm["guest"] {
  return structuredClone(guest);
}

export function isOffline(cluster: Cluster, node: string): boolean {
  return cluster.traps.offlineNodes?.includes(node) === true;
}

export function isTemplate(vm: Vm): boolean {
  return vm.config.get("template") === "1";
}

export function nodeOf(cluster: Cluster, name: string): Node {
  const node = cluster.nodes.get(name);
  // The router has looked before any handler runs.
  if (!node) throw new TypeError(`no node ${name}`);
  return node;
}

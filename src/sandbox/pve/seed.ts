import { randomBytes, randomUUID } from "node:crypto";
import { armFault } from "../faults.ts";
import { AUDIT, OPERATOR } from "./access.ts";
import { inventedFingerprint } from "./certificate.ts";
import { type Cluster, GIB, type Node, newMac, newUuid, newVm } from "./cluster.ts";
import { boot } from "./guest.ts";
import { makeTemplate } from "./qemu.ts";
import { allocate, needImageStorage, volumeKey } from "./storage.ts";
import { armTaskFault } from "./tasks.ts";
import type { Account, PveSimulatorOptions, Storage, Vm } from "./types.ts";

/** Not a secret: the simulator's own. */
export const ROOT_PASSWORD = "pve-not-a-secret";
export const TOKEN_ID = "ratatosk@pve!ratatosk";
export const READONLY_TOKEN_ID = "ratatosk@pve!readonly";
/** Known, but without any right: it sees empty lists. */
export const BLIND_TOKEN_ID = "ratatosk@pve!blind";
/** Of root, and yet not root@pam. */
export const ROOT_TOKEN_ID = "root@pam!auto";

export function createCluster(options: PveSimulatorOptions): Cluster {
  const names = options.nodes ?? ["n1", "n2"];
  const cluster: Cluster = {
    options: { speed: options.speed ?? 1, version: options.version ?? "9.2" },
    traps: { ...options.traps },
    faults: (options.faults ?? []).map(armFault),
    taskFaults: (options.taskFaults ?? []).map(armTaskFault),
    nodes: new Map(names.map((name) => [name, makeNode(name, options.nodeMemoryBytes ?? 256 * GIB)])),
    localNode: names[0] ?? "n1",
    accounts: new Map(accounts().map((account) => [account.id, account])),
    ticketKey: randomBytes(32),
    storages: new Map(storages(options.storageBytes ?? 2048 * GIB).map((storage) => [storage.id, storage])),
    volumes: new Map(),
    vms: new Map(),
    tasks: new Map(),
    locks: new Map(),
    requests: [],
    counts: new Map(),
    macClashes: [],
    watchers: new Set(),
    hooks: { tasks: [], requests: [] },
    vncPorts: new Map(),
    upgraded: new Set(),
    timers: new Set(),
    closed: false,
  };
  for (const [index, name] of names.entries()) {
    addTemplate(cluster, { vmid: 9000 + 100 * index, node: name, name: "debian-12", storage: "local" });
  }
  for (const node of names) for (const file of ["rescue.iso", "debian-13.iso"]) addIso(cluster, node, file);
  addTemplate(cluster, { vmid: 9001, node: cluster.localNode, name: "ubuntu-24.04", storage: "shared" });
  addTemplate(cluster, {
    vmid: 9002,
    node: cluster.localNode,
    name: "windows-2025",
    storage: "shared",
    ostype: "win11",
  });
  return cluster;
}

function makeNode(name: string, memoryBytes: number): Node {
  return {
    name,
    cpus: 32,
    memoryBytes,
    bootedAt: Date.now() - 3_600_000,
    nextPid: 1000,
    active: new Set(),
    archive: { previous: [], current: [], bytes: 0 },
    fingerprint: inventedFingerprint(name),
  };
}

function accounts(): Account[] {
  const on = (path: string, privileges: Iterable<string>): Account["acl"] =>
    new Map([[path, new Set(privileges)]]);
  const token = (id: string, acl: Account["acl"]): Account => ({
    id,
    secret: randomUUID(),
    enabled: true,
    acl,
  });
  return [
    { id: "root@pam", secret: ROOT_PASSWORD, enabled: true, acl: on("/", ["*"]) },
    { id: "ratatosk@pve", secret: ROOT_PASSWORD, enabled: true, acl: on("/", OPERATOR) },
    token(ROOT_TOKEN_ID, on("/", ["*"])),
    token(TOKEN_ID, on("/", OPERATOR)),
    token(READONLY_TOKEN_ID, on("/", [...AUDIT, "VM.GuestAgent.Audit", "VM.Monitor"])),
    token(BLIND_TOKEN_ID, new Map()),
  ];
}

function storages(totalBytes: number): Storage[] {
  const common = { totalBytes, enabled: true, nodes: undefined };
  return [
    { ...common, id: "local", type: "dir", shared: false, thin: false, content: ["backup", "images", "iso"] },
    { ...common, id: "local-lvm", type: "lvmthin", shared: false, thin: true, content: ["images"] },
    { ...common, id: "shared", type: "nfs", shared: true, thin: false, content: ["images", "iso"] },
    // Nothing can be built on it.
    { ...common, id: "backups", type: "nfs", shared: true, thin: false, content: ["backup"] },
  ];
}

function addIso(cluster: Cluster, node: string, file: string): void {
  const volid = `local:iso/${file}`;
  const sizeBytes = 600 * 1024 ** 2;
  const common = {
    volid,
    storage: "local",
    node,
    vmid: 0,
    sizeBytes,
    base: undefined,
    createdAt: Date.now(),
  };
  cluster.volumes.set(volumeKey(cluster, node, volid), { ...common, format: "iso", content: "iso" });
}

interface TemplateInput {
  vmid: number;
  node: string;
  name: string;
  storage: string;
  ostype?: string;
}

const quiet = { log: (): void => undefined };

export function addTemplate(cluster: Cluster, input: TemplateInput): Vm {
  const vm = addVm(cluster, { ...input, running: false });
  vm.config.set("ostype", input.ostype ?? "l26");
  makeTemplate(cluster, vm);
  return vm;
}

/** What somebody else may make, past the API: `POST /_sim/vms`. */
export interface StrangerInput {
  vmid?: number | undefined;
  node?: string | undefined;
  name?: string | undefined;
  tags?: string | undefined;
  description?: string | undefined;
  running?: boolean | undefined;
  storage?: string | undefined;
  protection?: boolean | undefined;
  lock?: string | undefined;
}

/** A VM that is there at once, without a task; by default it runs. */
export function addStranger(cluster: Cluster, input: StrangerInput = {}): Vm {
  const vmid = input.vmid ?? freeVmid(cluster);
  if (cluster.vms.has(vmid)) throw new TypeError(`VM ${vmid} is there already`);
  const vm = addVm(cluster, {
    vmid,
    node: input.node ?? cluster.localNode,
    name: input.name ?? `stranger-${vmid}`,
    storage: input.storage ?? "local",
    running: input.running ?? true,
  });
  for (const key of ["tags", "description", "lock"] as const) {
    const value = input[key];
    if (value !== undefined) vm.config.set(key, value);
  }
  if (input.protection === true) vm.config.set("protection", "1");
  vm.stranger = true;
  return vm;
}

function freeVmid(cluster: Cluster): number {
  let vmid = 100;
  while (cluster.vms.has(vmid)) vmid += 1;
  return vmid;
}

function addVm(
  cluster: Cluster,
  input: { vmid: number; node: string; name: string; storage: string; running: boolean },
): Vm {
  const { vmid, node } = input;
  if (!cluster.nodes.has(node)) throw new TypeError(`there is no node ${node}`);
  const storage = needImageStorage(cluster, input.storage, node);
  const place = { node, storage, vmid, format: "qcow2" };
  const disk = allocate(cluster, quiet, { ...place, sizeBytes: 4 * GIB });
  const seed = allocate(cluster, quiet, { ...place, sizeBytes: 4 * 1024 ** 2, name: `vm-${vmid}-cloudinit` });
  const config = new Map([
    ["agent", "1"],
    ["boot", "order=scsi0"],
    ["cores", "1"],
    ["ide2", `${seed.volid},media=cdrom,size=4M`],
    ["ipconfig0", "ip=dhcp"],
    ["memory", "512"],
    ["meta", `creation-qemu=10.1.2,ctime=${Math.floor(Date.now() / 1000)}`],
    ["name", input.name],
    ["net0", `virtio=${newMac()},bridge=vmbr0`],
    ["ostype", "l26"],
    ["scsi0", `${disk.volid},size=4G`],
    ["scsihw", "virtio-scsi-pci"],
    ["serial0", "socket"],
    ["smbios1", `uuid=${newUuid()}`],
    ["vga", "serial0"],
    ["vmgenid", newUuid()],
  ]);
  const vm = newVm(cluster, { vmid, node, config });
  // It has been there for a while: the cluster's cache knows it.
  vm.createdAt = 0;
  if (input.running) {
    vm.run = {
      startedAt: Date.now(),
      pid: 900 + vmid,
      paused: false,
      agentAt: Infinity,
      commands: new Map(),
    };
    boot(cluster, vm);
    vm.run.agentAt = Date.now();
  }
  return vm;
}

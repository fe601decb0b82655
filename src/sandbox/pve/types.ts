import type { Fault } from "../faults.ts";
import type { Traffic } from "./traffic.ts";

export type PveVersion = "8.4" | "9.2";

/** Ways in which a whole cluster can be difficult. All off (or at their harmless default) unless asked for. */
export interface Traps {
  /** Powered off: calls for them are 595 after 3 s, lists show them offline and their VMs unknown. */
  offlineNodes?: string[];
  /** Their daemon hangs: 596 after 30 s; what was asked is done as soon as they are taken off this list. */
  frozenNodes?: string[];
  /** How long GET /cluster/resources shows a new VM as "unknown" without a name, at speed 1. Default 5000. */
  resourcesLagMs?: number;
  /** How often pvestatd writes down uptime and traffic for GET /cluster/resources, at speed 1. Default 10000. */
  statsEveryMs?: number;
  /** How long a finished task is still listed as RUNNING (its own status is right at once), at speed 1. Default 0. */
  archiveLagMs?: number;
  /** Every refused authentication is answered this much later, at speed 1. Default 3000. */
  authDelayMs?: number;
  /** After a VM stopped, qmeventd holds its file lock this long, at speed 1. Default 0; the real one up to 30 s. */
  cleanupLockMs?: number;
  /** "reason": a 500 and a 400 carry their message in the reason phrase only (libpve-http-server before 5.2.0, PVE up to 8.3). */
  errorStyle?: "json" | "reason";
  /** A stranger takes the new VMID of this many clones and creates between their early check and their task. */
  stealVmids?: number;
  /** How long a worker takes from its UPID to its first step, whatever the speed. Default 20 at speed 1, at least 5. */
  forkDelayMs?: number;
  /** Every task takes so much longer, whatever the speed: at random, between these two. Default: no longer. */
  tasksTakeMs?: [least: number, most: number];
  /** Guests ignore ACPI and the agent's shutdown: shutdown and reboot time out. */
  deafGuests?: boolean;
  /** A guest that PVE's reboot has stopped is started again only when this is taken off: qmeventd is busy. */
  busyQmeventd?: boolean;
  /** When the guest agent answers after a start, at speed 1. Default 3000. */
  agentAfterMs?: number;
  /** How long vncproxy waits for its visitor, whatever the speed. Default 10000. */
  vncWaitMs?: number;
  /** The cluster has lost its quorum: nothing can be written to /etc/pve. */
  noQuorum?: boolean;
}

/** What is to happen to a task, whatever was asked of it. */
export interface TaskFault {
  id?: string;
  /** Regular expression on the task's type: "qmclone"; default: any. */
  task?: string;
  /** The VM it is about: for a clone the new or the old VMID. */
  vmid?: number;
  /** Default 1; 0 = for ever. */
  times?: number;
  /** 0..1; default 1. */
  probability?: number;
  /** fail: exit status is `message`. warn: it succeeds with WARNINGS: 1. kill: its worker is killed (-9). hang: until stopped. */
  outcome: "fail" | "warn" | "kill" | "hang";
  /** Before its work, in the middle of it (default: locks are taken, configs half made), or when all of it is done. */
  at?: "start" | "middle" | "end";
  message?: string;
}

export interface ArmedTaskFault extends TaskFault {
  id: string;
  left: number;
  hits: number;
}

export interface PveSimulatorOptions {
  /** Default 127.0.0.1. */
  host?: string;
  /** Default 0: any free port. */
  port?: number;
  /** Multiplies every delay: 1 shows clones of ~3 s, 0 is as fast as possible yet still asynchronous. Default 1. */
  speed?: number;
  /** Default n1, n2. The first one is the node that is spoken to. */
  nodes?: string[];
  /** Default true: a certificate of the cluster's own CA. */
  tls?: boolean;
  /** Default 9.2. */
  version?: PveVersion;
  faults?: Fault[];
  taskFaults?: TaskFault[];
  traps?: Traps;
  log?: (line: string) => void;
  /** Bytes of each node's own storages; default 2 TiB. */
  storageBytes?: number;
  /** Of each node. Default 256 GiB. */
  nodeMemoryBytes?: number;
}

export interface Storage {
  id: string;
  type: "dir" | "lvmthin" | "nfs";
  shared: boolean;
  content: string[];
  /** Per node; a shared one has a single store under the key "". */
  totalBytes: number;
  enabled: boolean;
  /** Default: every node. */
  nodes: string[] | undefined;
  /** Disks of it can be cloned as linked ones, and snapshotted, whatever their format. */
  thin: boolean;
}

export interface Volume {
  volid: string;
  storage: string;
  /** "" on a shared storage. */
  node: string;
  vmid: number;
  sizeBytes: number;
  format: string;
  content: "images" | "iso" | "backup";
  /** The base volume of a linked clone. */
  base: string | undefined;
  createdAt: number;
  /** Of a backup: nobody can delete it. */
  protected?: boolean | undefined;
}

export interface Snapshot {
  name: string;
  description: string;
  /** Epoch seconds. */
  time: number;
  parent: string | undefined;
  /** While it is being taken or deleted, and after that was broken off. */
  state: "prepare" | "delete" | undefined;
  vmstate: string | undefined;
  config: Map<string, string>;
  /** Sizes of the disks at that time, by volume id. */
  sizes: Map<string, number>;
  running: boolean;
  guest: Guest;
}

/** What is on the guest's disk. */
export interface Guest {
  hostname: string;
  /** At its console, since the last Enter. */
  typed: string;
  /** Plain passwords by user; "" = locked. */
  users: Map<string, string>;
  sshKeys: string[];
  /** From cloud-init at the last boot: ipconfigN by N. */
  addresses: Map<number, string>;
  /** Of the cloud-init data that was applied last. */
  instanceId: string;
  boots: number;
}

export interface RunState {
  startedAt: number;
  pid: number;
  paused: boolean;
  /** What its network cards have counted; the usual when absent. */
  traffic?: Traffic;
  /** When its guest agent answers; Infinity = never. */
  agentAt: number;
  /** Commands that were run through the agent. */
  commands: Map<number, { command: string[]; exitcode: number; output: string; doneAt: number }>;
}

export interface Vm {
  vmid: number;
  node: string;
  config: Map<string, string>;
  pending: Map<string, string>;
  /** Option to "force". */
  pendingDelete: Map<string, boolean>;
  /** Oldest first. */
  snapshots: Map<string, Snapshot>;
  run: RunState | undefined;
  guest: Guest;
  /** What cipassword was before it was hashed: for tests. */
  plainPassword: string | undefined;
  /** The cloud-init image was made from these values. */
  cloudInit: Map<string, string>;
  firewall: Firewall;
  createdAt: number;
  /** Made by `POST /_sim/vms`: somebody else's work. */
  stranger: boolean;
}

export interface Firewall {
  options: Map<string, string>;
  ipsets: Map<string, { comment: string; entries: Map<string, { comment: string; nomatch: boolean }> }>;
  rules: Map<string, string>[];
}

export interface Account {
  /** `user@realm` or `user@realm!token`. */
  id: string;
  /** Password, or the token's secret. */
  secret: string;
  enabled: boolean;
  /** Privileges by path; the longest matching path decides. "*" = all. */
  acl: Map<string, Set<string>>;
}

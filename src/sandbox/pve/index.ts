import { once } from "node:events";
import { armFault, type Fault } from "../faults.ts";
import { makeCertificate } from "./certificate.ts";
import { type RequestLogEntry, setTraps } from "./cluster.ts";
import { addBackup, type BackupInput } from "./content-api.ts";
import type { WantedRequest } from "./hooks.ts";
import {
  addStranger,
  BLIND_TOKEN_ID,
  createCluster,
  READONLY_TOKEN_ID,
  ROOT_PASSWORD,
  ROOT_TOKEN_ID,
  type StrangerInput,
  TOKEN_ID,
} from "./seed.ts";
import { createServer } from "./server.ts";
import {
  changeVm,
  describeTask,
  describeVm,
  expireTickets,
  killTask,
  releaseTask,
  type SimulatedTask,
  type SimulatedVm,
  type VmChange,
} from "./sim-api.ts";
import { armTaskFault } from "./tasks.ts";
import type { PveSimulatorOptions, Storage, TaskFault, Traps, Volume } from "./types.ts";

export type { Fault } from "../faults.ts";
export type { RequestLogEntry } from "./cluster.ts";
export type { BackupInput } from "./content-api.ts";
export { sentinelNames } from "./knobs.ts";
export { faultPresets } from "./presets.ts";
export type { StrangerInput } from "./seed.ts";
export type { SimulatedTask, SimulatedVm, VmChange } from "./sim-api.ts";
export type { PveSimulatorOptions, TaskFault, Traps } from "./types.ts";

export interface PveToken {
  /** `user@realm!token` */
  id: string;
  secret: string;
}

export interface PveSimulator {
  /** https://127.0.0.1:PORT */
  url: string;
  /** SHA-256 of the node's certificate, `AA:BB:…`; "" without TLS. */
  fingerprint: string;
  /** PEM of the cluster's CA; "" without TLS. */
  ca: string;
  /** A token that may do what an operator's role may. */
  tokenId: string;
  tokenSecret: string;
  tokens: {
    operator: PveToken;
    readonly: PveToken;
    /** Sees empty lists and may do nothing. */
    blind: PveToken;
    /** All privileges, yet not root@pam. */
    root: PveToken;
  };
  /** For tickets. */
  root: { username: string; password: string };
  nodes: string[];
  state: {
    /** Fresh copies at each look. */
    readonly vms: SimulatedVm[];
    readonly tasks: SimulatedTask[];
    readonly storages: Storage[];
    readonly volumes: Volume[];
    readonly requests: RequestLogEntry[];
    /** How often, by "METHOD /path/{template} status". */
    readonly counts: Record<string, number>;
    /** When two VMs that ran, or would start with their node, had one MAC address. */
    readonly macClashes: readonly string[];
    readonly faults: readonly Fault[];
    readonly taskFaults: readonly TaskFault[];
    /** May be set at any time. */
    traps: Traps;
  };
  /** Returns the fault's id. */
  addFault(fault: Fault): string;
  addTaskFault(fault: TaskFault): string;
  /** Those of requests and of tasks. */
  clearFaults(): void;
  /** A VM somebody else made, there at once. */
  addStranger(input?: StrangerInput): SimulatedVm;
  /** What somebody else does to a VM, past PVE. */
  changeVm(vmid: number, change: VmChange): SimulatedVm;
  /** What a backup job has left; answers its volume id. */
  addBackup(input: BackupInput): string;
  /** Gone without a task. */
  removeVm(vmid: number): void;
  /** Called once, when such a worker is forked and before it does anything. */
  onTask(type: string, work: (task: SimulatedTask) => void): void;
  /** Called once, when such a request has come in and before it is answered. A path is a regular expression. */
  onRequest(wanted: WantedRequest, work: () => void): void;
  /** As `kill -9` of its worker. */
  killTask(upid: string): void;
  /** One that a fault makes hang goes on. */
  releaseTask(upid: string): void;
  expireTickets(): void;
  close(): Promise<void>;
}

/** A Proxmox VE cluster behind one of its nodes, on one port. */
export async function startPveSimulator(options: PveSimulatorOptions = {}): Promise<PveSimulator> {
  const cluster = createCluster(options);
  const host = options.host ?? "127.0.0.1";
  const tls = options.tls === false ? undefined : makeCertificate(cluster.localNode, host);
  const local = cluster.nodes.get(cluster.localNode);
  if (local && tls) local.fingerprint = tls.fingerprint;
  const server = createServer(cluster, tls, options.log ?? ignore);
  server.listen(options.port ?? 0, host);
  await once(server, "listening");
  const address = server.address();
  const port = typeof address === "object" ? address?.port : undefined;
  const token = (id: string): PveToken => ({ id, secret: cluster.accounts.get(id)?.secret ?? "" });
  const operator = token(TOKEN_ID);
  return {
    url: `${tls ? "https" : "http"}://${host}:${port}`,
    fingerprint: tls?.fingerprint ?? "",
    ca: tls?.ca ?? "",
    tokenId: operator.id,
    tokenSecret: operator.secret,
    tokens: {
      operator,
      readonly: token(READONLY_TOKEN_ID),
      blind: token(BLIND_TOKEN_ID),
      root: token(ROOT_TOKEN_ID),
    },
    root: { username: "root@pam", password: ROOT_PASSWORD },
    nodes: [...cluster.nodes.keys()],
    state: inspectable(cluster),
    addFault: (fault) => {
      const armed = armFault(fault);
      cluster.faults.push(armed);
      return armed.id;
    },
    addTaskFault: (fault) => {
      const armed = armTaskFault(fault);
      cluster.taskFaults.push(armed);
      return armed.id;
    },
    clearFaults: () => {
      cluster.faults.length = 0;
      cluster.taskFaults.length = 0;
    },
    addStranger: (input = {}) => describeVm(cluster, addStranger(cluster, input)),
    changeVm: (vmid, change) => describeVm(cluster, changeVm(cluster, vmid, change)),
    addBackup: (input) => addBackup(cluster, input),
    removeVm: (vmid) => {
      cluster.vms.delete(vmid);
    },
    onTask: (type, work) => {
      cluster.hooks.tasks.push({ type, work: (task) => work(describeTask(task)) });
    },
    onRequest: (wanted, work) => {
      cluster.hooks.requests.push({ wanted, work });
    },
    killTask: (upid) => {
      killTask(cluster, upid);
    },
    releaseTask: (upid) => {
      releaseTask(cluster, upid);
    },
    expireTickets: () => {
      expireTickets(cluster);
    },
    close: async () => {
      cluster.closed = true;
      for (const timer of cluster.timers) clearTimeout(timer);
      cluster.timers.clear();
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      for (const socket of cluster.upgraded) socket.destroy();
      await closed;
    },
  };
}

function ignore(): void {
  // No log asked for.
}

function inspectable(cluster: ReturnType<typeof createCluster>): PveSimulator["state"] {
  return {
    get vms() {
      return [...cluster.vms.values()].map((vm) => describeVm(cluster, vm));
    },
    get tasks() {
      return [...cluster.tasks.values()].map(describeTask);
    },
    get storages() {
      return [...cluster.storages.values()];
    },
    get volumes() {
      return [...cluster.volumes.values()];
    },
    get requests() {
      return cluster.requests;
    },
    get counts() {
      return Object.fromEntries(cluster.counts);
    },
    get macClashes() {
      return cluster.macClashes;
    },
    get faults() {
      return cluster.faults;
    },
    get taskFaults() {
      return cluster.taskFaults;
    },
    get traps() {
      return cluster.traps;
    },
    set traps(traps) {
      setTraps(cluster, traps);
    },
  };
}

/** Workers, as PVE::RESTEnvironment forks them: a UPID at once, the truth in the exit status. */
import { randomUUID } from "node:crypto";
import { pause, pauseExactly } from "../pace.ts";
import { type Cluster, type Node, nodeOf } from "./cluster.ts";
import { taskForked } from "./hooks.ts";
import type { ArmedTaskFault, TaskFault } from "./types.ts";

export interface Task {
  upid: string;
  node: string;
  pid: number;
  /** Jiffies since the node booted. */
  pstart: number;
  /** Epoch seconds. */
  starttime: number;
  type: string;
  id: string;
  /** With the token's name. */
  user: string;
  log: string[];
  /** Epoch milliseconds; undefined while its worker lives. */
  endedAt: number | undefined;
  exitstatus: string | undefined;
  archived: boolean;
  warnings: number;
  /** Ends it as SIGTERM does. */
  stop: () => void;
  /** Ends it as SIGKILL does. */
  kill: () => void;
  /** Lets one that a fault makes hang go on. */
  release: () => void;
}

/** What a worker's code works with. */
export interface Work {
  readonly upid: string;
  log: (line: string) => void;
  /** PVE's log_warn: the exit status becomes WARNINGS. */
  warn: (line: string) => void;
  /** Takes time; throws when the task is stopped, and never returns once its worker is dead. */
  pause: (ms: number) => Promise<void>;
  /** What the system frees when the worker is killed. */
  onDeath: (free: () => void) => void;
}

/** What a worker dies with when somebody stops the task; the worker's own clean-up has run. */
export class Interrupted extends Error {
  constructor() {
    super("received interrupt\n");
    this.name = "Interrupted";
  }
}

const JIFFIES_PER_SECOND = 100;
/** PVE::RESTEnvironment: a task index above this is rotated; two are kept, older tasks are listed no more. */
const INDEX_BYTES = 50_000;

export interface Fork {
  node: string;
  type: string;
  id: string;
  user: string;
  /** The VMs it is about, for task faults. */
  vmids?: number[];
}

/** Starts a worker; its UPID is the answer, whatever becomes of it. */
export function forkWorker(cluster: Cluster, fork: Fork, work: (work: Work) => Promise<void>): string {
  const node = nodeOf(cluster, fork.node);
  const now = Date.now();
  node.nextPid += 1;
  const hex = (value: number): string => value.toString(16).toUpperCase().padStart(8, "0");
  const pstart = Math.floor(((now - node.bootedAt) / 1000) * JIFFIES_PER_SECOND);
  const starttime = Math.floor(now / 1000);
  const { type, id, user } = fork;
  const upid = `UPID:${fork.node}:${hex(node.nextPid)}:${hex(pstart)}:${hex(starttime)}:${type}:${id}:${user}:`;
  const task: Task = {
    upid,
    node: fork.node,
    pid: node.nextPid,
    pstart,
    starttime,
    type,
    id,
    user,
    log: [],
    endedAt: undefined,
    exitstatus: undefined,
    archived: false,
    warnings: 0,
    stop: () => undefined,
    kill: () => undefined,
    release: () => undefined,
  };
  cluster.tasks.set(upid, task);
  node.active.add(task);
  taskForked(cluster.hooks, task);
  const fault = takeTaskFault(cluster.taskFaults, { type, vmids: fork.vmids ?? [Number(id)] });
  void runWorker(cluster, task, { work, fault });
  return upid;
}

async function runWorker(
  cluster: Cluster,
  task: Task,
  { work, fault }: { work: (work: Work) => Promise<void>; fault: TaskFault | undefined },
): Promise<void> {
  const { promise: stopped, reject: interrupt } = Promise.withResolvers<never>();
  // Nobody may be waiting for it when it is stopped.
  stopped.catch(() => undefined);
  const toFree: (() => void)[] = [];
  let middle = fault?.at === undefined || fault.at === "middle";
  task.stop = () => {
    interrupt(new Interrupted());
  };
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  task.release = release;
  task.kill = () => {
    for (const free of toFree) free();
    endTask(cluster, task, "unexpected status");
  };
  const strike = async (): Promise<void> => {
    if (!fault) return;
    if (fault.outcome === "warn") warn(task, fault.message ?? "simulated warning");
    if (fault.outcome === "fail") throw new Error(fault.message ?? "simulated failure");
    if (fault.outcome === "kill") task.kill();
    if (fault.outcome === "hang") await Promise.race([stopped, released]);
  };
  const tools: Work = {
    upid: task.upid,
    log: (line) => {
      if (task.endedAt === undefined) task.log.push(...line.replace(/\n$/, "").split("\n"));
    },
    warn: (line) => {
      warn(task, line);
    },
    pause: async (ms) => {
      await Promise.race([pause(cluster, ms), stopped]);
      if (middle) {
        middle = false;
        await strike();
      }
      // A dead worker does nothing any more.
      if (task.endedAt !== undefined) await new Promise<never>(() => undefined);
    },
    onDeath: (free) => {
      toFree.push(free);
    },
  };
  try {
    // The answer with the UPID leaves before the worker's first step: the gap in which VMIDs are lost.
    const gapMs = cluster.traps.forkDelayMs ?? Math.max(5, 20 * cluster.options.speed);
    const [least, most] = cluster.traps.tasksTakeMs ?? [0, 0];
    const longerMs = least + Math.random() * (most - least);
    await Promise.race([pauseExactly(cluster, gapMs + longerMs), stopped]);
    if (fault?.at === "start") await strike();
    if (task.endedAt !== undefined) return;
    await work(tools);
    if (middle || fault?.at === "end") await strike();
    if (task.endedAt !== undefined) return;
    if (task.warnings > 0) finish(cluster, task, `WARNINGS: ${task.warnings}`);
    else finish(cluster, task, "OK");
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    // read_status finds the last line of the log only.
    const lines = message.replace(/\n$/, "").split("\n");
    finish(cluster, task, lines.join(" "), "ERROR");
  }
}

function warn(task: Task, line: string): void {
  task.log.push(...`WARN: ${line}`.split("\n"));
  task.warnings += 1;
}

function finish(cluster: Cluster, task: Task, exitstatus: string, kind?: "ERROR"): void {
  if (task.endedAt !== undefined) return;
  task.log.push(kind === "ERROR" ? `TASK ERROR: ${exitstatus}` : `TASK ${exitstatus}`);
  endTask(cluster, task, exitstatus);
}

function endTask(cluster: Cluster, task: Task, exitstatus: string): void {
  if (task.endedAt !== undefined) return;
  task.endedAt = Date.now();
  task.exitstatus = exitstatus;
  const lag = cluster.traps.archiveLagMs ?? 0;
  if (lag === 0) archive(nodeOf(cluster, task.node), task);
  else void pause(cluster, lag).then(() => archive(nodeOf(cluster, task.node), task));
}

function archive(node: Node, task: Task): void {
  task.archived = true;
  node.active.delete(task);
  node.archive.current.push(task);
  node.archive.bytes += task.upid.length + 10 + (task.exitstatus?.length ?? 0) + 1;
  if (node.archive.bytes <= INDEX_BYTES) return;
  node.archive = { previous: node.archive.current, current: [], bytes: 0 };
}

export function armTaskFault(fault: TaskFault): ArmedTaskFault {
  if (fault.task !== undefined) RegExp(fault.task);
  const times = fault.times ?? 1;
  return { ...fault, id: fault.id ?? randomUUID(), left: times === 0 ? Infinity : times, hits: 0 };
}

function takeTaskFault(
  faults: ArmedTaskFault[],
  task: { type: string; vmids: number[] },
): TaskFault | undefined {
  for (const fault of faults) {
    if (fault.left <= 0) continue;
    if (fault.task !== undefined && !new RegExp(fault.task).test(task.type)) continue;
    if (fault.vmid !== undefined && !task.vmids.includes(fault.vmid)) continue;
    if (fault.probability !== undefined && Math.random() >= fault.probability) continue;
    fault.left -= 1;
    fault.hits += 1;
    return fault;
  }
  return undefined;
}

/** The simulated PVE cluster of the bench `pve`. Started by pve.ts; counts the calls by what they were for. */
import { startPveSimulator } from "../src/sandbox/pve/index.ts";
import { startedWith, tell } from "./child.ts";

export interface BenchVm {
  vmid: number;
  node: string;
  name: string;
  running: boolean;
  /** With our marker, or empty. */
  description: string;
}

export type Question =
  | { kind: "add"; vms: BenchVm[] }
  /** How long every task takes from now on, at random between the two. */
  | { kind: "tasks take"; milliseconds: [number, number] }
  | { kind: "counts" };

/** Calls since the start. */
export interface Counts {
  writes: number;
  "status of one task": number;
  "task lists": number;
  "one VM": number;
  "the cluster and its nodes": number;
}

const { nodes, storageBytes, speed, seed } = startedWith() as {
  nodes: string[];
  storageBytes: number;
  speed: number;
  seed: number;
};

/** https://en.wikipedia.org/wiki/Xorshift: the same lengths of tasks in every run. */
let state = seed;
Math.random = () => {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) / 2 ** 32;
};

const simulator = await startPveSimulator({ nodes, storageBytes, speed });

process.on("message", (question: Question) => tell(answer(question)));
tell({
  url: simulator.url,
  tokenId: simulator.tokenId,
  tokenSecret: simulator.tokenSecret,
  fingerprint: simulator.fingerprint,
});

function answer(question: Question): object {
  if (question.kind === "add") {
    const made = question.vms.map((vm) => simulator.addStranger(vm));
    return Object.fromEntries(made.map(({ vmid, uuid }) => [vmid, uuid]));
  }
  if (question.kind === "tasks take") {
    const [least, most] = question.milliseconds;
    simulator.state.traps = { ...simulator.state.traps, tasksTakeMs: [least, most] };
    return {};
  }
  return countsNow();
}

function countsNow(): Counts {
  const counts: Counts = {
    writes: 0,
    "status of one task": 0,
    "task lists": 0,
    "one VM": 0,
    "the cluster and its nodes": 0,
  };
  for (const [call, times] of Object.entries(simulator.state.counts)) counts[kindOf(call)] += times;
  return counts;
}

/** Of "GET /nodes/{node}/qemu/{vmid}/config 200". */
function kindOf(call: string): keyof Counts {
  const [method, path = ""] = call.split(" ");
  if (method !== "GET" && !path.endsWith("/agent/ping")) return "writes";
  if (path.startsWith("/nodes/{node}/tasks/{upid}")) return "status of one task";
  if (path === "/nodes/{node}/tasks") return "task lists";
  return path.startsWith("/nodes/{node}/qemu/{vmid}") ? "one VM" : "the cluster and its nodes";
}

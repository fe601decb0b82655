/** The counters of a VM's network cards, which live as long as its QEMU process. */
import { z } from "zod";
import type { Cluster } from "./cluster.ts";
import type { Vm } from "./types.ts";

/** From `at` on they grow by so much a second. */
export interface Traffic {
  at: number;
  inBytes: number;
  outBytes: number;
  inBytesPerS: number;
  outBytesPerS: number;
}

export const TrafficChange = z.strictObject({
  inBytes: z.number().min(0).optional(),
  outBytes: z.number().min(0).optional(),
  inBytesPerS: z.number().min(0).optional(),
  outBytesPerS: z.number().min(0).optional(),
  /** How long it has run by now. */
  uptimeS: z.number().min(0).optional(),
});
export type TrafficChange = z.infer<typeof TrafficChange>;

const USUAL = { inBytes: 0, outBytes: 0, inBytesPerS: 1200, outBytesPerS: 800 };
const STATS_MS = 10_000;

export function setTraffic(vm: Vm, { uptimeS, ...change }: TrafficChange): void {
  if (!vm.run) throw new TypeError(`VM ${vm.vmid} is off, so it has no counters`);
  const at = Date.now();
  const { netin, netout } = figuresAt(vm, at);
  if (uptimeS !== undefined) vm.run.startedAt = at - uptimeS * 1000;
  vm.run.traffic = { ...(vm.run.traffic ?? USUAL), inBytes: netin, outBytes: netout, ...given(change), at };
}

function given(change: Omit<TrafficChange, "uptimeS">): Partial<Traffic> {
  return Object.fromEntries(Object.entries(change).filter(([, value]) => value !== undefined));
}

/** As the VM's own status has it. */
export function figuresAt(vm: Vm, now: number): { uptime: number; netin: number; netout: number } {
  const { run } = vm;
  if (!run || run.startedAt > now) return { uptime: 0, netin: 0, netout: 0 };
  const from = run.traffic ?? { ...USUAL, at: run.startedAt };
  const seconds = Math.max(0, Math.floor((now - from.at) / 1000));
  return {
    uptime: Math.floor((now - run.startedAt) / 1000),
    netin: from.inBytes + seconds * from.inBytesPerS,
    netout: from.outBytes + seconds * from.outBytesPerS,
  };
}

/** As pvestatd wrote them down last, for the cluster's list. */
export function figuresListed(cluster: Cluster, vm: Vm): ReturnType<typeof figuresAt> {
  const every = (cluster.traps.statsEveryMs ?? STATS_MS) * cluster.options.speed;
  const now = Date.now();
  return figuresAt(vm, every === 0 ? now : Math.floor(now / every) * every);
}

import { parseArgs } from "node:util";
import type { CloudKind } from "./address.ts";

export interface Wanted {
  orders: number;
  workers: number;
  seed: number;
  /** Of 1: how many workers are suspended beyond their lease and woken up again, instead of killed. */
  frozen: number;
  withoutProbe: boolean;
  timesEachPoint: number | null;
  /** Kills and suspensions of workers, at least. */
  kills: number;
  clouds: readonly CloudKind[];
  ownServers: boolean;
  /** Of 1: how many of the PVE servers are changed, rebuilt or deleted in the same run. */
  life: number;
  limitMs: number;
  /** Shows how the orders stand, every five seconds. */
  verbose: boolean;
}

const kinds = { both: ["openstack", "pve"], openstack: ["openstack"], pve: ["pve"] } as const;

export function readOptions(): Wanted {
  const { values } = parseArgs({
    options: {
      orders: { type: "string", default: "300" },
      workers: { type: "string", default: "2" },
      seed: { type: "string", default: "1" },
      frozen: { type: "string", default: "0.1" },
      "without-probe": { type: "boolean", default: false },
      "crash-points": { type: "boolean", default: false },
      times: { type: "string", default: "20" },
      kills: { type: "string", default: "1" },
      clouds: { type: "string", default: "both" },
      life: { type: "string" },
      "own-servers": { type: "boolean", default: false },
      "limit-seconds": { type: "string", default: "840" },
      verbose: { type: "boolean", default: false },
    },
  });
  const { clouds } = values;
  if (clouds !== "both" && clouds !== "openstack" && clouds !== "pve") {
    throw new TypeError(`--clouds is both, openstack or pve, not ${clouds}`);
  }
  return {
    orders: numberOf("orders", values.orders),
    workers: numberOf("workers", values.workers),
    seed: numberOf("seed", values.seed),
    frozen: numberOf("frozen", values.frozen),
    withoutProbe: values["without-probe"],
    timesEachPoint: values["crash-points"] ? numberOf("times", values.times) : null,
    kills: numberOf("kills", values.kills),
    clouds: kinds[clouds],
    ownServers: values["own-servers"],
    limitMs: numberOf("limit-seconds", values["limit-seconds"]) * 1_000,
    verbose: values.verbose,
    // The counter-proof is about orders.
    life: values["without-probe"] ? 0 : numberOf("life", values.life ?? "0.5"),
  };
}

function numberOf(name: string, text: string): number {
  const number = Number(text);
  if (text === "" || !Number.isFinite(number) || number < 0)
    throw new TypeError(`--${name} is no number: ${text}`);
  return number;
}

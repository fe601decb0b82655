/** How big a server may be asked for, by whom: sizes that are typed; what a plan has was decided by who sells it. */
import type { Principal } from "../access.ts";
import { ServiceError } from "../errors.ts";

interface Limit {
  option: string;
  least: number;
  most: number;
  message: string;
}

type Sized = "vcpus" | "memoryMib" | "diskGib";

const endless = Number.MAX_SAFE_INTEGER;

const customerLimits: Record<Sized, Limit> = {
  vcpus: { option: "cpu", least: 1, most: 32, message: "CPU must be 1-32." },
  memoryMib: { option: "memory", least: 512, most: 1_048_576, message: "Memory must be 512 MiB-1 TiB." },
  diskGib: { option: "disk", least: 10, most: 10_240, message: "Disk must be 10 GiB-10 TiB." },
};

const staffLimits: Record<Sized, Limit> = {
  vcpus: { option: "cpu", least: 1, most: 128, message: "CPU must be 1-128." },
  memoryMib: { option: "memory", least: 512, most: endless, message: "Memory must be at least 512 MiB." },
  diskGib: { option: "disk", least: 1, most: endless, message: "Disk must be at least 1 GiB." },
};

/**
 * Throws `invalid_input`: the message is about the first size that is out of bounds, `facts.errors` has a sentence for
 * each (option name → sentence).
 */
export function requireWithinLimits(
  principal: Principal,
  asked: { readonly [size in Sized]?: number | undefined },
): void {
  const limits = principal.kind === "customer" ? customerLimits : staffLimits;
  const broken = (["vcpus", "memoryMib", "diskGib"] as const).flatMap((size) => {
    const value = asked[size];
    const { least, most } = limits[size];
    return value === undefined || (value >= least && value <= most) ? [] : [limits[size]];
  });
  const [first] = broken;
  if (first === undefined) return;
  throw new ServiceError("invalid_input", first.message, {
    facts: {
      option: first.option,
      errors: Object.fromEntries(broken.map(({ option, message }) => [option, message])),
    },
  });
}

const customerSnapshots = 5;

/** Each takes room that all share. Throws `quota`. */
export function requireSnapshotRoom(principal: Principal, count: number): void {
  if (principal.kind !== "customer" || count < customerSnapshots) return;
  throw new ServiceError(
    "quota",
    `A server may have ${customerSnapshots} snapshots. Delete one first: /snapshot list shows them.`,
  );
}

/** PVE splits vCPUs evenly over sockets. Throws `invalid_input`. */
export function requireEvenSockets(vcpus: number, sockets: number | undefined): void {
  if (sockets === undefined || vcpus % sockets === 0) return;
  throw new ServiceError("invalid_input", `${vcpus} vCPU do not divide by ${sockets} sockets.`, {
    facts: { option: "sockets" },
  });
}

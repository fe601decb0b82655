/** What happens inside the VM: booting, cloud-init, and the agent that is there only a while later. */
import { createHash } from "node:crypto";
import type { Cluster } from "./cluster.ts";
import { cloudInitValues } from "./config.ts";
import { agentAnswersAt } from "./knobs.ts";
import { macOf } from "./macs.ts";
import { drivesOf } from "./storage.ts";
import type { Vm } from "./types.ts";
import { parseProperties } from "./wire.ts";

/** The image is made at each start, and by PUT cloudinit; the guest reads what was made. */
export function makeCloudInit(vm: Vm): boolean {
  if (!drivesOf(vm.config).some(({ cloudInit }) => cloudInit)) return false;
  vm.cloudInit = cloudInitValues(vm);
  return true;
}

export function instanceIdOf(values: ReadonlyMap<string, string>): string {
  const lines = [...values].map(([key, value]) => `${key}=${value}`).toSorted();
  return createHash("sha1").update(lines.join("\n")).digest("hex");
}

/** The guest comes up. PVE derives the instance id from the data, so cloud-init applies changed data once more. */
export function boot(cluster: Cluster, vm: Vm): void {
  if (!vm.run) return;
  // Another system runs, without an agent and without a look at this one's disk.
  if (bootsFromIso(vm)) {
    vm.run.agentAt = Infinity;
    return;
  }
  vm.run.agentAt = agentEnabled(vm) ? agentAnswersAt(cluster, vm) : Infinity;
  vm.guest.boots += 1;
  if (vm.cloudInit.size === 0) return;
  const id = instanceIdOf(vm.cloudInit);
  if (id === vm.guest.instanceId) return;
  vm.guest.instanceId = id;
  const values = vm.cloudInit;
  const user = values.get("ciuser") ?? (isWindows(vm) ? "Administrator" : "debian");
  vm.guest.hostname = values.get("name") ?? vm.guest.hostname;
  const password = values.has("cipassword") ? (vm.plainPassword ?? "(given as a hash)") : undefined;
  if (password !== undefined || !vm.guest.users.has(user)) vm.guest.users.set(user, password ?? "");
  const keys = decodeURIComponent(values.get("sshkeys") ?? "")
    .split("\n")
    .filter((line) => line !== "");
  // cloud-init adds to authorized_keys what is not in it, and takes nothing away.
  const old = vm.guest.sshKeys;
  vm.guest.sshKeys = [...old, ...keys.filter((key) => !old.includes(key))];
  vm.guest.addresses = new Map(
    [...values]
      .filter(([key]) => /^ipconfig\d+$/.test(key))
      .map(([key, value]) => [Number(key.slice("ipconfig".length)), value]),
  );
}

function bootsFromIso(vm: Vm): boolean {
  const order =
    parseProperties(vm.config.get("boot") ?? "", "legacy")
      .get("order")
      ?.split(";") ?? [];
  const value = vm.config.get(order[0] ?? "");
  return value !== undefined && /^[^,:]+:iso\/[^,]+,.*media=cdrom/.test(value);
}

export function isWindows(vm: Vm): boolean {
  return vm.config.get("ostype")?.startsWith("w") === true;
}

export function agentEnabled(vm: Vm): boolean {
  const enabled = parseProperties(vm.config.get("agent") ?? "0", "enabled").get("enabled") ?? "0";
  return /^(?:1|on|yes|true)$/i.test(enabled);
}

export function agentAnswers(vm: Vm): boolean {
  return vm.run !== undefined && !vm.run.paused && Date.now() >= vm.run.agentAt;
}

export interface Interface {
  name: string;
  "hardware-address": string;
  "ip-addresses": { "ip-address": string; "ip-address-type": "ipv4" | "ipv6"; prefix: number }[];
  statistics: Record<string, number>;
}

/** guest-network-get-interfaces. */
export function interfacesOf(vm: Vm): Interface[] {
  const statistics = Object.fromEntries(
    ["rx", "tx"].flatMap((way) =>
      ["bytes", "packets", "errs", "dropped"].map((what): [string, number] => [`${way}-${what}`, 0]),
    ),
  );
  const loopback: Interface = {
    name: "lo",
    "hardware-address": "00:00:00:00:00:00",
    "ip-addresses": [
      { "ip-address": "127.0.0.1", "ip-address-type": "ipv4", prefix: 8 },
      { "ip-address": "::1", "ip-address-type": "ipv6", prefix: 128 },
    ],
    statistics,
  };
  const cards = [...vm.config]
    .filter(([key]) => /^net\d+$/.test(key))
    .map(([key, value]): Interface => {
      const index = Number(key.slice("net".length));
      return {
        name: `eth${index}`,
        "hardware-address": macOf(value).toLowerCase(),
        "ip-addresses": addressesOf(vm, index),
        statistics,
      };
    });
  return [loopback, ...cards];
}

function addressesOf(vm: Vm, index: number): Interface["ip-addresses"] {
  const properties = parseProperties(vm.guest.addresses.get(index) ?? "", "");
  const found: Interface["ip-addresses"] = [];
  for (const [key, type] of [
    ["ip", "ipv4"],
    ["ip6", "ipv6"],
  ] as const) {
    const value = properties.get(key);
    if (value === undefined || value === "auto") continue;
    const given = value === "dhcp" ? leased(vm, index, type) : value;
    const [address = "", prefix = "24"] = given.split("/");
    found.push({ "ip-address": address, "ip-address-type": type, prefix: Number(prefix) });
  }
  return found;
}

/** A DHCP server knows a card by its MAC address, whichever VM has it. */
function leased(vm: Vm, index: number, type: "ipv4" | "ipv6"): string {
  const tail =
    Number.parseInt(
      macOf(vm.config.get(`net${index}`) ?? "")
        .replaceAll(":", "")
        .slice(-4),
      16,
    ) || 1;
  return type === "ipv4" ? `10.99.${tail >> 8}.${tail & 255}/16` : `fd99::${tail.toString(16)}/64`;
}

// What a VM's configuration says of its addresses. cloud-init hands them to the guest at a boot, so between a change and that
// boot the configuration says what will be; which run of QEMU the change was made under is noted in the VM itself.
import { isIP } from "node:net";
import ipaddr from "ipaddr.js";
import { properties, staticAddressesOf } from "./config.ts";
import type { VmConfig, VmStatus } from "./schema.ts";

const PARTS = ["ip", "gw", "ip6", "gw6"] as const;
/** What stands there instead of an address. */
const BY_ITSELF = new Set(["dhcp", "auto", "manual"]);

export interface FixedAddress {
  /** With its prefix length. */
  cidr: string;
  gateway?: string | undefined;
}

/** The other version's part stays. PVE's default for none at all is DHCP for IPv4. */
export function withAddress(ipConfig: string | undefined, { cidr, gateway }: FixedAddress): string {
  const version = cidr.includes(":") ? "6" : "";
  return written({ ...partsOf(ipConfig), [`ip${version}`]: cidr, [`gw${version}`]: gateway });
}

/** Back to what a server without fixed addresses is built with. */
export function withoutAddresses(ipConfig: string | undefined, versions: readonly (4 | 6)[]): string {
  const parts = partsOf(ipConfig);
  if (versions.includes(4) && isFixed(parts["ip"])) Object.assign(parts, { ip: "dhcp", gw: undefined });
  if (versions.includes(6) && isFixed(parts["ip6"])) Object.assign(parts, { ip6: undefined, gw6: undefined });
  return written(parts) === "" ? "ip=dhcp" : written(parts);
}

function partsOf(ipConfig: string | undefined): Record<string, string | undefined> {
  return ipConfig === undefined || ipConfig === "" ? { ip: "dhcp" } : properties(ipConfig);
}

function isFixed(address: string | undefined): boolean {
  return address !== undefined && !BY_ITSELF.has(address);
}

function written(parts: Readonly<Record<string, string | undefined>>): string {
  return PARTS.flatMap((key) => (parts[key] === undefined ? [] : [`${key}=${parts[key]}`])).join(",");
}

/** PVE may write the parts back in another order. */
export function isSameIpConfig(shown: string | undefined, wanted: string): boolean {
  return written(partsOf(shown)) === written(partsOf(wanted));
}

interface AddressNote {
  /** Of the QEMU process under which the configuration was changed. */
  pid: number;
  /** The fixed addresses that the guest has had since that process began. */
  was: string[];
}

const LINE = /^address:pid=(\d+) was=(\S*)$/u;

function noteIn(config: VmConfig): AddressNote | null {
  for (const line of (config["description"] ?? "").split("\n")) {
    const found = LINE.exec(line.trimEnd());
    if (found !== null) return { pid: Number(found[1]), was: (found[2] ?? "").split(",").filter(Boolean) };
  }
  return null;
}

/** `/ip` has changed its addresses, so that the guest may have others. */
export function hasAddressNote(config: VmConfig): boolean {
  return noteIn(config) !== null;
}

export function isAddressLine(line: string): boolean {
  return LINE.test(line.trimEnd());
}

/** The description of a VM whose addresses are about to be changed. */
export function withAddressNote(config: VmConfig, status: VmStatus): string {
  const lines = (config["description"] ?? "").trimEnd().split("\n");
  const rest = lines.filter((line) => !isAddressLine(line)).join("\n");
  if (status.pid === undefined) return rest;
  return [rest, `address:pid=${status.pid} was=${fixedNow(config, status).join(",")}`].join("\n");
}

/** The QEMU that runs has not begun since the change. It has when the VM is off: it begins with what is configured. */
function isUnstarted(config: VmConfig, status: VmStatus): boolean {
  const note = noteIn(config);
  return note !== null && status.pid === note.pid;
}

/** The fixed addresses that the guest can have by now, without asking it. */
export function fixedNow(config: VmConfig, status: VmStatus): string[] {
  return isUnstarted(config, status) ? (noteIn(config)?.was ?? []) : staticAddressesOf(config);
}

/** What it has from its next boot on, if that is something else; nothing of a VM whose addresses `/ip` has never changed. */
export function nextAddresses(
  config: VmConfig,
  status: VmStatus,
  now: readonly string[],
): { nextAddresses?: string[] } {
  const note = noteIn(config);
  if (note === null) return {};
  const fixed = staticAddressesOf(config);
  const isThere = fixed.every((address) => now.includes(canonical(address)));
  const isGone = note.was.every((address) => fixed.includes(address) || !now.includes(canonical(address)));
  if (!isUnstarted(config, status) || (isThere && isGone && now.length > 0)) return { nextAddresses: [] };
  return { nextAddresses: fixed.length === 0 ? ["DHCP"] : fixed };
}

/** IPv6 has many ways to be written. */
export function canonical(address: string): string {
  return ipaddr.isValid(address) ? ipaddr.parse(address).toString() : address;
}

/** More than that nobody needs to know of one server. */
const MOST_ADDRESSES = 32;
/** Where nobody reaches a server. */
const NOWHERE = new Set(["unspecified", "loopback", "linkLocal", "multicast", "broadcast", "ipv4Mapped"]);

/** Each once, in the one way that they are written here; without what is no address, or one with a zone. */
export function usableAddresses(said: readonly string[]): string[] {
  const kept = new Set<string>();
  for (const address of said) {
    if (kept.size === MOST_ADDRESSES) break;
    // ipaddr.js alone takes "10.1" and "0x7f000001", which are addresses for nobody who reads them.
    if (isIP(address) === 0 || address.includes("%")) continue;
    const parsed = ipaddr.parse(address);
    if (!NOWHERE.has(parsed.range())) kept.add(parsed.toString());
  }
  return [...kept];
}

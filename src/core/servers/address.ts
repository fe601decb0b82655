/** A server's fixed address, as typed: with its prefix length, and the gateway of its network. */
import ipaddr from "ipaddr.js";
import { ServiceError } from "../errors.ts";

interface FixedAddress {
  cidr: string;
  gateway?: string;
}

/** Undefined when none was asked for. Throws `invalid_input`. */
export function fixedAddress(ip: string | undefined, gateway: string | undefined): FixedAddress | undefined {
  if (ip === undefined) {
    if (gateway === undefined) return undefined;
    throw wrong("gateway", "A gateway needs a fixed address: add ip:, as in ip:192.0.2.10/24.");
  }
  const slash = ip.indexOf("/");
  if (slash < 0) throw wrong("ip", `ip:${ip} needs its prefix length, as in ip:192.0.2.10/24.`);
  if (!isPlain(ip.slice(0, slash)) || !ipaddr.isValidCIDR(ip)) {
    throw wrong("ip", `ip:${ip} is no address; write it as in ip:192.0.2.10/24.`);
  }
  const [address, bits] = ipaddr.parseCIDR(ip);
  requireHost(address, bits);
  // As every cloud and guest writes it, so that one address has one text.
  const cidr = `${address.toString()}/${bits}`;
  if (gateway === undefined) return { cidr };
  if (!isPlain(gateway) || !ipaddr.isValid(gateway)) {
    throw wrong("gateway", `gateway:${gateway} is no address; write it as in gateway:192.0.2.1.`);
  }
  const router = ipaddr.parse(gateway);
  if (router.kind() !== address.kind()) {
    throw wrong(
      "gateway",
      `ip:${ip} and gateway:${gateway} are of different kinds; give both as IPv4 or IPv6.`,
    );
  }
  if (router.toString() === address.toString()) {
    throw wrong("gateway", "The server cannot be its own gateway.");
  }
  // An IPv6 router is often named by its link-local address, and an address alone (/32) has its router elsewhere.
  const isAlone = bits === (address.kind() === "ipv4" ? 32 : 128);
  const isNeighbour = isAlone || router.match(address, bits) || router.range() === "linkLocal";
  if (!isNeighbour) throw wrong("gateway", `gateway:${gateway} is not in the network of ip:${ip}.`);
  return { cidr, gateway: router.toString() };
}

/** "192.0.2.10" of "192.0.2.10/24". */
export function withoutPrefix(cidr: string): string {
  return cidr.replace(/\/\d+$/u, "");
}

export function versionOf(address: string): 4 | 6 {
  return address.includes(":") ? 6 : 4;
}

/** ipaddr.js also takes "10.1", "0x7f.1" and zones, which PVE and guests read differently or not at all. */
function isPlain(text: string): boolean {
  return text.includes(":")
    ? !text.includes("%")
    : /^(?:0|[1-9]\d{0,2})(?:\.(?:0|[1-9]\d{0,2})){3}$/u.test(text);
}

function requireHost(address: ipaddr.IPv4 | ipaddr.IPv6, bits: number): void {
  const range = address.range();
  if (["unspecified", "broadcast", "multicast", "loopback", "linkLocal"].includes(range)) {
    throw wrong("ip", `ip:${address.toString()} cannot be a server's address.`);
  }
  if (!(address instanceof ipaddr.IPv4) || bits > 30) return;
  const cidr = `${address.toString()}/${bits}`;
  const ends = [ipaddr.IPv4.networkAddressFromCIDR(cidr), ipaddr.IPv4.broadcastAddressFromCIDR(cidr)];
  if (!ends.some((end) => end.toString() === address.toString())) return;
  throw wrong("ip", `ip:${cidr} is the first or last address of its network, which no server can have.`);
}

function wrong(option: string, message: string): ServiceError {
  return new ServiceError("invalid_input", message, { facts: { option } });
}

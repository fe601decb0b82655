/**
 * Which addresses a call that somebody else's text decides (a webhook's URL) may reach. Only what is certainly public,
 * and what the operator named by CIDR.
 */
import ipaddr from "ipaddr.js";

export type AddressRange = [ipaddr.IPv4 | ipaddr.IPv6, number];

// Public by its range, yet a virtual machine of Azure reaches its own host's metadata and DHCP there:
// https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
const AZURE_HOST = "168.63.129.16";
// All global unicast of IPv6 is here (https://www.iana.org/assignments/ipv6-address-space); what is outside is not
// routed or carries an IPv4 address inside (v4-compatible ::a.b.c.d, NAT64 64:ff9b::/96, SIIT ::ffff:0:0:0/96).
const GLOBAL_UNICAST_V6 = ipaddr.IPv6.parseCIDR("2000::/3");

/** Parses CIDRs ("10.0.0.0/8", "fd00::/8"); a bare address is a range of one. Throws an Error that quotes a bad one. */
export function parseRanges(cidrs: readonly string[]): AddressRange[] {
  return cidrs.map((cidr) => {
    try {
      if (cidr.includes("/")) return ipaddr.parseCIDR(cidr);
      const address = ipaddr.parse(cidr);
      return [address, address.kind() === "ipv4" ? 32 : 128];
    } catch (error) {
      throw new Error(`"${cidr}" is not an address range: write it as 192.168.1.0/24 or fd00::/8.`, {
        cause: error,
      });
    }
  });
}

/** `address` as DNS and URLs give it, without brackets. Anything unparsable is not in a range. */
export function isInRanges(address: string, ranges: readonly AddressRange[]): boolean {
  if (!ipaddr.isValid(address)) return false;
  const parsed = ipaddr.parse(address);
  return ranges.some((range) => parsed.kind() === range[0].kind() && parsed.match(range));
}

/** Certainly reachable by anybody on the Internet. Every form that can hide an IPv4 address in IPv6 is not. */
export function isPublicAddress(address: string): boolean {
  if (!ipaddr.isValid(address) || address === AZURE_HOST) return false;
  const parsed = ipaddr.parse(address);
  if (parsed.range() !== "unicast") return false;
  if (parsed instanceof ipaddr.IPv4) return true;
  return parsed.match(GLOBAL_UNICAST_V6);
}

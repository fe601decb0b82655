import { describe, expect, it } from "vitest";
import { isInRanges, isPublicAddress, parseRanges } from "../../src/net/address.ts";

const forbidden: Record<string, string[]> = {
  "this network": ["0.0.0.0", "0.1.2.3"],
  private: ["10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1"],
  "carrier-grade NAT, Alibaba's metadata": ["100.64.0.1", "100.127.255.255", "100.100.100.200"],
  loopback: ["127.0.0.1", "127.255.255.254", "::1"],
  "link-local, metadata": ["169.254.169.254", "169.254.0.1", "fe80::1", "febf::1"],
  "Azure's host": ["168.63.129.16"],
  "IETF protocol assignments, Oracle's metadata": ["192.0.0.1", "192.0.0.192"],
  documentation: ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
  "6to4 relay": ["192.88.99.1"],
  benchmarking: ["198.18.0.1", "198.19.255.255", "2001:2::1"],
  multicast: ["224.0.0.1", "239.255.255.255", "ff02::1"],
  "class E, broadcast": ["240.0.0.1", "255.255.255.254", "255.255.255.255"],
  unspecified: ["::"],
  "v4-mapped": ["::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:8.8.8.8", "::ffff:a9fe:a9fe"],
  "v4-compatible": ["::127.0.0.1", "::7f00:1", "::8.8.8.8"],
  SIIT: ["::ffff:0:127.0.0.1"],
  NAT64: ["64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b:1::a00:1"],
  "6to4": ["2002:7f00:1::", "2002:a00:1::1"],
  Teredo: ["2001:0:4136:e378:8000:63bf:3fff:fdd2"],
  "ORCHID, DET": ["2001:10::1", "2001:20::1", "2001:30::1"],
  "unique local, AWS metadata": ["fc00::1", "fd00:ec2::254"],
  "site-local": ["fec0::1"],
  discard: ["100::1"],
  "segment routing": ["5f00::1"],
  "outside 2000::/3": ["4000::1", "1000::1", "e000::1"],
  "no address at all": ["", "example.com", "1.2.3.4.5", "127.0.0.1 "],
};

describe("isPublicAddress", () => {
  for (const [range, addresses] of Object.entries(forbidden)) {
    it(`refuses ${range}`, () => {
      for (const address of addresses) expect([address, isPublicAddress(address)]).toEqual([address, false]);
    });
  }

  it("accepts public addresses beside the edges of the forbidden ranges", () => {
    const open = [
      "1.1.1.1",
      "9.255.255.255",
      "11.0.0.0",
      "100.63.255.255",
      "100.128.0.0",
      "126.255.255.255",
      "128.0.0.0",
      "169.253.255.255",
      "169.255.0.0",
      "172.15.255.255",
      "172.32.0.0",
      "192.167.255.255",
      "192.169.0.0",
      "198.17.255.255",
      "198.20.0.0",
      "223.255.255.255",
      "2606:4700:4700::1111",
      "2a00:1450:4001::1",
      "2003::1",
    ];
    for (const address of open) expect([address, isPublicAddress(address)]).toEqual([address, true]);
  });
});

describe("ranges", () => {
  it("match addresses of their own kind only", () => {
    const ranges = parseRanges(["10.1.0.0/16", "fd00::/8", "192.168.7.7"]);
    expect(isInRanges("10.1.255.255", ranges)).toBe(true);
    expect(isInRanges("10.2.0.0", ranges)).toBe(false);
    expect(isInRanges("fd12::1", ranges)).toBe(true);
    expect(isInRanges("192.168.7.7", ranges)).toBe(true);
    expect(isInRanges("192.168.7.8", ranges)).toBe(false);
    expect(isInRanges("::ffff:10.1.0.1", ranges)).toBe(false);
  });

  it("say which one cannot be read", () => {
    expect(() => parseRanges(["10.0.0.0/8", "10.0.0.0/33"])).toThrow(
      /"10\.0\.0\.0\/33" is not an address range/,
    );
    expect(() => parseRanges(["lan"])).toThrow(/"lan"/);
  });
});

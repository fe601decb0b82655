/** Bytes as people and payloads have them. */
const GIB = 2n ** 30n;

/** Cut to two decimals, never rounded up: "12.34 GiB". */
export function describeBytes(bytes: bigint): string {
  const hundredths = (bytes * 100n) / GIB;
  if (hundredths === 0n && bytes > 0n) return "less than 0.01 GiB";
  return `${hundredths / 100n}.${String(hundredths % 100n).padStart(2, "0")} GiB`;
}

/** How much of an allowance that is, cut to one decimal: "79.9 %". */
export function describeShare(bytes: bigint, allowanceGib: number): string {
  const tenths = (bytes * 1000n) / (BigInt(allowanceGib) * GIB);
  return `${tenths / 10n}.${tenths % 10n} %`;
}

/** As all numbers of payloads: text where JSON's receivers would lose digits. */
export function payloadBytes(bytes: bigint): number | string {
  return bytes <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(bytes) : String(bytes);
}

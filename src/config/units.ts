/** "8G" → MiB or GiB. Binary units, as clouds count: G, GB and GiB are the same. */
const IN_MIB: Readonly<Record<string, number>> = { m: 1, g: 1024, t: 1024 * 1024 };
const SIZE = /^(\d+(?:\.\d+)?)\s*([mgt])(?:i?b)?$/i;

/** Whole mebibytes, or undefined when the text is no size with a unit. */
export function parseMib(text: string): number | undefined {
  const [, number, unit] = SIZE.exec(text.trim()) ?? [];
  if (number === undefined || unit === undefined) return undefined;
  const mib = Number(number) * (IN_MIB[unit.toLowerCase()] ?? Number.NaN);
  return Number.isSafeInteger(mib) && mib > 0 ? mib : undefined;
}

/** Whole gibibytes, or undefined. */
export function parseGib(text: string): number | undefined {
  const mib = parseMib(text);
  return mib !== undefined && mib % 1024 === 0 ? mib / 1024 : undefined;
}

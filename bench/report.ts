/** How a bench tells its figures: each with the machine's load beside it, because without it a figure says nothing. */
import { availableParallelism, loadavg } from "node:os";

/** The load of the last minute on this machine's cores: "1.3 of 2". */
function load(): string {
  return `${(loadavg()[0] ?? 0).toFixed(1)} of ${availableParallelism()}`;
}

export function heading(text: string): void {
  console.log(`\n── ${text}`);
}

export function note(text: string): void {
  console.log(`   ${text}`);
}

export function figure(what: string, value: string): void {
  console.log(`   ${what.padEnd(46)} ${value.padEnd(40)} load ${load()}`);
}

/** Ours against the baseline of the same run. `atMost`: what we aim at. */
export function ratio(
  what: string,
  { ours, baseline }: { ours: number; baseline: number },
  atMost?: number,
): void {
  const times = ours / baseline;
  const aim =
    atMost === undefined ? "" : `, aim: at most ${atMost}x: ${times <= atMost ? "reached" : "MISSED"}`;
  figure(`${what}, ratio`, `${times.toPrecision(3)}x${aim}`);
}

/** The value below which `share` (0.99) of them lie. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const value = sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)];
  if (value === undefined) throw new Error("nothing was measured");
  return value;
}

export const median = (values: readonly number[]): number => percentile(values, 0.5);

export const ms = (value: number): string => `${value < 10 ? value.toFixed(2) : value.toFixed(0)} ms`;

/** Processor time of this process since the call: in milliseconds, and as a share of one core. */
export function cpuMeter(): () => { ms: number; share: number } {
  const [usage, at] = [process.cpuUsage(), performance.now()];
  return () => {
    const { user, system } = process.cpuUsage(usage);
    const spent = (user + system) / 1000;
    return { ms: spent, share: spent / (performance.now() - at) };
  };
}

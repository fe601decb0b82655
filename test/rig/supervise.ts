/** Starts workers, and ends them the hard way, until the orders are done. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { leaseMs } from "../../src/core/operations/claim.ts";
import { type CrashPoint, crashPoints } from "../../src/core/operations/engine.ts";
import type { RigConfig } from "./build.ts";

const execArgv = ["--liftoff-only", "--disable-warning=ExperimentalWarning"];

export function spawn(file: string, env: Record<string, string>): ChildProcess {
  const path = fileURLToPath(new URL(file, import.meta.url));
  return fork(path, [], {
    execArgv,
    env: { ...process.env, ...env },
    stdio: ["ignore", "inherit", "inherit", "ipc"],
  });
}

export interface SupervisorOptions {
  config: Omit<RigConfig, "worker" | "crashAt">;
  workers: number;
  random: () => number;
  /** Of the ends, how many are a suspension beyond the lease instead of a kill. */
  frozenShare: number;
  /** Crashes by name, this often at each point, instead of at random moments. */
  timesEachPoint: number | null;
}

export interface Supervisor {
  readonly kills: number;
  /** Suspended for longer than its lease and woken up again. */
  readonly freezes: number;
  readonly crashes: Readonly<Record<CrashPoint, number>>;
  /** Ends that nobody asked for: a bug of the worker. */
  readonly accidents: number;
  /** Named points that have not had all their crashes yet. */
  openPoints(): CrashPoint[];
  stop(): Promise<void>;
}

export function supervise(options: SupervisorOptions): Supervisor {
  const { random } = options;
  const counts = { kills: 0, freezes: 0, accidents: 0 };
  const crashes = Object.fromEntries(crashPoints.map((point) => [point, 0])) as Record<CrashPoint, number>;
  const stopping = new AbortController();
  const alive = new Set<ChildProcess>();
  const thawing = new Set<Promise<void>>();
  const tried = new Set<CrashPoint>();
  let made = 0;

  /** Until then, or until the rig stops. */
  async function rest(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: stopping.signal }).catch(() => undefined);
  }

  function start(crashAt: RigConfig["crashAt"]): ChildProcess {
    made += 1;
    const config: RigConfig = { ...options.config, worker: `rig-${made}`, crashAt };
    const child = spawn("./worker.ts", { RIG_CONFIG: JSON.stringify(config) });
    alive.add(child);
    child.once("exit", () => alive.delete(child));
    return child;
  }

  /** The point that has had the fewest; not one that another worker is about to try. */
  function nextPoint(): RigConfig["crashAt"] {
    const [point] = openPoints()
      .filter((open) => !tried.has(open))
      .toSorted((a, b) => crashes[a] - crashes[b]);
    return point === undefined ? null : { point, nth: 1 + Math.floor(random() * 3) };
  }

  function openPoints(): CrashPoint[] {
    const most = options.timesEachPoint ?? 0;
    return crashPoints.filter((point) => crashes[point] < most);
  }

  async function keepOne(): Promise<void> {
    while (!stopping.signal.aborted) {
      const crashAt = nextPoint();
      if (crashAt !== null) tried.add(crashAt.point);
      const child = start(crashAt);
      const ended = once(child, "exit");
      if (options.timesEachPoint === null) await endAtRandom(child, ended);
      else await Promise.race([ended, aborted(stopping.signal)]);
      if (stopping.signal.aborted) return;
      const [code, signal] = await ended;
      if (signal !== "SIGKILL") counts.accidents += 1;
      else if (crashAt !== null) crashes[crashAt.point] += 1;
      if (crashAt !== null) tried.delete(crashAt.point);
      if (code !== null && code !== 0) throw new Error(`a worker ended by itself with ${String(code)}`);
    }
  }

  async function endAtRandom(child: ChildProcess, ended: Promise<unknown>): Promise<void> {
    await Promise.race([once(child, "message"), ended, aborted(stopping.signal)]);
    await rest(200 + random() * 2_800);
    if (stopping.signal.aborted) return;
    if (random() >= options.frozenShare) {
      counts.kills += 1;
      child.kill("SIGKILL");
      return;
    }
    counts.freezes += 1;
    child.kill("SIGSTOP");
    const thaw = thawLater(child).finally(() => thawing.delete(thaw));
    thawing.add(thaw);
    // Its place is taken at once; it wakes up as a zombie whose lease others hold.
    await keepOne();
  }

  async function thawLater(child: ChildProcess): Promise<void> {
    await rest(leaseMs + 1_000 + random() * 3_000);
    child.kill("SIGCONT");
    await delay(1_000);
    child.kill("SIGKILL");
  }

  const loops = Promise.all(Array.from({ length: options.workers }, keepOne));
  return {
    get kills() {
      return counts.kills;
    },
    get freezes() {
      return counts.freezes;
    },
    get accidents() {
      return counts.accidents;
    },
    crashes,
    openPoints,
    async stop() {
      stopping.abort();
      await Promise.all(thawing);
      const ends = [...alive].map((child) => once(child, "exit"));
      for (const child of alive) child.send("stop");
      await Promise.all(ends);
      await loops;
    },
  };
}

function aborted(signal: AbortSignal): Promise<unknown> {
  return signal.aborted ? Promise.resolve() : once(signal, "abort");
}

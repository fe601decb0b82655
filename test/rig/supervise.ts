/** Starts workers, and ends them the hard way, until the orders are done. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { leaseMs } from "../../src/core/operations/claim.ts";
import type { RigConfig } from "./build.ts";
import { type WorkerPoint, workerPoints } from "./points.ts";

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
  config: Omit<RigConfig, "worker" | "crashAt" | "clockOffMs">;
  workers: number;
  random: () => number;
  /** Of the ends, how many are a suspension beyond the lease instead of a kill. */
  frozenShare: number;
  /** How long a worker lives at most after its first claim. */
  longestLifeMs: number;
  /** Crashes by name, this often at each point, instead of at random moments. */
  timesEachPoint: number | null;
  /** How wrong the clock of one worker of them all is, in turn ahead and behind. */
  clockOffMs: number;
}

export interface Supervisor {
  readonly kills: number;
  /** Suspended for longer than its lease and woken up again. */
  readonly freezes: number;
  /** Workers whose clock was wrong. */
  readonly wrongClocks: number;
  readonly crashes: Readonly<Record<WorkerPoint, number>>;
  /** Ends that nobody asked for: a bug of the worker. */
  readonly accidents: number;
  /** Could not begin, because a server was away at that moment. */
  readonly failedStarts: number;
  /** Named points that have not had all their crashes yet. */
  openPoints(): WorkerPoint[];
  /** Nobody is killed at random while it is calm. */
  calm(isCalm: boolean): void;
  /** A server is taken away until the promise is settled: a process that begins just then may give up. */
  during(disturbance: Promise<unknown>): Promise<void>;
  stop(): Promise<void>;
}

export function supervise(options: SupervisorOptions): Supervisor {
  const { random } = options;
  const counts = { kills: 0, freezes: 0, wrongClocks: 0, accidents: 0, failedStarts: 0 };
  const crashes = Object.fromEntries(workerPoints.map((point) => [point, 0])) as Record<WorkerPoint, number>;
  const stopping = new AbortController();
  const alive = new Set<ChildProcess>();
  const thawing = new Set<Promise<void>>();
  const trying: WorkerPoint[] = [];
  let made = 0;
  let roughUntil = 0;
  const mood = { isCalm: false };

  /** Until then, or until the rig stops. */
  async function rest(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: stopping.signal }).catch(() => undefined);
  }

  function start(slot: number, crashAt: RigConfig["crashAt"]): ChildProcess {
    made += 1;
    const clockOffMs = slot === 0 ? options.clockOffMs * (made % 2 === 0 ? 1 : -1) : 0;
    if (clockOffMs !== 0) counts.wrongClocks += 1;
    const config: RigConfig = { ...options.config, worker: `rig-${made}`, crashAt, clockOffMs };
    const child = spawn("./worker.ts", { RIG_CONFIG: JSON.stringify(config) });
    alive.add(child);
    child.once("exit", () => alive.delete(child));
    return child;
  }

  /** The point that has had the fewest, those that other workers are about to have included. */
  function nextPoint(): { point: WorkerPoint; nth: number } | null {
    const soon = (point: WorkerPoint) => crashes[point] + trying.filter((one) => one === point).length;
    const [point] = openPoints().toSorted((a, b) => soon(a) - soon(b));
    if (point === undefined) return null;
    // Few orders come to be undone.
    return { point, nth: point === "compensating" ? 1 : 1 + Math.floor(random() * 3) };
  }

  function openPoints(): WorkerPoint[] {
    const most = options.timesEachPoint ?? 0;
    return workerPoints.filter((point) => crashes[point] < most);
  }

  async function keepOne(slot: number): Promise<void> {
    while (!stopping.signal.aborted) {
      const crashAt = nextPoint();
      if (crashAt !== null) trying.push(crashAt.point);
      const child = start(slot, crashAt);
      let claimed = false;
      child.once("message", () => {
        claimed = true;
      });
      const ended = once(child, "exit");
      if (options.timesEachPoint === null) await endAtRandom(slot, child, ended);
      else await Promise.race([ended, aborted(stopping.signal)]);
      if (stopping.signal.aborted) return;
      const [code, signal] = await ended;
      if (crashAt !== null) trying.splice(trying.indexOf(crashAt.point), 1);
      if (signal === "SIGKILL") {
        if (crashAt !== null) crashes[crashAt.point] += 1;
      } else if (!claimed && performance.now() < roughUntil) {
        counts.failedStarts += 1;
      } else {
        counts.accidents += 1;
        console.error(`a worker ended by itself with ${String(code ?? signal)}`);
      }
    }
  }

  async function endAtRandom(slot: number, child: ChildProcess, ended: Promise<unknown>): Promise<void> {
    await Promise.race([once(child, "message"), ended, aborted(stopping.signal)]);
    if (child.exitCode !== null) return;
    await rest(200 + random() * (options.longestLifeMs - 200));
    // oxlint-disable-next-line no-await-in-loop -- a poll
    while (mood.isCalm && !stopping.signal.aborted && child.exitCode === null) await rest(200);
    if (stopping.signal.aborted || child.exitCode !== null) return;
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
    await keepOne(slot);
  }

  async function thawLater(child: ChildProcess): Promise<void> {
    await rest(leaseMs + 1_000 + random() * 3_000);
    child.kill("SIGCONT");
    await delay(1_000);
    child.kill("SIGKILL");
  }

  const loops = Promise.all(Array.from({ length: options.workers }, (_, slot) => keepOne(slot)));
  return {
    get kills() {
      return counts.kills;
    },
    get freezes() {
      return counts.freezes;
    },
    get wrongClocks() {
      return counts.wrongClocks;
    },
    get accidents() {
      return counts.accidents;
    },
    get failedStarts() {
      return counts.failedStarts;
    },
    crashes,
    openPoints,
    calm(wanted) {
      mood.isCalm = wanted;
    },
    async during(disturbance) {
      roughUntil = Number.POSITIVE_INFINITY;
      await disturbance;
      // Whoever met it while it was away needs a moment to notice.
      roughUntil = performance.now() + 10_000;
    },
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

/** From starting the process to serving, and the memory it takes, cold and warm, against a bare PGlite. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { startOpenStackSimulator } from "../src/sandbox/openstack/index.ts";
import { figure, heading, median, ms, ratio } from "./report.ts";

const root = new URL("..", import.meta.url).pathname;
const flags = ["--liftoff-only", "--disable-warning=ExperimentalWarning"];
const patienceMs = 60_000;

interface Started {
  readyMs: number;
  rssMib: number;
  peakMib: number;
}

export async function benchStart({ short }: { short: boolean }): Promise<void> {
  heading("start: to serving, embedded, with one cloud");
  const simulator = await startOpenStackSimulator({ speed: 0 });
  const { authUrl, credentials } = simulator;
  const auth = {
    authUrl,
    applicationCredentialId: credentials.applicationCredentialId,
    applicationCredentialSecret: credentials.applicationCredentialSecret,
  };
  const config = JSON.stringify({ clouds: { os1: { type: "openstack", region: credentials.region, auth } } });
  try {
    const runs = short ? 1 : 3;
    const ours = await coldAndWarm(runs, (directory) => startRatatosk(directory, config));
    const bare = await coldAndWarm(runs, startPglite);
    for (const state of ["cold", "warm"] as const) {
      tell(`Ratatosk, ${state}`, ours[state]);
      tell(`bare PGlite, ${state}`, bare[state]);
      const of = (pick: (started: Started) => number) => ({
        ours: median(ours[state].map(pick)),
        baseline: median(bare[state].map(pick)),
      });
      ratio(
        `time, ${state}`,
        of(({ readyMs }) => readyMs),
      );
      ratio(
        `memory, ${state}`,
        of(({ rssMib }) => rssMib),
      );
    }
  } finally {
    await simulator.close();
  }
}

function tell(what: string, runs: readonly Started[]): void {
  const of = (pick: (started: Started) => number) => median(runs.map(pick));
  figure(
    what,
    `${ms(of(({ readyMs }) => readyMs))}, ${of(({ rssMib }) => rssMib).toFixed(0)} MiB (peak ${of(({ peakMib }) => peakMib).toFixed(0)})`,
  );
}

/** Each cold start has a directory of its own, and the warm one that follows has the same. */
async function coldAndWarm(
  runs: number,
  start: (directory: string) => Promise<Started>,
): Promise<Record<"cold" | "warm", Started[]>> {
  const [cold, warm]: [Started[], Started[]] = [[], []];
  for (let run = 0; run < runs; run += 1) {
    const directory = mkdtempSync(join(tmpdir(), "ratatosk-bench-"));
    try {
      cold.push(await start(directory));
      warm.push(await start(directory));
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  }
  return { cold, warm };
}

async function startRatatosk(directory: string, config: string): Promise<Started> {
  const configPath = join(directory, "ratatosk.yaml");
  // YAML takes JSON.
  writeFileSync(configPath, config);
  const port = await freePort();
  const began = performance.now();
  const child = spawn(process.execPath, [...flags, join(root, "src/main.ts")], {
    cwd: directory,
    env: {
      PATH: process.env["PATH"] ?? "",
      HOME: directory,
      PORT: String(port),
      RATATOSK_DATA_DIR: join(directory, "data"),
      RATATOSK_CONFIG: configPath,
      LOG_LEVEL: "error",
    },
    stdio: ["ignore", "ignore", "inherit"],
  });
  try {
    await until(child, () => isReady(`http://127.0.0.1:${port}/readyz`));
    return { readyMs: performance.now() - began, ...memoryOf(child) };
  } finally {
    await end(child);
  }
}

async function startPglite(directory: string): Promise<Started> {
  const began = performance.now();
  const child = spawn(
    process.execPath,
    [...flags, join(root, "bench/start-pglite.ts"), join(directory, "pg")],
    {
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  try {
    let answered = false;
    child.stdout.once("data", () => (answered = true));
    await until(child, () => Promise.resolve(answered));
    return { readyMs: performance.now() - began, ...memoryOf(child) };
  } finally {
    await end(child);
  }
}

async function isReady(url: string): Promise<boolean> {
  try {
    return (await fetch(url)).ok;
  } catch {
    return false;
  }
}

async function until(child: ChildProcess, check: () => Promise<boolean>): Promise<void> {
  const late = performance.now() + patienceMs;
  while (!(await check())) {
    if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}`);
    if (performance.now() > late) throw new Error(`it was not ready after ${patienceMs / 1000} s`);
    await delay(10);
  }
}

/** Linux tells it in /proc/PID/status; elsewhere there is no bench of this. */
function memoryOf({ pid }: ChildProcess): { rssMib: number; peakMib: number } {
  const status = readFileSync(`/proc/${String(pid)}/status`, "utf8");
  const mib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) / 1024;
  return { rssMib: mib("VmRSS"), peakMib: mib("VmHWM") };
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  await ended;
}

async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** PostgreSQL and Redis of the rig's own, from Debian's packages, so that they can be ended the hard way. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";

const run = promisify(execFile);
const debian = "/usr/lib/postgresql";

export interface OwnServers {
  databaseUrl: string;
  redisUrl: string;
  /** As after a crash: no checkpoint, every connection cut. */
  restartPostgres(): Promise<void>;
  flushRedis(): Promise<void>;
  /** SIGKILL; away for a moment, and empty when it is back. */
  restartRedis(awayMs: number): Promise<void>;
  stop(): Promise<void>;
}

/** Throws when the packages postgresql and redis-server are not installed. */
export async function startOwnServers(): Promise<OwnServers> {
  const folder = mkdtempSync(join(tmpdir(), "ratatosk-rig-"));
  chmodSync(folder, 0o755);
  const postgres = await startPostgres(folder);
  const redisPort = await freePort();
  let redis = await startRedis(folder, redisPort);
  return {
    databaseUrl: postgres.url,
    redisUrl: `redis://127.0.0.1:${redisPort}`,
    restartPostgres: postgres.restart,
    async flushRedis() {
      await run("redis-cli", ["-p", String(redisPort), "FLUSHALL"]);
    },
    async restartRedis(awayMs) {
      await kill(redis);
      await delay(awayMs);
      redis = await startRedis(folder, redisPort);
    },
    async stop() {
      await kill(redis);
      await postgres.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function startPostgres(folder: string) {
  const version = readdirSync(debian).toSorted((a, b) => Number(b) - Number(a))[0];
  if (version === undefined) throw new Error("The rig's own servers need Debian's postgresql package.");
  const data = join(folder, "postgres");
  const socket = join(folder, "socket");
  for (const path of [data, socket]) mkdirSync(path, { mode: 0o700 });
  const port = await freePort();
  // PostgreSQL refuses to run as root.
  const isRoot = process.getuid?.() === 0;
  if (isRoot) {
    const [uid, gid] = await Promise.all(
      ["-u", "-g"].map(async (which) => numberOf("id", [which, "postgres"])),
    );
    for (const path of [data, socket]) chownSync(path, uid ?? 0, gid ?? 0);
  }
  const call = async (name: string, args: readonly string[]) => {
    const file = join(debian, version, "bin", name);
    if (isRoot) await run("runuser", ["-u", "postgres", "--", file, ...args], { cwd: "/" });
    else await run(file, [...args], { cwd: "/" });
  };
  await call("initdb", ["-A", "trust", "-U", "postgres", "-N", "-D", data]);
  const flags = `-p ${port} -k ${socket} -c listen_addresses=127.0.0.1 -c max_connections=300`;
  // With a log file, because a server that inherits our pipe keeps pg_ctl's end of it open.
  const control = (...args: string[]) => call("pg_ctl", ["-w", "-D", data, "-l", join(data, "log"), ...args]);
  await control("-o", flags, "start");
  return {
    url: `postgres://postgres@127.0.0.1:${port}/postgres`,
    restart: () => control("-m", "immediate", "restart"),
    stop: () => control("-m", "immediate", "stop"),
  };
}

async function numberOf(command: string, args: readonly string[]): Promise<number> {
  return Number((await run(command, [...args])).stdout);
}

async function startRedis(folder: string, port: number): Promise<ChildProcess> {
  const args = [
    "--port",
    String(port),
    "--bind",
    "127.0.0.1",
    "--save",
    "",
    "--appendonly",
    "no",
    "--dir",
    folder,
  ];
  const child = spawn("redis-server", args, { stdio: "ignore" });
  await once(child, "spawn");
  for (let tries = 0; ; tries += 1) {
    try {
      // oxlint-disable-next-line no-await-in-loop -- until it answers
      await run("redis-cli", ["-p", String(port), "PING"]);
      return child;
    } catch (error) {
      if (tries === 100) throw error;
      // oxlint-disable-next-line no-await-in-loop
      await delay(50);
    }
  }
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await ended;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (typeof address !== "object" || address === null) throw new Error("no free port");
  return address.port;
}

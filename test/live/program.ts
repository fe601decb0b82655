/** The program itself as a process of its own, on a real cloud and Slack's stand-in, with a configuration made for the run. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { stringify } from "yaml";
import { until } from "./report.ts";

export interface ProgramOptions {
  /** Of this run: configuration, data and log. */
  folder: string;
  port: number;
  cloud: string;
  cloudsFile: string;
  slackUrl: string;
  webhook: { url: string; secret: string };
  databaseUrl: string | undefined;
  redisUrl: string | undefined;
}

export interface Program {
  pid: number | undefined;
  /** SIGTERM; the exit code. */
  stop(): Promise<number | null>;
  /** SIGKILL. */
  kill(): Promise<void>;
}

/** Resolves when it answers. Throws with its log when it ends before. */
export async function startProgram(options: ProgramOptions): Promise<Program> {
  const { folder, port } = options;
  const configPath = join(folder, "ratatosk.yaml");
  const logPath = join(folder, "program.log");
  mkdirSync(folder, { recursive: true });
  writeFileSync(configPath, stringify(configOf(options)), { mode: 0o600 });
  const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url));
  const child = spawn(process.execPath, [...process.execArgv, main], {
    cwd: folder,
    env: {
      PATH: process.env["PATH"],
      HOME: process.env["HOME"],
      RATATOSK_CONFIG: configPath,
      RATATOSK_DATA_DIR: join(folder, "data"),
      OS_CLIENT_CONFIG_FILE: options.cloudsFile,
      PORT: String(port),
      LOG_LEVEL: "info",
      SLACK_BOT_TOKEN: "xoxb-test-token",
      SLACK_SIGNING_SECRET: "test-signing-secret",
      SLACK_API_URL: `${options.slackUrl}/api/`,
      ...(options.databaseUrl === undefined ? {} : { DATABASE_URL: options.databaseUrl }),
      ...(options.redisUrl === undefined ? {} : { REDIS_URL: options.redisUrl }),
    },
    stdio: ["ignore", "ignore", "pipe"],
  });
  child.stderr.pipe(createWriteStream(logPath, { flags: "a" }));
  const ended = once(child, "exit").then(([code]) => code as number | null);
  let code: number | null | undefined;
  void ended.then((exit) => {
    code = exit;
  });
  // Not its banner: that waits for the first look at the cloud, and people may type before.
  await until("the program's health", 60_000, async () => {
    if (code !== undefined) {
      throw new Error(
        `The program ended with exit code ${code}:\n${readFileSync(logPath, "utf8").slice(-2000)}`,
      );
    }
    return isHealthy(port);
  });
  return {
    pid: child.pid,
    stop: () => {
      child.kill("SIGTERM");
      return ended;
    },
    kill: async () => {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

async function isHealthy(port: number): Promise<boolean> {
  try {
    return (await fetch(`http://127.0.0.1:${port}/healthz`)).ok;
  } catch {
    return false;
  }
}

function configOf({ cloud, webhook }: ProgramOptions) {
  const on = (flavor: string) => ({ [cloud]: { flavor, network: "private" } });
  return {
    // A hung service is then noticed within an outage that others hardly feel.
    clouds: { [cloud]: { type: "openstack", cloud, network: "private", timeoutMs: 10_000 } },
    staff: [
      { name: "Alice", role: "admin", slack: ["U01ALICE"] },
      { name: "Bob", role: "operator", slack: ["U02BOB"] },
    ],
    customers: [
      { ref: "ada", name: "Ada Lovelace", email: "ada@example.com", maxServers: 8 },
      { ref: "carol", name: "Carol's Café", email: "carol@example.com", maxServers: 2, slack: ["U03CAROL"] },
    ],
    plans: [
      { code: "t", name: "Tiny", vcpus: 1, memory: "512M", disk: "1G", targets: on("m1.tiny") },
      { code: "s", name: "Small", vcpus: 1, memory: "2G", disk: "10G", targets: on("m1.small") },
      { code: "m", name: "Medium", vcpus: 2, memory: "4G", disk: "20G", targets: on("m1.medium") },
    ],
    webhooks: [{ name: "billing", url: webhook.url, secret: webhook.secret, events: ["*"] }],
    channels: { alerts: "slack:T01ACME/C01OPS" },
    policies: { allowPrivateWebhooks: ["127.0.0.0/8"] },
  };
}

/** A database of its own on the server of TEST_DATABASE_URL. */
export async function createDatabase(serverUrl: string): Promise<{ url: string; drop(): Promise<void> }> {
  const name = `ratatosk_live_${Date.now().toString(36)}`;
  const administer = async (statement: string) => {
    const client = new pg.Client({ connectionString: serverUrl });
    await client.connect();
    try {
      await client.query(statement);
    } finally {
      await client.end();
    }
  };
  await administer(`CREATE DATABASE ${name}`);
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return { url: url.href, drop: () => administer(`DROP DATABASE ${name} WITH (FORCE)`) };
}

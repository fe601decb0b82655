/** `doctor`: tries everything that a start needs, changes nothing, and says what to do about each thing that is wrong. */
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { Redis } from "ioredis";
import { checkDiscord } from "../bots/discord/check.ts";
import { discordCommands } from "../bots/discord/commands.ts";
import { lintDiscordCommands } from "../bots/discord/commands-lint.ts";
import { checkSlack } from "../bots/slack/check.ts";
import { ConfigurationError } from "../config/problems.ts";
import type { Settings } from "../config/settings.ts";
import { createRegistry } from "../core/actions/index.ts";
import { problemOf, ServiceError } from "../core/errors.ts";
import { checkKeyIds, loadMasterKey } from "../core/secrets/master-key.ts";
import { type Database, openDatabase } from "../database/client.ts";
import { readMigrations } from "../database/migrate.ts";
import { checkClouds } from "./check-clouds.ts";
import { checkWebhooks } from "./check-webhooks.ts";
import { logOf, settingsOf } from "./settings.ts";
import { createReport, type Report, type Terminal } from "./terminal.ts";

const leastNode = 24;
const redisTimeoutMs = 5_000;

/** Exit code 1 when something is wrong. */
export async function examine(terminal: Terminal): Promise<number> {
  const report = createReport(terminal);
  const major = Number(process.versions.node.split(".")[0]);
  report.result(major >= leastNode, "node", `${process.versions.node} (${leastNode} or newer is needed)`);
  const settings = configurationOf(terminal, report);
  if (settings !== null) {
    await checkDatabase(terminal, settings, report);
    await checkRedis(settings, report);
    await checkChat(terminal, settings, report);
    await checkWebhooks(settings, report);
    await checkClouds(terminal, settings, report);
  }
  checkCommands(report);
  return report.ok() ? 0 : 1;
}

function configurationOf(terminal: Terminal, report: Report): Settings | null {
  try {
    const settings = settingsOf(terminal);
    const parts = ["clouds", "staff", "customers", "plans", "webhooks"] as const;
    report.result(true, "configuration", parts.map((part) => `${part} ${settings[part].length}`).join(", "));
    return settings;
  } catch (error) {
    if (!(error instanceof ConfigurationError)) throw error;
    report.result(false, "configuration", error.problems.join("\n"));
    return null;
  }
}

async function checkDatabase(terminal: Terminal, settings: Settings, report: Report): Promise<void> {
  // Opening it would make it.
  if (settings.databaseUrl === undefined && !existsSync(join(settings.dataDir, "database"))) {
    report.result(null, "database", `embedded, made in ${settings.dataDir} at the first start`);
    await checkKey(settings, report, null);
    return;
  }
  let database: Database | undefined;
  let readable: Database | null = null;
  try {
    const log = logOf(terminal);
    database = await openDatabase({
      url: settings.databaseUrl,
      dataDirectory: settings.dataDir,
      migrate: false,
      onError: (error) => log.debug({ err: error }, "database"),
    });
    const [row] = await database.sql<{ version: string }>(
      `SELECT current_setting('server_version') AS version`,
    );
    const pending = await pendingMigrations(database);
    const missing =
      pending.length === 0 ? "up to date" : `${pending.length} migrations are applied at the next start`;
    report.result(true, "database", `${database.mode}, PostgreSQL ${row?.version ?? "?"}, ${missing}`);
    if (pending.length === 0) readable = database;
  } catch (error) {
    const advice =
      settings.databaseUrl === undefined
        ? "Let nothing else run on this data directory."
        : "Check DATABASE_URL, and that the server runs.";
    report.result(false, "database", `${reasonOf(error)}\n${advice}`);
  }
  try {
    await checkKey(settings, report, readable);
  } finally {
    await database?.close();
  }
}

async function pendingMigrations(database: Database): Promise<string[]> {
  const [table] = await database.sql<{ there: boolean }>(
    `SELECT to_regclass('public._prisma_migrations') IS NOT NULL AS there`,
  );
  const applied = table?.there
    ? await database.sql<{ name: string }>(
        `SELECT migration_name AS name FROM public._prisma_migrations WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL`,
      )
    : [];
  const names = new Set(applied.map(({ name }) => name));
  return readMigrations()
    .map(({ name }) => name)
    .filter((name) => !names.has(name));
}

/**
 * Only looks: a key file that isn't there is made by the first start, not here. `database`: to see whether the key fits what
 * is stored in it.
 */
async function checkKey(
  { secretKey, dataDir }: Settings,
  report: Report,
  database: Database | null,
): Promise<void> {
  const path = join(dataDir, "secret.key");
  if (secretKey === undefined && !existsSync(path)) {
    report.result(null, "secret key", `made at the first start: ${path}`);
    return;
  }
  try {
    if (secretKey === undefined && !checkKeyFile(path, report)) return;
    const key = loadMasterKey({ secretKey, dataDir });
    if (database !== null) await checkKeyIds(database, key);
    report.result(
      true,
      "secret key",
      `${secretKey === undefined ? path : "RATATOSK_SECRET_KEY"}, id ${key.id}`,
    );
  } catch (error) {
    report.result(false, "secret key", reasonOf(error));
  }
}

/** Whoever reads it reads every stored secret. */
function checkKeyFile(path: string, report: Report): boolean {
  const mode = statSync(path).mode & 0o777;
  if ((mode & 0o077) === 0) return true;
  report.result(
    false,
    "secret key",
    `other users of this machine may read it (mode ${mode.toString(8)})\nTake that away: chmod 600 ${path}`,
  );
  return false;
}

async function checkRedis({ redisUrl }: Settings, report: Report): Promise<void> {
  if (redisUrl === undefined) {
    report.result(null, "redis", "not used: the database carries the wake-ups");
    return;
  }
  const redis = new Redis(redisUrl, {
    lazyConnect: true,
    maxRetriesPerRequest: 0,
    connectTimeout: redisTimeoutMs,
    commandTimeout: redisTimeoutMs,
    retryStrategy: () => null,
  });
  // connect() rejects with "Connection is closed"; the reason comes as an event only.
  let reason: unknown;
  redis.on("error", (error) => {
    reason = error;
  });
  try {
    await redis.connect();
    const info = await redis.info("server");
    report.result(true, "redis", /(?:valkey|redis)_version:(\S+)/.exec(info)?.[1] ?? "answers");
  } catch (error) {
    report.result(false, "redis", `${reasonOf(reason ?? error)}\nCheck REDIS_URL, and that the server runs.`);
  } finally {
    redis.disconnect();
  }
}

async function checkChat(terminal: Terminal, { slack, discord }: Settings, report: Report): Promise<void> {
  const unused = (service: string) => [{ service, ok: null, detail: "not configured" }];
  for (const { service, ok, detail } of [
    ...(slack === undefined ? unused("slack") : await checkSlack({ ...slack, log: logOf(terminal) })),
    ...(discord === undefined ? unused("discord") : await checkDiscord(discord)),
  ]) {
    report.result(ok, service, detail);
  }
}

function checkCommands(report: Report): void {
  const commands = discordCommands(createRegistry());
  const found = lintDiscordCommands(commands);
  report.result(found.length === 0, "commands", found.join("\n") || `${commands.length}, within every limit`);
}

/** A driver's own text is for the person at the terminal; it names hosts and users, never passwords. */
function reasonOf(error: unknown): string {
  if (error instanceof ServiceError) return problemOf(error).message;
  if (error instanceof AggregateError && error.message === "") return error.errors.map(reasonOf).join("\n");
  return error instanceof Error ? error.message : String(error);
}

/** The only file that knows every folder: builds and connects them. */
import { randomBytes, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "pino";
import { z } from "zod";
import { readinessChecks } from "./api/readiness.ts";
import { createApiServer } from "./api/server.ts";
import { cardOf } from "./bots/card.ts";
import { type ConsoleBot, createConsoleBot } from "./bots/console/bot.ts";
import { createDiscordBot } from "./bots/discord/app.ts";
import { createProjector } from "./bots/projector.ts";
import { createSlackBot, type SlackBotOptions } from "./bots/slack/app.ts";
import { type CloudRegistry, createClouds } from "./clouds/index.ts";
import type { DiscordSettings, SlackSettings } from "./config/chat.ts";
import type { Role, Settings } from "./config/settings.ts";
import { createConsoleServer } from "./console/server.ts";
import type { Policies } from "./core/action.ts";
import { createRegistry } from "./core/actions/index.ts";
import type { Bot } from "./core/bot.ts";
import { dropOldConsoleLinks } from "./core/console/link.ts";
import { createEntrance } from "./core/dispatch.ts";
import { ServiceError } from "./core/errors.ts";
import { readLines, renderCard } from "./core/operations/card.ts";
import { releaseLeases } from "./core/operations/claim.ts";
import type { Engine } from "./core/operations/engine.ts";
import { stateOfOperation } from "./core/operations/find.ts";
import { createWorker } from "./core/operations/worker.ts";
import { createPeople, type People } from "./core/people/identify.ts";
import { syncPeople } from "./core/people/sync.ts";
import type { Entrance } from "./core/request.ts";
import { dropOldRows } from "./core/retention.ts";
import { createSecretBox, dropExpiredSecrets } from "./core/secrets/box.ts";
import { checkKeyIds, loadMasterKey } from "./core/secrets/master-key.ts";
import { deleteDue } from "./core/servers/deletion.ts";
import { scheduleSync } from "./core/sync/schedule.ts";
import { scheduleTraffic } from "./core/traffic/schedule.ts";
import { type Database, openDatabase, vacuum } from "./database/client.ts";
import { DatabaseSetupError, isUnavailable, sqlState } from "./database/errors.ts";
import { assertOutsideTransaction } from "./database/transaction.ts";
import { createJobs, type Jobs } from "./jobs/jobs.ts";
import { createConnector } from "./net/connector.ts";
import { createDispatcher } from "./webhooks/dispatcher.ts";
import { syncEndpoints } from "./webhooks/endpoints.ts";

export interface AppOptions {
  log: Logger;
  /** In memory: the sandbox, whose clouds are not kept either. */
  inMemory?: boolean;
  /** A console on these streams, in these hands (`staff:sam`). */
  console?: {
    as: string;
    input: NodeJS.ReadableStream & { isTTY?: boolean };
    output: NodeJS.WriteStream;
  };
}

/** What everything else is built on; the operator's commands (src/cli) need no more. */
export interface Domain {
  database: Database;
  jobs: Jobs;
  clouds: CloudRegistry;
  engine: Engine;
  people: People;
  entrance: Entrance;
  close(): Promise<void>;
}

export interface App extends Domain {
  /** Starts what the roles ask for. */
  start(): Promise<void>;
  console: ConsoleBot | null;
  /** Where HTTP is served, once started. */
  url(): string | null;
}

const { version } = z
  .object({ version: z.string() })
  .parse(JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")));

/** How many operations one process runs at a time; waiting ones do not count. */
const concurrency = 16;
const patienceMs = 2 * 60_000;
const minuteMs = 60_000;
const firstLookMs = 10_000;

/** Throws ServiceError `configuration`, and `unreachable` when the database does not answer. */
export async function openDomain(
  settings: Settings,
  options: Pick<AppOptions, "log" | "inMemory">,
): Promise<Domain> {
  const { log } = options;
  // What is kept in memory needs no key file.
  const passing = options.inMemory === true ? randomBytes(32).toString("base64") : undefined;
  const key = loadMasterKey({ secretKey: settings.secretKey ?? passing, dataDir: settings.dataDir });
  const clouds = createClouds(settings.clouds, log);
  const database = await openDatabase({
    url: settings.databaseUrl,
    dataDirectory: options.inMemory === true ? undefined : settings.dataDir,
    onError: (error) => log.error({ err: error }, "database"),
  }).catch((error: unknown) => {
    throw openingProblem(error, settings);
  });
  try {
    await checkKeyIds(database, key);
    const secrets = createSecretBox(key);
    await database.transaction((tx) => syncPeople(tx, settings));
    await syncEndpoints(database, secrets, settings.webhooks);
    // The data directory's lock says that nobody else runs on it: a lease from before is a dead process's.
    if (database.mode === "embedded") await releaseLeases(database);
    const alone = database.mode === "embedded";
    const jobs = await createJobs({ database, redisUrl: settings.redisUrl, log, alone });
    const engine: Engine = {
      database,
      clouds,
      registry: createRegistry(),
      secrets,
      wake: jobs.wake,
      log,
      policies: policiesOf(settings),
      worker: `${hostname()}:${process.pid}:${randomUUID().slice(0, 8)}`,
      patienceMs,
      reached: () => undefined,
    };
    const people = createPeople({ database, staff: settings.staff });
    const entrance = createEntrance({ engine, identify: people.identify });
    const close = async () => {
      await jobs.close();
      await clouds.close();
      await database.close();
    };
    return { database, jobs, clouds, engine, people, entrance, close };
  } catch (error) {
    await database.close();
    throw error;
  }
}

// 28…: wrong user or password; 3D000: no such database; 42501: may not create tables.
const refusals = /^(?:28...|3D000|42501)$/;

function openingProblem(error: unknown, { databaseUrl }: Settings): unknown {
  if (error instanceof DatabaseSetupError) {
    const { cause } = error;
    return new ServiceError("configuration", error.message, {
      cause: error,
      ...(cause instanceof Error ? { staffDetail: cause.message } : {}),
    });
  }
  if (databaseUrl === undefined || !(error instanceof Error)) return error;
  const { host } = new URL(databaseUrl);
  if (refusals.test(sqlState(error) ?? "")) {
    return new ServiceError(
      "configuration",
      `The database at ${host} refuses us: ${error.message}. Correct DATABASE_URL, or create what is missing.`,
      { cause: error },
    );
  }
  if (!isUnavailable(error)) return error;
  const first: unknown = error instanceof AggregateError ? error.errors[0] : error;
  return new ServiceError(
    "unreachable",
    `The database at ${host} does not answer (${first instanceof Error ? first.message : "no connection"}). Start it, or correct DATABASE_URL.`,
    { cause: error, retryable: true },
  );
}

/** Nothing listens and nothing runs before `start()`. */
export async function openApp(settings: Settings, options: AppOptions): Promise<App> {
  const { log } = options;
  const domain = await openDomain(settings, options);
  const { database, jobs, clouds, engine } = domain;
  const has = (role: Role) => settings.roles.includes(role);
  const bots = has("bots") ? openBots(settings, domain) : [];
  const consoleBot = await openConsole(domain, options.console);
  let listening: { port: number; url: string } | null = null;
  // The sandbox is on this machine, and so is whoever looks at it.
  const address = () => settings.publicUrl ?? (options.inMemory === true ? listening?.url : undefined);
  engine.address = address;
  const screens = createConsoleServer({ deps: domain, address, log });
  const api = createApiServer({
    sections: [screens],
    receivers: bots.flatMap((bot) => bot.http ?? []),
    checks: readinessChecks({ database, pingQueue: () => jobs.ping(), clouds, bots }),
    log,
    version,
  });
  const worker = createWorker(engine, { concurrency });
  const shown = consoleBot === null ? bots : [...bots, consoleBot];
  const projector = createProjector({
    database,
    log,
    messengers: new Map(shown.map((bot) => [bot.platform, bot.messenger])),
    source: { renderCard, readLines },
    wake: jobs.wake,
    workerId: engine.worker,
  });
  const connector = createConnector({
    allow: settings.policies.allowPrivateWebhooks,
    ownPorts: () => (listening === null ? [] : [listening.port]),
    guard: () => assertOutsideTransaction("a webhook call"),
  });
  const dispatcher = createDispatcher({ database, secrets: engine.secrets, connector, log, wake: jobs.wake });

  return {
    ...domain,
    console: consoleBot,
    url: () => listening?.url ?? null,
    async start() {
      if (has("api") || bots.length > 0) listening = await api.listen(settings);
      screens.start();
      if (has("worker")) worker.start();
      if (has("dispatcher")) dispatcher.start();
      await Promise.all(bots.map((bot) => bot.start()));
      if (shown.length > 0) projector.start();
      // Last, because it waits for the first look at each cloud; one that hangs is not waited for longer than this.
      if (has("worker")) await inTime(schedule(settings, domain), log);
    },
    async close() {
      await Promise.all(shown.map((bot) => bot.stop()));
      await screens.stop();
      await api.close();
      await Promise.all([worker.stop(), projector.stop(), dispatcher.stop()]);
      await connector.close();
      await domain.close();
    },
  };
}

function openBots({ slack, discord }: Settings, domain: Domain): Bot[] {
  const bots: Bot[] = [];
  if (slack !== undefined) bots.push(openSlack(slack, domain));
  if (discord !== undefined) bots.push(openDiscord(discord, domain));
  return bots;
}

function openSlack(slack: SlackSettings, { engine, entrance, database }: Domain): Bot {
  return createSlackBot({
    token: slack.botToken,
    ingress: ingressOf(slack),
    apiUrl: slack.apiUrl,
    commandPrefix: slack.commandPrefix,
    entrance,
    registry: engine.registry,
    log: engine.log,
    cardOf: (operationId) => cardOf(database, operationId, "slack"),
  });
}

function openDiscord(discord: DiscordSettings, { engine, entrance, database }: Domain): Bot {
  if (discord.publicKey !== undefined) {
    engine.log.warn(
      "DISCORD_PUBLIC_KEY is set, but interactions come over the gateway: leave the application's Interactions Endpoint URL empty",
    );
  }
  return createDiscordBot({
    token: discord.token,
    applicationId: discord.applicationId,
    guildId: discord.guildId,
    apiUrl: discord.apiUrl,
    entrance,
    registry: engine.registry,
    log: engine.log,
    cardOf: (operationId) => cardOf(database, operationId, "discord"),
  });
}

function ingressOf({ appToken, signingSecret }: SlackSettings): SlackBotOptions["ingress"] {
  if (appToken !== undefined) return { kind: "socket", appToken };
  if (signingSecret !== undefined) return { kind: "http", signingSecret };
  throw new ServiceError("configuration", "Slack needs SLACK_APP_TOKEN or SLACK_SIGNING_SECRET; set one.");
}

async function openConsole(domain: Domain, wanted: AppOptions["console"]): Promise<ConsoleBot | null> {
  if (wanted === undefined) return null;
  const { engine, entrance, people, database } = domain;
  return createConsoleBot({
    entrance,
    registry: engine.registry,
    principal: await people.parsePrincipal(wanted.as),
    identify: ({ kind, name }) => people.parsePrincipal(`${kind}:${name}`),
    stateOf: (operationId) => stateOfOperation(database, operationId),
    input: wanted.input,
    output: wanted.output,
    log: engine.log,
  });
}

async function inTime(firstLook: Promise<void>, log: Logger): Promise<void> {
  const looked = firstLook.then(() => true);
  if (await Promise.race([looked, delay(firstLookMs, false, { ref: false })])) return;
  log.warn("a cloud takes its time to answer; what it has is known later");
  firstLook.catch((error: unknown) => log.error({ err: error }, "the first look at the clouds failed"));
}

async function schedule(settings: Settings, { database, jobs, clouds, engine }: Domain): Promise<void> {
  jobs.schedule("secrets.expire", minuteMs, async () => {
    await dropExpiredSecrets(database);
    await dropOldConsoleLinks(database);
  });
  jobs.schedule("retention", 60 * minuteMs, async () => {
    await dropOldRows(database, settings.policies.retention);
  });
  jobs.schedule("servers.delete_due", minuteMs, () => deleteDue(engine));
  // No autovacuum runs in one process.
  if (database.mode === "embedded") jobs.schedule("database.vacuum", 60 * minuteMs, () => vacuum(database));
  const { log, wake } = engine;
  const everyMs = settings.policies.trafficSeconds * 1000;
  scheduleTraffic({ database, clouds, wake, log, everyMs, schedule: jobs.schedule });
  await scheduleSync({ database, clouds, log, ...settings.sync, schedule: jobs.schedule });
}

function policiesOf(settings: Settings): Policies {
  const { confirm, secretHours, deleteGraceHours, stepUp } = settings.policies;
  const channel = (address: Settings["channels"]["alerts"][number]) => ({
    ...address,
    workspace: address.workspace ?? "",
  });
  return {
    confirmDestructive: confirm.destructive,
    confirmWithinMs: confirm.withinMinutes * minuteMs,
    stepUp,
    secretLifetimeMs: secretHours * 60 * minuteMs,
    operationChannels: settings.channels.operations.map(channel),
    alertChannels: settings.channels.alerts.map(channel),
    deleteGraceMs: deleteGraceHours * 60 * minuteMs,
  };
}

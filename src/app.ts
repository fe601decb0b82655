/** The only file that knows every folder: builds and connects them. */
import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import type { Logger } from "pino";
import { createApi } from "./api/server.ts";
import { cardOf } from "./bots/card.ts";
import { type ConsoleBot, createConsoleBot } from "./bots/console/bot.ts";
import { createProjector } from "./bots/projector.ts";
import { createSlackBot } from "./bots/slack/app.ts";
import { createClouds } from "./clouds/index.ts";
import type { Role, Settings } from "./config/settings.ts";
import type { Principal } from "./core/access.ts";
import type { Policies } from "./core/action.ts";
import { createRegistry } from "./core/actions/index.ts";
import type { Bot } from "./core/bot.ts";
import { createEntrance } from "./core/dispatch.ts";
import { readLines, renderCard } from "./core/operations/card.ts";
import { releaseLeases } from "./core/operations/claim.ts";
import type { Engine } from "./core/operations/engine.ts";
import type { OperationState } from "./core/operations/state.ts";
import { createWorker } from "./core/operations/worker.ts";
import { createPeople } from "./core/people/identify.ts";
import { syncPeople } from "./core/people/sync.ts";
import { createSecretBox, dropExpiredSecrets } from "./core/secrets/box.ts";
import { checkKeyIds, loadMasterKey } from "./core/secrets/master-key.ts";
import { scheduleSync } from "./core/sync/schedule.ts";
import { type Database, openDatabase, vacuum } from "./database/client.ts";
import { assertOutsideTransaction } from "./database/transaction.ts";
import { createJobs } from "./jobs/jobs.ts";
import { createConnector } from "./net/connector.ts";
import { createDispatcher } from "./webhooks/dispatcher.ts";
import { syncEndpoints } from "./webhooks/endpoints.ts";

export interface AppOptions {
  log: Logger;
  /** In memory: the sandbox, whose clouds are not kept either. */
  inMemory?: boolean;
  /** A console on these streams, in these hands (`staff:sam`). */
  console?: { as: string; input: NodeJS.ReadableStream & { isTTY?: boolean }; output: NodeJS.WriteStream };
}

export interface App {
  engine: Engine;
  database: Database;
  /** Starts what the roles ask for. */
  start(): Promise<void>;
  /** Stops intake, finishes calls in flight, releases leases, closes. Bounded by main.ts. */
  stop(): Promise<void>;
  console: ConsoleBot | null;
  /** Where HTTP is served, once started. */
  url(): string | null;
}

/** How many operations one process runs at a time; waiting ones do not count. */
const concurrency = 16;
const patienceMs = 2 * 60_000;
const minuteMs = 60_000;

/** Throws ServiceError `configuration` and the database's own errors; nothing listens yet. */
export async function openApp(settings: Settings, options: AppOptions): Promise<App> {
  const { log } = options;
  const key = loadMasterKey({ secretKey: settings.secretKey, dataDir: settings.dataDir });
  const database = await openDatabase({
    url: settings.databaseUrl,
    dataDirectory: options.inMemory === true ? undefined : settings.dataDir,
    onError: (error) => log.error({ err: error }, "database"),
  });
  await checkKeyIds(database, key);
  const secrets = createSecretBox(key);
  await database.transaction((tx) => syncPeople(tx, settings));
  await syncEndpoints(database, secrets, settings.webhooks);
  // The data directory's lock says that nobody else runs on it: a lease from before is a dead process's.
  if (database.mode === "embedded") await releaseLeases(database);

  const jobs = await createJobs({ database, redisUrl: settings.redisUrl, log });
  const clouds = createClouds(
    settings.clouds.map(({ type, ...cloud }) => ({ provider: type, options: cloud })),
    log,
  );
  const registry = createRegistry();
  const worker = `${hostname()}:${process.pid}:${randomUUID().slice(0, 8)}`;
  const engine: Engine = {
    ...{ database, clouds, registry, secrets, log, worker, patienceMs },
    wake: jobs.wake,
    policies: policiesOf(settings),
    reached: () => undefined,
  };
  const people = createPeople({ database, staff: settings.staff, customers: settings.customers });
  const entrance = createEntrance({ engine, identify: people.identify });
  const consoleBot = await openConsole();
  const bots = botsOf();
  const api = createApi({ database, redisUrl: settings.redisUrl, clouds, bots, log });
  const operations = createWorker(engine, { concurrency });
  const projector = createProjector({
    ...{ database, log },
    messengers: new Map(
      [...bots, ...(consoleBot === null ? [] : [consoleBot])].map((bot) => [bot.platform, bot.messenger]),
    ),
    source: { renderCard, readLines },
    wake: jobs.wake,
    workerId: worker,
  });
  const connector = createConnector({
    allow: settings.policies.allowPrivateWebhooks,
    ownPorts: () => api.ports(),
    guard: () => assertOutsideTransaction("a webhook call"),
  });
  const dispatcher = createDispatcher({ database, secrets, connector, log, wake: jobs.wake });
  const has = (role: Role) => settings.roles.includes(role);

  async function openConsole(): Promise<ConsoleBot | null> {
    const wanted = options.console;
    if (wanted === undefined) return null;
    const principal: Principal = await people.parsePrincipal(wanted.as);
    return createConsoleBot({
      ...{ entrance, registry, principal, stateOf, log },
      identify: ({ kind, name }) => people.parsePrincipal(`${kind}:${name}`),
      input: wanted.input,
      output: wanted.output,
    });
  }

  async function stateOf(operationId: string): Promise<OperationState | null> {
    const rows = await database.sql<{ state: OperationState }>(`SELECT state FROM operations WHERE id = $1`, [
      operationId,
    ]);
    return rows[0]?.state ?? null;
  }

  function botsOf(): Bot[] {
    const { slack } = settings;
    if (slack?.signingSecret === undefined || !settings.roles.includes("bots")) return [];
    return [
      createSlackBot({
        token: slack.botToken,
        signingSecret: slack.signingSecret,
        apiUrl: slack.apiUrl,
        commandPrefix: slack.commandPrefix,
        ...{ entrance, registry, log },
        cardOf: (operationId) => cardOf(database, operationId, "slack"),
      }),
    ];
  }

  async function schedule(): Promise<void> {
    const every = jobs.schedule;
    every("secrets.expire", minuteMs, () => dropExpiredSecrets(database).then(() => undefined));
    if (database.mode === "embedded") every("database.vacuum", 60 * minuteMs, () => vacuum(database));
    await scheduleSync({ database, clouds, log, ...settings.sync, schedule: every });
  }

  return {
    engine,
    database,
    console: consoleBot,
    url: () => api.url(),
    async start() {
      if (has("api") || (has("bots") && bots.length > 0)) await api.listen(settings.port, settings.host);
      if (has("worker")) {
        await schedule();
        operations.start();
      }
      if (has("dispatcher")) dispatcher.start();
      if (has("bots")) {
        for (const bot of bots) await bot.start();
        projector.start();
      }
    },
    async stop() {
      await consoleBot?.stop();
      await Promise.all(bots.map((bot) => bot.stop()));
      await api.close();
      await Promise.all([operations.stop(), projector.stop(), dispatcher.stop()]);
      await connector.close();
      await clouds.close();
      await jobs.close();
      await database.close();
    },
  };
}

function policiesOf(settings: Settings): Policies {
  const { confirm, secretHours } = settings.policies;
  const channel = (address: Settings["channels"]["alerts"][number]) => ({
    ...address,
    workspace: address.workspace ?? "",
  });
  return {
    confirmDestructive: confirm.destructive,
    confirmWithinMs: confirm.withinMinutes * minuteMs,
    secretLifetimeMs: secretHours * 60 * minuteMs,
    operationChannels: settings.channels.operations.map(channel),
    alertChannels: settings.channels.alerts.map(channel),
  };
}

/**
 * The gateway. discord.js heals a connection that it once had; what it does not heal is made anew here: a start while
 * Discord is away (login gives up at once), a token that is refused (it forgets the token), a session that Discord closed
 * for good. Nothing waits for it: Discord being away must not stop the service.
 */
import { Client, Events, type Interaction, Options } from "discord.js";
import type { Logger } from "pino";
import { codes, discordCode, isUnauthorized, refusedToken, restOptions, summaryOf } from "./api.ts";

/** At once for a refused token: 10,000 refused calls in ten minutes ban the address. */
const MAX_RETRY_MS = 60_000;
/** Discord resets the token of a bot that identifies more than 1,000 times a day. */
const STEADY_AFTER_MS = 5 * 60_000;

export interface ConnectionOptions {
  token: string;
  apiUrl: string | undefined;
  log: Logger;
  firstRetryMs: number;
  now: () => number;
  onInteraction(interaction: Interaction): void;
  /** Registers the commands; called at each login. Throws discord.js's errors. */
  onReady(): Promise<void>;
}

export interface Connection {
  start(): void;
  stop(): Promise<void>;
  status(): { ok: boolean; detail: string };
}

export function createConnection(options: ConnectionOptions): Connection {
  const { token, log, firstRetryMs, now } = options;
  let client: Client | undefined;
  let timer: NodeJS.Timeout | undefined;
  let retryMs = firstRetryMs;
  let readyAt: number | null = null;
  let status = { ok: false, detail: "Not started yet." };

  function say(ok: boolean, detail: string): void {
    if (detail !== status.detail) log[ok ? "info" : "warn"](`discord: ${detail}`);
    status = { ok, detail };
  }

  async function connect(): Promise<void> {
    const own = createClient(options.apiUrl);
    client = own;
    const isCurrent = () => client === own;
    own.on(Events.InteractionCreate, options.onInteraction);
    watch(own, log, {
      ready(name) {
        if (!isCurrent()) return;
        readyAt = now();
        say(true, `Connected as ${name}.`);
        void register(options, isCurrent).catch((error: unknown) => renew(own, error));
      },
      lost: () => isCurrent() && say(false, "The connection to Discord was lost; it is being made again."),
      back: () => isCurrent() && readyAt !== null && say(true, "Connected again."),
      ended: (error) => renew(own, error),
    });
    try {
      await own.login(token);
    } catch (error) {
      renew(own, error);
    }
  }

  /** A new client after a while, unless `old` was replaced or stopped already. */
  function renew(old: Client, error: unknown): void {
    if (client !== old) return;
    client = undefined;
    void end(old, log);
    const isRefused = error instanceof Unauthorized || isUnauthorized(error);
    say(false, isRefused ? refusedToken : `Discord could not be reached (${reasonOf(error)}); trying again.`);
    if (readyAt !== null && now() - readyAt > STEADY_AFTER_MS) retryMs = firstRetryMs;
    readyAt = null;
    timer = setTimeout(() => void connect(), isRefused ? MAX_RETRY_MS : retryMs);
    timer.unref();
    retryMs = Math.min(MAX_RETRY_MS, retryMs * 2);
  }

  return {
    start() {
      status = { ok: false, detail: "Connecting to Discord." };
      void connect();
    },
    async stop() {
      clearTimeout(timer);
      const last = client;
      client = undefined;
      status = { ok: false, detail: "Stopped." };
      if (last !== undefined) await end(last, log);
    },
    status: () => status,
  };
}

interface Watcher {
  ready(name: string): void;
  lost(): void;
  back(): void;
  /** discord.js will not reconnect. */
  ended(error: unknown): void;
}

function watch(client: Client, log: Logger, watcher: Watcher): void {
  client.on(Events.ClientReady, ({ user }) => watcher.ready(user.username));
  client.on(Events.ShardReconnecting, () => watcher.lost());
  client.on(Events.ShardResume, () => watcher.back());
  client.on(Events.ShardReady, () => watcher.back());
  client.on(Events.ShardDisconnect, ({ code }) => {
    // 4004: authentication failed.
    watcher.ended(code === 4004 ? new Unauthorized() : new Error(`gateway closed with ${code}`));
  });
  client.on(Events.Invalidated, () => watcher.ended(new Error("the session was invalidated")));
  // Without these listeners an error would end the process.
  client.on(Events.Error, (error) => log.warn({ reason: summaryOf(error) }, "discord: client"));
  client.on(Events.ShardError, (error) => log.debug({ reason: summaryOf(error) }, "discord: gateway"));
}

/** Until they are registered; the commands stay as they were meanwhile. Throws when the token is refused. */
async function register(
  { onReady, log, firstRetryMs }: ConnectionOptions,
  isCurrent: () => boolean,
): Promise<void> {
  for (let waitMs = firstRetryMs; isCurrent(); waitMs = Math.min(MAX_RETRY_MS, waitMs * 2)) {
    try {
      await onReady();
      return;
    } catch (error) {
      if (isUnauthorized(error)) throw error;
      const advice =
        discordCode(error) === codes.missingAccess
          ? "; invite the bot into the guild of DISCORD_GUILD_ID with the scopes bot and applications.commands"
          : "";
      log.warn(
        { reason: summaryOf(error) },
        `discord: the commands could not be registered and are tried again${advice}`,
      );
      await pause(waitMs);
    }
  }
}

async function end(client: Client, log: Logger): Promise<void> {
  try {
    await client.destroy();
  } catch (error) {
    log.debug({ reason: summaryOf(error) }, "discord: a client did not close cleanly");
  }
}

class Unauthorized extends Error {
  override readonly name = "Unauthorized";
}

function reasonOf(error: unknown): string {
  return error instanceof Error && /^gateway|^the session/u.test(error.message)
    ? error.message
    : summaryOf(error);
}

/** No intents: interactions need none, and without them Discord sends neither members nor messages. */
export function createClient(apiUrl: string | undefined): Client {
  return new Client({
    intents: [],
    rest: restOptions(apiUrl),
    allowedMentions: { parse: [] },
    makeCache: Options.cacheWithLimits({
      ...Options.DefaultMakeCacheSettings,
      MessageManager: 0,
      UserManager: 200,
    }),
  });
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms).unref());
}

/** The Discord bot on the gateway: discord.js holds the connection and reads the interactions, the files beside this one answer. */
import type { Logger } from "pino";
import type { ActionRegistry } from "../../core/action.ts";
import type { Bot } from "../../core/bot.ts";
import type { Entrance } from "../../core/request.ts";
import { createDiscordApi } from "./api.ts";
import { discordCommands } from "./commands.ts";
import { createConnection } from "./connection.ts";
import type { DiscordContext } from "./context.ts";
import { linkOf } from "./handle.ts";
import { createIntake } from "./interactions.ts";
import { createMemory } from "./memory.ts";
import { createDiscordMessenger } from "./messenger.ts";
import { registerCommands } from "./registration.ts";

/** Of Discord's 3 s; a first answer that is lost needs time for a second. */
const ACK_BUDGET_MS = 1_500;
const FIRST_RETRY_MS = 1_000;
const STOP_TIMEOUT_MS = 5_000;
const MAX_DRAFTS = 2_000;
const MAX_CONFIRMATIONS = 10_000;

export interface DiscordBotOptions {
  token: string;
  applicationId: string;
  /** Present: the commands are for this guild alone and change at once. */
  guildId?: string | undefined;
  /** Discord's API base URL without the version; absent: the real one. */
  apiUrl?: string | undefined;
  entrance: Entrance;
  registry: ActionRegistry;
  log: Logger;
  /** The handle (`guild/channel/message`) of an operation's card in Discord, so that an answer can link to it. */
  cardOf?: ((operationId: string) => Promise<string | null>) | undefined;
  now?: (() => number) | undefined;
  /** Milliseconds. For tests. */
  ackBudgetMs?: number | undefined;
  firstRetryMs?: number | undefined;
}

export function createDiscordBot(options: DiscordBotOptions): Bot {
  const { token, apiUrl, applicationId, guildId, entrance, registry, log, now = Date.now } = options;
  const api = createDiscordApi({ token, apiUrl });
  const context: DiscordContext = {
    entrance,
    registry,
    api,
    log,
    now,
    ackBudgetMs: options.ackBudgetMs ?? ACK_BUDGET_MS,
    drafts: createMemory(MAX_DRAFTS),
    confirmations: createMemory(MAX_CONFIRMATIONS),
    async linkTo(operationId) {
      try {
        const handle = (await options.cardOf?.(operationId)) ?? null;
        return handle === null ? null : linkOf(handle);
      } catch (error) {
        // The request itself went well; only the link to its card is missing.
        log.error({ err: error }, "discord: a card's address could not be read");
        return null;
      }
    },
  };
  const intake = createIntake(context);
  const connection = createConnection({
    token,
    apiUrl,
    log,
    now,
    firstRetryMs: options.firstRetryMs ?? FIRST_RETRY_MS,
    onInteraction: intake.take,
    async onReady() {
      const written = await registerCommands(api, { applicationId, guildId }, discordCommands(registry));
      log.info(
        { guild: guildId },
        written ? "discord: commands registered" : "discord: commands are up to date",
      );
    },
  });

  return {
    platform: "discord",
    messenger: createDiscordMessenger({ api, now, confirmations: context.confirmations }),
    start() {
      connection.start();
      return Promise.resolve();
    },
    async stop() {
      const timeout = AbortSignal.timeout(STOP_TIMEOUT_MS);
      const ended = new Promise<void>((resolve) =>
        timeout.addEventListener("abort", () => resolve(), { once: true }),
      );
      await Promise.race([connection.stop().then(() => intake.settled()), ended]);
    },
    status: () => connection.status(),
  };
}

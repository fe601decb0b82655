/**
 * Calls to Discord's REST API: one attempt each, with a time limit. discord.js's own retries would answer an interaction
 * twice after a lost answer, and hide from the projector that a channel is slow.
 */
import { DiscordAPIError, HTTPError, RateLimitError, REST } from "discord.js";
import { ChatError } from "../../core/bot.ts";

/** Part of the 3 s for the first answer is spent before the call, and it must leave room for a second attempt. */
const REPLY_TIMEOUT_MS = 1_200;
const PROGRESS_TIMEOUT_MS = 5_000;
/** Discord's short per-channel limits (5 in 5 s) are waited out; longer ones are for the projector to plan around. */
const MAX_WAIT_MS = 2_000;

export interface DiscordApiOptions {
  token: string;
  /** Discord's base URL without the version; tests and stand-ins set it. */
  apiUrl: string | undefined;
}

export interface DiscordApi {
  /** Answers to interactions, which are authorised by their own token. */
  readonly reply: REST;
  /** Cards, threads and command sets. */
  progress(call: (rest: REST) => Promise<unknown>): Promise<unknown>;
}

export function restOptions(apiUrl: string | undefined): { version: "10"; api?: string } {
  return { version: "10", ...(apiUrl === undefined ? {} : { api: apiUrl.replace(/\/+$/u, "") }) };
}

export function createDiscordApi({ token, apiUrl }: DiscordApiOptions): DiscordApi {
  const options = { ...restOptions(apiUrl), retries: 0, userAgentAppendix: "ratatosk" };
  const progress = new REST({
    ...options,
    timeout: PROGRESS_TIMEOUT_MS,
    // Before a call it is timeToReset that counts, after a 429 of a limit that was not announced retryAfter.
    rejectOnRateLimit: ({ timeToReset, retryAfter }) => Math.max(timeToReset, retryAfter) > MAX_WAIT_MS,
  }).setToken(token);
  return {
    reply: new REST({ ...options, timeout: REPLY_TIMEOUT_MS }),
    async progress(call) {
      try {
        return await call(progress);
      } catch (error) {
        // discord.js forgets the token at a 401, and every later call would fail before it is made.
        if (isUnauthorized(error)) progress.setToken(token);
        throw error;
      }
    },
  };
}

/** Discord's code of a refusal (10008: unknown message), or undefined when it did not refuse. */
export function discordCode(error: unknown): number | undefined {
  return error instanceof DiscordAPIError ? Number(error.code) : undefined;
}

export function isUnauthorized(error: unknown): boolean {
  if (error instanceof DiscordAPIError || error instanceof HTTPError) return error.status === 401;
  // From login: discord.js has its own error for it.
  return error instanceof Error && "code" in error && error.code === "TokenInvalid";
}

/** Whether the same call may succeed in a moment: Discord did not say no. */
export function isTransient(error: unknown): boolean {
  if (error instanceof DiscordAPIError) return false;
  return !(error instanceof HTTPError) || error.status >= 500;
}

// https://docs.discord.com/developers/topics/opcodes-and-status-codes#json
export const codes = {
  unknownChannel: 10_003,
  unknownMessage: 10_008,
  unknownInteraction: 10_062,
  tooManyOldEdits: 30_046,
  alreadyAcknowledged: 40_060,
  missingAccess: 50_001,
  closedToDirectMessages: 50_007,
  missingPermissions: 50_013,
  wrongChannelType: 50_024,
  invalidBody: 50_035,
  archivedThread: 50_083,
  threadExists: 160_004,
  lockedThread: 160_005,
  tooManyThreads: 160_006,
} as const;

/** The channel does not take our messages (any more); another place may. */
const noEntry: ReadonlySet<number> = new Set([
  codes.unknownChannel,
  codes.missingAccess,
  codes.missingPermissions,
  codes.archivedThread,
  codes.lockedThread,
]);

export function isNoEntry(error: unknown): boolean {
  return noEntry.has(discordCode(error) ?? 0);
}

/** What the projector needs to know of a failed call. `editing`: a channel that is closed to us took the message with it. */
export function chatError(error: unknown, editing = false): ChatError {
  if (error instanceof ChatError) return error;
  if (error instanceof RateLimitError) {
    return new ChatError("rate_limited", "Discord asks us to slow down.", {
      retryAfterMs: error.retryAfter,
      cause: error,
    });
  }
  if (isUnauthorized(error)) return new ChatError("unavailable", refusedToken, { cause: error });
  const code = discordCode(error);
  if (code === undefined) {
    return isTransient(error)
      ? new ChatError("unavailable", `Discord could not be reached (${summaryOf(error)}).`, { cause: error })
      : new ChatError("refused", `Discord refused the message (${summaryOf(error)}).`, { cause: error });
  }
  if (code === codes.unknownMessage || (editing && noEntry.has(code))) {
    return new ChatError("gone", `The message is gone (${code}).`, { cause: error });
  }
  if (code === codes.tooManyOldEdits) {
    return new ChatError("unavailable", "Discord takes no more edits of this old message now (30046).", {
      cause: error,
    });
  }
  if (code === codes.closedToDirectMessages) {
    return new ChatError("refused", "The person takes no direct messages from this bot (50007).", {
      cause: error,
    });
  }
  return new ChatError("refused", `Discord refused the message (${code}).`, { cause: error });
}

export const refusedToken =
  "Discord refuses DISCORD_TOKEN: copy the bot's token from the application's page Bot and restart.";

/** Safe to log: Discord's code or the kind of failure, never a body or a URL, which may hold an interaction's token. */
export function summaryOf(error: unknown): string {
  if (error instanceof DiscordAPIError) return `code ${error.code}`;
  if (error instanceof HTTPError) return `HTTP ${error.status}`;
  if (error instanceof RateLimitError) return `rate limited for ${error.retryAfter} ms`;
  if (!(error instanceof Error)) return "no reason given";
  if (error.name === "AbortError") return "no answer in time";
  return "code" in error && typeof error.code === "string" ? error.code : error.name;
}

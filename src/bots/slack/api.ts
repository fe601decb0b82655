/**
 * Calls to Slack's Web API: one attempt each, with a time limit, no waiting inside the SDK. Its own retries would freeze
 * every later call of the client behind one Retry-After (measured: facts of the SDK 8.2), and would post twice after a
 * lost answer.
 */
import { webApi } from "@slack/bolt";
import type { Logger } from "pino";
import { ChatError } from "../../core/bot.ts";
import { boltLogger } from "./logger.ts";

/** A trigger_id lives 3 s, and part of that is spent before the call. */
const TRIGGER_TIMEOUT_MS = 2_500;
const PROGRESS_TIMEOUT_MS = 10_000;

export interface SlackApiOptions {
  token: string;
  /** Slack's base URL; tests and stand-ins set it. */
  apiUrl: string | undefined;
  log: Logger;
}

export interface SlackApi {
  /** For what a person waits for: views.open. A 429 on progress posts must not hold it up. */
  readonly trigger: webApi.WebClient;
  /** For cards and threads. */
  readonly progress: webApi.WebClient;
}

export function createSlackApi({ token, apiUrl, log }: SlackApiOptions): SlackApi {
  const client = (timeout: number): webApi.WebClient =>
    new webApi.WebClient(token, {
      timeout,
      retryConfig: { retries: 0 },
      rejectRateLimitedCalls: true,
      allowAbsoluteUrls: false,
      logger: boltLogger(log),
      ...(apiUrl === undefined ? {} : { slackApiUrl: apiUrl }),
    });
  return { trigger: client(TRIGGER_TIMEOUT_MS), progress: client(PROGRESS_TIMEOUT_MS) };
}

/** Slack's code of a refusal ("channel_not_found"), or undefined when it did not refuse. */
export function slackCode(error: unknown): string | undefined {
  return error instanceof webApi.WebAPIPlatformError ? error.data.error : undefined;
}

// docs.slack.dev/reference/methods: chat.postMessage, chat.update, conversations.open.
const gone = new Set(["message_not_found", "thread_not_found", "cant_update_message", "edit_window_closed"]);
/** The channel does not take our messages (any more); another place may. */
const noEntry = new Set([
  "channel_not_found",
  "not_in_channel",
  "is_archived",
  "is_inactive",
  "restricted_action",
]);
/** Somebody has to repair the installation; until then nothing is lost by trying again. */
const unusableToken = new Set([
  "invalid_auth",
  "not_authed",
  "account_inactive",
  "token_revoked",
  "token_expired",
  "org_login_required",
  "missing_scope",
]);
const faults = new Set([
  "internal_error",
  "fatal_error",
  "service_unavailable",
  "request_timeout",
  "team_added_to_org",
  "accesslimited",
]);
const DEFAULT_RETRY_AFTER_MS = 5_000;

export function isNoEntry(error: unknown): boolean {
  return noEntry.has(slackCode(error) ?? "");
}

export function isUnusableToken(error: unknown): boolean {
  return unusableToken.has(slackCode(error) ?? "");
}

/** What the projector needs to know of a failed call. `editing`: a channel that is closed to us took the message with it. */
export function chatError(error: unknown, editing = false): ChatError {
  if (error instanceof ChatError) return error;
  if (error instanceof webApi.WebAPIRateLimitedError) {
    return new ChatError("rate_limited", "Slack asks us to slow down.", {
      retryAfterMs: error.retryAfter * 1000,
      cause: error,
    });
  }
  const code = slackCode(error);
  if (code !== undefined) return platformError(code, editing, error);
  if (error instanceof webApi.WebAPIHTTPError && error.statusCode < 500) {
    return new ChatError("refused", `Slack answered HTTP ${error.statusCode}.`, { cause: error });
  }
  const detail = error instanceof webApi.WebAPIHTTPError ? ` (HTTP ${error.statusCode})` : "";
  return new ChatError("unavailable", `Slack could not be reached${detail}.`, { cause: error });
}

function platformError(code: string, editing: boolean, cause: unknown): ChatError {
  if (code === "ratelimited" || code === "rate_limited") {
    return new ChatError("rate_limited", "Slack asks us to slow down.", {
      retryAfterMs: DEFAULT_RETRY_AFTER_MS,
      cause,
    });
  }
  if (gone.has(code) || (editing && noEntry.has(code))) {
    return new ChatError("gone", `The message is gone (${code}).`, { cause });
  }
  if (faults.has(code)) return new ChatError("unavailable", `Slack has a problem (${code}).`, { cause });
  if (unusableToken.has(code)) return new ChatError("unavailable", refusedToken(code), { cause });
  return new ChatError("refused", `Slack refused the message (${code}).`, { cause });
}

/** What to do about a token that Slack does not take. */
export function refusedToken(code: string): string {
  return code === "missing_scope"
    ? "The Slack app lacks a permission (missing_scope): add the bot scopes of docs/slack.md and reinstall it."
    : `Slack refuses SLACK_BOT_TOKEN (${code}): copy the Bot User OAuth Token of the installed app and restart.`;
}

/** Safe to log: Slack's code or the kind of failure, never a body (a modal may hold a secret). */
export function summaryOf(error: unknown): string {
  const code = slackCode(error);
  if (code !== undefined) return code;
  if (error instanceof webApi.WebAPIRateLimitedError) return `rate limited for ${error.retryAfter} s`;
  if (error instanceof webApi.WebAPIHTTPError) return `HTTP ${error.statusCode}`;
  return error instanceof Error ? error.message : String(error);
}

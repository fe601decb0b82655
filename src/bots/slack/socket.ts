/**
 * Socket Mode. One SocketModeReceiver is one connection; when it ends, the next is a new one, made by the loop below.
 * Not the SDK's own reconnection (socket-mode 3.1.0): it ignores the promise of its restart, so that a token revoked
 * meanwhile, or an outage longer than its retries, is an unhandled rejection that ends the process; and it waits 5 s
 * before it follows a `refresh_requested`, in which commands are lost.
 */
import { setTimeout as delay } from "node:timers/promises";
import { type App, type Logger as SlackLogger, SocketModeReceiver, webApi } from "@slack/bolt";
import type { Logger } from "pino";
import { isUnusableToken, slackCode, summaryOf } from "./api.ts";
import type { Ingress } from "./ingress.ts";
import { boltLogger } from "./logger.ts";

const CALL_TIMEOUT_MS = 10_000;
/** From asking for the address to Slack's hello. */
const HELLO_TIMEOUT_MS = 20_000;
const RETRY_FACTOR = 1.3;
const MAX_RETRY_MS = 10_000;
/** Somebody has to repair the app first. */
const REFUSED_RETRY_MS = 60_000;
/** A connection that lasted as long was a good one: Slack renews them after hours, and the next is asked for at once. */
const GOOD_CONNECTION_MS = 10_000;
const STOP_TIMEOUT_MS = 3_000;

export interface SocketOptions {
  appToken: string;
  apiUrl: string | undefined;
  log: Logger;
  firstRetryMs: number;
}

export function createSocketIngress(options: SocketOptions): Ingress {
  const { log, firstRetryMs } = options;
  let app: App | undefined;
  let current: SocketModeReceiver | undefined;
  let stopping = new AbortController();
  let loop: Promise<void> = Promise.resolve();
  let intake = true;
  let status = { ok: false, detail: "Socket Mode: not started yet." };

  function tell(next: { ok: boolean; detail: string }, level: "info" | "warn"): void {
    if (next.detail !== status.detail) log[level](`slack: ${next.detail}`);
    status = next;
  }

  /** Resolves with how long to wait before the next one, when this connection has ended or was never made. */
  async function connection(
    attempt: number,
    signal: AbortSignal,
  ): Promise<{ afterMs: number; good: boolean }> {
    const retryMs = Math.min(MAX_RETRY_MS, firstRetryMs * RETRY_FACTOR ** attempt);
    const socket = openSocket(options);
    if (app !== undefined) socket.init(app);
    current = socket;
    if (!intake) endIntakeOf(socket);
    const ended = new Promise<void>((resolve) => socket.client.once("disconnected", () => resolve()));
    try {
      await greeted(socket);
    } catch (error) {
      await hangUp(socket);
      if (!signal.aborted) tell({ ok: false, detail: problemOf(error) }, "warn");
      return { afterMs: waitAfter(error, retryMs), good: false };
    }
    // The SDK goes on connecting after its disconnect() when it had no address yet.
    if (signal.aborted) await hangUp(socket);
    else tell({ ok: true, detail: "Socket Mode: connected." }, "info");
    const since = performance.now();
    await ended;
    const good = performance.now() - since >= GOOD_CONNECTION_MS;
    const detail = "Socket Mode: the connection ended; opening the next one.";
    if (!signal.aborted) tell({ ok: false, detail }, good ? "info" : "warn");
    return { afterMs: good ? 0 : retryMs, good };
  }

  async function run(signal: AbortSignal): Promise<void> {
    let attempt = 0;
    while (!signal.aborted) {
      const { afterMs, good } = await connection(attempt, signal);
      attempt = good ? 0 : attempt + 1;
      // Aborted: the loop's condition sees it.
      await delay(afterMs, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }

  return {
    receiver: {
      init(bolt) {
        app = bolt;
      },
      start: () => Promise.resolve(),
      stop: () => Promise.resolve(),
    },
    start() {
      stopping = new AbortController();
      intake = true;
      status = { ok: false, detail: "Socket Mode: connecting." };
      loop = run(stopping.signal);
    },
    endIntake() {
      intake = false;
      if (current !== undefined) endIntakeOf(current);
    },
    async stop() {
      stopping.abort();
      status = { ok: false, detail: "Socket Mode: stopped." };
      const limit = new AbortController();
      const late = delay(STOP_TIMEOUT_MS, undefined, { signal: limit.signal }).catch(() => undefined);
      const closed = current === undefined ? loop : Promise.all([hangUp(current), loop]);
      await Promise.race([closed, late]);
      limit.abort();
    },
    status: () => status,
  };
}

function openSocket({ appToken, apiUrl, log }: SocketOptions): SocketModeReceiver {
  return new SocketModeReceiver({
    appToken,
    autoReconnectEnabled: false,
    logger: quiet(log),
    installerOptions: {
      clientOptions: {
        timeout: CALL_TIMEOUT_MS,
        retryConfig: { retries: 0 },
        rejectRateLimitedCalls: true,
        ...(apiUrl === undefined ? {} : { slackApiUrl: apiUrl }),
      },
    },
  });
}

/** Each attempt of an outage would be an error line; we tell what changes, once. */
function quiet(log: Logger): SlackLogger {
  const lines = boltLogger(log);
  return { ...lines, warn: lines.info, error: lines.info };
}

async function greeted(socket: SocketModeReceiver): Promise<void> {
  const limit = new AbortController();
  const late = delay(HELLO_TIMEOUT_MS, undefined, { signal: limit.signal, ref: false }).then(
    () => Promise.reject(new Error(`no greeting within ${HELLO_TIMEOUT_MS / 1000} s`)),
    () => undefined,
  );
  try {
    // Rejects without a reason when the socket closes before Slack's hello.
    await Promise.race([socket.client.start(), late]);
  } finally {
    limit.abort();
  }
}

/** What was received before can still be acknowledged. */
function endIntakeOf(socket: SocketModeReceiver): void {
  socket.client.removeAllListeners("slack_event");
}

/** Resolves when the socket is closed, which may take until the other side says so. */
async function hangUp(socket: SocketModeReceiver): Promise<void> {
  endIntakeOf(socket);
  await socket.client.disconnect();
}

function waitAfter(error: unknown, retryMs: number): number {
  if (error instanceof webApi.WebAPIRateLimitedError) return error.retryAfter * 1000;
  return slackCode(error) === undefined ? retryMs : REFUSED_RETRY_MS;
}

function problemOf(error: unknown): string {
  const code = slackCode(error);
  if (code === undefined) {
    const reason = error === undefined ? "the socket was closed" : summaryOf(error);
    return `Socket Mode: Slack could not be reached (${reason}); trying again.`;
  }
  return isUnusableToken(error)
    ? `Slack refuses SLACK_APP_TOKEN (${code}): copy the App-Level Token with the scope connections:write of the app's page Basic Information and restart.`
    : `Slack opens no socket (${code}): switch Socket Mode on in the app's settings; trying again.`;
}

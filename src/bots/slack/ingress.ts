/** How Slack's requests reach us: signed HTTP, or a WebSocket that we open (socket.ts). Everything behind is the same. */
import type { IncomingMessage, RequestListener } from "node:http";
import { ExpressReceiver, type Receiver } from "@slack/bolt";
import type { Logger } from "pino";
import type { Bot } from "../../core/bot.ts";
import { boltLogger } from "./logger.ts";
import { createSocketIngress } from "./socket.ts";

export const SLACK_PATH = "/slack/events";
/** Bolt refuses timestamps older than 5 minutes but takes any from the future (measured with 5.1.0). */
const MAX_AHEAD_MS = 60_000;

export type IngressSettings =
  | { kind: "http"; signingSecret: string }
  /** An app-level token (xapp-…) with the scope connections:write. */
  | { kind: "socket"; appToken: string };

export interface Ingress {
  /** For Bolt's App, which hands itself over by `init`. */
  readonly receiver: Receiver;
  readonly http?: NonNullable<Bot["http"]>;
  /** Returns at once; what comes of it is told by `status`. */
  start(): void;
  /** No new requests; those at work can still be answered. */
  endIntake(): void;
  /** At most some seconds. */
  stop(): Promise<void>;
  status(): { ok: boolean; detail: string };
}

export interface IngressOptions {
  settings: IngressSettings;
  apiUrl: string | undefined;
  log: Logger;
  now: () => number;
  firstRetryMs: number;
}

export function createIngress({ settings, ...options }: IngressOptions): Ingress {
  return settings.kind === "http"
    ? createHttpIngress({ ...settings, ...options })
    : createSocketIngress({ ...settings, ...options });
}

function createHttpIngress(options: { signingSecret: string; now: () => number; log: Logger }): Ingress {
  const { log } = options;
  const receiver = new ExpressReceiver({
    signingSecret: options.signingSecret,
    logger: boltLogger(log),
    // With and without its path: `app.use(path, listener)` takes the path off.
    endpoints: { whole: SLACK_PATH, mounted: "/" },
  });
  receiver.app.disable("x-powered-by");
  return {
    receiver,
    http: { path: SLACK_PATH, listener: refuseFuture(receiver.app, options) },
    // The listener is the API's (src/api/server.ts), which opens and closes it.
    start() {},
    endIntake() {},
    stop: () => Promise.resolve(),
    status: () => ({ ok: true, detail: `Listening at ${SLACK_PATH}.` }),
  };
}

function refuseFuture(
  next: RequestListener,
  { now, log }: { now: () => number; log: Logger },
): RequestListener {
  return (request, response) => {
    if (timestampOf(request) - now() > MAX_AHEAD_MS) {
      log.warn("slack: a request from the future was refused; check this machine's clock if it goes on");
      response.writeHead(401).end();
      return;
    }
    next(request, response);
  };
}

/** Milliseconds; NaN when the header is missing or no number, which Bolt's check of the signature refuses. */
function timestampOf(request: IncomingMessage): number {
  return Number(request.headers["x-slack-request-timestamp"]) * 1000;
}

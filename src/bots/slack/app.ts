/** The Slack bot over signed HTTP: @slack/bolt verifies and routes, the files beside this one answer. */
import type { IncomingMessage, RequestListener } from "node:http";
import {
  App,
  type BlockAction,
  type ButtonAction,
  ExpressReceiver,
  type ViewSubmitAction,
} from "@slack/bolt";
import type { Logger } from "pino";
import type { ActionRegistry } from "../../core/action.ts";
import type { Bot } from "../../core/bot.ts";
import type { Entrance } from "../../core/request.ts";
import { createSlackApi } from "./api.ts";
import { handleButton } from "./buttons.ts";
import { handleCommand } from "./commands.ts";
import { createConnection } from "./connection.ts";
import type { SlackContext } from "./context.ts";
import { FORM_CALLBACK, INPUT_PATTERN } from "./form.ts";
import { boltLogger } from "./logger.ts";
import { createSlackMessenger } from "./messenger.ts";
import { handleSubmit, handleSuggest } from "./modal.ts";

export const SLACK_PATH = "/slack/events";
/** Bolt refuses timestamps older than 5 minutes but takes any from the future (measured with 5.1.0). */
const MAX_AHEAD_MS = 60_000;
const ACK_BUDGET_MS = 2_000;
const FIRST_RETRY_MS = 1_000;
const STOP_TIMEOUT_MS = 5_000;

export interface SlackBotOptions {
  token: string;
  signingSecret: string;
  /** Slack's API base URL; absent: the real one. */
  apiUrl?: string | undefined;
  /** Put before each command's name: "rt-" makes `/rt-server`. */
  commandPrefix?: string | undefined;
  entrance: Entrance;
  registry: ActionRegistry;
  log: Logger;
  /** The handle (`channel:ts`) of an operation's card in Slack, so that an answer can link to it. */
  cardOf?: ((operationId: string) => Promise<string | null>) | undefined;
  now?: (() => number) | undefined;
  /** Milliseconds. For tests. */
  ackBudgetMs?: number | undefined;
  firstRetryMs?: number | undefined;
}

export function createSlackBot(options: SlackBotOptions): Bot {
  const { token, signingSecret, entrance, registry, log, now = Date.now } = options;
  const api = createSlackApi({ token, apiUrl: options.apiUrl, log });
  const connection = createConnection({ api, log, firstRetryMs: options.firstRetryMs ?? FIRST_RETRY_MS });
  const running = new Set<Promise<void>>();
  const context: SlackContext = {
    entrance,
    registry,
    api,
    log,
    commandPrefix: options.commandPrefix ?? "",
    ackBudgetMs: options.ackBudgetMs ?? ACK_BUDGET_MS,
    async linkTo(operationId) {
      try {
        return linkOf((await options.cardOf?.(operationId)) ?? null, connection.workspaceUrl());
      } catch (error) {
        // The request itself went well; only the link to its card is missing.
        log.error({ err: error }, "slack: a card's address could not be read");
        return null;
      }
    },
  };
  const receiver = new ExpressReceiver({
    signingSecret,
    logger: boltLogger(log),
    // With and without its path: `app.use(path, listener)` takes the path off.
    endpoints: { whole: SLACK_PATH, mounted: "/" },
  });
  receiver.app.disable("x-powered-by");
  const app = new App({
    receiver,
    logger: boltLogger(log),
    // Bolt would ask Slack for auth.test before the first listener runs; our own token needs no asking, so commands are
    // answered also while Slack's API is down.
    authorize: () => Promise.resolve({ botToken: token }),
  });

  function track(work: Promise<void>): Promise<void> {
    running.add(work);
    return work.finally(() => running.delete(work));
  }
  register(app, context, track);

  return {
    platform: "slack",
    messenger: createSlackMessenger(api),
    http: { path: SLACK_PATH, listener: refuseFuture(receiver.app, { now, log }) },
    start() {
      connection.start();
      return Promise.resolve();
    },
    async stop() {
      connection.stop();
      const timeout = AbortSignal.timeout(STOP_TIMEOUT_MS);
      const ended = new Promise<void>((resolve) =>
        timeout.addEventListener("abort", () => resolve(), { once: true }),
      );
      await Promise.race([Promise.allSettled(running), ended]);
    },
    status: () => connection.status(),
  };
}

function register(app: App, context: SlackContext, track: (work: Promise<void>) => Promise<void>): void {
  const { log } = context;
  // One listener for all: a command nobody knows gets an answer with the nearest name instead of Slack's time-out.
  app.command(/^\//u, (args) => track(handleCommand(context, args)));
  app.view<ViewSubmitAction>({ callback_id: FORM_CALLBACK, type: "view_submission" }, (args) =>
    track(handleSubmit(context, args)),
  );
  app.options<"block_suggestion">({ type: "block_suggestion", action_id: INPUT_PATTERN }, (args) =>
    track(handleSuggest(context, args)),
  );
  app.action<BlockAction<ButtonAction>>(/^(act|reveal):/u, (args) => track(handleButton(context, args)));
  app.error((error) => {
    log.error({ err: error }, "slack: a listener failed");
    return Promise.resolve();
  });
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

function linkOf(handle: string | null, workspaceUrl: string | null): string | null {
  const [channel, ts] = handle?.split(":") ?? [];
  if (channel === undefined || ts === undefined || workspaceUrl === null) return null;
  return `${workspaceUrl.replace(/\/$/u, "")}/archives/${channel}/p${ts.replace(".", "")}`;
}

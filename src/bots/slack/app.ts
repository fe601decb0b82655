/** The Slack bot: @slack/bolt verifies and routes, the files beside this one answer. */
import { App, type BlockAction, type ButtonAction, type ViewSubmitAction } from "@slack/bolt";
import type { Logger } from "pino";
import type { ActionRegistry } from "../../core/action.ts";
import type { Bot } from "../../core/bot.ts";
import type { Entrance } from "../../core/request.ts";
import { createSlackApi } from "./api.ts";
import { handleButton } from "./buttons.ts";
import { handleCommand } from "./commands.ts";
import { type Connection, createConnection } from "./connection.ts";
import type { SlackContext } from "./context.ts";
import { FORM_CALLBACK, INPUT_PATTERN } from "./form.ts";
import { createIngress, type Ingress, type IngressSettings } from "./ingress.ts";
import { boltLogger } from "./logger.ts";
import { createSlackMessenger } from "./messenger.ts";
import { handleSubmit, handleSuggest } from "./modal.ts";

const ACK_BUDGET_MS = 2_000;
const FIRST_RETRY_MS = 1_000;
const STOP_TIMEOUT_MS = 5_000;

export interface SlackBotOptions {
  token: string;
  ingress: IngressSettings;
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
  const { token, entrance, registry, log, apiUrl, now = Date.now, firstRetryMs = FIRST_RETRY_MS } = options;
  const api = createSlackApi({ token, apiUrl, log });
  const connection = createConnection({ api, log, firstRetryMs });
  const ingress = createIngress({ settings: options.ingress, apiUrl, log, now, firstRetryMs });
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
  const app = new App({
    receiver: ingress.receiver,
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
    ...(ingress.http === undefined ? {} : { http: ingress.http }),
    start() {
      connection.start();
      ingress.start();
      return Promise.resolve();
    },
    async stop() {
      connection.stop();
      ingress.endIntake();
      const timeout = AbortSignal.timeout(STOP_TIMEOUT_MS);
      const ended = new Promise<void>((resolve) =>
        timeout.addEventListener("abort", () => resolve(), { once: true }),
      );
      await Promise.race([Promise.allSettled(running), ended]);
      await ingress.stop();
    },
    status: () => statusOf(ingress, connection),
  };
}

/** A socket that is not open is the more urgent news: without it nobody is heard. */
function statusOf(ingress: Ingress, connection: Connection): { ok: boolean; detail: string } {
  const [way, token] = [ingress.status(), connection.status()];
  return way.ok ? token : way;
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

function linkOf(handle: string | null, workspaceUrl: string | null): string | null {
  const [channel, ts] = handle?.split(":") ?? [];
  if (channel === undefined || ts === undefined || workspaceUrl === null) return null;
  return `${workspaceUrl.replace(/\/$/u, "")}/archives/${channel}/p${ts.replace(".", "")}`;
}

/** The real bot, mounted as api/ mounts it, between a local Slack and a scripted entrance. */
import { createServer } from "node:http";
import express from "express";
import { pino } from "pino";
import { createSlackBot, type SlackBotOptions } from "../../../src/bots/slack/app.ts";
import type { Principal } from "../../../src/core/access.ts";
import type { Bot } from "../../../src/core/bot.ts";
import { alice, carol, type FakeEntrance, fakeEntrance } from "../../support/fake-entrance.ts";
import { sampleRegistry } from "../../support/sample-actions.ts";
import { close, type FakeSlack, fakeSlack, listen, signed } from "../../support/slack-api.ts";

export const SECRET = "test-signing-secret";

export interface Answered {
  status: number;
  /** What Slack reads from the acknowledgement: a message, a response_action, options, or nothing. */
  body: Record<string, unknown> | null;
}

export interface Rig {
  slack: FakeSlack;
  entrance: FakeEntrance;
  bot: Bot;
  url: string;
  /** Lines of the log, as JSON. */
  log: string[];
  post(body: string, skewSeconds?: number): Promise<Answered>;
  command(user: string, text: string, over?: Record<string, string>): Promise<Answered>;
  interact(payload: Record<string, unknown>): Promise<Answered>;
  button(user: string, actionId: string, over?: Record<string, unknown>): Promise<Answered>;
  submit(
    user: string,
    view: unknown,
    values: Record<string, string>,
    over?: Record<string, unknown>,
  ): Promise<Answered>;
  suggest(user: string, view: unknown, field: string, text: string): Promise<Answered>;
  stop(): Promise<void>;
}

export async function slackRig(
  options: Partial<SlackBotOptions> = {},
  people: Record<string, Principal> = { U1: alice, U3: carol },
): Promise<Rig> {
  const slack = await fakeSlack();
  const entrance = fakeEntrance(people);
  const log: string[] = [];
  const bot = createSlackBot({
    token: "xoxb-test",
    ingress: { kind: "http", signingSecret: SECRET },
    apiUrl: slack.url,
    entrance,
    registry: sampleRegistry,
    log: pino({ level: "debug" }, { write: (entry: string) => void log.push(entry) }),
    ...options,
  });
  const web = express();
  if (bot.http !== undefined) web.all(bot.http.path, bot.http.listener);
  web.use(express.json());
  const server = createServer(web);
  const url = `${await listen(server)}/slack/events`;
  /** Socket Mode carries the same payloads, as JSON in an envelope. */
  const deliver = async (type: string, payload: unknown): Promise<Answered> => ({
    status: 200,
    body: await slack.sockets.deliver(type, payload),
  });
  const isSocket = options.ingress?.kind === "socket";
  let triggers = 0;
  const sender = (user: string): Record<string, unknown> => ({
    team: { id: "T1", domain: "acme" },
    enterprise: null,
    user: { id: user, username: user, team_id: "T1" },
    token: "v",
    api_app_id: "A1",
    trigger_id: `trigger-${(triggers += 1)}`,
  });

  const rig: Rig = {
    slack,
    entrance,
    bot,
    url,
    log,
    async post(body, skewSeconds = 0) {
      const response = await fetch(url, signed(body, { secret: SECRET, skewSeconds }));
      const text = await response.text();
      return {
        status: response.status,
        body: text === "" ? null : (JSON.parse(text) as Record<string, unknown>),
      };
    },
    command(user, text, over = {}) {
      const payload = {
        command: "/server",
        text,
        user_id: user,
        user_name: user,
        team_id: "T1",
        team_domain: "acme",
        channel_id: "C1",
        channel_name: "ops",
        api_app_id: "A1",
        token: "v",
        response_url: slack.responseUrl,
        trigger_id: `trigger-${(triggers += 1)}`,
        ...over,
      };
      return isSocket
        ? deliver("slash_commands", payload)
        : rig.post(new URLSearchParams(payload).toString());
    },
    interact: (payload) =>
      isSocket
        ? deliver("interactive", payload)
        : rig.post(new URLSearchParams({ payload: JSON.stringify(payload) }).toString()),
    button: (user, actionId, over = {}) =>
      rig.interact({
        type: "block_actions",
        ...sender(user),
        channel: { id: "C1", name: "ops" },
        container: { type: "message", message_ts: "1.1", channel_id: "C1" },
        response_url: slack.responseUrl,
        actions: [
          {
            type: "button",
            action_id: actionId,
            block_id: "b",
            value: actionId.split(":")[1],
            action_ts: "1.1",
            text: {},
          },
        ],
        ...over,
      }),
    submit: (user, view, values, over = {}) =>
      rig.interact({
        type: "view_submission",
        ...sender(user),
        view: { ...(view as object), id: "V1", team_id: "T1", state: { values: stateOf(values) } },
        ...over,
      }),
    suggest: (user, view, field, text) =>
      rig.interact({
        type: "block_suggestion",
        ...sender(user),
        action_id: `input:${field}`,
        block_id: field,
        value: text,
        container: { type: "view", view_id: "V1" },
        view: { ...(view as object), id: "V1", team_id: "T1", state: { values: {} } },
      }),
    async stop() {
      await bot.stop();
      await close(server);
      await slack.close();
    },
  };
  return rig;
}

function stateOf(values: Record<string, string>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(values).map(([field, value]) => [
      field,
      { [`input:${field}`]: { type: "plain_text_input", value } },
    ]),
  );
}

/** Everything a person could read or be pinged by in an answer. */
export function textOf(answered: unknown): string {
  return JSON.stringify(answered);
}

/** Polls until `check` answers something, at most 3 s. */
export async function until<T>(check: () => T | undefined | false): Promise<T> {
  for (let tries = 0; tries < 300; tries += 1) {
    const value = check();
    if (value !== undefined && value !== false) return value;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error("it did not happen within 3 s");
}

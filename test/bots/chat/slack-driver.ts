import { createServer, type Server } from "node:http";
import express from "express";
import { createSlackBot } from "../../../src/bots/slack/app.ts";
import type { Bot } from "../../../src/core/bot.ts";
import { sampleRegistry } from "../../support/sample-actions.ts";
import { close, listen } from "../../support/slack-api.ts";
import type { CardSeen, ChatDriver, Seen, Typed } from "./driver.ts";
import { control, until } from "./stand-in.ts";

interface Message {
  ts: string;
  text: string;
  thread_ts?: string;
  ephemeral: boolean;
  blocks?: { type: string; elements?: { action_id?: string; text?: { text: string } }[] }[];
}
interface Modal {
  blocks: { type: string; block_id: string; element?: { type: string; action_id: string } }[];
}
interface Outcome {
  ok: boolean;
  error?: string;
  shown?: Message | null;
  modal: Modal | null;
  errors?: Record<string, string>;
  options?: { value: string }[];
}

const [ALICE, BOB, CAROL, OPS] = ["U01ALICE", "U02BOB", "U03CAROL", "C01OPS"];
const CAROLS_CHANNEL = "C02SUPPORT";

/** `way`: signed HTTP to a server started here, or Socket Mode to the stand-in. */
export function slackDriver(base: string, way: "http" | "socket"): ChatDriver {
  const call = <T>(name: string, body: Record<string, unknown> = {}, method: "GET" | "POST" = "POST") =>
    control<T>(base, name, body, method);
  let bot: Bot | undefined;
  let server: Server | undefined;

  const messages = async (channel: string, viewer: string) =>
    (await call<{ messages: Message[] }>("messages", { channel, viewer }, "GET")).messages;
  const channelOf = (user: string) => (user === CAROL ? CAROLS_CHANNEL : OPS);
  const ephemeral = async (user: string) =>
    (await messages(channelOf(user), user)).filter((each) => each.ephemeral);

  /** What `act` brings: in its own answer, in a window, or as a message for this person alone a moment later. */
  async function seenAfter(user: string, act: () => Promise<Outcome>): Promise<Seen> {
    const before = (await ephemeral(user)).length;
    const { ok, error, shown } = await act();
    if (!ok) throw new Error(error);
    return until(
      async () => {
        const { view } = await call<{ view: Modal | null }>("view", { user }, "GET");
        const inputs =
          view?.blocks.filter(({ type }) => type === "input").map(({ block_id: id }) => id) ?? [];
        // A window that asks for nothing was read; one that stays open would be taken for the next answer.
        if (view !== null && inputs.length === 0) await call("close", { user, clear: true });
        if (view !== null) return { text: JSON.stringify(view), form: inputs.length === 0 ? null : inputs };
        if (shown !== null && shown !== undefined) return { text: textOf(shown), form: null };
        const [answer] = (await ephemeral(user)).slice(before);
        if (answer !== undefined) return { text: textOf(answer), form: null };
        return undefined;
      },
      { what: "nothing was shown" },
    );
  }

  const suggest = (user: string, field: string) =>
    call<Outcome>("suggest", { user, action_id: `input:${field}`, block_id: field, value: "" });

  async function cardsIn(channel: string, viewer: string): Promise<CardSeen[]> {
    const all = (await messages(channel, viewer)).filter((each) => !each.ephemeral);
    return all
      .filter((each) => each.thread_ts === undefined || each.thread_ts === each.ts)
      .map((root) => ({
        id: `${channel}/${root.ts}`,
        text: textOf(root),
        thread: all.filter((each) => each !== root && each.thread_ts === root.ts).map(({ text }) => text),
      }));
  }

  return {
    platform: "slack",
    people: { staff: ALICE, customer: CAROL, stranger: BOB },
    mention: (user) => `<@${user}>`,
    mostCopiesAfterLostAnswer: 2,
    async open({ entrance, log }) {
      await call("reset");
      bot = createSlackBot({
        token: "xoxb-test-token",
        ingress:
          way === "http"
            ? { kind: "http", signingSecret: "test-signing-secret" }
            : { kind: "socket", appToken: "xapp-test-token" },
        apiUrl: `${base}/api/`,
        entrance,
        registry: sampleRegistry,
        log,
      });
      if (bot.http === undefined) {
        await call("config", { appUrl: null, mode: "socket" });
      } else {
        const web = express();
        web.all(bot.http.path, bot.http.listener);
        server = createServer(web);
        await call("config", { appUrl: `${await listen(server)}${bot.http.path}`, mode: "http" });
      }
      await bot.start();
      const opened = bot;
      await until(async () => (opened.status().ok ? true : undefined), { what: "the bot is not connected" });
      return bot;
    },
    async close() {
      await bot?.stop();
      if (server !== undefined) await close(server);
    },
    command: (user, { action, options = {} }: Typed) => {
      const [group = "", ...verbs] = action.split(".");
      const words = Object.entries(options).map(([name, value]) => `${name}:${value}`);
      return seenAfter(user, () =>
        call<Outcome>("command", {
          user,
          channel: channelOf(user),
          command: `/${group}`,
          text: [...verbs, ...words].join(" "),
        }),
      );
    },
    async suggest(user, _typed, option) {
      return ((await suggest(user, option)).options ?? []).map(({ value }) => value);
    },
    async submit(user, values) {
      const { view } = await call<{ view: Modal | null }>("view", { user }, "GET");
      // A person can only choose what a list has shown them.
      for (const { block_id: field, element } of view?.blocks ?? []) {
        if (element?.type === "external_select") await suggest(user, field);
      }
      const { errors, modal } = await call<Outcome>("submit", { user, values });
      if (errors !== undefined) return { text: JSON.stringify(errors), form: null };
      return { text: modal === null ? "" : JSON.stringify(modal), form: null };
    },
    cards: () => cardsIn(OPS, ALICE),
    directCards: async (user) => cardsIn((await call<{ channel: string }>("dm", { user })).channel, user),
    readable: async (viewer) => (await messages(OPS, viewer)).map(textOf).join("\n"),
    async press(user, card, button) {
      const [channel = "", ts = ""] = card.id.split("/");
      const root = (await messages(channel, user)).find((each) => each.ts === ts);
      const elements = (root?.blocks ?? []).flatMap((block) => block.elements ?? []);
      const pressed = elements.find(({ text }) => text?.text === button)?.action_id;
      return seenAfter(user, () =>
        call<Outcome>("action", { user, channel, message_ts: ts, action_id: pressed }),
      );
    },
    async fault(kind) {
      const method = "chat.postMessage";
      await call(
        "fault",
        kind === "slow_down" ? { method, status: 429, retry_after: 3 } : { method, drop_after: true },
      );
    },
    violations: async () => (await call<{ violations: unknown[] }>("violations", {}, "GET")).violations,
  };
}

function textOf({ text, blocks }: Message): string {
  return [text, JSON.stringify(blocks ?? [])].join("\n");
}

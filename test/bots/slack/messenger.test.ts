import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createSlackApi } from "../../../src/bots/slack/api.ts";
import { createSlackMessenger, threadText } from "../../../src/bots/slack/messenger.ts";
import { ChatError, type Messenger } from "../../../src/core/bot.ts";
import type { View } from "../../../src/core/view.ts";
import { type FakeSlack, fakeSlack, type Reply } from "../../support/slack-api.ts";

let slack: FakeSlack;
let messenger: Messenger;
beforeEach(async () => {
  slack = await fakeSlack();
  messenger = createSlackMessenger(
    createSlackApi({ token: "xoxb-test", apiUrl: slack.url, log: pino({ level: "silent" }) }),
  );
});
afterEach(() => slack.close());

const card: View = { title: "Resize web-1", tone: "progress" };
const target = { workspace: "T1", channel: "C1", userId: "U1" };

async function errorOf(work: Promise<unknown>): Promise<Pick<ChatError, "kind" | "retryAfterMs">> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof ChatError)) throw new Error("expected a ChatError", { cause: error });
  return { kind: error.kind, retryAfterMs: error.retryAfterMs };
}

const refusal = (error: string): Reply => ({ body: { ok: false, error } });

describe("cards", () => {
  it("posts, edits in place and tells the thread with a mention at the end", async () => {
    const handle = await messenger.postCard(target, card, "k");
    expect(handle).toMatch(/^C1:\d+\.\d{6}$/);
    await messenger.editCard(target, handle, { ...card, title: "Resized <!channel>", tone: "success" });
    const ts = handle.slice(3);
    expect(slack.of("chat.update")[0]).toMatchObject({
      channel: "C1",
      ts,
      text: "✅ Resized &lt;!channel&gt;",
    });
    const at = new Date("2026-11-21T12:00:01Z");
    await messenger.postLines(target, handle, [{ at, level: "success", text: "Done <@U2>" }], {
      mention: true,
      key: "k",
    });
    expect(slack.of("chat.postMessage")[1]).toMatchObject({
      channel: "C1",
      thread_ts: ts,
      text: "<!date^1795262401^{time_secs}|12:00:01 UTC> ✓ Done &lt;@U2&gt;\n<@U1>",
    });
  });

  it("opens the direct conversation once for cards that are addressed to a person", async () => {
    const direct = { workspace: "T1", channel: "U3", userId: "U3" };
    expect(await messenger.postCard(direct, card, "k")).toMatch(/^D3:/);
    await messenger.postCard(direct, card, "k2");
    expect(slack.of("conversations.open")).toHaveLength(1);
  });

  it("falls back to the requester's direct messages where it may not post, and says so at every edit", async () => {
    slack.next("chat.postMessage", refusal("not_in_channel"));
    const handle = await messenger.postCard(target, card, "k");
    expect(handle).toMatch(/^D1:/);
    await messenger.editCard(target, handle, card);
    for (const sent of [slack.of("chat.postMessage")[1], slack.of("chat.update")[0]]) {
      expect(sent).toMatchObject({ channel: "D1" });
      expect(JSON.stringify(sent)).toContain("cannot post where you typed");
    }
  });

  it("refuses when there is nobody to fall back to", async () => {
    slack.next("chat.postMessage", refusal("not_in_channel"));
    expect(await errorOf(messenger.postCard({ ...target, userId: null }, card, "k"))).toMatchObject({
      kind: "refused",
    });
  });
});

describe("errors, each after one attempt", () => {
  const cases: [string, Reply, { kind: ChatError["kind"]; retryAfterMs?: number | undefined }][] = [
    [
      "429",
      { status: 429, headers: { "retry-after": "7" }, body: {} },
      { kind: "rate_limited", retryAfterMs: 7000 },
    ],
    ["ratelimited in the body", refusal("ratelimited"), { kind: "rate_limited", retryAfterMs: 5000 }],
    ["a deleted message", refusal("message_not_found"), { kind: "gone" }],
    ["a channel closed to us", refusal("is_archived"), { kind: "gone" }],
    ["a message too long", refusal("msg_too_long"), { kind: "refused" }],
    ["Slack's own fault", refusal("internal_error"), { kind: "unavailable" }],
    ["a token that was revoked", refusal("token_revoked"), { kind: "unavailable" }],
    ["a 503", { status: 503, body: {} }, { kind: "unavailable" }],
    ["no connection", { cut: "before" }, { kind: "unavailable" }],
    ["a lost answer", { cut: "after" }, { kind: "unavailable" }],
  ];
  it.each(cases)("%s", async (_name, reply, expected) => {
    slack.next("chat.update", reply);
    expect(await errorOf(messenger.editCard(target, "C1:1.1", card))).toMatchObject(expected);
    expect(slack.of("chat.update").length).toBeLessThanOrEqual(1);
  });

  it("does not hold up other sends while Slack asks for a pause", async () => {
    slack.next("chat.update", { status: 429, headers: { "retry-after": "30" }, body: {} });
    const [limited] = await Promise.all([
      errorOf(messenger.editCard(target, "C1:1.1", card)),
      messenger.editCard(target, "C1:2.2", card),
      messenger.postCard(target, card, "k"),
    ]);
    expect(limited.kind).toBe("rate_limited");
  });
});

describe("a thread's message", () => {
  it("keeps the newest lines and says how many it left out", () => {
    const lines = Array.from({ length: 60 }, (_, n) => ({
      at: new Date(n * 1000),
      level: "info" as const,
      text: `${n} ${"&".repeat(100)}`,
    }));
    const text = threadText(lines, "U1");
    expect(text.length).toBeLessThanOrEqual(4000);
    expect(text).toContain("59 ");
    expect(text).toMatch(/^… \d+ earlier lines left out\n/);
    expect(text.endsWith("<@U1>")).toBe(true);
  });
});

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createDiscordApi } from "../../../src/bots/discord/api.ts";
import { linkOf } from "../../../src/bots/discord/handle.ts";
import { linesMessage } from "../../../src/bots/discord/lines.ts";
import { createMemory } from "../../../src/bots/discord/memory.ts";
import { createDiscordMessenger } from "../../../src/bots/discord/messenger.ts";
import { ChatError, type Messenger } from "../../../src/core/bot.ts";
import type { View } from "../../../src/core/view.ts";
import { type DiscordReply, type FakeDiscord, fakeDiscord, refusal } from "../../support/discord-api.ts";

const MINUTE_MS = 60_000;
let discord: FakeDiscord;
let messenger: Messenger;
let nowMs: number;

function newMessenger(): Messenger {
  return createDiscordMessenger({
    api: createDiscordApi({ token: "test", apiUrl: discord.url }),
    now: () => nowMs,
    confirmations: createMemory(10),
  });
}
beforeEach(async () => {
  nowMs = Date.now();
  discord = await fakeDiscord(() => nowMs);
  messenger = newMessenger();
});
afterEach(() => discord.close());

const card: View = { title: "Resize web-1", tone: "progress" };
const target = { workspace: "10", channel: "20", userId: "41" };
const line = {
  at: new Date("2026-11-21T12:00:01Z"),
  level: "success",
  text: "Done <@42> @everyone",
} as const;
const posts = /^POST \/channels\/\d+\/messages$/;

/** The handle of a card that is not old. */
function recent(): string {
  return `10/20/${String(BigInt(nowMs - 1_420_070_400_000) << 22n)}`;
}

async function errorOf(work: Promise<unknown>): Promise<ChatError> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof ChatError)) throw new Error("expected a ChatError", { cause: error });
  return error;
}

describe("cards", () => {
  it("are posted with a nonce that Discord enforces, and ping nobody", async () => {
    const handle = await messenger.postCard(target, card, "k");
    expect(handle).toMatch(/^10\/20\/\d+$/);
    expect(linkOf(handle)).toBe(`https://discord.com/channels/${handle}`);
    expect(discord.of(posts)[0]).toMatchObject({ enforce_nonce: true, allowed_mentions: { parse: [] } });
    expect(String(discord.of(posts)[0]?.["nonce"])).toMatch(/^[\w-]{25}$/);
  });

  it("are one, however often an answer is lost", async () => {
    discord.next(posts, { cut: "after" });
    expect((await errorOf(messenger.postCard(target, card, "k"))).kind).toBe("unavailable");
    const again = await newMessenger().postCard(target, card, "k");
    expect(await messenger.postCard(target, card, "k")).toBe(again);
    expect(await messenger.postCard(target, card, "other")).not.toBe(again);
  });

  it("that were deleted are posted anew, not taken for the deleted one", async () => {
    const first = await messenger.postCard(target, card, "k");
    discord.next(/^PATCH/, refusal(10_008, 404));
    expect((await errorOf(messenger.editCard(target, first, card))).kind).toBe("gone");
    expect(await messenger.postCard(target, card, "k")).not.toBe(first);
  });

  it("for a person go to the direct conversation, opened once", async () => {
    const direct = { workspace: "dm", channel: "dm:42", userId: "42" };
    expect(await messenger.postCard(direct, card, "k")).toMatch(/^@me\/\d+\/\d+$/);
    await messenger.postCard(direct, card, "k2");
    expect(discord.of(/users\/@me\/channels/)).toEqual([{ recipient_id: "42" }]);
  });

  it.each([10_003, 50_001, 50_013, 160_005])(
    "go to the requester where they may not be posted (%i), and say why at every edit",
    async (code) => {
      discord.next(posts, refusal(code, 403));
      const handle = await messenger.postCard(target, card, "k");
      expect(handle).toMatch(/^@me\//);
      await messenger.editCard(target, handle, card);
      for (const sent of [discord.of(posts)[1], discord.of(/^PATCH/)[0]]) {
        expect(sent?.["content"]).toContain("cannot post where you typed");
      }
    },
  );

  it("are refused when there is nobody to turn to, or who takes no direct messages", async () => {
    discord.next(posts, refusal(50_013, 403));
    expect((await errorOf(messenger.postCard({ ...target, userId: null }, card, "k"))).kind).toBe("refused");
    discord.next(posts, refusal(50_013, 403));
    discord.next(/@me\/channels/, refusal(50_007, 403));
    const error = await errorOf(messenger.postCard(target, card, "k"));
    expect(error).toMatchObject({ kind: "refused" });
    expect(error.message).toContain("no direct messages");
  });

  it("in an archived thread are edited after opening it again", async () => {
    const handle = await messenger.postCard(target, card, "k");
    const [, , message = ""] = handle.split("/");
    discord.next(/^PATCH/, refusal(50_083));
    await messenger.editCard(target, handle, card);
    expect(discord.calls.slice(1).map(({ route }) => route)).toEqual([
      `PATCH /channels/20/messages/${message}`,
      "PATCH /channels/20",
      `PATCH /channels/20/messages/${message}`,
    ]);
  });
});

describe("old cards", () => {
  let handle: string;
  beforeEach(async () => {
    handle = await messenger.postCard(target, card, "k");
    nowMs += 56 * MINUTE_MS;
  });

  it("move their progress into the thread, say so, and still show the end themselves", async () => {
    await messenger.editCard(target, handle, card);
    await messenger.editCard(target, handle, { ...card, text: "later" });
    const [, , message = ""] = handle.split("/");
    const onCard = () => discord.of(new RegExp(`^PATCH /channels/20/messages/${message}$`));
    expect(onCard()).toHaveLength(1);
    expect(onCard()[0]?.["content"]).toContain("goes on below");
    expect(discord.of(new RegExp(`^POST /channels/${message}/messages$`))).toHaveLength(1);
    expect(JSON.stringify(discord.of(new RegExp(`^PATCH /channels/${message}/messages`)))).toContain("later");
    await messenger.editCard(target, handle, { ...card, title: "Resized", tone: "success" });
    expect(JSON.stringify(onCard()[1])).toContain("Resized");
    expect(JSON.stringify(discord.of(new RegExp(`^PATCH /channels/${message}/`)).at(-1))).toContain(
      "Resized",
    );
  });

  it("show the end in the thread when Discord takes no more edits (30046)", async () => {
    discord.next(/^PATCH/, refusal(30_046));
    discord.next(/^PATCH/, refusal(30_046));
    await messenger.editCard(target, handle, { ...card, title: "Resized", tone: "success" });
    expect(JSON.stringify(discord.of(posts).at(-1))).toContain("Resized");
  });
});

describe("threads", () => {
  const tell = (handle = "10/20/30", key = "l") =>
    messenger.postLines(target, handle, [line], { mention: true, key });

  it("are started from the card, once", async () => {
    discord.next(/^POST \/channels\/30\/messages/, refusal(10_003, 404));
    discord.next(/^GET/, { body: { id: "30", embeds: [{ title: "⏳ Resize web\\-1" }] } });
    await tell();
    await tell("10/20/30", "l2");
    const threads = discord.of(/threads$/);
    expect(threads).toEqual([{ name: "⏳ Resize web-1", auto_archive_duration: 4320 }]);
    expect(discord.of(/^POST \/channels\/30\/messages/)).toHaveLength(3);
    expect(discord.of(/^POST \/channels\/30\/messages/)[1]).toMatchObject({
      content: "<t:1795262401:T> ✓ Done \\<\\@42\\> \\@everyone\n<@41>",
      allowed_mentions: { parse: [], users: ["41"] },
      enforce_nonce: true,
    });
  });

  it("have the card's title, which is asked for only when another process has posted it", async () => {
    const handle = await messenger.postCard(target, card, "k");
    discord.next(/^POST \/channels\/\d+\/messages/, refusal(10_003, 404));
    await tell(handle);
    expect(discord.of(/threads$/)).toMatchObject([{ name: "Resize web-1" }]);
    expect(discord.of(/^GET/)).toEqual([]);
    discord.next(/^POST \/channels\/30\/messages/, refusal(10_003, 404));
    discord.next(/^GET/, refusal(50_001, 403));
    await tell();
    expect(discord.of(/threads$/)[1]).toMatchObject({ name: "Details" });
  });

  it("that another process started meanwhile are used", async () => {
    discord.next(/^POST \/channels\/30\/messages/, refusal(10_003, 404));
    discord.next(/threads$/, refusal(160_004));
    await tell();
    expect(discord.calls.at(-1)?.route).toBe("POST /channels/30/messages");
  });

  it.each([50_001, 50_013, 50_024, 160_006])("that cannot be started (%i) become replies", async (code) => {
    discord.next(/^POST \/channels\/30\/messages/, refusal(10_003, 404));
    discord.next(/threads$/, refusal(code, 403));
    await tell();
    expect(discord.calls.at(-1)).toMatchObject({
      route: "POST /channels/20/messages",
      body: { message_reference: { message_id: "30", fail_if_not_exists: false } },
    });
  });

  it("that are locked become replies", async () => {
    discord.next(/^POST \/channels\/30\/messages/, refusal(160_005));
    await tell();
    expect(discord.calls.map(({ route }) => route)).toEqual([
      "POST /channels/30/messages",
      "POST /channels/20/messages",
    ]);
  });

  it("are not tried in direct messages", async () => {
    await tell("@me/50/60");
    expect(discord.calls.map(({ route }) => route)).toEqual(["POST /channels/50/messages"]);
  });

  it("of a deleted card are gone", async () => {
    discord.next(/^POST \/channels\/30\/messages/, refusal(10_003, 404));
    discord.next(/^GET/, refusal(10_008, 404));
    expect((await errorOf(tell())).kind).toBe("gone");
  });
});

describe("errors, each after one attempt", () => {
  const cases: [string, DiscordReply, Partial<ChatError>][] = [
    // discord.js adds 50 ms for clocks that differ.
    [
      "429",
      { status: 429, headers: { "retry-after": "7" }, body: { retry_after: 7, global: false } },
      { kind: "rate_limited", retryAfterMs: 7050 },
    ],
    ["a deleted message", refusal(10_008, 404), { kind: "gone" }],
    ["a deleted channel", refusal(10_003, 404), { kind: "gone" }],
    ["a channel closed to us", refusal(50_001, 403), { kind: "gone" }],
    ["an invalid message", refusal(50_035), { kind: "refused" }],
    ["a 503", { status: 503, body: {} }, { kind: "unavailable" }],
    ["no connection", { cut: "before" }, { kind: "unavailable" }],
    ["a lost answer", { cut: "after" }, { kind: "unavailable" }],
  ];
  it.each(cases)("%s", async (_name, reply, expected) => {
    discord.next(/^PATCH/, reply);
    expect(await errorOf(messenger.editCard(target, recent(), card))).toMatchObject(expected);
    expect(discord.of(/^PATCH/).length).toBeLessThanOrEqual(1);
  });

  it("a refused token is named, and forgets nothing: the next call is made with it", async () => {
    discord.next(/^PATCH/, { status: 401, body: { message: "401: Unauthorized", code: 0 } });
    const error = await errorOf(messenger.editCard(target, recent(), card));
    expect(error).toMatchObject({ kind: "unavailable" });
    expect(error.message).toContain("DISCORD_TOKEN");
    await messenger.editCard(target, recent(), card);
  });
});

describe("a thread's message", () => {
  it("keeps the newest lines and says how many it left out", () => {
    const lines = Array.from({ length: 60 }, (_, n) => ({
      ...line,
      at: new Date(n * 1000),
      text: `${n} ${"x".repeat(60)}`,
    }));
    const { content } = linesMessage(lines, "41");
    expect(content.length).toBeLessThanOrEqual(2000);
    expect(content).toMatch(/^… \d+ earlier lines left out\n/);
    expect(content).toContain("59 xxx");
    expect(content.endsWith("\n<@41>")).toBe(true);
  });
});

/**
 * What only a strict stand-in for Discord shows (bodies checked with Discord's own OpenAPI document, permissions, limits, a
 * gateway that fails). TEST_DISCORD_HARNESS is its base URL. The conversation itself is in ../chat-suite.ts.
 */
import { connect, createServer, type Server } from "node:net";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createDiscordBot, type DiscordBotOptions } from "../../../src/bots/discord/app.ts";
import type { Bot } from "../../../src/core/bot.ts";
import { alice, carol, type FakeEntrance, fakeEntrance } from "../../support/fake-entrance.ts";
import { sampleRegistry } from "../../support/sample-actions.ts";
import {
  buttonsOf,
  discordIds,
  discordPeople,
  discordToken,
  type Interaction,
  textOf,
} from "../chat/discord-driver.ts";
import { chatScene, type Scene } from "../chat/scene.ts";
import { reserve, until } from "../chat/stand-in.ts";

const HARNESS = process.env["TEST_DISCORD_HARNESS"];
const { application, guild, ops, readonly, hidden, alice: ALICE, carol: CAROL } = discordIds;
const servers = { kind: "view", view: { title: "Servers", tone: "neutral" } } as const;

describe.skipIf(HARNESS === undefined)("Discord's stand-in (skipped without TEST_DISCORD_HARNESS)", () => {
  const base = HARNESS ?? "";
  const people = discordPeople(base);
  const power = { action: "server.power", options: { server: "web-1", verb: "stop" } };
  let release: (() => Promise<void>) | undefined;
  let scene: Scene;
  let entrance: FakeEntrance;
  let bot: Bot;

  function newBot(over: Partial<DiscordBotOptions> = {}): Bot {
    return createDiscordBot({
      token: discordToken,
      applicationId: application,
      guildId: guild,
      apiUrl: `${base}/api`,
      entrance,
      registry: sampleRegistry,
      log: pino({ level: "silent" }),
      firstRetryMs: 50,
      ...over,
    });
  }
  const log = async (kind: RegExp) =>
    (await people.call<{ log: { kind: string; data: unknown }[] }>("log", {}, "GET")).log.filter((each) =>
      kind.test(each.kind),
    );
  const list = async () =>
    textOf(
      (await settledAt(await people.command(ALICE, ops, { action: "server.list" }))).original ?? {
        content: "",
        embeds: [],
      },
    );
  const settledAt = (interaction: Interaction) => people.settled(interaction);
  const connected = () =>
    until(async () => (bot.status().ok ? true : undefined), { what: bot.status().detail, withinMs: 15_000 });

  beforeAll(async () => {
    release = await reserve(base);
    scene = await chatScene("discord");
  }, 150_000);
  afterAll(async () => {
    await scene.close();
    await release?.();
  });
  beforeEach(async () => {
    await people.call("reset");
    entrance = fakeEntrance({ [ALICE]: alice, [CAROL]: carol });
    entrance.script.dispatch = () => Promise.resolve(servers);
    bot = newBot();
    await bot.start();
    await people.ready();
    scene.extra({});
    scene.attach(bot);
  });
  afterEach(() => bot.stop());

  it("asks for no intents, and registers its commands once", async () => {
    expect((await log(/IDENTIFY/)).map(({ data }) => data)).toMatchObject([{ intents: 0 }]);
    await bot.stop();
    bot = newBot();
    await bot.start();
    await until(async () => ((await log(/^GET .*commands$/)).length === 2 ? true : undefined), {
      what: "no second login",
    });
    expect(await list()).toContain("Servers");
    expect(await log(/^PUT .*commands$/)).toHaveLength(1);
    expect(await people.violations()).toEqual([]);
  });

  it("comes back after every way of losing the gateway, and answers", async () => {
    for (const end of [
      { op: "reconnect" },
      { op: "kill" },
      { op: "close", code: 4000 },
      { op: "invalid", resumable: true },
      { op: "invalid", resumable: false },
    ]) {
      const count = (await log(/^(RESUME|IDENTIFY)$/)).length;
      await people.call("gateway", end);
      await until(async () => ((await log(/^(RESUME|IDENTIFY)$/)).length > count ? true : undefined), {
        what: `no new session after ${end.op}`,
        withinMs: 15_000,
      });
      await connected();
      await until(async () => ((await list()).includes("Servers") ? true : undefined), { what: "no answer" });
    }
    expect(await people.violations()).toEqual([]);
  }, 60_000);

  it("answers what was asked while the connection was away, when the session is resumed", async () => {
    await people.call("gateway", { op: "kill" });
    expect(await list()).toContain("Servers");
    expect(entrance.requests).toHaveLength(1);
    expect(await people.violations()).toEqual([]);
  });

  it("is made anew after a close for good", async () => {
    const count = (await log(/^IDENTIFY$/)).length;
    await people.call("gateway", { op: "close", code: 4013 });
    await until(async () => ((await log(/^IDENTIFY$/)).length > count ? true : undefined), {
      what: "no new login",
    });
    await connected();
    expect(await list()).toContain("Servers");
  });

  it("starts while Discord is away, and connects when it is back", async () => {
    await bot.stop();
    const door = createServer((socket) => {
      const { hostname, port } = new URL(base);
      const inner = connect(Number(port), hostname);
      socket.pipe(inner).pipe(socket);
      for (const end of [socket, inner]) end.on("error", () => end.destroy());
    });
    const port = await portOf(door);
    await new Promise((resolve) => door.close(resolve));
    bot = newBot({ apiUrl: `http://127.0.0.1:${port}/api` });
    await bot.start();
    await until(async () => (bot.status().detail.includes("ECONNREFUSED") ? true : undefined), {
      what: "no reason given",
    });
    await portOf(door, port);
    await connected();
    expect(await list()).toContain("Servers");
    await bot.stop();
    door.close();
  });

  it("names a wrong token, and its messenger too", async () => {
    await bot.stop();
    bot = newBot({ token: "MTEwMDAwMDAwMDAwMDAwMDAwMQ.wrong.token" });
    await bot.start();
    await until(async () => (bot.status().detail.includes("DISCORD_TOKEN") ? true : undefined), {
      what: "no reason given",
    });
    const target = { workspace: guild, channel: ops, userId: ALICE };
    const failed = bot.messenger.postCard(target, { title: "T", tone: "neutral" }, "k");
    await expect(failed).rejects.toMatchObject({ kind: "unavailable" });
  });

  it.each([
    ["read", readonly],
    ["do nothing", hidden],
  ])(
    "answers in a channel where it may only %s, and brings the card by direct message",
    async (_what, channel) => {
      let operation = "";
      entrance.script.dispatch = async (request) => {
        const answer = await scene.enter(request);
        operation = answer.operationId;
        return answer;
      };
      const answered = await settledAt(await people.command(ALICE, channel, power));
      expect(answered.original?.content).toContain("Build web-1");
      await scene.tick();
      await scene.become(operation, "succeeded", "Stopped");
      const direct = await people.messages(await people.direct(ALICE), ALICE);
      const [card, end] = direct.slice(-2);
      expect(textOf(card ?? { content: "", embeds: [] })).toMatch(/cannot post where you typed[^]*succeeded/);
      expect(end).toMatchObject({ message_reference: { message_id: card?.id } });
      expect(await people.violations()).toEqual([]);
    },
  );

  it("starts one thread, keeps one card and one line whatever answers are lost", async () => {
    let operation = "";
    entrance.script.dispatch = async (request) => {
      const answer = await scene.enter(request);
      operation = answer.operationId;
      return answer;
    };
    await settledAt(await people.command(ALICE, ops, power));
    const lose = (match: string) => people.call("fault", { match, drop_after: true });
    await lose("POST /channels/\\d+/messages$");
    await scene.tick();
    await scene.tick();
    await lose("POST /channels/\\d+/messages/\\d+/threads$");
    await scene.become(operation, "running", "Cloning");
    await scene.tick();
    await lose("PATCH /channels/\\d+/messages/\\d+$");
    await scene.become(operation, "succeeded", "It answers");
    await lose("POST /channels/\\d+/messages$");
    await scene.tick();
    const mentioned = `<@${ALICE}>`;
    const cards = async () =>
      (await people.messages(ops, ALICE)).filter((each) => !each.ephemeral && each.embeds.length > 0);
    const thread = async () => people.messages((await cards())[0]?.id ?? "", ALICE);
    await until(
      async () => {
        if ((await thread()).at(-1)?.content.endsWith(mentioned) === true) return true;
        await scene.tick();
        return undefined;
      },
      { what: "the end was not told" },
    );
    await scene.tick();
    expect(await cards()).toHaveLength(1);
    expect((await thread()).map(({ content }) => content.replace(/^<t:\d+:T> · /, ""))).toEqual([
      "Cloning",
      `It answers\n${mentioned}`,
    ]);
    expect(await people.violations()).toEqual([]);
  });

  it("presses buttons that an earlier process has shown, and asks with the card's own words", async () => {
    const confirm = { title: "Sure?", text: "web-1 of Ada", yes: "Yes", no: "No" };
    scene.extra({
      fields: [{ label: "Server", value: "web-1 (srv-1)" }],
      buttons: [{ token: "t-1", label: "Delete", style: "danger", purpose: "act", confirm }],
    });
    entrance.script.dispatch = scene.enter;
    await settledAt(await people.command(ALICE, ops, power));
    await scene.tick();
    const card = (await people.messages(ops, ALICE)).find((each) => !each.ephemeral);
    await bot.stop();
    bot = newBot();
    await bot.start();
    await connected();
    const [button] = buttonsOf(card ?? { components: [] });
    const asked = await settledAt(await people.press(ALICE, ops, card?.id ?? "", button?.custom_id ?? ""));
    expect(textOf(asked.original ?? { content: "", embeds: [] })).toContain("web-1 (srv-1)");
    entrance.script.press = () =>
      Promise.resolve({ kind: "view", view: { title: "Deleting", tone: "warning" } });
    const [yes] = buttonsOf(asked.original ?? { components: [] });
    const before = textOf(asked.original ?? { content: "", embeds: [] });
    const done = await people.settled(
      await people.press(ALICE, ops, asked.original?.id ?? "", yes?.custom_id ?? ""),
      before,
    );
    expect(textOf(done.original ?? { content: "", embeds: [] })).toContain("Deleting");
    expect(entrance.presses).toEqual([{ token: "t-1", principal: alice }]);
    expect(await people.violations()).toEqual([]);
  });

  it("fills in its answer through errors and limits of Discord", async () => {
    await people.call("fault", { match: "PATCH /webhooks/", status: 500, times: 2 });
    expect(await list()).toContain("Servers");
    await people.call("fault", { match: "PATCH /webhooks/", status: 429, retry_after: 0.5 });
    expect(await list()).toContain("Servers");
    expect(await people.violations()).toEqual([]);
    expect((await people.call<{ stuck: unknown[] }>("stuck", {}, "GET")).stuck).toEqual([]);
  });

  it("answers within Discord's time, a hundred times", async () => {
    let slowest = 0;
    for (let n = 0; n < 100; n += 1) {
      const { ack_ms: ms } = await people.command(ALICE, ops, { action: "server.list" });
      slowest = Math.max(slowest, ms ?? Infinity);
    }
    expect(slowest).toBeLessThan(3000);
    await until(
      async () =>
        (await people.call<{ stuck: unknown[] }>("stuck", {}, "GET")).stuck.length === 0 ? true : undefined,
      {
        what: "some answers did not come",
      },
    );
    expect(await people.violations()).toEqual([]);
  });
});

function portOf(server: Server, port = 0): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => {
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : 0);
    });
  });
}

import { createServer } from "node:http";
import { pino } from "pino";
import { afterEach, describe, expect, it } from "vitest";
import { createDiscordApi } from "../../../src/bots/discord/api.ts";
import { createDiscordBot } from "../../../src/bots/discord/app.ts";
import { discordCommands } from "../../../src/bots/discord/commands.ts";
import { hashOf, registerCommands } from "../../../src/bots/discord/registration.ts";
import type { Bot } from "../../../src/core/bot.ts";
import { type FakeDiscord, fakeDiscord } from "../../support/discord-api.ts";
import { fakeEntrance } from "../../support/fake-entrance.ts";
import { sampleRegistry } from "../../support/sample-actions.ts";
import { close, listen } from "../../support/slack-api.ts";

const commands = discordCommands(sampleRegistry);
let bot: Bot | undefined;
let discord: FakeDiscord | undefined;
afterEach(async () => {
  await bot?.stop();
  await discord?.close();
  bot = undefined;
  discord = undefined;
});

function botAt(apiUrl: string): Bot {
  return createDiscordBot({
    token: "test",
    applicationId: "1",
    apiUrl,
    entrance: fakeEntrance({}),
    registry: sampleRegistry,
    log: pino({ level: "silent" }),
    firstRetryMs: 10,
  });
}

describe("the connection", () => {
  it("does not hold up the start when Discord is away, says so, and keeps trying until stopped", async () => {
    const server = createServer();
    const url = await listen(server);
    await close(server);
    bot = botAt(`${url}/api`);
    await bot.start();
    await expect.poll(() => bot?.status().detail).toContain("ECONNREFUSED");
    expect(bot.status().ok).toBe(false);
    await bot.stop();
    expect(bot.status()).toEqual({ ok: false, detail: "Stopped." });
  });

  it("tries again after an error of Discord", async () => {
    discord = await fakeDiscord();
    for (let n = 0; n < 8; n += 1) discord.next(/gateway\/bot/, { cut: "after" });
    bot = botAt(discord.url);
    await bot.start();
    await expect.poll(() => discord?.of(/gateway\/bot/).length).toBeGreaterThan(3);
  });

  it("names a token that Discord refuses, and does not hammer", async () => {
    discord = await fakeDiscord();
    for (let n = 0; n < 5; n += 1) {
      discord.next(/gateway\/bot/, { status: 401, body: { message: "401: Unauthorized", code: 0 } });
    }
    bot = botAt(discord.url);
    await bot.start();
    await expect.poll(() => bot?.status().detail).toContain("DISCORD_TOKEN");
    expect(discord.of(/gateway\/bot/)).toHaveLength(1);
  });
});

describe("the commands", () => {
  const api = (url: string) => createDiscordApi({ token: "test", apiUrl: url });

  it("are written only when Discord's differ from ours", async () => {
    discord = await fakeDiscord();
    expect(await registerCommands(api(discord.url), { applicationId: "1", guildId: "10" }, commands)).toBe(
      true,
    );
    expect(discord.of(/^PUT \/applications\/1\/guilds\/10\/commands$/)).toEqual([commands]);
    // As Discord gives them back: with defaults filled in, ids, and in an order of its own.
    const added = { id: "5", version: "6", dm_permission: true, contexts: null };
    const theirs = commands.toReversed().map((command) =>
      Object.assign({}, command, added, {
        options: command.options?.map((option) =>
          Object.assign({ required: false, autocomplete: false }, option),
        ),
      }),
    );
    discord.next(/^GET \/applications\/1\/commands$/, { body: theirs });
    expect(
      await registerCommands(api(discord.url), { applicationId: "1", guildId: undefined }, commands),
    ).toBe(false);
    expect(discord.of(/^PUT/)).toHaveLength(1);
  });

  it("differ by what a person sees or Discord checks", () => {
    const [first, ...rest] = commands;
    if (first === undefined) throw new Error("there are no commands");
    expect(hashOf([{ ...first, description: "else" }, ...rest])).not.toBe(hashOf(commands));
    expect(hashOf([{ ...first, options: first.options?.toReversed() }, ...rest])).not.toBe(hashOf(commands));
    expect(hashOf(rest)).not.toBe(hashOf(commands));
  });
});

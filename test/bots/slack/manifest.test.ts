import { describe, expect, it } from "vitest";
import { reservedCommands, slackManifest } from "../../../src/bots/slack/manifest.ts";
import { createRegistry } from "../../../src/core/actions/index.ts";

const actions = createRegistry();

describe("the app manifest", () => {
  it("has one command per group of the registry, and help", () => {
    const manifest = slackManifest({
      registry: actions,
      publicUrl: "https://bot.example/",
      commandPrefix: "rt-",
    });
    const commands = manifest.features.slash_commands;
    const groups = new Set(actions.list().map(({ name }) => name.split(".")[0] ?? ""));
    expect(commands.map(({ command }) => command).toSorted()).toEqual(
      [...groups.add("help")].map((group) => `/rt-${group}`).toSorted(),
    );
    for (const { url, description, usage_hint } of commands) {
      expect(url).toBe("https://bot.example/slack/events");
      expect(description.length).toBeLessThanOrEqual(2000);
      expect(usage_hint.length).toBeLessThanOrEqual(1000);
    }
    expect(manifest.settings.interactivity).toMatchObject({
      request_url: "https://bot.example/slack/events",
    });
  });

  it("takes no name that Slack keeps for itself, and no option that a modal cannot show", () => {
    const { slash_commands } = slackManifest({
      registry: actions,
      publicUrl: "https://bot.example",
    }).features;
    expect(
      slash_commands.map(({ command }) => command).filter((name) => reservedCommands.includes(name)),
    ).toEqual([]);
    for (const action of actions.list()) {
      for (const option of action.options) {
        const long = (option.choices ?? []).filter(({ value }) => value.length > 75);
        expect(long, `${action.name} ${option.name}`).toEqual([]);
      }
    }
  });
});

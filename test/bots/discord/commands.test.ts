import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  type DiscordCommand,
  type DiscordOption,
  discordCommands,
} from "../../../src/bots/discord/commands.ts";
import { lintDiscordCommands } from "../../../src/bots/discord/commands-lint.ts";
import { createRegistry } from "../../../src/core/actions/index.ts";
import { registryOf, sampleAction, sampleActions, sampleRegistry } from "../../support/sample-actions.ts";
import { problemsOf } from "./openapi-check.ts";

const openApiPath = process.env["DISCORD_OPENAPI"] ?? "/work/shared/data/discord-openapi.json";
const commands = discordCommands(sampleRegistry);
const own = discordCommands(createRegistry());

function at(...path: string[]): DiscordOption {
  let options: readonly DiscordOption[] | undefined = commands.find(({ name }) => name === path[0])?.options;
  let found: DiscordOption | undefined;
  for (const name of path.slice(1)) {
    found = options?.find((option) => option.name === name);
    options = found?.options;
  }
  if (found === undefined) throw new Error(`there is no ${path.join(" ")}`);
  return found;
}

describe("discordCommands", () => {
  it("makes a command of each group, sub-commands of verbs, groups of two-level verbs", () => {
    expect(commands.map(({ name }) => name)).toEqual(["server", "ops", "link", "help"]);
    expect(at("server", "volume")).toMatchObject({ type: 2, description: "attach" });
    expect(at("server", "volume", "attach")).toMatchObject({
      type: 1,
      description: "Attach a new volume to a server",
    });
    expect(at("link", "code")).toMatchObject({ type: 3, required: true });
    expect(commands[0]?.description).toBe("list, provision, resize, power, delete, volume");
  });

  it("gives options their types, lookups their autocomplete, numbers the bounds of the schema", () => {
    expect(at("server", "resize", "server")).toMatchObject({ type: 3, required: true, autocomplete: true });
    expect(at("server", "resize", "memory")).toEqual({
      type: 3,
      name: "memory",
      description: "Memory with a unit, like 8G",
    });
    expect(at("server", "resize", "cpu")).toMatchObject({ type: 4, min_value: 1, max_value: 64 });
    expect(at("server", "provision", "start")).toMatchObject({ type: 5 });
    expect(at("server", "power", "verb").choices).toContainEqual({ name: "Stop", value: "stop" });
    expect(at("server", "delete", "dry-run")).toMatchObject({ type: 5 });
    expect(at("server", "list").options?.map(({ name }) => name)).toEqual(["state"]);
  });

  it("puts required options first and requires nothing that only one audience may give", () => {
    const options = at("server", "provision").options ?? [];
    expect(options.map(({ name, required }) => `${name}${required === true ? "!" : ""}`)).toEqual([
      "name!",
      "plan!",
      "image!",
      "customer",
      "labels",
      "count",
      "start",
      "dry-run",
    ]);
  });

  it("autocompletes more choices than Discord lists", () => {
    const choices = Array.from({ length: 26 }, (_, index) => ({
      value: `v${index}`,
      label: `Value ${index}`,
    }));
    const power = sampleAction("server.power");
    const many = {
      ...power,
      options: [{ name: "verb", field: "verb", label: "V", help: "V", type: "text", choices }],
    } as const;
    const [command] = discordCommands(registryOf([many]));
    const option = command?.options?.[0]?.options?.[0];
    expect(option).toMatchObject({ autocomplete: true });
    expect(option).not.toHaveProperty("choices");
  });

  it("refuses names that Discord cannot express", () => {
    const link = sampleAction("link");
    const list = sampleAction("server.list");
    expect(() => discordCommands(registryOf([link, { ...link, name: "link.start" }]))).toThrow(/by itself/);
    expect(() => discordCommands(registryOf([list, { ...list, name: "server.list.all" }]))).toThrow(
      /by itself/,
    );
    expect(() => discordCommands(registryOf([{ ...list, name: "a.b.c.d" }]))).toThrow(/levels/);
  });

  it("is within every limit, for the samples and for the product's own actions", () => {
    expect(lintDiscordCommands(commands)).toEqual([]);
    expect(lintDiscordCommands(own)).toEqual([]);
  });

  it.skipIf(!existsSync(openApiPath))("is what Discord's OpenAPI description asks for", () => {
    const document: unknown = JSON.parse(readFileSync(openApiPath, "utf8"));
    const problems = (command: unknown) => problemsOf(document, "ApplicationCommandCreateRequest", command);
    expect([...commands, ...own].flatMap(problems)).toEqual([]);
    // The check itself must be able to fail.
    expect(problems({ ...commands[0], description: "x".repeat(101) })).not.toEqual([]);
    expect(problems({ ...commands[0], options: [{ type: 3, name: "a" }] })).not.toEqual([]);
    expect(problems({ ...commands[0], options: [{ type: 99, name: "a", description: "a" }] })).not.toEqual(
      [],
    );
    expect(problems({ description: "nameless" })).not.toEqual([]);
  });
});

describe("lintDiscordCommands", () => {
  const option = (more: Partial<DiscordOption> = {}): DiscordOption => ({
    type: 3,
    name: "a",
    description: "A",
    ...more,
  });
  const command = (...options: DiscordOption[]): DiscordCommand => ({
    type: 1,
    name: "x",
    description: "X",
    options,
  });
  const many = (count: number, of: Partial<DiscordOption> = {}) =>
    Array.from({ length: count }, (_, index) => option({ name: `o${index}`, ...of }));
  const choice = (value: string | number, name = "A") => ({ name, value });

  it.each<[string, DiscordCommand, RegExp]>([
    ["a capital in a name", command(option({ name: "Memory" })), /\/x Memory: the name/],
    ["a space in a name", command(option({ name: "a b" })), /the name/],
    ["a long name", command(option({ name: "a".repeat(33) })), /the name/],
    ["no description", command(option({ description: "" })), /0 characters/],
    ["a long description", command(option({ description: "x".repeat(101) })), /101 characters/],
    ["too many options", command(...many(26)), /26 options/],
    [
      "too many choices",
      command(option({ choices: many(26).map(({ name }) => choice(name)) })),
      /26 choices/,
    ],
    ["a long choice", command(option({ choices: [choice("x".repeat(101))] })), /too long/],
    ["a nameless choice", command(option({ choices: [choice("x", "")] })), /0 characters/],
    ["a text choice of a number", command(option({ type: 4, choices: [choice("x")] })), /option's type/],
    [
      "choices and autocomplete",
      command(option({ autocomplete: true, choices: [choice("x")] })),
      /one of them/,
    ],
    ["autocomplete of a flag", command(option({ type: 5, autocomplete: true })), /yes or no/],
    ["bounds of a text", command(option({ min_value: 1 })), /no number/],
    ["bounds the wrong way", command(option({ type: 4, min_value: 2, max_value: 1 })), /least value/],
    [
      "required after optional",
      command(option(), option({ name: "b", required: true })),
      /\/x b is required/,
    ],
    ["the same name twice", command(option(), option()), /"a" twice/],
    ["verbs and options", command(option(), option({ type: 1, name: "b" })), /mixes/],
    ["an empty group", command(option({ type: 2, options: [] })), /without sub-commands/],
    ["options of a text", command(option({ options: [] })), /no verb/],
    [
      "a group in a group",
      command(option({ type: 2, options: [option({ type: 2, options: [option({ type: 1 })] })] })),
      /too deep/,
    ],
    [
      "too many characters in all",
      command(...many(25, { type: 1, options: many(4, { description: "x".repeat(90) }) })),
      /characters in all; Discord takes 8000/,
    ],
  ])("finds %s", (_, wrong, expected) => {
    expect(lintDiscordCommands([wrong]).join("\n")).toMatch(expected);
  });

  it("finds too many and equal commands", () => {
    const set = Array.from({ length: 101 }, () => command());
    expect(lintDiscordCommands(set)).toEqual([
      "There are 101 commands; Discord takes 100.",
      'The commands have "x" twice.',
    ]);
  });

  it("is about every sample action", () => {
    const verbs = commands
      .flatMap(({ options }) => options ?? [])
      .flatMap((verb) => (verb.type === 2 ? (verb.options ?? []) : [verb]));
    expect(verbs.filter(({ type }) => type === 1)).toHaveLength(sampleActions.length - 1);
  });
});

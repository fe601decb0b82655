import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ServiceError } from "../../../src/core/errors.ts";
import type { FormField } from "../../../src/core/form.ts";
import { formOf } from "../../../src/core/form-of.ts";
import { buttonData, refusal } from "../../support/discord-api.ts";
import { alice, carol } from "../../support/fake-entrance.ts";
import { sampleAction } from "../../support/sample-actions.ts";
import { ALICE, CAROL, discordRig, MALLORY, type Rig } from "./rig.ts";

let rig: Rig;
beforeEach(async () => {
  rig = await discordRig();
});
afterEach(() => rig.close());

const EPHEMERAL = 64;
const callbacks = /^POST \/interactions\//;
const servers = { kind: "view", view: { title: "Servers", tone: "neutral" } } as const;
const operation = {
  kind: "operation",
  operationId: "o-1",
  publicId: "op-1",
  existing: false,
  view: { title: "Stop web-1", tone: "progress" },
} as const;

function shownText(id: string): string {
  return JSON.stringify(rig.discord.shown(id) ?? null);
}

interface Modal {
  custom_id: string;
  components: { label: string; component: Record<string, unknown> & { custom_id: string } }[];
}
function modalOf(id: string): Modal {
  const first = rig.discord.first(id);
  expect(first?.["type"]).toBe(9);
  return first?.["data"] as Modal;
}
function buttonIds(id: string): string[] {
  return [...shownText(id).matchAll(/"custom_id":"([^"]+)"/g)].map(([, customId = ""]) => customId);
}

describe("commands", () => {
  it("are deferred for the asker alone, and become requests with their options as text", async () => {
    rig.entrance.script.dispatch = () => Promise.resolve(servers);
    const id = await rig.command(ALICE, "server volume attach", {
      server: "web-1",
      size: "8G",
      "dry-run": true,
    });
    expect(rig.discord.first(id)).toEqual({ type: 5, data: { flags: EPHEMERAL } });
    expect(shownText(id)).toContain("Servers");
    expect(rig.entrance.requests).toEqual([
      {
        action: "server.volume.attach",
        options: { server: "web-1", size: "8G" },
        dryRun: true,
        principal: alice,
        source: "discord",
        idempotencyKey: `discord:${id}`,
        origin: { platform: "discord", workspace: "10", channel: "20", userId: ALICE },
      },
    ]);
    await rig.command(ALICE, "server provision", {
      customer: "c",
      name: "a",
      plan: "m",
      image: "d",
      count: 2,
      start: false,
    });
    expect(rig.entrance.requests[1]?.options).toMatchObject({ count: "2", start: "no" });
  });

  it("send customers' cards, and those from direct messages, to the person", async () => {
    rig.entrance.script.dispatch = () => Promise.resolve(operation);
    const id = await rig.command(CAROL, "server power", { server: "web-1", verb: "stop" });
    const direct = { platform: "discord", workspace: "dm", channel: `dm:${CAROL}`, userId: CAROL };
    expect(rig.entrance.requests[0]).toMatchObject({ principal: carol, origin: direct });
    expect(shownText(id)).toContain("in our direct messages");
    const user = { id: ALICE, username: "alice", discriminator: "0", avatar: null };
    const over = { guild_id: undefined, member: undefined, user, context: 1 };
    await rig.command(ALICE, "server power", { server: "web-1", verb: "stop" }, over);
    expect(rig.entrance.requests[1]?.origin).toMatchObject({ workspace: "dm", channel: `dm:${ALICE}` });
  });

  it("tell a stranger their id and nothing else", async () => {
    const id = await rig.command(MALLORY, "server list");
    expect(shownText(id)).toContain(MALLORY);
    expect(shownText(id)).toContain("ask support for a code and send it here: /link code:…");
    expect(rig.entrance.requests).toEqual([]);
  });

  it("hand a stranger's code on, shown to them alone", async () => {
    const sent: unknown[] = [];
    rig.entrance.script.link = (stranger, code) => {
      sent.push([stranger, code]);
      return code === "GOOD"
        ? Promise.resolve({ title: "Linked to Ada.", tone: "success" })
        : Promise.reject(new ServiceError("not_found", "Code is not valid."));
    };
    const good = await rig.command(MALLORY, "link", { code: "GOOD" });
    const bad = await rig.command(MALLORY, "link", { code: "BAD" });
    expect(rig.discord.first(good)).toMatchObject({ data: { flags: 64 } });
    expect(shownText(good)).toContain("Linked to Ada.");
    expect(shownText(bad)).toContain("Code is not valid.");
    const stranger = { platform: "discord", userId: MALLORY };
    expect(sent).toEqual([
      [stranger, "GOOD"],
      [stranger, "BAD"],
    ]);
    expect(rig.entrance.requests).toEqual([]);
  });

  it("answer help by themselves when no action does", async () => {
    const id = await rig.command(ALICE, "help", { topic: "server resize" });
    expect(shownText(id)).toContain("/server resize");
  });

  it("link to the card of an order that was there already", async () => {
    await rig.close();
    rig = await discordRig({ linkTo: () => Promise.resolve("https://discord.com/channels/10/20/30") });
    rig.entrance.script.dispatch = () => Promise.resolve({ ...operation, existing: true });
    const id = await rig.command(ALICE, "server power", { server: "web-1", verb: "stop" });
    expect(shownText(id)).toContain("[Open its card](<https://discord.com/channels/10/20/30>)");
  });

  it("are told as a sentence when they fail, with what staff alone may see", async () => {
    rig.entrance.script.dispatch = () =>
      Promise.reject(new ServiceError("busy", "Wait for @everyone.", { staffDetail: "req-1" }));
    expect(shownText(await rig.command(ALICE, "server list"))).toMatch(/Wait for \\\\@everyone\..*req-1/);
    expect(shownText(await rig.command(CAROL, "server list"))).not.toContain("req-1");
    rig.entrance.script.dispatch = () => Promise.reject(new Error("password=hunter2"));
    const id = await rig.command(ALICE, "server list");
    expect(shownText(id)).toContain("Something went wrong on our side");
    expect(shownText(id)).not.toContain("hunter2");
  });
});

describe("first answers", () => {
  beforeEach(() => {
    rig.entrance.script.dispatch = () => Promise.resolve(servers);
  });

  it("are given once to an interaction that is delivered twice", async () => {
    const id = await rig.command(ALICE, "server list");
    await rig.command(ALICE, "server list", {}, { id });
    expect(rig.discord.of(callbacks)).toHaveLength(1);
    expect(rig.entrance.requests).toHaveLength(1);
  });

  it("are left to the process that was faster, which also does the work", async () => {
    rig.discord.next(callbacks, refusal(40_060));
    await rig.command(ALICE, "server list");
    expect(rig.entrance.requests).toEqual([]);
  });

  it("that come too late do nothing, because the person was told that it failed", async () => {
    rig.discord.next(callbacks, refusal(10_062, 404));
    await rig.command(ALICE, "server list");
    expect(rig.entrance.requests).toEqual([]);
  });

  it.each(["before", "after"] as const)(
    "are sent again when the connection is cut %s they arrive",
    async (cut) => {
      rig.discord.next(callbacks, { cut });
      const id = await rig.command(ALICE, "server list");
      expect(rig.entrance.requests).toHaveLength(1);
      expect(shownText(id)).toContain("Servers");
    },
  );

  it("survive a 503", async () => {
    rig.discord.next(callbacks, { status: 503, body: {} });
    rig.discord.next(/^PATCH \/webhooks/, { status: 503, body: {} });
    expect(shownText(await rig.command(ALICE, "server list"))).toContain("Servers");
  });

  it("do not wait for a slow database", async () => {
    await rig.close();
    rig = await discordRig({ ackBudgetMs: 20 });
    rig.entrance.script.dispatch = () => Promise.resolve(servers);
    rig.entrance.identify = async () => {
      await expect.poll(() => rig.discord.of(callbacks).length).toBe(1);
      return alice;
    };
    const id = await rig.command(ALICE, "server list");
    expect(rig.discord.first(id)).toMatchObject({ type: 5 });
    expect(shownText(id)).toContain("Servers");
  });

  it("that Discord finds invalid are replaced by a sentence", async () => {
    rig.discord.next(/^PATCH \/webhooks/, refusal(50_035));
    expect(shownText(await rig.command(ALICE, "server list"))).toContain("may have been done all the same");
  });

  it("name no token in the log when Discord refuses them", async () => {
    rig.discord.next(callbacks, refusal(50_035));
    const id = await rig.command(ALICE, "server list");
    expect(rig.log.join()).toContain("code 50035");
    expect(rig.log.join()).not.toContain(`token-${id}`);
  });
});

describe("forms", () => {
  beforeEach(() => {
    rig.entrance.script.form = async (action, given) => formOf(sampleAction(action), given, alice);
    rig.entrance.script.dispatch = async ({ action, options }) =>
      options["customer"] === undefined
        ? { kind: "form", form: formOf(sampleAction(action), options, alice) }
        : operation;
  });
  const typed = { name: "web-1", plan: "m", image: "debian" };

  it("open as the first answer, with short lists as selects and long ones as text", async () => {
    rig.entrance.script.lookup = ({ kind }) => {
      const count = kind === "customer" ? 26 : 2;
      const choices = Array.from({ length: count }, (_, n) => ({
        value: `${kind}${n}`,
        label: `${kind} ${n}`,
      }));
      return Promise.resolve(kind === "plan" ? [...choices, { value: "m", label: "Medium" }] : choices);
    };
    const { components } = modalOf(await rig.command(ALICE, "server provision", typed));
    const field = (name: string) =>
      components.find(({ component }) => component.custom_id === name)?.component;
    expect(components).toHaveLength(5);
    expect(field("customer")).toMatchObject({ type: 4, required: true });
    expect(field("plan")?.["options"]).toContainEqual({ value: "m", label: "Medium", default: true });
    // What was typed is not among the choices, and must not be lost.
    expect(field("image")).toMatchObject({ type: 4, value: "debian" });
    expect(field("start")).toMatchObject({ type: 3, required: false, min_values: 0 });
  });

  it("open also when the lists fail", async () => {
    rig.entrance.script.lookup = () => Promise.reject(new Error("database away"));
    const { components } = modalOf(await rig.command(ALICE, "server provision", typed));
    expect(components.map(({ component }) => component["type"])).toEqual([4, 4, 4, 4, 3]);
  });

  it("need no memory when all that was given has a field, so a restart does not matter", async () => {
    const { custom_id: customId } = modalOf(await rig.command(ALICE, "server provision", typed));
    await rig.close();
    rig = await discordRig();
    rig.entrance.script.dispatch = () => Promise.resolve(operation);
    const entered = {
      text: { name: "web-2", plan: "m", image: "debian", customer: "ada" },
      chosen: { start: "no" },
    };
    const id = await rig.submit(ALICE, customId, entered);
    expect(rig.discord.first(id)).toEqual({ type: 5, data: { flags: EPHEMERAL } });
    expect(rig.entrance.requests[0]).toMatchObject({
      action: "server.provision",
      options: { name: "web-2", plan: "m", image: "debian", customer: "ada", start: "no" },
      dryRun: false,
      idempotencyKey: `discord:${id}`,
    });
  });

  it("keep what has no field, and say so when that was forgotten", async () => {
    const { custom_id: customId } = modalOf(
      await rig.command(ALICE, "server provision", { ...typed, labels: "a=1", count: 2, "dry-run": true }),
    );
    await rig.submit(ALICE, customId, { text: { customer: "ada" } });
    expect(rig.entrance.requests[1]).toMatchObject({ dryRun: true });
    expect(rig.entrance.requests[1]?.options).toMatchObject({ customer: "ada" });
    const given = Object.keys(rig.entrance.requests[1]?.options ?? {});
    expect(given.length).toBeGreaterThan(1);
    await rig.close();
    rig = await discordRig();
    const late = await rig.submit(ALICE, customId, { text: { customer: "ada" } });
    expect(shownText(late)).toContain("too old");
    expect(rig.entrance.requests).toEqual([]);
  });

  it("ask for more than five required values in two steps", async () => {
    const field = (n: number, initial?: string): FormField => ({
      name: `f${n}`,
      label: `Field ${n}`,
      required: true,
      kind: "text",
      ...(initial === undefined ? {} : { initial }),
    });
    const form = (options: Record<string, string>) => ({
      action: "server.provision",
      title: "Much",
      submit: "Go",
      fields: [1, 2, 3, 4, 5, 6, 7].map((n) => field(n, options[`f${n}`])),
      given: {},
    });
    rig.entrance.script.form = (_action, given) => Promise.resolve(form(given));
    rig.entrance.script.dispatch = ({ options }) =>
      Promise.resolve(options["f7"] === undefined ? { kind: "form", form: form(options) } : operation);
    const first = modalOf(await rig.command(ALICE, "server provision", {}));
    expect(first.components.map(({ component }) => component.custom_id)).toEqual([
      "f1",
      "f2",
      "f3",
      "f4",
      "f5",
    ]);
    const text = Object.fromEntries([1, 2, 3, 4, 5].map((n) => [`f${n}`, String(n)]));
    const between = await rig.submit(ALICE, first.custom_id, { text });
    expect(shownText(between)).toContain("Still needed: Field 6, Field 7");
    const [open = ""] = buttonIds(between);
    const second = modalOf(await rig.press(ALICE, open, { flags: EPHEMERAL }));
    expect(second.components.map(({ component }) => component.custom_id)).toEqual(
      expect.arrayContaining(["f6", "f7"]),
    );
    // What was given already is filled in, and comes back with the rest.
    const filled = second.components.map(({ component }) => [
      component.custom_id,
      component["value"] ?? "new",
    ]);
    await rig.submit(ALICE, second.custom_id, { text: Object.fromEntries(filled) as Record<string, string> });
    const last = rig.entrance.requests.at(-1)?.options;
    expect(last).toEqual({ ...text, f6: "new", f7: "new" });
  });

  it("come back at a press after an error, with everything that was typed", async () => {
    const { custom_id: customId } = modalOf(await rig.command(ALICE, "server provision", typed));
    rig.entrance.script.dispatch = () => {
      const facts = { option: "name", errors: { name: "No _capitals_.", plan: "No such plan." } };
      return Promise.reject(new ServiceError("invalid_input", "No _capitals_.", { facts }));
    };
    const refused = await rig.submit(ALICE, customId, { text: { ...typed, name: "Bad", customer: "ada" } });
    const said = shownText(refused);
    for (const part of ["No \\\\_capitals", "No such plan", "name:Bad", "customer:ada"])
      expect(said).toContain(part);
    const [open = ""] = buttonIds(refused);
    const again = modalOf(await rig.press(ALICE, open, { flags: EPHEMERAL }));
    const values = again.components.map(({ component }) => [component.custom_id, component["value"]]);
    expect(values).toContainEqual(["name", "Bad"]);
    rig.entrance.script.dispatch = () => Promise.resolve(operation);
    const message = buttonData("x", { flags: EPHEMERAL })["message"];
    const done = await rig.submit(
      ALICE,
      again.custom_id,
      { text: { ...typed, customer: "ada" } },
      { message },
    );
    expect(rig.discord.first(done)).toEqual({ type: 6 });
    expect(shownText(done)).toContain("op-1");
  });
});

describe("suggestions", () => {
  it("come from the entrance, with what is given, and fit Discord's limits", async () => {
    let asked: unknown;
    rig.entrance.script.lookup = (query) => {
      asked = query;
      const long = { value: "v".repeat(101), label: "too long" };
      const choices = Array.from({ length: 30 }, (_, n) => ({ value: `v${n}`, label: "l".repeat(150) }));
      return Promise.resolve([long, ...choices]);
    };
    const id = await rig.autocomplete(ALICE, "server provision", { plan: "m", image: "deb" }, "image");
    expect(asked).toEqual({ kind: "image", text: "deb", limit: 25, options: { plan: "m" } });
    const { type, data } = rig.discord.first(id) as { type: number; data: { choices: { name: string }[] } };
    expect(type).toBe(8);
    expect(data.choices).toHaveLength(25);
    expect(data.choices.every(({ name }) => name.length <= 100)).toBe(true);
  });

  it("are empty for strangers, after an error, and when the database is slow", async () => {
    const none = { type: 8, data: { choices: [] } };
    const stranger = await rig.autocomplete(MALLORY, "server resize", { server: "w" }, "server");
    expect(rig.discord.first(stranger)).toEqual(none);
    rig.entrance.script.lookup = () => Promise.reject(new Error("away"));
    const failed = await rig.autocomplete(ALICE, "server resize", { server: "w" }, "server");
    expect(rig.discord.first(failed)).toEqual(none);
    await rig.close();
    rig = await discordRig({ ackBudgetMs: 20 });
    rig.entrance.script.lookup = () => new Promise(() => undefined);
    const late = await rig.autocomplete(ALICE, "server resize", { server: "w" }, "server");
    expect(rig.discord.first(late)).toEqual(none);
  });

  it("offer the topics of help that the asker may use", async () => {
    const topics = async (user: string) =>
      JSON.stringify(rig.discord.first(await rig.autocomplete(user, "help", { topic: "server" }, "topic")));
    expect(await topics(ALICE)).toContain("server delete");
    expect(await topics(CAROL)).not.toContain("server delete");
  });
});

describe("buttons", () => {
  const pressed = { kind: "view", view: { title: "Cancelling", tone: "warning" } } as const;

  it("act for whoever presses, and answer them alone", async () => {
    rig.entrance.script.press = () => Promise.resolve(pressed);
    const id = await rig.press(ALICE, "act:t-1");
    expect(rig.discord.first(id)).toEqual({ type: 5, data: { flags: EPHEMERAL } });
    expect(shownText(id)).toContain("Cancelling");
    expect(shownText(await rig.press(MALLORY, "act:t-1"))).toContain(MALLORY);
    expect(rig.entrance.presses).toEqual([{ token: "t-1", principal: alice }]);
  });

  it("ask first where that is wanted; Yes acts in the question's place, No does nothing", async () => {
    rig.entrance.script.press = () => Promise.resolve(pressed);
    rig.context.confirmations.set("t-1", {
      title: "Sure?",
      text: "web-1 of Ada",
      yes: "Delete it",
      no: "Keep it",
    });
    const asked = await rig.press(ALICE, "ask:t-1");
    expect(rig.discord.first(asked)).toMatchObject({ type: 4, data: { flags: EPHEMERAL } });
    for (const part of ["Sure?", "web-1 of Ada", "Delete it", "Keep it"])
      expect(shownText(asked)).toContain(part);
    expect(rig.entrance.presses).toEqual([]);
    const [yes = "", no = ""] = buttonIds(asked);
    const kept = await rig.press(ALICE, no, { flags: EPHEMERAL });
    expect(shownText(kept)).toContain("Nothing was done");
    expect(rig.entrance.presses).toEqual([]);
    const done = await rig.press(ALICE, yes, { flags: EPHEMERAL });
    expect(rig.discord.first(done)).toEqual({ type: 6 });
    expect(rig.discord.shown(done)).toMatchObject({ components: [] });
    expect(rig.entrance.presses).toHaveLength(1);
  });

  it("ask with the card's own words after a restart", async () => {
    const embeds = [
      {
        title: "Delete web-1",
        description: "Its disks are lost.",
        fields: [{ name: "Server", value: "web-1 (srv-1)" }],
      },
    ];
    const asked = await rig.press(ALICE, "ask:t-1", { embeds });
    for (const part of ["Are you sure?", "Its disks are lost.", "web-1 (srv-1)", "act:t-1"]) {
      expect(shownText(asked)).toContain(part);
    }
  });

  it("of an older version say so", async () => {
    expect(shownText(await rig.press(ALICE, "whatever:1"))).toContain("older version");
  });

  describe("that reveal a secret", () => {
    let fate: string[];
    beforeEach(() => {
      fate = [];
      rig.entrance.script.reveal = () =>
        Promise.resolve({
          label: "Password",
          text: "a*b`c_<@1>",
          burn: async () => void fate.push("burned"),
          release: async () => void fate.push("released"),
        });
    });

    it("show it to the presser alone, unchanged, and burn it then", async () => {
      const id = await rig.press(ALICE, "reveal:t-1");
      expect(rig.discord.first(id)).toEqual({ type: 5, data: { flags: EPHEMERAL } });
      expect(rig.discord.shown(id)?.["content"]).toContain("```\na*b`c_<@1>\n```");
      expect(fate).toEqual(["burned"]);
      expect(rig.log.join()).not.toContain("a*b`c");
    });

    it("keep it when Discord does not show it", async () => {
      rig.discord.next(/^PATCH \/webhooks/, refusal(50_027, 401));
      const id = await rig.press(ALICE, "reveal:t-1");
      expect(fate).toEqual(["released"]);
      expect(shownText(id)).toContain("still there");
    });

    it("claim nothing when the presser cannot see the answer", async () => {
      rig.discord.next(callbacks, refusal(10_062, 404));
      await rig.press(ALICE, "reveal:t-1");
      expect(fate).toEqual([]);
    });

    it("count as shown also when burning fails", async () => {
      rig.entrance.script.reveal = () =>
        Promise.resolve({
          label: "Password",
          text: "s3cret",
          burn: () => Promise.reject(new Error("away")),
          release: async () => void fate.push("released"),
        });
      const id = await rig.press(ALICE, "reveal:t-1");
      expect(shownText(id)).toContain("s3cret");
      expect(fate).toEqual([]);
    });
  });
});

/** The same conversation with every chat platform: what is typed, chosen and pressed, and what is shown for it. */
import { pino } from "pino";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { ServiceError } from "../../src/core/errors.ts";
import { formOf } from "../../src/core/form-of.ts";
import type { View } from "../../src/core/view.ts";
import { alice, carol, type FakeEntrance, fakeEntrance } from "../support/fake-entrance.ts";
import { sampleAction } from "../support/sample-actions.ts";
import type { CardSeen, ChatDriver } from "./chat/driver.ts";
import { chatScene, type Scene } from "./chat/scene.ts";
import { reserve, until } from "./chat/stand-in.ts";

export interface ChatMember {
  /** "Slack over HTTP" */
  name: string;
  /** The variable with the stand-in's base URL; without it the suite is skipped. */
  variable: string;
  driver(base: string): ChatDriver;
}

const longView: View = {
  title: "<!everyone> @everyone ".repeat(30),
  tone: "warning",
  text: `${"A *long* explanation. ".repeat(400)}\n& <b> \`\`\``,
  fields: Array.from({ length: 45 }, (_, n) => ({ label: `Field ${n}`, value: "&<>`_".repeat(200) })),
  steps: Array.from({ length: 70 }, (_, n) => ({
    label: `Step ${n}`,
    state: "done" as const,
    detail: "1 s",
  })),
  table: {
    columns: Array.from({ length: 22 }, (_, n) => `c${n}`),
    rows: Array.from({ length: 200 }, (_, n) => [`web-${n}`, "", "x".repeat(500)]),
    empty: "none",
  },
  footer: "f".repeat(5000),
};

export function chatSuite(member: ChatMember): void {
  const base = process.env[member.variable];
  describe.skipIf(base === undefined)(`${member.name} (skipped without ${member.variable})`, () => {
    let driver: ChatDriver;
    let scene: Scene;
    let entrance: FakeEntrance;
    let release: (() => Promise<void>) | undefined;
    const driven = { commands: 0, suggestions: 0, forms: 0, buttons: 0, shown: 0 };
    const shown = <T>(seen: T): T => {
      driven.shown += 1;
      return seen;
    };
    const command = (...asked: Parameters<ChatDriver["command"]>) => {
      driven.commands += 1;
      return driver.command(...asked);
    };
    const press = (...pressed: Parameters<ChatDriver["press"]>) => {
      driven.buttons += 1;
      return driver.press(...pressed);
    };
    const submit = (...entered: Parameters<ChatDriver["submit"]>) => {
      driven.forms += 1;
      return driver.submit(...entered);
    };

    beforeAll(async () => {
      release = await reserve(base ?? "");
      driver = member.driver(base ?? "");
      scene = await chatScene(driver.platform);
      const { staff, customer } = driver.people;
      entrance = fakeEntrance({ [staff]: alice, [customer]: carol });
      scene.attach(await driver.open({ entrance, log: pino({ level: "silent" }) }));
    }, 150_000);
    afterAll(async () => {
      await driver.close();
      await scene.close();
      await release?.();
    });
    beforeEach(() => {
      scene.extra({});
      entrance.requests.length = 0;
      entrance.presses.length = 0;
      const { script } = entrance;
      for (const name of ["press", "reveal", "lookup", "form"] as const) delete script[name];
      script.dispatch = scene.enter;
    });

    /** Gives the projector turns until it has shown this; stand-ins take a post a second in their own time. */
    const eventually = async (check: () => Promise<boolean>) => {
      await until(
        async () => {
          if (await check()) return true;
          await scene.tick();
          return undefined;
        },
        { what: "it was not shown" },
      );
      shown(true);
    };

    /** A new operation, and its card as it is at the time. */
    async function order(user: string): Promise<{ operation: string; card(): Promise<CardSeen> }> {
      let operation = "";
      let publicId = "";
      entrance.script.dispatch = async (request) => {
        const answer = await scene.enter(request);
        operation = answer.operationId;
        publicId = answer.publicId;
        return answer;
      };
      const answered = await command(user, {
        action: "server.power",
        options: { server: "web-1", verb: "stop" },
      });
      expect(shown(answered.text.includes("Build web-1"))).toEqual(true);
      const find = async () => {
        const all = [...(await driver.cards()), ...(await driver.directCards(user))];
        return all.findLast(({ text }) => text.includes(publicId));
      };
      return {
        operation,
        async card() {
          await eventually(async () => (await find()) !== undefined);
          return (await find()) ?? { id: "", text: "", thread: [] };
        },
      };
    }

    it("answers the asker alone, and strangers with their id", async () => {
      entrance.script.dispatch = () =>
        Promise.resolve({ kind: "view", view: { title: "Three servers", tone: "neutral" } });
      const { text } = await command(driver.people.staff, { action: "server.list" });
      expect(shown(text.includes("Three servers"))).toEqual(true);
      expect(shown((await driver.readable(driver.people.customer)).includes("Three servers"))).toEqual(false);
      const stranger = await command(driver.people.stranger, { action: "server.list" });
      expect(shown(stranger.text.includes(driver.people.stranger))).toEqual(true);
      expect(shown(entrance.requests.length)).toEqual(1);
    });

    it("links a stranger by a code, which they and nobody else see", async () => {
      const code = "K7QM-2D9X-H4TN-8WPA";
      entrance.script.link = (stranger, sent) =>
        stranger.platform === driver.platform && stranger.userId === driver.people.stranger && sent === code
          ? Promise.resolve({ title: "Linked to Ada.", tone: "success" })
          : Promise.reject(new ServiceError("not_found", "Code is not valid."));
      const wrong = await command(driver.people.stranger, { action: "link", options: { code: "no" } });
      expect(shown(wrong.text.includes("Code is not valid."))).toEqual(true);
      const { text } = await command(driver.people.stranger, { action: "link", options: { code } });
      expect(shown(text.includes("Linked to Ada."))).toEqual(true);
      expect(shown((await driver.readable(driver.people.staff)).includes("Linked to"))).toEqual(false);
      expect(shown(entrance.requests.length)).toEqual(0);
    });

    it("opens a form, says what is wrong with it, keeps what was typed, and follows the order to its end", async () => {
      let operation = "";
      entrance.script.dispatch = async (request) => {
        const { options } = request;
        if (options["customer"] === undefined) {
          return { kind: "form", form: formOf(sampleAction("server.provision"), options, alice) };
        }
        if (options["name"] === "Bad") {
          throw new ServiceError("invalid_input", "No capitals.", {
            facts: { option: "name", errors: { name: "No capitals." } },
          });
        }
        const answer = await scene.enter(request);
        operation = answer.operationId;
        return answer;
      };
      const choices = (kind: string) => [{ value: `${kind}-1`, label: `${kind} one` }];
      entrance.script.lookup = ({ kind }) => Promise.resolve(choices(kind));
      entrance.script.form = async (action, given) => formOf(sampleAction(action), given, alice);

      const typed = {
        action: "server.provision",
        options: { name: "web-1", plan: "plan-1", image: "image-1" },
      };
      const { form } = await command(driver.people.staff, typed);
      expect(shown(form)).toEqual(["customer", "name", "plan", "image", "start"]);
      for (const option of ["customer", "plan", "image"]) {
        driven.suggestions += 1;
        expect(shown(await driver.suggest(driver.people.staff, typed, option))).toEqual([`${option}-1`]);
      }
      const entered = { customer: "customer-1", plan: "plan-1", image: "image-1" };
      const wrong = await submit(driver.people.staff, { ...entered, name: "Bad" });
      expect(shown(wrong.text.includes("No capitals"))).toEqual(true);
      await submit(driver.people.staff, { ...entered, name: "web-1" });
      expect(shown(entrance.requests.at(-1)?.options)).toEqual({ ...entered, name: "web-1" });

      await scene.tick();
      await scene.become(operation, "running", "Cloning <!channel> @everyone");
      await scene.become(operation, "succeeded", "It answers at 192.0.2.1");
      const find = async () => (await driver.cards()).at(-1);
      await eventually(async () => (await find())?.thread[1]?.includes("192.0.2.1") ?? false);
      const card = await find();
      expect(shown(card?.text.includes("Build web-1: succeeded"))).toEqual(true);
      expect(shown(card?.thread.length)).toEqual(2);
      expect(shown(card?.thread[1]?.trimEnd().endsWith(driver.mention(driver.people.staff)))).toEqual(true);
    });

    it("keeps a customer's card out of the channel", async () => {
      const before = (await driver.cards()).length;
      const { operation, card } = await order(driver.people.customer);
      await scene.become(operation, "succeeded", "Stopped");
      await eventually(async () => (await card()).text.includes("succeeded"));
      expect(shown((await driver.cards()).length)).toEqual(before);
      expect(shown((await driver.directCards(driver.people.customer)).length)).toEqual(1);
    });

    it("asks before a press counts, presses once, and tells the presser alone", async () => {
      const confirm = { title: "Sure?", text: "web-1 (srv-1) of Ada", yes: "Yes, stop it", no: "No" };
      scene.extra({
        buttons: [{ token: "cancel", label: "Cancel", style: "danger", purpose: "act", confirm }],
      });
      const { card } = await order(driver.people.staff);
      entrance.script.press = () =>
        Promise.resolve({ kind: "view", view: { title: "Cancelling it", tone: "warning" } });
      const { text } = await press(driver.people.staff, await card(), "Cancel");
      expect(shown(text.includes("Cancelling it"))).toEqual(true);
      expect(shown(entrance.presses)).toEqual([{ token: "cancel", principal: alice }]);
      expect(shown((await driver.readable(driver.people.customer)).includes("Cancelling it"))).toEqual(false);
    });

    it("reveals a secret to the presser alone, and burns it then", async () => {
      scene.extra({
        buttons: [{ token: "secret", label: "Show password once", style: "primary", purpose: "reveal" }],
      });
      const { card } = await order(driver.people.staff);
      let burned = 0;
      entrance.script.reveal = async () => {
        if (burned > 0) throw new ServiceError("conflict", "This button has been used already.");
        return {
          label: "Password",
          text: "p<&>_w*",
          burn: async () => void (burned += 1),
          release: () => Promise.resolve(),
        };
      };
      const { text } = await press(driver.people.staff, await card(), "Show password once");
      expect(shown(text.includes("p<&>_w*"))).toEqual(true);
      await expect.poll(() => burned).toBe(1);
      expect(shown((await driver.readable(driver.people.customer)).includes("p<&>_w*"))).toEqual(false);
      expect(shown(JSON.stringify(await driver.cards()).includes("p<&>_w*"))).toEqual(false);
    });

    it("shows long views as the platform takes them", async () => {
      entrance.script.dispatch = () => Promise.resolve({ kind: "view", view: longView });
      expect(
        shown((await command(driver.people.staff, { action: "server.list" })).text.length > 1000),
      ).toEqual(true);
      scene.extra(longView);
      const { operation } = await order(driver.people.staff);
      await scene.become(operation, "succeeded", "x".repeat(9000));
      const find = async () => (await driver.cards()).at(-1);
      await eventually(async () => (await find())?.thread.at(-1)?.includes("xxx") ?? false);
    });

    it("loses no end to a 429 or a lost answer", async () => {
      const before = (await driver.cards()).length;
      await driver.fault("slow_down");
      const { operation, card } = await order(driver.people.staff);
      await scene.tick();
      await driver.fault("lost_answer");
      await eventually(async () => (await scene.cardOf(operation)) !== null);
      await scene.become(operation, "succeeded", "Stopped");
      const mention = driver.mention(driver.people.staff);
      await eventually(async () => (await card()).thread.at(-1)?.includes(mention) ?? false);
      expect(shown((await card()).text.includes("succeeded"))).toEqual(true);
      const copies = shown((await driver.cards()).length - before);
      expect(copies).toBeGreaterThanOrEqual(1);
      expect(copies).toBeLessThanOrEqual(driver.mostCopiesAfterLostAnswer);
    });

    it("did nothing that the platform forbids", async () => {
      const violations = await driver.violations();
      const counts = Object.entries(driven).map(([what, count]) => `${count} ${what}`);
      process.stdout.write(
        `${member.name}: ${counts.join(", ")} as expected; ${violations.length} violations\n`,
      );
      expect(violations).toEqual([]);
    });
  });
}

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Confirm, type DiscordMessage, renderView } from "../../../src/bots/discord/message.ts";
import { operationMessage } from "../../../src/bots/discord/reply.ts";
import { escape, escapeTo } from "../../../src/bots/discord/text.ts";
import { plain } from "../../../src/bots/text.ts";
import type { Answer } from "../../../src/core/request.ts";
import type { View } from "../../../src/core/view.ts";

function sizeOf({ embeds }: DiscordMessage): number {
  return embeds.reduce(
    (sum, { title = "", description = "", footer, fields = [] }) =>
      sum +
      title.length +
      description.length +
      (footer?.text.length ?? 0) +
      fields.reduce((all, { name, value }) => all + name.length + value.length, 0),
    0,
  );
}

const text = fc.oneof(
  fc.string({ unit: "binary", maxLength: 80 }),
  fc.string({ unit: fc.constantFrom("*", "_", "`", "<", "@", "#", " ", "-", "\n"), maxLength: 3000 }),
);
const views: fc.Arbitrary<View> = fc.record(
  {
    title: text,
    tone: fc.constantFrom("neutral", "progress", "success", "warning", "error"),
    banner: fc.array(text, { maxLength: 8 }),
    text,
    fields: fc.array(fc.record({ label: text, value: text }), { maxLength: 40 }),
    steps: fc.array(fc.record({ label: text, state: fc.constantFrom("planned", "done"), detail: text }), {
      maxLength: 60,
    }),
    table: fc.record({
      columns: fc.array(text, { minLength: 1, maxLength: 8 }),
      rows: fc.array(fc.array(text, { maxLength: 9 }), { maxLength: 40 }),
      empty: text,
    }),
    footer: text,
  },
  { requiredKeys: ["title", "tone"] },
);

describe("views", () => {
  it("have their banner first, and no more of it than leaves room for the answer", () => {
    const banner = Array.from({ length: 6 }, (_, index) => `Maintenance of pve${index}: *soon* over`);
    const { embeds } = renderView({ title: "web-1", tone: "neutral", text: "It runs.", banner });
    expect(embeds[0]?.description?.split("\n")).toEqual([
      ...[0, 1, 2, 3].map((index) => `🚧 Maintenance of pve${index}: \\*soon\\* over`),
      "🚧 … and 2 more.",
      "",
      "It runs.",
    ]);
  });

  it("have their link as one, without a preview for which it would be fetched", () => {
    const link = { label: "Open [web-1]", url: `https://bot.example.com/console/${"a1".repeat(32)}` };
    const { embeds } = renderView({ title: "web-1", tone: "success", text: "Once.", link });
    expect(embeds[0]?.description?.split("\n\n")).toEqual(["Once.", `[Open \\[web-1\\]](<${link.url}>)`]);
  });

  it("say the banner with the one line that answers a command, within what a message may hold", () => {
    const answer: Extract<Answer, { kind: "operation" }> = {
      kind: "operation",
      operationId: "1",
      publicId: "op-1",
      existing: false,
      view: {
        title: "Resize web-1",
        tone: "progress",
        text: "It is on its way.",
        banner: ["Maintenance: back soon"],
      },
    };
    const where = { isDirect: false, link: null };
    const short = operationMessage(answer, where);
    expect(short.content.split("\n").slice(0, 2)).toEqual(["🚧 Maintenance: back soon", "**Resize web-1**"]);
    const long = "*".repeat(3_000);
    const full = operationMessage(
      { ...answer, view: { ...answer.view, title: long, text: long, banner: [long, long] } },
      {
        isDirect: false,
        link: `https://discord.com/channels/${"1".repeat(20)}/${"2".repeat(20)}/${"3".repeat(20)}`,
      },
    );
    expect(full.content.length).toBeLessThanOrEqual(2_000);
    expect(full.content.split("\n").filter((one) => one.startsWith("🚧"))).toHaveLength(2);
  });

  it("stay within Discord's limits, whatever they hold", () => {
    fc.assert(
      fc.property(views, (view) => {
        const message = renderView(view);
        const [embed] = message.embeds;
        expect(sizeOf(message)).toBeLessThanOrEqual(6000);
        expect(embed?.title?.length ?? 0).toBeLessThanOrEqual(256);
        expect(embed?.title).not.toBe("");
        expect(embed?.description?.length ?? 1).toBeLessThanOrEqual(4096);
        expect(embed?.description).not.toBe("");
        expect(embed?.fields?.length ?? 1).toBeLessThanOrEqual(25);
        for (const { name, value } of embed?.fields ?? []) {
          expect(name.trim()).not.toBe("");
          expect(value.trim()).not.toBe("");
        }
      }),
      { numRuns: 300 },
    );
  });

  it("put at most 25 buttons in rows of five, and remember what to ask", () => {
    const confirm: Confirm = { title: "Sure?", text: "It is lost.", yes: "Yes", no: "No" };
    const buttons = Array.from({ length: 27 }, (_, n) => ({
      token: `t${n}`,
      label: "l".repeat(100),
      style: "danger" as const,
      purpose: n === 0 ? ("reveal" as const) : ("act" as const),
      ...(n === 1 ? { confirm } : {}),
    }));
    const asked = new Map<string, Confirm>();
    const { components } = renderView({ title: "T", tone: "neutral", buttons }, (token, about) =>
      asked.set(token, about),
    );
    expect(components.map((row) => row.components.length)).toEqual([5, 5, 5, 5, 5]);
    const [first, second, third] = components[0]?.components ?? [];
    expect([first, second, third]).toMatchObject([
      { custom_id: "reveal:t0" },
      { custom_id: "ask:t1" },
      { custom_id: "act:t2", label: expect.stringMatching(/^l{79}…$/) },
    ]);
    expect([...asked]).toEqual([["t1", confirm]]);
  });

  it("show a narrow table side by side, a wide one as lines, none as a sentence", () => {
    const table = (rows: string[][]) =>
      renderView({
        title: "T",
        tone: "neutral",
        table: { columns: ["Name", "State"], rows, empty: "No servers." },
      }).embeds[0]?.description;
    expect(
      table([
        ["web-1", "active"],
        ["a`b", ""],
      ]),
    ).toBe("```\nName   State\nweb-1  active\na'b    –\n```");
    expect(table([["w".repeat(60), "active"]])).toBe(`**Name · State**\n• ${"w".repeat(60)} · active`);
    expect(table([])).toBe("No servers.");
    expect(table(Array.from({ length: 500 }, (_, n) => [`web-${n}`, "active"]))).toMatch(
      /… and \d+ more; narrow it down/,
    );
  });
});

describe("text", () => {
  it("cannot ping, link, hide or reverse anything", () => {
    expect(escape("<@1> @everyone [a](http://b) ||x|| # y")).toBe(
      "\\<\\@1\\> \\@everyone \\[a\\](http:\\//b) \\|\\|x\\|\\| # y",
    );
    expect(escape("# big\n- list\n1. one")).toBe("\\# big\n\\- list\n1\\. one");
    expect(escape("10.20.0.2")).toBe("10.20.0.2");
    expect(plain("a\u202eb\u200bc\u0007d\ne")).toBe("abcd e");
    expect(plain("می\u200cخواهم")).toBe("می\u200cخواهم");
  });

  it("is never cut inside an escape or a character", () => {
    fc.assert(
      fc.property(text, fc.integer({ min: 2, max: 60 }), (raw, limit) => {
        const cut = escapeTo(raw, limit);
        expect(cut.length).toBeLessThanOrEqual(limit);
        expect(/(?<!\\)(?:\\\\)*\\$/.test(cut)).toBe(false);
      }),
    );
  });
});

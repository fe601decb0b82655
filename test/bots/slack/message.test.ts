import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { renderForm, secretModal, viewModal } from "../../../src/bots/slack/form.ts";
import { type Block, renderView } from "../../../src/bots/slack/message.ts";
import { escapeTo } from "../../../src/bots/slack/text.ts";
import { clip, paragraph, plain } from "../../../src/bots/text.ts";
import { isServiceError } from "../../../src/core/errors.ts";
import type { Form } from "../../../src/core/form.ts";
import { formOf } from "../../../src/core/form-of.ts";
import type { View } from "../../../src/core/view.ts";
import { alice, carol } from "../../support/fake-entrance.ts";
import { sampleActions } from "../../support/sample-actions.ts";

const hostile = fc.oneof(
  fc.string({ unit: "binary", maxLength: 300 }),
  fc.constantFrom(
    "<!channel>",
    "<@U1>",
    "&".repeat(4000),
    "😀".repeat(500),
    "\u202eexe.gnp",
    "a\nb\r\nc",
    "",
    "   ",
    "\u200b",
  ),
);
const view: fc.Arbitrary<View> = fc.record(
  {
    title: hostile,
    tone: fc.constantFrom("neutral", "progress", "success", "warning", "error"),
    banner: fc.array(hostile, { maxLength: 8 }),
    text: hostile,
    fields: fc.array(fc.record({ label: hostile, value: hostile }), { maxLength: 60 }),
    steps: fc.array(
      fc.record({
        label: hostile,
        state: fc.constantFrom("planned", "running", "done", "failed", "skipped"),
        detail: hostile,
      }),
      { maxLength: 80 },
    ),
    table: fc.record({
      columns: fc.array(hostile, { minLength: 1, maxLength: 22 }),
      rows: fc.array(fc.array(hostile, { maxLength: 22 }), { maxLength: 150 }),
      empty: fc.constant("There is nothing."),
    }),
    footer: hostile,
    buttons: fc.array(
      fc.record({
        token: fc.uuid(),
        label: hostile,
        style: fc.constantFrom("default", "primary", "danger"),
        purpose: fc.constantFrom("act", "reveal"),
        confirm: fc.record({
          title: fc.constant("Sure?"),
          text: fc.constant("x".repeat(400)),
          yes: fc.constant("Yes"),
          no: fc.constant("No"),
        }),
      }),
      { maxLength: 4 },
    ),
  },
  { requiredKeys: ["title", "tone"] },
);

/** Every text object of the blocks with the limit that Slack puts on it there. */
function breaches(blocks: readonly Block[]): string[] {
  const found: string[] = [];
  const check = (what: string, text: string | undefined, max: number): void => {
    if (text === undefined || text.length < 1 || text.length > max)
      found.push(`${what}: ${text?.length ?? "none"}`);
  };
  if (blocks.length > 50) found.push(`blocks: ${blocks.length}`);
  for (const block of blocks) {
    if (block.type === "header") check("header", block.text.text, 150);
    if (block.type === "section") {
      if (block.text !== undefined) check("section", block.text.text, 3000);
      if ((block.fields?.length ?? 0) > 10) found.push("fields");
      for (const field of block.fields ?? []) check("field", field.text, 2000);
    }
    if (block.type === "context" && block.elements.length > 10) found.push("context");
    if (block.type === "actions" && block.elements.length > 25) found.push("actions");
    if (block.type === "table") {
      if (block.rows.length > 100) found.push(`rows: ${block.rows.length}`);
      for (const row of block.rows) {
        if (row.length > 20) found.push(`cells: ${row.length}`);
        for (const cell of row) if (cell.type === "raw_text") check("cell", cell.text, 10_000);
      }
    }
  }
  return found;
}

/** Their texts are plain to Slack: shown as they are. */
const plainOnly = new Set(["header", "table", "actions"]);

describe("a view as a message", () => {
  it("has its banner above everything else, in the blocks and in the fallback, in a message and in a modal", () => {
    const banner = ["Maintenance of pve1, node <n1>: back at 18:00", "Maintenance of pve2: moving & cabling"];
    for (const surface of ["message", "modal"] as const) {
      const { text, blocks } = renderView(
        { title: "web-1", tone: "neutral", text: "It runs.", banner },
        surface,
      );
      expect(blocks[0]).toEqual({
        type: "section",
        text: {
          type: "mrkdwn",
          text: "🚧 Maintenance of pve1, node &lt;n1&gt;: back at 18:00\n🚧 Maintenance of pve2: moving &amp; cabling",
          verbatim: true,
        },
      });
      expect(blocks[1]).toMatchObject({ type: "header", text: { text: "web-1" } });
      expect(text.split("\n")[0]).toBe("🚧 Maintenance of pve1, node &lt;n1&gt;: back at 18:00");
    }
  });

  it("has its link as one, in a message and in a modal, and whole in the fallback", () => {
    const link = { label: "Open <web-1>", url: `https://bot.example.com/console/${"a1".repeat(32)}` };
    for (const surface of ["message", "modal"] as const) {
      const { text, blocks } = renderView({ title: "web-1", tone: "success", link }, surface);
      expect(blocks[1]).toEqual({
        type: "section",
        text: { type: "mrkdwn", text: `<${link.url}|Open &lt;web-1&gt;>`, verbatim: true },
      });
      expect(text).toContain(link.url);
    }
  });

  it("keeps every limit and pings nobody, whatever names and clouds say", () => {
    fc.assert(
      fc.property(view, fc.constantFrom("message" as const, "modal" as const), (each, surface) => {
        const { text, blocks } = renderView(each, surface);
        expect(breaches(blocks)).toEqual([]);
        expect(Buffer.byteLength(JSON.stringify(blocks))).toBeLessThanOrEqual(13_000);
        expect(text.length).toBeGreaterThan(0);
        expect(Buffer.byteLength(text)).toBeLessThanOrEqual(4000);
        expect(text).not.toMatch(/<[!@#]/);
        expect(JSON.stringify(blocks.filter(({ type }) => !plainOnly.has(type)))).not.toMatch(/<[!@#]/);
      }),
      { numRuns: 60 },
    );
  });

  it("reads as a checklist, with a table and what was left out", () => {
    const { blocks, text } = renderView({
      title: "Resize web-1",
      tone: "progress",
      steps: [
        { label: "Check", state: "done", detail: "1 s" },
        { label: "Resize", state: "running", detail: "waiting for the cloud" },
        { label: "Verify", state: "planned" },
        { label: "Undo", state: "failed" },
      ],
      table: { columns: ["Name"], rows: Array.from({ length: 120 }, (_, n) => [`web-${n}`]), empty: "none" },
      footer: "op-2345",
    });
    const section = blocks.find(({ type }) => type === "section");
    expect(section).toMatchObject({
      text: { text: "✓ Check · 1 s\n● Resize · waiting for the cloud\n○ Verify\n✗ Undo" },
    });
    expect(JSON.stringify(blocks)).toContain("and 21 more");
    expect(text).toContain("⏳ Resize web-1");
    expect(text).toContain("web-99");
  });

  it("shows the end of a long list of steps, where the work is", () => {
    const steps = Array.from({ length: 100 }, (_, n) => ({ label: `Step ${n}`, state: "done" as const }));
    const shown = JSON.stringify(renderView({ title: "t", tone: "neutral", steps }).blocks);
    expect(shown).toContain("Step 99");
    expect(shown).toContain("… 40 more above");
  });
});

describe("text", () => {
  it("cuts neither characters nor entities in two", () => {
    expect(clip("ab😀", 3)).toBe("ab…");
    expect(escapeTo("a&&&&", 9)).toMatch(/^a(&amp;)?…$/);
    expect(escapeTo("&".repeat(50), 20).replaceAll("&amp;", "")).toBe("…");
  });

  it("takes away what hides or reverses, and keeps what Persian and emoji need", () => {
    expect(plain("a\u202eb\u200bc\nd\te")).toBe("abc d e");
    expect(paragraph("a\r\nb\u0007")).toBe("a\nb");
    expect(plain("می\u200cخواهم 👩\u200d💻")).toBe("می\u200cخواهم 👩\u200d💻");
  });
});

const context = { channel: "C1", dryRun: false };

describe("a form as a modal", () => {
  const forms = sampleActions.flatMap((action) => [alice, carol].map((who) => formOf(action, {}, who)));

  it.each(forms.map((form) => [form.action, form] as const))("keeps the limits for %s", (_name, form) => {
    const modal = renderForm(form, context);
    expect(modal.title.text.length).toBeLessThanOrEqual(24);
    expect(modal.submit?.text.length).toBeLessThanOrEqual(24);
    expect(modal.private_metadata?.length).toBeLessThanOrEqual(3000);
    const ids = modal.blocks.map((block) => block.block_id).filter((id) => id !== undefined);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids).toEqual(form.fields.map(({ name }) => name));
  });

  it("offers what was given as it stands in the select, and says what is wrong under the field", () => {
    const form: Form = {
      action: "server.power",
      title: "Start, stop or restart a server",
      submit: "Go",
      given: { server: "web-1" },
      fields: [
        {
          name: "verb",
          label: "What to do",
          required: true,
          kind: "choice",
          choices: [{ value: "stop", label: "Stop" }],
          initial: "stop",
        },
        {
          name: "image",
          label: "Image",
          required: false,
          kind: "lookup",
          lookup: "image",
          initial: "debian-12",
        },
        { name: "note", label: "Note", required: false, kind: "text", initial: "hi", multiline: true },
      ],
      errors: { verb: "It is stopped already." },
    };
    const { blocks, title } = renderForm(form, context);
    expect(title.text).toBe("Start, stop or restart…");
    const stop = { text: { type: "plain_text", text: "Stop", emoji: false }, value: "stop" };
    expect(blocks.find(({ block_id }) => block_id === "verb")).toMatchObject({
      optional: false,
      element: { type: "static_select", options: [stop], initial_option: stop },
    });
    expect(blocks.find(({ block_id }) => block_id === "image")).toMatchObject({
      optional: true,
      element: { type: "external_select", min_query_length: 0, initial_option: { value: "debian-12" } },
    });
    expect(blocks.find(({ block_id }) => block_id === "note")).toMatchObject({
      element: { type: "plain_text_input", multiline: true, initial_value: "hi" },
    });
    expect(JSON.stringify(blocks)).toContain("⚠️ It is stopped already.");
    expect(JSON.stringify(blocks)).toContain("server: web-1");
  });

  it("asks Slack for more than 100 choices as the person types", () => {
    const choices = Array.from({ length: 101 }, (_, n) => ({ value: `v${n}`, label: `V${n}` }));
    const form: Form = {
      action: "a.b",
      title: "t",
      submit: "s",
      given: {},
      fields: [{ name: "x", label: "X", required: true, kind: "choice", choices }],
    };
    expect(renderForm(form, context).blocks[0]).toMatchObject({ element: { type: "external_select" } });
  });

  it("says so when more was given than a modal can carry", () => {
    const form: Form = {
      action: "a.b",
      title: "t",
      submit: "s",
      given: { text: "x".repeat(3000) },
      fields: [],
    };
    expect(() => renderForm(form, context)).toThrow(
      expect.toSatisfy((error) => isServiceError(error, "invalid_input")),
    );
  });

  it("shows views and secrets within a modal's limits", () => {
    for (const modal of [
      viewModal({
        title: "x".repeat(300),
        tone: "error",
        table: { columns: ["a"], rows: [["1"]], empty: "" },
      }),
      secretModal({ label: "Password of a server with a long name", text: "p\\a'ss" }),
    ]) {
      expect(modal.title.text.length).toBeLessThanOrEqual(24);
      // Slack refuses a table in a modal.
      expect(modal.blocks.map(({ type }) => type)).not.toContain("table");
    }
  });
});

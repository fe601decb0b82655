import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { renderView } from "../../../src/bots/console/render.ts";
import { printable, wantsColor, widthOf, wrapped } from "../../../src/bots/console/text.ts";
import type { View } from "../../../src/core/view.ts";

const view: View = {
  title: "Servers",
  tone: "success",
  text: "Two of them.",
  fields: [
    { label: "Customer", value: "Ada" },
    { label: "Note", value: "a value that is too long for one line of this terminal" },
  ],
  table: {
    columns: ["Name", "Size"],
    rows: [
      ["web-1", "2 vCPU, 4 GiB, 40 GiB"],
      ["日本", "1 vCPU"],
    ],
    empty: "None.",
  },
  buttons: [{ token: "hidden", label: "Cancel", style: "default", purpose: "act" }],
  footer: "2 servers",
};

describe("renderView", () => {
  it("puts the banner under the title and above everything else, whatever the width", () => {
    const banner = [
      "Maintenance of pve1, node n1 since 2026-11-21 18:00 UTC: new disks",
      "Maintenance of pve2: soon",
    ];
    const text = renderView({ ...view, banner }, { width: 44, color: false });
    expect(text.split("\n").slice(0, 7)).toEqual([
      "✓ Servers",
      "  ! Maintenance of pve1, node n1 since",
      "  ! 2026-11-21 18:00 UTC: new disks",
      "  ! Maintenance of pve2: soon",
      "",
      "  Two of them.",
      "",
    ]);
  });

  it("has a link in one line, however narrow the terminal is", () => {
    const link = { label: "Open it", url: `https://bot.example.com/console/${"a1".repeat(32)}` };
    const text = renderView({ title: "web-1", tone: "success", link }, { width: 40, color: false });
    expect(text.split("\n")).toEqual(["✓ web-1", "  Open it:", `  ${link.url}`]);
  });

  it("aligns fields and tables and wraps at the terminal's width", () => {
    const text = renderView(view, { width: 40, color: false, numberOf: () => 7 });
    expect(text.split("\n")).toEqual([
      "✓ Servers",
      "  Two of them.",
      "",
      "  Customer  Ada",
      "  Note      a value that is too long for",
      "            one line of this terminal",
      "",
      "  Name   Size",
      "  web-1  2 vCPU, 4 GiB, 40 GiB",
      "  日本   1 vCPU",
      "",
      "  [7] Cancel",
      "  2 servers",
    ]);
  });

  it("leaves buttons out when they cannot be pressed, and never shows a token", () => {
    const text = renderView(view, { width: 80, color: true });
    expect(text).not.toContain("Cancel");
    expect(renderView(view, { width: 80, color: true, numberOf: () => 1 })).not.toContain("hidden");
  });

  it("colours only when asked to", () => {
    expect(renderView(view, { width: 80, color: false })).not.toContain("\u001b");
    expect(renderView(view, { width: 80, color: true })).toContain("\u001b[32m✓");
    expect(wantsColor({ isTTY: true }, {})).toBe(true);
    expect(wantsColor({ isTTY: true }, { NO_COLOR: "1" })).toBe(false);
    expect(wantsColor({ isTTY: true }, { TERM: "dumb" })).toBe(false);
    expect(wantsColor({}, {})).toBe(false);
  });

  it("says what an empty table means", () => {
    const table = { columns: ["Name"], rows: [], empty: "No servers yet; try /server provision." };
    expect(renderView({ title: "Servers", tone: "neutral", table }, { width: 80, color: false })).toContain(
      "No servers yet",
    );
  });

  it("lets no name drive the terminal, and stays within its width", () => {
    const text = fc.string({ unit: "binary", maxLength: 80 });
    fc.assert(
      fc.property(
        text,
        fc.array(fc.tuple(text, text), { maxLength: 3 }),
        fc.integer({ min: 30, max: 110 }),
        (title, rows, width) => {
          const table = { columns: ["A", "B"], rows: rows.map((row) => [...row]), empty: "" };
          const lines = renderView(
            { title, tone: "error", text: title, table },
            { width, color: false },
          ).split("\n");
          expect(lines.join("")).not.toMatch(/\p{Cc}/u);
          expect(Math.max(...lines.map(widthOf))).toBeLessThanOrEqual(width);
        },
      ),
    );
  });
});

describe("text", () => {
  it("measures what a terminal shows", () => {
    expect(widthOf("web-1")).toBe(5);
    expect(widthOf("日本")).toBe(4);
    expect(widthOf("é")).toBe(1);
    expect(widthOf("👍🏽")).toBe(2);
  });

  it("wraps without losing anything but spaces", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 100 }), fc.integer({ min: 4, max: 40 }), (text, width) => {
        const lines = wrapped(printable(text), width);
        expect(lines.join("").replaceAll(/\s/g, "")).toBe(printable(text).replaceAll(/\s/g, ""));
        expect(Math.max(...lines.map(widthOf))).toBeLessThanOrEqual(width);
      }),
    );
  });
});

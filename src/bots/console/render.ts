/** View → text for a terminal; the console bot, the demo and the command line show everything with it. */
import type { Tone, View, ViewField, ViewStep } from "../../core/view.ts";
import { type Paint, padded, painter, printable, type Style, widthOf, wrapped } from "./text.ts";

export interface RenderOptions {
  /** Columns of the terminal. */
  width: number;
  color: boolean;
  /** The number under which a button can be pressed. Without it buttons are left out: their tokens are never shown. */
  numberOf?: (token: string) => number;
}

const mostColumns = 110;
const leastColumns = 30;
const leastCell = 6;
const gap = "  ";

export const toneMarks: Readonly<Record<Tone, { mark: string; style: Style }>> = {
  neutral: { mark: "•", style: "dim" },
  progress: { mark: "●", style: "cyan" },
  success: { mark: "✓", style: "green" },
  warning: { mark: "!", style: "yellow" },
  error: { mark: "✗", style: "red" },
};

export const stepMarks: Readonly<Record<ViewStep["state"], { mark: string; style: Style }>> = {
  planned: { mark: "·", style: "dim" },
  running: { mark: "▸", style: "cyan" },
  done: { mark: "✓", style: "green" },
  failed: { mark: "✗", style: "red" },
  skipped: { mark: "–", style: "dim" },
};

/** Lines without a final line break. The first has the tone's mark and the title, the rest is indented by two. */
export function renderView(view: View, options: RenderOptions): string {
  const paint = painter(options.color);
  const width = Math.max(leastColumns, Math.min(mostColumns, options.width)) - gap.length;
  const { mark, style } = toneMarks[view.tone];
  const [first = "", ...more] = wrapped(printable(view.title), width);
  const head = [
    `${paint(style, mark)} ${paint("bold", first)}`,
    ...indented(more.map((line) => paint("bold", line))),
  ];

  const blocks: string[][] = [];
  if (view.banner !== undefined) blocks.push(bannerLines(view.banner, width, paint));
  if (view.text !== undefined && view.text !== "") blocks.push(wrapped(printable(view.text), width));
  // Whole, however narrow the terminal is: it is copied from there.
  if (view.link !== undefined) blocks.push([`${printable(view.link.label)}:`, view.link.url]);
  if (view.fields !== undefined) blocks.push(fieldLines(view.fields, width, paint));
  if (view.table !== undefined) blocks.push(tableLines(view.table, width, paint));
  if (view.steps !== undefined) blocks.push(view.steps.map((step) => stepLine(step, paint)));
  const end = [...buttonLines(view, options, { width, paint }), ...footerLines(view, width, paint)];
  if (end.length > 0) blocks.push(end);
  return [...head, ...spaced(blocks.filter((block) => block.length > 0))].join("\n");
}

export function bannerLines(banner: readonly string[], width: number, paint: Paint): string[] {
  return banner
    .flatMap((text) => wrapped(printable(text), width - 2))
    .map((line) => paint("yellow", `! ${line}`));
}

/** A blank line only between blocks of several lines, so that short answers stay short. */
function spaced(blocks: readonly string[][]): string[] {
  return blocks.flatMap((block, index) => {
    const before = blocks[index - 1];
    const apart = before !== undefined && (before.length > 2 || block.length > 2);
    return apart ? ["", ...indented(block)] : indented(block);
  });
}

function indented(lines: readonly string[]): string[] {
  return lines.map((line) => (line === "" ? "" : gap + line));
}

function fieldLines(fields: readonly ViewField[], width: number, paint: Paint): string[] {
  const labels = fields.map(({ label }) => printable(label));
  const column = Math.min(20, Math.max(0, ...labels.map(widthOf)));
  return fields.flatMap(({ value }, index) => {
    const lines = wrapped(printable(value), Math.max(leastCell, width - column - gap.length));
    return lines.map(
      (line, row) => paint("dim", padded(row === 0 ? (labels[index] ?? "") : "", column)) + gap + line,
    );
  });
}

function tableLines(table: NonNullable<View["table"]>, width: number, paint: Paint): string[] {
  if (table.rows.length === 0) return wrapped(printable(table.empty), width);
  const rows = table.rows.map((row) => table.columns.map((_, column) => printable(row[column] ?? "")));
  const natural = table.columns.map((title, column) =>
    Math.max(widthOf(title), ...rows.map((row) => widthOf(row[column] ?? ""))),
  );
  const columns = fitted(natural, width - gap.length * (natural.length - 1));
  const header = table.columns.map((title, column) => padded(printable(title), columns[column] ?? 0));
  return [
    paint("dim", header.join(gap).trimEnd()),
    ...rows.flatMap((row) => {
      const cells = row.map((cell, column) => wrapped(cell, columns[column] ?? leastCell));
      const height = Math.max(...cells.map((lines) => lines.length));
      return Array.from({ length: height }, (_, line) =>
        cells
          .map((lines, column) => padded(lines[line] ?? "", columns[column] ?? 0))
          .join(gap)
          .trimEnd(),
      );
    }),
  ];
}

/** Takes columns from the widest until all fit. */
function fitted(natural: readonly number[], width: number): number[] {
  const columns = [...natural];
  let over = columns.reduce((sum, column) => sum + column, 0) - width;
  while (over > 0) {
    const widest = Math.max(...columns);
    if (widest <= leastCell) break;
    columns[columns.indexOf(widest)] = widest - 1;
    over -= 1;
  }
  return columns;
}

export function stepLine(step: ViewStep, paint: Paint): string {
  const { mark, style } = stepMarks[step.state];
  const label =
    step.state === "planned" || step.state === "skipped"
      ? paint("dim", printable(step.label))
      : printable(step.label);
  const detail = step.detail === undefined ? "" : gap + paint("dim", printable(step.detail));
  return `${paint(style, mark)} ${label}${detail}`;
}

function buttonLines(view: View, options: RenderOptions, look: { width: number; paint: Paint }): string[] {
  const { numberOf } = options;
  if (numberOf === undefined || view.buttons === undefined || view.buttons.length === 0) return [];
  const buttons = view.buttons.map(({ token, label, style }) => {
    const number = `[${numberOf(token)}]`;
    const colors = { default: "cyan", primary: "green", danger: "red" } as const;
    return `${look.paint(colors[style], number)} ${printable(label)}`;
  });
  return [buttons.join("   ")];
}

function footerLines(view: View, width: number, paint: Paint): string[] {
  if (view.footer === undefined || view.footer === "") return [];
  return wrapped(printable(view.footer), width).map((line) => paint("dim", line));
}

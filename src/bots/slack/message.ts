/** A view → a Slack message (Block Kit and its text fallback). The limits are Block Kit's; neither SDK checks them. */
import type { types } from "@slack/bolt";
import type { Tone, View, ViewButton, ViewField, ViewLink, ViewStep } from "../../core/view.ts";
import { bannerTexts, paragraph, plain } from "../text.ts";
import { escape, escapeTo, line } from "./text.ts";

export type Block = types.KnownBlock;

export interface SlackMessage {
  /** Read by notifications, screen readers and clients without blocks; mrkdwn, so escaped. */
  text: string;
  blocks: Block[];
}

// A whole message's blocks may be about 13.2 kB (slackapi/bolt-js#2509: msg_blocks_too_long above it, undocumented).
const MAX_BLOCKS_BYTES = 12_500;
// chat.update takes 4,000 bytes after escaping.
const MAX_FALLBACK_BYTES = 3_500;
const MAX_HEADER = 150;
const MAX_SECTION = 3_000;
const FIELDS_IN_SECTION = 10;
const MAX_BUTTONS = 25;
const MAX_COLUMNS = 20;

/** How much of a long view is shown; the first that fits is taken. */
interface Room {
  text: number;
  fields: number;
  fieldLength: number;
  steps: number;
  rows: number;
  cellLength: number;
}
const rooms: readonly Room[] = [
  { text: 5_800, fields: 40, fieldLength: 900, steps: 60, rows: 99, cellLength: 200 },
  { text: 2_500, fields: 30, fieldLength: 300, steps: 40, rows: 60, cellLength: 80 },
  { text: 1_200, fields: 20, fieldLength: 150, steps: 25, rows: 25, cellLength: 40 },
  { text: 500, fields: 10, fieldLength: 80, steps: 12, rows: 10, cellLength: 24 },
];

const toneSymbols: Record<Tone, string> = {
  neutral: "",
  progress: "⏳ ",
  success: "✅ ",
  warning: "⚠️ ",
  error: "❌ ",
};
const stepSymbols: Record<ViewStep["state"], string> = {
  planned: "○",
  running: "●",
  done: "✓",
  failed: "✗",
  skipped: "–",
};

/** `surface`: a modal takes no table block (a row becomes a line) and no buttons of ours. */
export function renderView(view: View, surface: "message" | "modal" = "message"): SlackMessage {
  let blocks: Block[] = [];
  for (const room of rooms) {
    blocks = blocksOf(view, surface, room);
    if (Buffer.byteLength(JSON.stringify(blocks)) <= MAX_BLOCKS_BYTES) break;
  }
  return { text: fallbackOf(view), blocks };
}

function blocksOf(view: View, surface: "message" | "modal", room: Room): Block[] {
  const blocks: Block[] = [
    ...bannerBlocks(view.banner),
    { type: "header", text: { type: "plain_text", text: headline(view), emoji: false } },
    ...(view.text === undefined ? [] : sections(paragraph(view.text, room.text).split("\n"))),
    ...(view.link === undefined ? [] : [linkBlock(view.link)]),
    ...fieldBlocks(view.fields ?? [], room),
    ...stepBlocks(view.steps ?? [], room),
    ...(view.table === undefined ? [] : tableBlocks(view.table, surface, room)),
  ];
  if (surface === "message") blocks.push(...buttonBlocks(view.buttons ?? []));
  if (view.footer !== undefined && plain(view.footer) !== "") blocks.push(note(view.footer));
  return blocks;
}

const MAX_BANNER = 300;

/** What holds for all that the answer is about, above everything else. */
export function bannerBlocks(banner: View["banner"]): Block[] {
  const text = bannerTexts(banner)
    .map((one) => `🚧 ${line(one, MAX_BANNER)}`)
    .join("\n");
  return text === "" ? [] : [{ type: "section", text: { type: "mrkdwn", text, verbatim: true } }];
}

/** The same for the text fallback, which is escaped as a whole. */
export function bannerLines(banner: View["banner"]): string[] {
  return bannerTexts(banner).map((one) => `🚧 ${plain(one, MAX_BANNER)}`);
}

function headline(view: View): string {
  return plain(toneSymbols[view.tone] + plain(view.title), MAX_HEADER) || "Ratatosk";
}

/** Small print. */
export function note(text: string): Block {
  return { type: "context", elements: [{ type: "mrkdwn", text: line(text), verbatim: true }] };
}

/** Lines of plain text as sections, as few as the limit of one allows. */
export function sections(lines: readonly string[]): Block[] {
  const blocks: Block[] = [];
  let text = "";
  const flush = (): void => {
    // verbatim: Slack would turn bare URLs and channel names into links.
    if (text.trim() !== "") blocks.push({ type: "section", text: { type: "mrkdwn", text, verbatim: true } });
    text = "";
  };
  for (const raw of lines) {
    const next = escapeTo(raw, MAX_SECTION);
    if (text !== "" && text.length + 1 + next.length > MAX_SECTION) flush();
    text = text === "" ? next : `${text}\n${next}`;
  }
  flush();
  return blocks;
}

function linkBlock({ label, url }: ViewLink): Block {
  return {
    type: "section",
    text: { type: "mrkdwn", text: `<${escape(url)}|${line(label, 150)}>`, verbatim: true },
  };
}

function fieldBlocks(fields: readonly ViewField[], room: Room): Block[] {
  const shown = fields.slice(0, room.fields);
  const blocks: Block[] = [];
  for (let from = 0; from < shown.length; from += FIELDS_IN_SECTION) {
    blocks.push({
      type: "section",
      fields: shown.slice(from, from + FIELDS_IN_SECTION).map(({ label, value }) => ({
        type: "mrkdwn" as const,
        text: `*${line(label, 150)}*\n${line(value, room.fieldLength) || "–"}`,
        verbatim: true,
      })),
    });
  }
  return shown.length === fields.length ? blocks : [...blocks, note(leftOut(fields.length - shown.length))];
}

function stepBlocks(steps: readonly ViewStep[], room: Room): Block[] {
  if (steps.length <= room.steps) return sections(steps.map(stepLine));
  // The end matters more than the beginning: that is where the work is.
  const first = steps.length - room.steps;
  return sections([`… ${first} more above`, ...steps.slice(first).map(stepLine)]);
}

function stepLine(step: ViewStep): string {
  const detail = step.detail === undefined ? "" : ` · ${plain(step.detail, 150)}`;
  return `${stepSymbols[step.state]} ${plain(step.label, 150)}${detail}`;
}

function tableBlocks(table: NonNullable<View["table"]>, surface: "message" | "modal", room: Room): Block[] {
  if (table.rows.length === 0) return sections([plain(table.empty)]);
  const shown = table.rows.slice(0, room.rows);
  const more = table.rows.length - shown.length;
  const rest = more === 0 ? [] : [note(leftOut(more))];
  if (surface === "modal") return [...sections(shown.map((row) => rowLine(row, room))), ...rest];
  const cell = (text: string | undefined): types.RawTextElement => ({
    type: "raw_text",
    text: plain(text ?? "", room.cellLength) || "–",
  });
  const columns = table.columns.slice(0, MAX_COLUMNS);
  return [
    {
      type: "table",
      rows: [columns.map(cell), ...shown.map((row) => columns.map((_, index) => cell(row[index])))],
    },
    ...rest,
  ];
}

function rowLine(row: readonly string[], room: Room): string {
  return row.map((text) => plain(text, room.cellLength) || "–").join(" · ");
}

function leftOut(count: number): string {
  return `… and ${count} more; narrow it down with the command's options to see them.`;
}

function buttonBlocks(buttons: readonly ViewButton[]): Block[] {
  if (buttons.length === 0) return [];
  return [{ type: "actions", elements: buttons.slice(0, MAX_BUTTONS).map(button) }];
}

function button({ token, label, style, purpose, confirm }: ViewButton): types.Button {
  return {
    type: "button",
    action_id: `${purpose}:${token}`,
    value: token,
    text: { type: "plain_text", text: plain(label, 75) || "OK", emoji: false },
    ...(style === "default" ? {} : { style }),
    ...(confirm === undefined
      ? {}
      : {
          confirm: {
            title: { type: "plain_text", text: plain(confirm.title, 100), emoji: false },
            text: { type: "plain_text", text: paragraph(confirm.text, 300), emoji: false },
            confirm: { type: "plain_text", text: plain(confirm.yes, 30), emoji: false },
            deny: { type: "plain_text", text: plain(confirm.no, 30), emoji: false },
            ...(style === "danger" ? { style: "danger" as const } : {}),
          },
        }),
  };
}

function fallbackOf(view: View): string {
  const lines = [...bannerLines(view.banner), headline(view)];
  if (view.text !== undefined) lines.push(paragraph(view.text));
  if (view.link !== undefined) lines.push(`${plain(view.link.label)}: ${view.link.url}`);
  for (const { label, value } of view.fields ?? []) lines.push(`${plain(label)}: ${plain(value)}`);
  for (const step of view.steps ?? []) lines.push(stepLine(step));
  if (view.table !== undefined) {
    if (view.table.rows.length === 0) lines.push(plain(view.table.empty));
    for (const row of view.table.rows) lines.push(row.map((text) => plain(text)).join(" · "));
  }
  if (view.footer !== undefined) lines.push(plain(view.footer));
  return escapeTo(lines.join("\n"), MAX_FALLBACK_BYTES, (text) => Buffer.byteLength(text));
}

/** A view → a Discord message: one embed and its buttons. Discord refuses a message that breaks one of these limits. */
import {
  type APIActionRowComponent,
  type APIButtonComponent,
  type APIEmbed,
  ButtonStyle,
  ComponentType,
} from "discord.js";
import type { Tone, View, ViewButton, ViewField, ViewStep } from "../../core/view.ts";
import { bannerTexts, paragraph, plain } from "../text.ts";
import { escapeTo, line } from "./text.ts";

export interface DiscordMessage {
  content: string;
  embeds: APIEmbed[];
  components: APIActionRowComponent<APIButtonComponent>[];
  /** Nobody is pinged unless named here. */
  allowed_mentions: { parse: []; users?: string[] };
}

export type Confirm = NonNullable<ViewButton["confirm"]>;

// https://docs.discord.com/developers/resources/message#embed-object-embed-limits
const MAX_EMBED = 5_900;
const MAX_TITLE = 256;
const MAX_DESCRIPTION = 4_096;
const MAX_FIELDS = 25;
const MAX_FIELD_NAME = 100;
const MAX_FIELD_VALUE = 500;
const MAX_ALL_FIELDS = 2_200;
const MAX_FOOTER = 400;
const MAX_CONTENT = 2_000;
const MAX_BANNER = 250;
const MAX_BUTTONS = 25;
const BUTTONS_IN_ROW = 5;
const MAX_LABEL = 80;
/** Columns of a table that still stand side by side on a phone. */
const MAX_TABLE_WIDTH = 58;

const toneColors: Record<Tone, number> = {
  neutral: 0x6b7280,
  progress: 0x2563eb,
  success: 0x16a34a,
  warning: 0xd97706,
  error: 0xdc2626,
};
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

/** `remember`: told what to ask before a press counts, because a Discord button cannot carry it. */
export function renderView(
  view: View,
  remember: (token: string, confirm: Confirm) => void = () => undefined,
): DiscordMessage {
  const title = escapeTo(toneSymbols[view.tone] + plain(view.title), MAX_TITLE) || "Ratatosk";
  const footer = plain(view.footer ?? "", MAX_FOOTER);
  const fields = fieldsOf(view.fields ?? []);
  const used = title.length + footer.length + sizeOf(fields);
  const description = descriptionOf(view, Math.min(MAX_DESCRIPTION, MAX_EMBED - used));
  const embed: APIEmbed = { title, color: toneColors[view.tone] };
  if (description !== "") embed.description = description;
  if (fields.length > 0) embed.fields = fields;
  if (footer !== "") embed.footer = { text: footer };
  for (const { token, confirm } of view.buttons ?? []) if (confirm !== undefined) remember(token, confirm);
  return messageOf({ embeds: [embed], components: rows((view.buttons ?? []).map(button)) });
}

/** One sentence or some, for the asker alone. */
export function sentence(text: string): DiscordMessage {
  return messageOf({ content: escapeTo(paragraph(text), MAX_CONTENT) });
}

export function messageOf(parts: Partial<DiscordMessage>): DiscordMessage {
  return { content: "", embeds: [], components: [], allowed_mentions: { parse: [] }, ...parts };
}

/** At most 25 buttons, five in a row. */
export function rows(buttons: readonly APIButtonComponent[]): DiscordMessage["components"] {
  const shown = buttons.slice(0, MAX_BUTTONS);
  return Array.from({ length: Math.ceil(shown.length / BUTTONS_IN_ROW) }, (_, row) => ({
    type: ComponentType.ActionRow,
    components: shown.slice(row * BUTTONS_IN_ROW, (row + 1) * BUTTONS_IN_ROW),
  }));
}

const buttonStyles = {
  default: ButtonStyle.Secondary,
  primary: ButtonStyle.Primary,
  danger: ButtonStyle.Danger,
} as const;

export function plainButton(
  customId: string,
  label: string,
  style: ViewButton["style"] = "default",
): APIButtonComponent {
  return {
    type: ComponentType.Button,
    style: buttonStyles[style],
    custom_id: customId,
    label: plain(label, MAX_LABEL) || "OK",
  };
}

/** Discord has no dialog: `ask` answers with the question, whose Yes is the act. */
function button({ token, label, style, purpose, confirm }: ViewButton): APIButtonComponent {
  return plainButton(`${confirm === undefined ? purpose : "ask"}:${token}`, label, style);
}

function fieldsOf(fields: readonly ViewField[]): NonNullable<APIEmbed["fields"]> {
  const shown: NonNullable<APIEmbed["fields"]> = [];
  for (const { label, value } of fields) {
    const field = {
      name: line(label, MAX_FIELD_NAME) || "–",
      value: escapeTo(paragraph(value), MAX_FIELD_VALUE) || "–",
      inline: value.length <= 40,
    };
    const isLast = shown.length === MAX_FIELDS - 1 && fields.length > MAX_FIELDS;
    if (isLast || sizeOf(shown) + field.name.length + field.value.length > MAX_ALL_FIELDS) {
      shown.push({ name: "…", value: `and ${fields.length - shown.length} more` });
      break;
    }
    shown.push(field);
  }
  return shown;
}

function sizeOf(fields: readonly { name: string; value: string }[]): number {
  return fields.reduce((sum, { name, value }) => sum + name.length + value.length, 0);
}

/** What holds for all that the answer is about, above everything else. */
export function bannerLines(banner: View["banner"]): string[] {
  return bannerTexts(banner).map((text) => `🚧 ${line(text, MAX_BANNER)}`);
}

function descriptionOf({ banner, text, link, steps = [], table }: View, room: number): string {
  const parts: string[] = [];
  let left = room;
  const add = (part: string): void => {
    if (part === "") return;
    parts.push(part);
    left -= part.length + 2;
  };
  add(bannerLines(banner).join("\n"));
  const alone = steps.length === 0 && table === undefined;
  add(escapeTo(paragraph(text ?? ""), alone ? left : Math.min(1_500, left)));
  // The brackets keep Discord from a preview, for which it would fetch it.
  if (link !== undefined) add(`[${line(link.label, MAX_LABEL)}](<${link.url}>)`);
  add(stepLines(steps, table === undefined ? left : Math.floor(left / 2)));
  if (table !== undefined) add(tableText(table, left));
  return parts.join("\n\n");
}

/** The end matters more than the beginning: that is where the work is. */
function stepLines(steps: readonly ViewStep[], room: number): string {
  const kept: string[] = [];
  let length = 30;
  for (const step of steps.toReversed()) {
    const detail = step.detail === undefined ? "" : ` · ${line(step.detail, 150)}`;
    const next = `${stepSymbols[step.state]} ${line(step.label, 150)}${detail}`;
    if (length + next.length + 1 > room) break;
    length += next.length + 1;
    kept.unshift(next);
  }
  const left = steps.length - kept.length;
  return (left > 0 ? [`… ${left} more above`, ...kept] : kept).join("\n");
}

/** Side by side in a code block when that is narrow enough, else a line for each row. */
function tableText({ columns, rows: all, empty }: NonNullable<View["table"]>, room: number): string {
  if (all.length === 0) return line(empty, room);
  const table = [columns, ...all].map((row) =>
    columns.map((_, index) => plain(row[index] ?? "", 120).replaceAll("`", "'") || "–"),
  );
  const widths = columns.map((_, index) => Math.max(...table.map((row) => row[index]?.length ?? 0)));
  const isNarrow = widths.reduce((sum, width) => sum + width + 2, -2) <= MAX_TABLE_WIDTH;
  const lines = table.map((row, index) => {
    if (isNarrow)
      return row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd();
    const joined = row.map((cell) => line(cell, 150)).join(" · ");
    return index === 0 ? `**${joined}**` : `• ${joined}`;
  });
  const kept: string[] = [];
  let length = 100;
  for (const next of lines) {
    if (length + next.length + 1 > room) break;
    length += next.length + 1;
    kept.push(next);
  }
  const left = lines.length - Math.max(1, kept.length);
  const rest = left > 0 ? `\n… and ${left} more; narrow it down with the command's options to see them.` : "";
  return `${isNarrow ? `\`\`\`\n${kept.join("\n")}\n\`\`\`` : kept.join("\n")}${rest}`;
}

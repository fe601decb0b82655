/** Lines of a thread → one message. */
import { MessageFlags } from "discord.js";
import type { ThreadLine } from "../../core/bot.ts";
import { plain } from "../text.ts";
import type { DiscordMessage } from "./message.ts";
import { escapeTo } from "./text.ts";

const lineSymbols: Record<ThreadLine["level"], string> = {
  info: "·",
  success: "✓",
  warning: "⚠️",
  error: "✗",
};
const MAX_LINE = 500;
const MAX_CONTENT = 2_000;

/** The newest lines when not all fit; the times are shown in the reader's own zone. */
export function linesMessage(
  lines: readonly ThreadLine[],
  mention: string | null,
): Pick<DiscordMessage, "content" | "allowed_mentions"> & { flags: number } {
  const end = mention === null ? [] : [`<@${mention}>`];
  const kept: string[] = [];
  let length = 90;
  for (const entry of lines.toReversed()) {
    const next = threadLine(entry);
    if (length + next.length > MAX_CONTENT) break;
    length += next.length + 1;
    kept.unshift(next);
  }
  const left = lines.length - kept.length;
  if (left > 0) kept.unshift(`… ${left} earlier ${left === 1 ? "line" : "lines"} left out`);
  return {
    content: [...kept, ...end].join("\n"),
    allowed_mentions: { parse: [], ...(mention === null ? {} : { users: [mention] }) },
    flags: MessageFlags.SuppressEmbeds,
  };
}

function threadLine({ at, level, text }: ThreadLine): string {
  return `<t:${Math.floor(at.getTime() / 1000)}:T> ${lineSymbols[level]} ${escapeTo(plain(text), MAX_LINE)}`;
}

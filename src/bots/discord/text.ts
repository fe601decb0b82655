/** Text from customers and clouds on its way into Discord: nothing in it may ping, link, hide or break a limit. */
import { clip, plain } from "../text.ts";

/**
 * What Discord's markdown reads, with a backslash before it: emphasis, code, spoilers, mentions, links, quotes, and at the
 * start of a line headings and lists. An address is broken up so that it does not become a link.
 * https://docs.discord.com/developers/reference#message-formatting
 */
export function escape(text: string): string {
  return text
    .replace(/[\\*_~`|<>[\]@]/gu, "\\$&")
    .replaceAll("://", ":\\//")
    .replace(/^(\s*)([#+-])/gmu, "$1\\$2")
    .replace(/^(\s*\d+)\.(?=\s)/gmu, "$1\\.");
}

/** Escaped and then no longer than the limit; an escape is never cut in two. */
export function escapeTo(text: string, limit: number): string {
  let kept = clip(text, limit);
  while (escape(kept).length > limit) {
    const share = Math.floor((kept.length * limit) / escape(kept).length);
    kept = clip(kept, Math.max(1, Math.min(kept.length - 1, share)));
  }
  return escape(kept);
}

/** One line of markdown. */
export function line(text: string, limit = 1000): string {
  return escapeTo(plain(text), limit);
}

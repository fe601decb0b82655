/** Text from customers and clouds on its way into Discord: nothing in it may ping, link, hide or break a limit. */

// Controls, invisible characters and the marks that reverse the direction of what follows. Kept are newline and tab, for
// `paragraph`, and the two joiners that Persian and emoji need.
const INVISIBLE = /(?![\n\t\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** One line of plain text. */
export function plain(text: string, maxLength = Number.POSITIVE_INFINITY): string {
  return clip(text.replace(INVISIBLE, "").replace(/\s+/gu, " ").trim(), maxLength);
}

/** Plain text that keeps its lines. */
export function paragraph(text: string, maxLength = Number.POSITIVE_INFINITY): string {
  return clip(text.replace(INVISIBLE, "").replaceAll("\t", " ").trim(), maxLength);
}

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

/** At most so many UTF-16 units, ending in an ellipsis and never inside a character. */
export function clip(text: string, maxLength: number): string {
  if (text.length <= maxLength) return text;
  let end = maxLength - 1;
  const last = text.charCodeAt(end - 1);
  if (last >= 0xd800 && last <= 0xdbff) end -= 1;
  return `${text.slice(0, end).trimEnd()}…`;
}

/** Text from customers and clouds on its way into Slack: nothing in it may ping, link, hide or break a limit. */

// Controls, invisible characters and the marks that reverse the direction of what follows: with them a name could look like
// another one or spill over the words beside it. Kept are newline and tab, for `paragraph`, and the two joiners that Persian
// and emoji need.
const INVISIBLE = /(?![\n\t\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** One line of plain text, for `plain_text` and `raw_text` objects, which Slack shows as they are. */
export function plain(text: string, maxLength = Number.POSITIVE_INFINITY): string {
  return clip(text.replace(INVISIBLE, "").replace(/\s+/gu, " ").trim(), maxLength);
}

/** Plain text that keeps its lines. */
export function paragraph(text: string, maxLength = Number.POSITIVE_INFINITY): string {
  return clip(text.replace(INVISIBLE, "").replaceAll("\t", " ").trim(), maxLength);
}

/**
 * The three characters that Slack's markup reads (docs.slack.dev, "Formatting message text"): with them escaped, neither
 * `<!channel>` nor `<@U…>` nor a disguised link is more than text.
 */
export function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Escaped and then no longer than the limit, which Slack counts after escaping; an entity is never cut in two. */
export function escapeTo(
  text: string,
  limit: number,
  lengthOf: (text: string) => number = (t) => t.length,
): string {
  let kept = clip(text, limit);
  while (lengthOf(escape(kept)) > limit) {
    kept = clip(
      kept,
      Math.max(1, Math.min(kept.length - 1, Math.floor((kept.length * limit) / lengthOf(escape(kept))))),
    );
  }
  return escape(kept);
}

/** One line of `mrkdwn`. */
export function line(text: string, limit = 2000): string {
  return escapeTo(plain(text), limit);
}

/** At most so many UTF-16 units, which is what Slack counts, ending in an ellipsis and never inside a character. */
export function clip(text: string, maxLength: number): string {
  if (text.length <= maxLength) return text;
  let end = maxLength - 1;
  const last = text.charCodeAt(end - 1);
  if (last >= 0xd800 && last <= 0xdbff) end -= 1;
  return `${text.slice(0, end).trimEnd()}…`;
}

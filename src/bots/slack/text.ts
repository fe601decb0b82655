/** Text from customers and clouds on its way into Slack: nothing in it may ping, link, hide or break a limit. */
import { clip, plain } from "../text.ts";

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

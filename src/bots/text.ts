/** Text from customers and clouds, before a platform escapes its own markup in it. */

// Controls, invisible characters and the marks that reverse the direction of what follows: with them a name could look like
// another one or spill over the words beside it. Kept are newline and tab, for `paragraph`, and the two joiners that Persian
// and emoji need.
const INVISIBLE = /(?![\n\t\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** One line of plain text. */
export function plain(text: string, maxLength = Number.POSITIVE_INFINITY): string {
  return clip(text.replace(INVISIBLE, "").replace(/\s+/gu, " ").trim(), maxLength);
}

/** Plain text that keeps its lines. */
export function paragraph(text: string, maxLength = Number.POSITIVE_INFINITY): string {
  return clip(text.replace(INVISIBLE, "").replaceAll("\t", " ").trim(), maxLength);
}

/** At most so many UTF-16 units, which is what platforms count, ending in an ellipsis and never inside a character. */
export function clip(text: string, maxLength: number): string {
  if (text.length <= maxLength) return text;
  let end = maxLength - 1;
  const last = text.charCodeAt(end - 1);
  if (last >= 0xd800 && last <= 0xdbff) end -= 1;
  return `${text.slice(0, end).trimEnd()}…`;
}

const MOST_BANNERS = 4;

/** What holds for all that an answer is about, in lines that leave room for the answer. */
export function bannerTexts(banner: readonly string[] = []): string[] {
  const lines = banner.map((text) => plain(text)).filter((text) => text !== "");
  const more = lines.length - MOST_BANNERS;
  return more <= 0 ? lines : [...lines.slice(0, MOST_BANNERS), `… and ${more} more.`];
}

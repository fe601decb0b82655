/** Cuts a command's text into words, forgiving what chat programs do to text: links, entities, smart quotes, dashes. */
import { ServiceError } from "../core/errors.ts";
import { cleanText, quoteFamilies } from "../core/option-values.ts";

export type Word =
  | { kind: "bare"; text: string; quoted: boolean; raw: string }
  /** `key:value`; `text` is the value without its quotes, `raw` the whole word. */
  | { kind: "pair"; key: string; text: string; quoted: boolean; raw: string }
  /** `--dry-run`, without the dashes. */
  | { kind: "flag"; text: string; quoted: false; raw: string };

/** Throws ServiceError `invalid_input` for a quote that is not closed. */
export function commandWords(text: string): Word[] {
  const source = cleanText(plainText(text));
  const words: Word[] = [];
  let at = 0;
  while (at < source.length) {
    if (/\s/.test(source[at] ?? "")) {
      at += 1;
      continue;
    }
    const { word, end } = wordAt(source, at);
    words.push(word);
    at = end;
  }
  return words;
}

/**
 * Slack sends &, < and > escaped and turns addresses into links: `<http://web-1.example|web-1.example>`,
 * `<mailto:a@b.example|a@b.example>` (https://docs.slack.dev/messaging/formatting-message-text). The label of an
 * autolink is what was typed; a link with another label is its address. Mentions (`<@U1>`) stay.
 */
export function plainText(text: string): string {
  return text
    .replace(/<((?:https?|mailto|tel):[^|<>\s]+)(?:\|([^<>]*))?>/gi, (_, address: string, label?: string) => {
      const bare = address.replace(/^(mailto|tel):/i, "");
      return label !== undefined && label !== "" && bare.endsWith(label) ? label : bare;
    })
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&amp;", "&");
}

function wordAt(source: string, start: number): { word: Word; end: number } {
  const rest = source.slice(start);
  const key = /^[A-Za-z][A-Za-z0-9_-]{0,31}(?=:)/.exec(rest)?.[0];
  const valueStart = key === undefined ? start : start + key.length + 1;
  const family = quoteFamilies.find((quotes) => quotes.includes(source[valueStart] ?? " "));
  if (family !== undefined) {
    const { text, end } = quotedAt(source, valueStart, family);
    const raw = source.slice(start, end);
    const word: Word =
      key === undefined
        ? { kind: "bare", text, quoted: true, raw }
        : { kind: "pair", key, text, quoted: true, raw };
    return { word, end };
  }

  const end = endOfBare(source, valueStart);
  const raw = source.slice(start, end);
  // Word processors and phones turn "--" into one dash.
  const flag = key === undefined ? /^(?:--|[—–]|-(?=h$))([A-Za-z].*)$/.exec(raw)?.[1] : undefined;
  if (flag !== undefined) return { word: { kind: "flag", text: flag, quoted: false, raw }, end };
  if (key === undefined) return { word: { kind: "bare", text: raw, quoted: false, raw }, end };
  return { word: { kind: "pair", key, text: source.slice(valueStart, end), quoted: false, raw }, end };
}

/** A quote closes only before a space or the end, so that 'Ada's box' needs no escape; `\"` is a quote for sure. */
function quotedAt(source: string, start: number, family: string): { text: string; end: number } {
  let text = "";
  for (let at = start + 1; at < source.length; at += 1) {
    const letter = source[at] ?? "";
    const next = source[at + 1];
    if (letter === "\\" && next !== undefined && (family.includes(next) || next === "\\")) {
      text += next;
      at += 1;
    } else if (family.includes(letter) && (next === undefined || /\s/.test(next))) {
      return { text, end: at + 1 };
    } else {
      text += letter;
    }
  }
  const opened = source.slice(start, start + 20);
  const more = source.length > start + 20 ? "…" : "";
  throw new ServiceError(
    "invalid_input",
    `The quote before ${opened}${more} is not closed; close it before the next space.`,
  );
}

/** Up to the next space; quotes inside pairs (`tags:a="x y",b=2`) keep their spaces. */
function endOfBare(source: string, start: number): number {
  let open = false;
  for (let at = start; at < source.length; at += 1) {
    const letter = source[at] ?? "";
    if (!open && letter === '"' && source[at - 1] === "=" && source.includes('"', at + 1)) open = true;
    else if (open && letter === '"') open = false;
    else if (!open && /\s/.test(letter)) return at;
  }
  return source.length;
}

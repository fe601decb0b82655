/** One option's text ⇄ its value: units, choices, flags, pairs; and how options are written in messages. */
import type { LookupKind, Option } from "./action.ts";
import { nearest } from "./nearest.ts";

/** Why a text is no value of its option: a predicate that follows the option as typed ("needs a unit; …"). */
export class InvalidValue extends Error {
  override readonly name = "InvalidValue";
}

/** Binary units, as PVE and Nova count: "8G", "8GB" and "8GiB" are all 8 × 1024 MiB. */
const mibPerUnit: Readonly<Record<string, number>> = { m: 1, g: 1024, t: 1024 * 1024 };
const gibPerUnit: Readonly<Record<string, number>> = { m: 1 / 1024, g: 1, t: 1024 };

const yes = new Set(["yes", "y", "true", "on", "1"]);
const no = new Set(["no", "n", "false", "off", "0"]);

/**
 * What pasting and phone keyboards add unseen: byte order marks, zero-width spaces and direction overrides go (they
 * make two names look alike), no-break spaces become spaces. The zero-width non-joiner stays: Persian needs it.
 */
export function cleanText(text: string): string {
  return text
    .normalize("NFC")
    .replace(/[\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]/g, "")
    .replace(/[\u00a0\u2007\u202f]/g, " ")
    .trim();
}

/** Throws InvalidValue. `text` is clean and not empty. */
export function valueOf(option: Option, text: string): unknown {
  // PostgreSQL takes no NUL in text, and the other control characters can rewrite a terminal or a log line.
  if (/(?![\n\t])\p{Cc}/u.test(text)) {
    throw new InvalidValue("contains control characters; type it again by hand");
  }
  const chosen = option.choices === undefined ? text : choiceOf(option.choices, text);
  return parsers[option.type](option, chosen);
}

const parsers: Readonly<Record<Option["type"], (option: Option, text: string) => unknown>> = {
  text: (_, text) => text,
  number: numberOf,
  memory: sizeOf,
  disk: sizeOf,
  flag: flagOf,
  pairs: pairsOf,
};

function choiceOf(choices: NonNullable<Option["choices"]>, text: string): string {
  const wanted = text.toLowerCase();
  const found =
    choices.find((choice) => choice.value.toLowerCase() === wanted) ??
    choices.find((choice) => choice.label.toLowerCase() === wanted);
  if (found !== undefined) return found.value;
  const values = choices.map((choice) => choice.value);
  const guess = nearest(text, values);
  const advice = guess === undefined ? `choose ${listed(values, "or")}` : `did you mean ${guess}?`;
  throw new InvalidValue(`is not one of the choices; ${advice}`);
}

function numberOf(option: Option, text: string): number {
  const value = /^[+-]?\d{1,15}(\.\d{1,6})?$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isFinite(value)) throw new InvalidValue(`is not a number; write ${exampleOf(option)}`);
  return value;
}

/** Memory in MiB, disks in GiB, whole. */
function sizeOf(option: Option, text: string): number {
  const memory = option.type === "memory";
  const match = /^(\d{1,9}(?:\.\d{1,6})?)\s*([a-z]*)$/i.exec(text);
  if (match === null) throw new InvalidValue(`is not a size; write ${exampleOf(option)}`);
  const [, digits = "", suffix = ""] = match;
  if (suffix === "") throw new InvalidValue(`needs a unit; write ${withUnit(option, digits)}`);
  const letter = /^([mgt])(?:i?b)?$/i.exec(suffix)?.[1]?.toLowerCase();
  const factor = letter === undefined ? undefined : (memory ? mibPerUnit : gibPerUnit)[letter];
  if (factor === undefined) {
    throw new InvalidValue(
      `has the unknown unit "${suffix}"; write M, G or T, for example ${exampleOf(option)}`,
    );
  }
  const size = Number(digits) * factor;
  if (size <= 0) throw new InvalidValue(`must be more than nothing; write ${exampleOf(option)}`);
  if (!Number.isInteger(size)) {
    const whole = Math.ceil(size);
    const unit = memory ? "MiB" : "GiB";
    const next = option.name + (memory ? `:${whole}M` : `:${whole}G`);
    throw new InvalidValue(`is not a whole number of ${unit}; the next one is ${next}`);
  }
  if (!Number.isSafeInteger(size)) throw new InvalidValue(`is far too large; write ${exampleOf(option)}`);
  return size;
}

/** "8" was surely meant as gigabytes, "8192" for memory as megabytes; a person still has to say so. */
function withUnit(option: Option, digits: string): string {
  const [likely, other] = option.type === "memory" && Number(digits) >= 256 ? ["M", "G"] : ["G", "M"];
  const first = `${option.name}:${digits}${likely}`;
  return option.type === "memory" ? `${first} (or ${option.name}:${digits}${other})` : first;
}

function flagOf(option: Option, text: string): boolean {
  const wanted = text.toLowerCase();
  if (yes.has(wanted)) return true;
  if (no.has(wanted)) return false;
  throw new InvalidValue(`is neither yes nor no; write ${option.name}:yes or ${option.name}:no`);
}

/** `a=1,b="x, y"` → {a: "1", b: "x, y"}. */
function pairsOf(option: Option, text: string): Record<string, string> {
  const pairs: [string, string][] = [];
  const seen = new Set<string>();
  for (const part of text.match(/(?:"[^"]*"|[^,"])+|"/g) ?? []) {
    if (part.trim() === "") continue;
    const match = /^\s*([A-Za-z0-9][\w.:/-]{0,63})\s*=\s*(?:"([^"]*)"|([^"]*?))\s*$/.exec(part);
    const [, key, quoted, bare] = match ?? [];
    if (key === undefined) {
      throw new InvalidValue(
        `has "${shortened(part.trim())}" where key=value belongs; write ${exampleOf(option)}`,
      );
    }
    if (seen.has(key)) throw new InvalidValue(`has "${key}" twice; keep one of them`);
    seen.add(key);
    pairs.push([key, quoted ?? bare ?? ""]);
  }
  if (pairs.length === 0) throw new InvalidValue(`has no key=value in it; write ${exampleOf(option)}`);
  return Object.fromEntries(pairs);
}

/** The option as a person would type it: `memory:8G`, `name:"web 1"`; long values are cut. */
export function asTyped(option: Pick<Option, "name">, text: string): string {
  // Whoever pasted one by mistake does not want to read it again in a thread.
  if (/PRIVATE KEY/u.test(text)) return `${option.name}: what was given`;
  const value = shortened(text.replace(/\p{Cc}+/gu, " "));
  return `${option.name}:${quotedIfNeeded(value)}`;
}

/** What the grammar takes for a quote: phones and Slack mix the members of a family. A backtick is Slack's code mark. */
export const quoteFamilies = ['"“”„‟«»', "'‘’‚‛", "`"] as const;

const special = new RegExp(`[\\s\\\\${quoteFamilies.join("")}]`);
const escaped = new RegExp(`[\\\\${quoteFamilies[0]}]`, "g");

/** A value as command.ts reads it back. */
export function quotedIfNeeded(value: string): string {
  if (value !== "" && !special.test(value)) return value;
  return `"${value.replace(escaped, "\\$&")}"`;
}

/** A valid way to give the option, for help and errors. */
export function exampleOf(option: Option): string {
  return `${option.name}:${quotedIfNeeded(exampleValueOf(option))}`;
}

const examplesByLookup: Readonly<Record<LookupKind, string>> = {
  server: "web-1",
  plan: "m",
  image: "debian-12",
  network: "public",
  customer: "ada",
  cloud: "main",
  operation: "op-k3m9x2",
  snapshot: "before-upgrade",
};

const examplesByType: Readonly<Record<Option["type"], string>> = {
  text: "text",
  number: "4",
  memory: "8G",
  disk: "80G",
  flag: "yes",
  pairs: "key=value",
};

/** The value alone. A name is shown as the name of a server, which is what gets named here. */
export function exampleValueOf(option: Option): string {
  const choice = option.choices?.[0]?.value;
  if (choice !== undefined) return choice;
  if (option.lookup !== undefined) return examplesByLookup[option.lookup];
  return option.type === "text" && option.name === "name" ? "web-1" : examplesByType[option.type];
}

/** "a, b and c"; a long list is cut, and says so. */
export function listed(words: readonly string[], last: "and" | "or" = "and"): string {
  const most = 12;
  if (words.length > most) return `${words.slice(0, most).join(", ")} and ${words.length - most} more`;
  if (words.length < 2) return words.join("");
  return `${words.slice(0, -1).join(", ")} ${last} ${words.at(-1)}`;
}

/** Cutting between two halves of a character would make JSON that Slack refuses. */
export function shortened(text: string): string {
  return text.length > 60 ? `${text.slice(0, 59).toWellFormed()}…` : text;
}

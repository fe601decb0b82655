/**
 * The grammar of typed commands, the same on every platform: `/server resize web-1 memory:8G name:"a b" --dry-run`.
 * The first bare word is the action's subject; everything else is `key:value`. Words are cut in command-words.ts.
 */
import { commandOf, type Principal } from "../core/access.ts";
import type { Action, ActionRegistry, Option } from "../core/action.ts";
import { ServiceError } from "../core/errors.ts";
import { nearest } from "../core/nearest.ts";
import { asTyped, exampleOf, listed, quotedIfNeeded, shortened } from "../core/option-values.ts";
import { optionsFor } from "../core/options.ts";
import { commandWords, type Word } from "./command-words.ts";

export interface ParsedCommand {
  /** The action's name. With `help`, the topic: an action, a group, or "" for everything. */
  action: string;
  /** Option name → text. Whether a name exists and a value fits is judged by parseOptions. */
  options: Record<string, string>;
  dryRun: boolean;
  help: boolean;
}

/**
 * `group` is the command's name without slash and prefix ("server"), `text` what follows it, as the platform sent it.
 * Suggestions are limited to what `principal` may meet.
 *
 * Throws ServiceError: `unknown_command` for a group or verb that does not exist, else `invalid_input`.
 */
export function parseCommand(
  group: string,
  text: string,
  registry: Pick<ActionRegistry, "list">,
  asker: { principal?: Principal } = {},
): ParsedCommand {
  const words = commandWords(text);
  const name = group.trim().toLowerCase();
  if (name === "help") return helpFor(words.map((word) => word.text.replace(/^\//, "")));

  const actions = registry
    .list()
    .filter((action) => action.name === name || action.name.startsWith(`${name}.`));
  if (actions.length === 0) throw unknownGroup(name, registry, asker.principal);
  const found = actionOf(name, words, actions);
  if (found === "help") {
    const topic = words.filter((word) => !isHelp(word)).map((word) => word.text);
    return helpFor([name, ...topic]);
  }
  if (found === undefined) throw unknownVerb(name, words, suggestable(actions, asker.principal));

  const rest = words.slice(found.verbs);
  if (rest.some(isHelpFlag) || (rest.length === 1 && isHelp(rest[0]))) return helpFor([found.action.name]);
  const { principal } = asker;
  const options = principal === undefined ? found.action.options : optionsFor(found.action, principal);
  return { action: found.action.name, help: false, ...assign(found.action, rest, options) };
}

function helpFor(topic: readonly string[]): ParsedCommand {
  return { action: topic.join(".").toLowerCase(), options: {}, dryRun: false, help: true };
}

function isHelpFlag(word: Word): boolean {
  return word.kind === "flag" && (word.text === "help" || word.text === "h");
}

/** "help" and "?" ask for help where nothing else stands; a server of that name is written `server:help`. */
function isHelp(word: Word | undefined): boolean {
  if (word === undefined) return false;
  return (
    isHelpFlag(word) ||
    (word.kind === "bare" && !word.quoted && ["help", "?"].includes(word.text.toLowerCase()))
  );
}

/** The action with the longest name that the words begin with, so that two-level verbs win. */
function actionOf(
  group: string,
  words: readonly Word[],
  actions: readonly Action[],
): { action: Action; verbs: number } | "help" | undefined {
  const verbs: string[] = [];
  for (const word of words) {
    if (word.kind !== "bare" || word.quoted) break;
    verbs.push(word.text.toLowerCase());
  }
  for (let count = Math.min(verbs.length, 2); count > 0; count -= 1) {
    const name = [group, ...verbs.slice(0, count)].join(".");
    const action = actions.find((candidate) => candidate.name === name);
    if (action !== undefined) return { action, verbs: count };
  }
  const own = actions.find((candidate) => candidate.name === group);
  if (own !== undefined) return { action: own, verbs: 0 };
  const first = words[0];
  if (first === undefined || isHelp(first)) return "help";
  // "/server volume" alone, or "/server volume --help": the words name a group inside the group.
  const inner = `${group}.${verbs[0] ?? ""}.`;
  const isInner = verbs.length > 0 && actions.some((candidate) => candidate.name.startsWith(inner));
  return isInner && (words.length === 1 || isHelp(words[1])) ? "help" : undefined;
}

function suggestable(actions: readonly Action[], principal: Principal | undefined): readonly Action[] {
  if (principal === undefined || principal.kind === "system") return actions;
  return actions.filter((action) => action.audience.includes(principal.kind));
}

function unknownGroup(
  name: string,
  registry: Pick<ActionRegistry, "list">,
  principal: Principal | undefined,
): ServiceError {
  const groups = suggestable(registry.list(), principal).map((action) => action.name.split(".")[0] ?? "");
  const names = [...new Set([...groups, "help"])];
  return unknown(`/${shortened(name)}`, {
    guess: nearest(name, names),
    command: (guess) => `/${guess}`,
    list: `the commands are ${listed(names.map((group) => `/${group}`))}`,
  });
}

function unknownVerb(group: string, words: readonly Word[], actions: readonly Action[]): ServiceError {
  const first = words[0];
  const rests = actions.map((action) => action.name.slice(group.length + 1));
  const inner = rests.filter((rest) => rest.startsWith(`${first?.text.toLowerCase()}.`));
  const path = inner.length > 0 ? `${group}.${first?.text.toLowerCase()}` : group;
  const verbs = [...new Set(rests.map((rest) => rest.split(".")[0] ?? rest))];
  const candidates = inner.length > 0 ? inner.map((rest) => rest.split(".")[1] ?? rest) : verbs;
  const wrong = inner.length > 0 ? words[1] : first;
  const list = candidates.length === 0 ? "" : `${commandOf(path)} knows ${listed(candidates)}`;
  if (wrong?.kind !== "bare" && list !== "") {
    return new ServiceError("unknown_command", `Say what ${commandOf(path)} should do first; ${list}.`);
  }
  const typed = wrong?.kind === "bare" ? wrong.text : "";
  return unknown(`${commandOf(path)} ${shortened(typed)}`.trimEnd(), {
    guess: nearest(typed, candidates),
    command: (guess) => `${commandOf(path)} ${guess}`,
    list,
  });
}

function unknown(
  typed: string,
  advice: { guess: string | undefined; command: (guess: string) => string; list: string },
): ServiceError {
  const { guess } = advice;
  const meant = guess === undefined ? "" : ` Did you mean ${advice.command(guess)}?`;
  const list = advice.list === "" ? "" : ` ${advice.list.charAt(0).toUpperCase()}${advice.list.slice(1)}.`;
  return new ServiceError("unknown_command", `There is no command ${typed}.${meant}${list}`, {
    facts: guess === undefined ? {} : { nearest: guess },
  });
}

function assign(
  action: Action,
  words: readonly Word[],
  options: readonly Option[],
): { options: Record<string, string>; dryRun: boolean } {
  const subject = options.find((option) => option.subject === true);
  const given = new Map<string, string>();
  let dryRun = false;

  for (const [index, word] of words.entries()) {
    const pair = pairOf(word, options);
    if (word.kind === "flag") {
      if (word.text.toLowerCase() !== "dry-run") throw unknownFlag(word, options);
      dryRun = true;
    } else if (pair !== undefined) {
      if (pair.value === "" && !word.quoted) throw noValue(pair.key, words[index + 1]);
      if (given.has(pair.key)) throw twice(pair.key, [given.get(pair.key) ?? "", pair.value]);
      given.set(pair.key, pair.value);
    } else {
      const value = word.quoted ? word.text : word.raw;
      if (subject === undefined || given.has(subject.name)) {
        const free = options.filter((option) => !given.has(option.name));
        throw strayWord(action, value, { free, before: words[index - 1] });
      }
      given.set(subject.name, value);
    }
  }
  return { options: Object.fromEntries(given), dryRun };
}

/** `https://x` and `fe80::1` look like pairs and are values, unless an option has that name. */
function pairOf(word: Word, options: readonly Option[]): { key: string; value: string } | undefined {
  if (word.kind !== "pair") return undefined;
  const key = word.key.toLowerCase();
  const known = options.some((option) => option.name === key);
  return known || !/^(\/\/|:)/.test(word.text) ? { key, value: word.text } : undefined;
}

function unknownFlag(word: Word, options: readonly Option[]): ServiceError {
  const [name = "", value] = word.text.split("=", 2);
  const option = options.find((candidate) => candidate.name === name.toLowerCase());
  if (option !== undefined) {
    const example = value === undefined || value === "" ? exampleOf(option) : asTyped(option, value);
    return invalid(`Options are written without dashes; write ${example}.`, option.name);
  }
  const meant = nearest(name, ["dry-run", "help"]);
  const advice = meant === undefined ? "there are --dry-run and --help" : `did you mean --${meant}?`;
  return invalid(ended(`There is no --${shortened(name)}; ${advice}`));
}

function noValue(key: string, next: Word | undefined): ServiceError {
  const option = { name: key };
  if (next?.kind !== "bare") return invalid(`${key}: has no value; write one right after the colon.`, key);
  return invalid(`${key}: has no value; write ${asTyped(option, next.text)}, without a space.`, key);
}

function twice(key: string, values: [string, string]): ServiceError {
  const [first, second] = values.map((value) => asTyped({ name: key }, value));
  return invalid(`${key} is given twice, as ${first} and ${second}; keep one of them.`, key);
}

function strayWord(
  action: Action,
  value: string,
  context: { free: readonly Option[]; before: Word | undefined },
): ServiceError {
  const typed = `"${shortened(value)}"`;
  const { free, before } = context;
  const equals = /^([a-z][a-z0-9-]*)=(.+)$/i.exec(value);
  const meant = free.find((option) => option.name === equals?.[1]?.toLowerCase());
  if (meant !== undefined) {
    return invalid(`${typed} needs a colon; write ${asTyped(meant, equals?.[2] ?? "")}.`, meant.name);
  }
  if (before?.kind === "pair" && !before.quoted) {
    const whole = asTyped({ name: before.key.toLowerCase() }, `${before.text} ${value}`);
    return invalid(
      `${typed} stands alone; if it belongs to ${before.key}, write ${whole}.`,
      before.key.toLowerCase(),
    );
  }
  const likely = free.filter((option) => fits(option, value));
  const [key] = likely.length > 0 ? likely : free.filter((option) => option.required === true);
  if (key !== undefined) {
    return invalid(
      `${typed} stands alone; say which option it is, for example ${asTyped(key, value)}.`,
      key.name,
    );
  }
  if (free.length === 0)
    return invalid(`${typed} is one word too many for ${commandOf(action.name)}; leave it out.`);
  const keys = listed(
    free.map((option) => `${option.name}:`),
    "or",
  );
  return invalid(
    `${typed} stands alone; say which option it is: ${keys} before ${quotedIfNeeded(shortened(value))}.`,
  );
}

/** Whether the word alone shows what it was meant for: one of the choices, or a size. */
function fits(option: Option, value: string): boolean {
  if (option.choices !== undefined)
    return option.choices.some((choice) => choice.value === value.toLowerCase());
  return (option.type === "memory" || option.type === "disk") && /^\d+(\.\d+)?[mgt](i?b)?$/i.test(value);
}

function invalid(message: string, option?: string): ServiceError {
  return new ServiceError("invalid_input", message, { facts: option === undefined ? {} : { option } });
}

function ended(text: string): string {
  return /[.?!]$/.test(text) ? text : `${text}.`;
}

/** Tab completion: commands, verbs, options, and their values from the same look-ups as everywhere. */
import { type Principal } from "../../core/access.ts";
import type { Action, ActionRegistry, Option } from "../../core/action.ts";
import { usableActions } from "../../core/help.ts";
import type { Choice } from "../../core/lookup.ts";
import { quotedIfNeeded } from "../../core/option-values.ts";
import { optionsFor } from "../../core/options.ts";
import type { Entrance } from "../../core/request.ts";

export interface CompleteOptions {
  registry: Pick<ActionRegistry, "list">;
  principal: Principal;
  lookup: Entrance["lookup"];
  /** The console's own words: exit, clear, … */
  builtIns: readonly string[];
}

const mostValues = 20;

/** The ways to go on, and the part of the line that they replace. */
export async function complete(
  line: string,
  options: CompleteOptions,
): Promise<[completions: string[], completed: string]> {
  const words = line.trimStart().split(/\s+/);
  const last = words.at(-1) ?? "";
  const before = words.slice(0, -1);
  const slash = before.length === 0 && last.startsWith("/") ? "/" : "";
  const group = (before[0] ?? "").replace(/^\//, "").toLowerCase();
  const actions = usableActions(options.registry, options.principal);

  if (before.length === 0) {
    const groups = actions.map((action) => action.name.split(".")[0] ?? action.name);
    const own = slash === "" ? options.builtIns : [];
    return [
      starting(
        [...new Set([...groups, "help", ...own])].map((name) => `${slash}${name} `),
        last,
      ),
      last,
    ];
  }
  if (group === "help") return [starting(verbsAfter(actions, before.slice(1)), last), last];

  const found = actionAt(actions, group, before.slice(1));
  if (found === undefined) return [starting(verbsAfter(actions, [group, ...before.slice(1)]), last), last];
  return optionsAfter(found.action, { ...options, last, given: before.slice(1 + found.verbs) });
}

/** The words that may follow these in the names of actions. */
function verbsAfter(actions: readonly Action[], path: readonly string[]): string[] {
  const depth = path.length;
  const next = actions
    .map((action) => action.name.split("."))
    .filter((name) => path.every((word, index) => name[index] === word.toLowerCase()))
    .flatMap((name) => name[depth] ?? []);
  return [...new Set(next)].map((word) => `${word} `);
}

function actionAt(
  actions: readonly Action[],
  group: string,
  words: readonly string[],
): { action: Action; verbs: number } | undefined {
  for (let verbs = Math.min(2, words.length); verbs >= 0; verbs -= 1) {
    const name = [group, ...words.slice(0, verbs).map((word) => word.toLowerCase())].join(".");
    const action = actions.find((candidate) => candidate.name === name);
    if (action !== undefined) return { action, verbs };
  }
  return undefined;
}

async function optionsAfter(
  action: Action,
  asked: CompleteOptions & { last: string; given: readonly string[] },
): Promise<[string[], string]> {
  const { last, given } = asked;
  const options = optionsFor(action, asked.principal);
  const values = givenValues(options, given);
  const [key, text] = splitPair(last);
  const named = options.find((option) => option.name === key);
  if (named !== undefined) {
    const found = await valuesOf(named, { ...asked, text, values });
    return [found.map((value) => `${named.name}:${quotedIfNeeded(value)} `), last];
  }
  const free = options.filter((option) => values[option.name] === undefined);
  const keys = free.map((option) => `${option.name}:`);
  const flags = action.kind === "operation" && !given.includes("--dry-run") ? ["--dry-run "] : [];
  const subject = free.find((option) => option.subject === true);
  if (subject === undefined || last.startsWith("-")) return [starting([...keys, ...flags], last), last];
  const subjects = await valuesOf(subject, { ...asked, text: last, values });
  const others = keys.filter((one) => one !== `${subject.name}:`);
  return [
    [...subjects.map((value) => `${quotedIfNeeded(value)} `), ...(last === "" ? [] : starting(others, last))],
    last,
  ];
}

function splitPair(word: string): [key: string | undefined, value: string] {
  const colon = word.indexOf(":");
  if (colon === -1) return [undefined, word];
  return [word.slice(0, colon).toLowerCase(), word.slice(colon + 1).replace(/^["']/, "")];
}

function givenValues(options: readonly Option[], words: readonly string[]): Record<string, string> {
  const values: Record<string, string> = {};
  const subject = options.find((option) => option.subject === true);
  for (const word of words) {
    const [key, value] = splitPair(word);
    if (key !== undefined) values[key] = value;
    else if (subject !== undefined && !word.startsWith("-")) values[subject.name] ??= value;
  }
  return values;
}

async function valuesOf(
  option: Option,
  asked: CompleteOptions & { text: string; values: Record<string, string> },
): Promise<string[]> {
  const { text } = asked;
  if (option.choices !== undefined)
    return starting(
      option.choices.map(({ value }) => value),
      text,
    );
  if (option.type === "flag") return starting(["yes", "no"], text);
  if (option.lookup === undefined) return [];
  const found = await asked.lookup(
    { kind: option.lookup, text, limit: mostValues, options: asked.values },
    asked.principal,
  );
  // A look-up also finds by what is shown; readline would delete what was typed when a value does not begin with it.
  const values = found.map(({ value }) => value);
  if (option.lookup !== "server") return starting(values, text);
  const named = starting(namesOf(found), text);
  return named.length > 0 ? named : starting(values, text);
}

/** People know a server by its name, the first word of what is shown, unless several bear it. */
function namesOf(servers: readonly Choice[]): string[] {
  const names = servers.map(({ label }) => label.split(/[\s,]/)[0] ?? "");
  return servers.map(({ value }, index) => {
    const name = names[index] ?? "";
    return name !== "" && names.indexOf(name) === names.lastIndexOf(name) ? name : value;
  });
}

function starting(candidates: readonly string[], typed: string): string[] {
  return candidates.filter((candidate) => candidate.toLowerCase().startsWith(typed.toLowerCase()));
}

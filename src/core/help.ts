/** Help, generated from the registry: only what this principal may run, only the options it may give. */
import { commandOf, mayUse, type Principal } from "./access.ts";
import type { Action, ActionRegistry, Option } from "./action.ts";
import { ServiceError } from "./errors.ts";
import { nearest } from "./nearest.ts";
import { exampleOf, exampleValueOf, listed, quotedIfNeeded, shortened } from "./option-values.ts";
import { optionsFor } from "./options.ts";
import type { View } from "./view.ts";

/** What this principal may run, in the order of help. */
export function usableActions(registry: Pick<ActionRegistry, "list">, principal: Principal): Action[] {
  return registry.list().filter((action) => mayUse(principal, action));
}

/**
 * `topic` is nothing, a group ("server"), or an action as typed ("server resize", "/server resize") or by name.
 * Throws ServiceError `unknown_command`; what the principal may not run is as unknown as what does not exist.
 */
export function helpView(registry: Pick<ActionRegistry, "list">, principal: Principal, topic?: string): View {
  const usable = usableActions(registry, principal);
  const name = topicName(topic ?? "");
  if (name === "") return listView("Commands", usable, principal);

  const action = usable.find((candidate) => candidate.name === name);
  if (action !== undefined) return actionView(action, principal);
  const group = usable.filter((candidate) => candidate.name.startsWith(`${name}.`));
  if (group.length > 0) return listView(commandOf(name), group, principal);

  const names = usable.map((candidate) => candidate.name);
  const groups = [...new Set(names.map(groupOf))];
  const guess = nearest(name, [...groups, ...names]);
  const advice =
    guess === undefined ? `there is help for ${listed(groups)}.` : `did you mean ${commandOf(guess)}?`;
  throw new ServiceError("unknown_command", `There is no command ${shortened(commandOf(name))}; ${advice}`, {
    facts: guess === undefined ? {} : { nearest: guess },
  });
}

/** "/server resize" → "server.resize". */
function topicName(topic: string): string {
  return topic
    .trim()
    .replace(/^\//, "")
    .toLowerCase()
    .split(/[\s.]+/)
    .filter(Boolean)
    .join(".");
}

function groupOf(name: string): string {
  return name.split(".")[0] ?? name;
}

function listView(title: string, actions: readonly Action[], principal: Principal): View {
  const first = actions[0];
  const view: View = {
    title,
    tone: "neutral",
    table: {
      columns: ["Command", "What it does"],
      rows: actions.map((action) => [usageOf(action, principal), action.summary]),
      empty: "There is nothing you may run here; ask an administrator for a role.",
    },
  };
  if (first !== undefined) view.footer = `More about one: ${commandOf(first.name)} --help`;
  return view;
}

function actionView(action: Action, principal: Principal): View {
  const options = optionsFor(action, principal);
  const view: View = {
    title: commandOf(action.name),
    tone: "neutral",
    text: action.summary,
    fields: [
      { label: "Usage", value: usageOf(action, principal) },
      { label: "Examples", value: examplesOf(action, options).join("\n") },
    ],
  };
  if (options.length > 0) {
    view.table = {
      columns: ["Option", "Meaning", "Example"],
      rows: options.map((option) => [optionName(option), meaningOf(option), exampleOf(option)]),
      empty: "",
    };
  }
  if (action.kind === "operation") view.footer = "Add --dry-run to see what would change, without doing it.";
  return view;
}

/** "/server resize <server> [plan:…] [memory:…]": the subject bare, optional ones in brackets, advanced ones left out. */
export function usageOf(action: Action, principal: Principal): string {
  const options = optionsFor(action, principal);
  const shown = options.filter((option) => option.advanced !== true || option.required === true);
  const ordered = shown.toSorted((a, b) => rank(a) - rank(b));
  const words = ordered.map((option) => {
    const word = option.subject === true ? `<${option.name}>` : `${option.name}:…`;
    return option.required === true ? word : `[${word}]`;
  });
  return [commandOf(action.name), ...words].join(" ");
}

function rank(option: Option): number {
  if (option.subject === true) return 0;
  return option.required === true ? 1 : 2;
}

function examplesOf(action: Action, options: readonly Option[]): string[] {
  const command = commandOf(action.name);
  const needed = options.filter((option) => option.required === true || option.subject === true);
  const least = [command, ...needed.toSorted((a, b) => rank(a) - rank(b)).map(exampleWord)].join(" ");
  const more = options.filter((option) => !needed.includes(option) && option.advanced !== true).slice(0, 2);
  if (more.length === 0) return [least];
  return [least, [least, ...more.map(exampleWord)].join(" ")];
}

function exampleWord(option: Option): string {
  return option.subject === true ? quotedIfNeeded(exampleValueOf(option)) : exampleOf(option);
}

function optionName(option: Option): string {
  return option.required === true ? `${option.name} (required)` : option.name;
}

function meaningOf(option: Option): string {
  const choices = option.choices?.map((choice) => choice.value) ?? [];
  return choices.length === 0 ? option.help : `${option.help} (${listed(choices, "or")})`;
}

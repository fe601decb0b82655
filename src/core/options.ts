/** Text as typed → an action's typed input. The only place that knows what "8G" means is option-values.ts. */
import type { Principal } from "./access.ts";
import { commandOf } from "./access.ts";
import type { Action, Option } from "./action.ts";
import { ServiceError } from "./errors.ts";
import { predicateOf } from "./input-issues.ts";
import { nearest } from "./nearest.ts";
import { asTyped, cleanText, exampleOf, InvalidValue, listed, shortened, valueOf } from "./option-values.ts";

/** The options of an action that this principal may give; the others do not exist for them. */
export function optionsFor(action: Action, principal: Principal): Option[] {
  return action.options.filter((option) => {
    if (option.audience === undefined || principal.kind === "system") return true;
    return option.audience.includes(principal.kind);
  });
}

/**
 * The required options that have no value; for a principal, only those it may give. An empty text is no value: it is
 * what a form's empty field sends.
 */
export function missingOptions(
  action: Action,
  raw: Readonly<Record<string, string>>,
  principal?: Principal,
): Option[] {
  const usable = principal === undefined ? action.options : optionsFor(action, principal);
  return usable.filter((option) => option.required === true && givenText(raw, option) === "");
}

/**
 * The action's typed input, from text as typed or chosen.
 *
 * Throws ServiceError `invalid_input`. `message` is about the first thing that is wrong; `facts.option` is the option
 * it belongs to (absent when it is about several together); `facts.errors` has a sentence for every option that is
 * wrong (option name → sentence), so that a form comes back with all of them at once.
 *
 * An input schema's own messages are predicates that follow the option as typed: `must start with a letter` reads
 * `name:1web must start with a letter.` A message that belongs to no single option is a whole sentence.
 */
export function parseOptions(
  action: Action,
  raw: Readonly<Record<string, string>>,
  principal: Principal,
): Record<string, unknown> {
  const usable = optionsFor(action, principal);
  for (const name of Object.keys(raw)) {
    if (!usable.some((option) => option.name === name)) throw unknownOption(action, name, usable);
  }

  const input: Record<string, unknown> = {};
  const errors = new Map<string, string>();
  for (const option of usable) {
    const text = givenText(raw, option);
    try {
      if (text !== "") input[option.field] = valueOf(option, text);
      else if (option.required === true) errors.set(option.name, needs(action, option));
    } catch (error) {
      if (!(error instanceof InvalidValue)) throw error;
      errors.set(option.name, sentence(`${asTyped(option, text)} ${error.message}`));
    }
  }
  if (errors.size > 0) throw invalid(errors);
  return validated(action, input, { raw, usable });
}

function validated(
  action: Action,
  input: Record<string, unknown>,
  from: { raw: Readonly<Record<string, string>>; usable: readonly Option[] },
): Record<string, unknown> {
  const optionOf = (path: readonly PropertyKey[] | undefined) =>
    from.usable.find((option) => option.field === path?.[0]);
  // zod asks this map only where the schema has no message of its own.
  const parsed = action.input.safeParse(input, {
    error: (issue) => predicateOf(issue, optionOf(issue.path)),
  });
  if (parsed.success) return parsed.data;

  const errors = new Map<string, string>();
  let general: string | undefined;
  for (const issue of parsed.error.issues) {
    const option = optionOf(issue.path);
    if (option === undefined) {
      general ??= sentence(issue.message);
    } else if (!errors.has(option.name)) {
      const text = givenText(from.raw, option);
      errors.set(
        option.name,
        text === "" ? needs(action, option) : about(asTyped(option, text), issue.message),
      );
    }
  }
  if (errors.size > 0) throw invalid(errors);
  throw new ServiceError("invalid_input", general ?? "These values do not fit together; check them again.", {
    facts: { action: action.name },
  });
}

function invalid(errors: ReadonlyMap<string, string>): ServiceError {
  const [option, message] = errors.entries().next().value ?? ["", ""];
  return new ServiceError("invalid_input", message, {
    facts: { option, errors: Object.fromEntries(errors) },
  });
}

function unknownOption(action: Action, name: string, usable: readonly Option[]): ServiceError {
  const names = usable.map((option) => option.name);
  const guess = nearest(name, names);
  const command = commandOf(action.name);
  let advice = `it takes ${listed(names)}`;
  if (guess !== undefined) advice = `did you mean ${guess}?`;
  else if (names.length === 0) advice = "it takes none";
  return new ServiceError(
    "invalid_input",
    sentence(`${command} has no option "${shortened(name)}"; ${advice}`),
    {
      facts: { option: name, ...(guess === undefined ? {} : { nearest: guess }) },
    },
  );
}

function needs(action: Action, option: Option): string {
  return `${commandOf(action.name)} needs ${option.name}; write ${exampleOf(option)}.`;
}

function givenText(raw: Readonly<Record<string, string>>, option: Option): string {
  return Object.hasOwn(raw, option.name) ? cleanText(raw[option.name] ?? "") : "";
}

/** A message that was written as a sentence of its own follows a colon; a predicate follows directly. */
function about(typed: string, message: string): string {
  return sentence(/^\p{Lu}/u.test(message) ? `${typed}: ${message}` : `${typed} ${message}`);
}

function sentence(text: string): string {
  return /[.?!]$/.test(text) ? text : `${text}.`;
}

/** An action's options → the form that asks for them. Lengths of titles and numbers of fields are the platform's. */
import type { Principal } from "./access.ts";
import type { Action, Option } from "./action.ts";
import type { Form, FormField } from "./form.ts";
import { optionsFor } from "./options.ts";

/**
 * `given` becomes the fields' initial values. Advanced options have a field only when they are required, were given, or
 * are wrong. `errors` is option name → sentence (`facts.errors` of parseOptions).
 */
export function formOf(
  action: Action,
  given: Readonly<Record<string, string>>,
  principal: Principal,
  errors: Readonly<Record<string, string>> = {},
): Form {
  const fields: FormField[] = [];
  const rest: Record<string, string> = { ...given };
  for (const option of optionsFor(action, principal)) {
    const initial = given[option.name];
    const hidden = option.advanced === true && option.required !== true;
    if (hidden && initial === undefined && errors[option.name] === undefined) continue;
    fields.push(fieldOf(option, initial));
    delete rest[option.name];
  }
  const form: Form = {
    action: action.name,
    title: action.summary,
    submit: submitOf(action),
    fields,
    given: rest,
  };
  if (Object.keys(errors).length > 0) form.errors = { ...errors };
  return form;
}

function fieldOf(option: Option, initial: string | undefined): FormField {
  const field: FormField = {
    name: option.name,
    label: option.label,
    help: option.help,
    required: option.required === true,
    kind: kindOf(option),
  };
  if (option.choices !== undefined) field.choices = option.choices.map((choice) => ({ ...choice }));
  else if (option.type === "flag") field.choices = [...flagChoices];
  else if (option.lookup !== undefined) field.lookup = option.lookup;
  const start =
    initial === undefined || field.choices === undefined ? initial : chosen(field.choices, initial);
  if (start !== undefined) field.initial = start;
  if (field.kind === "text" && initial?.includes("\n") === true) field.multiline = true;
  return field;
}

const flagChoices = [
  { value: "yes", label: "Yes" },
  { value: "no", label: "No" },
] as const;

function kindOf(option: Option): FormField["kind"] {
  if (option.choices !== undefined || option.type === "flag") return "choice";
  return option.lookup === undefined ? "text" : "lookup";
}

/** A select takes only its own values back, and people type "Stop" or "true". Undefined when it is none of them. */
function chosen(choices: readonly { value: string; label: string }[], text: string): string | undefined {
  const typed = text.trim().toLowerCase();
  const wanted = choices.some((choice) => choice.value === "yes") ? (flagWords[typed] ?? typed) : typed;
  return choices.find((choice) => [choice.value.toLowerCase(), choice.label.toLowerCase()].includes(wanted))
    ?.value;
}

const flagWords: Readonly<Record<string, string>> = {
  y: "yes",
  true: "yes",
  on: "yes",
  "1": "yes",
  n: "no",
  false: "no",
  off: "no",
  "0": "no",
};

/** "server.volume.attach" → "Attach"; what only reads says so. */
function submitOf(action: Action): string {
  if (action.risk === "read") return "Show";
  const verb = action.name.split(".").at(-1) ?? action.name;
  return verb.charAt(0).toUpperCase() + verb.slice(1);
}

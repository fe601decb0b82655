/** A form as questions, one after the other. */
import type { Principal } from "../../core/access.ts";
import type { Form, FormField } from "../../core/form.ts";
import type { Entrance } from "../../core/request.ts";
import type { Reader, Typed } from "./reader.ts";
import type { Screen } from "./screen.ts";
import { printable } from "./text.ts";

export interface AskOptions {
  reader: Reader;
  screen: Screen;
  principal: Principal;
  lookup: Entrance["lookup"];
}

interface Choice {
  value: string;
  label: string;
}

const mostChoices = 20;

/** All values of the form, or null when the person has stopped. */
export async function askForm(form: Form, options: AskOptions): Promise<Record<string, string> | null> {
  const { screen } = options;
  const values: Record<string, string> = { ...form.given };
  await screen.print(
    `${screen.paint("bold", printable(form.title))}${screen.paint("dim", "  (Enter skips what is optional, Ctrl+C stops)")}`,
  );
  for (const field of form.fields) {
    const error = form.errors?.[field.name];
    if (error !== undefined) await screen.say(error, "error");
    if (field.initial !== undefined && error === undefined) {
      values[field.name] = field.initial;
      await screen.print(
        `  ${screen.paint("dim", `${printable(field.label)}:`)} ${printable(field.initial)}`,
      );
      continue;
    }
    const value = await askField(field, { ...options, values });
    if (value === null) {
      await screen.print(screen.paint("dim", "  Nothing was done."));
      return null;
    }
    if (value !== "") values[field.name] = value;
  }
  return values;
}

async function askField(
  field: FormField,
  options: AskOptions & { values: Record<string, string> },
): Promise<string | null> {
  const { reader, screen } = options;
  let choices = await choicesOf(field, "", options);
  await showChoices(field, choices, screen);
  for (;;) {
    const typed: Typed = await reader.next({
      prompt: `  ${printable(field.label)}${field.required ? "" : " (optional)"}: `,
      history: false,
      complete: async (line) => [
        choices
          .map(({ value }) => value)
          .filter((value) => value.toLowerCase().startsWith(line.toLowerCase())),
        line,
      ],
    });
    if (typed.kind !== "line") return null;
    const text = typed.text.trim();
    if (text === "") {
      if (!field.required) return "";
      await screen.say("This one is needed; Ctrl+C stops.", "warning");
      continue;
    }
    const chosen = chosenOf(choices, text);
    if (chosen !== undefined || field.kind !== "lookup") return chosen ?? text;
    const found = await choicesOf(field, text, options);
    if (found.length === 0) return text;
    if (found.length === 1) return found[0]?.value ?? text;
    choices = found;
    await showChoices(field, choices, screen);
  }
}

async function choicesOf(
  field: FormField,
  text: string,
  { lookup, principal, values }: AskOptions & { values: Record<string, string> },
): Promise<Choice[]> {
  if (field.lookup === undefined) return field.choices ?? [];
  return lookup({ kind: field.lookup, text, limit: mostChoices, options: values }, principal);
}

async function showChoices(field: FormField, choices: readonly Choice[], screen: Screen): Promise<void> {
  if (field.help !== undefined && choices.length === 0) {
    await screen.say(field.help);
  }
  const width = String(choices.length).length;
  const lines = choices.map(({ value, label }, index) => {
    const number = screen.paint("cyan", String(index + 1).padStart(width));
    const shown = label.toLowerCase().includes(value.toLowerCase())
      ? label
      : `${label}  ${screen.paint("dim", value)}`;
    return `    ${number}  ${printable(label) === label ? shown : printable(label)}`;
  });
  if (lines.length > 0) await screen.print(lines.join("\n"));
}

/** By value or label, else by number. */
function chosenOf(choices: readonly Choice[], text: string): string | undefined {
  const typed = text.toLowerCase();
  const named = choices.find(
    (choice) => choice.value.toLowerCase() === typed || choice.label.toLowerCase() === typed,
  );
  return (named ?? (/^\d+$/.test(text) ? choices[Number(text) - 1] : undefined))?.value;
}

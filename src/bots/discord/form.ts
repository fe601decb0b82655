/** A form → a Discord modal, and a submitted modal → what was entered. */
import { randomBytes } from "node:crypto";
import {
  type APILabelComponent,
  type APIModalInteractionResponseCallbackData,
  type APIStringSelectComponent,
  type APITextInputComponent,
  ComponentType,
  type ModalSubmitFields,
  TextInputStyle,
} from "discord.js";
import type { Form, FormField } from "../../core/form.ts";
import { clip, plain } from "../text.ts";

/** A request that is not complete yet, or not right. Kept in memory: no secret belongs into an option. */
export interface Draft {
  action: string;
  /** Option name → text, as given so far. */
  given: Record<string, string>;
  dryRun: boolean;
  /** Options that were wrong, so that the next form asks for them. */
  wrong: readonly string[];
}

/** What a modal's custom_id says: the action, and where the rest of the draft is kept (empty: there is no rest). */
export interface FormId {
  action: string;
  dryRun: boolean;
  nonce: string;
}

export type Choices = readonly { value: string; label: string }[];

// https://docs.discord.com/developers/components/reference: a modal takes 5 labels.
const MAX_FIELDS = 5;
export const MAX_CHOICES = 25;
const MAX_TITLE = 45;
const MAX_LABEL = 45;
const MAX_TEXT = 100;
const MAX_INPUT = 4_000;
const MAX_CUSTOM_ID = 100;
const FORM = "form";

/** The fields to ask for now: the wrong ones, then what is required and missing, then the rest, as many as fit. */
export function pageOf(form: Form, wrong: readonly string[]): FormField[] {
  const rank = ({ name, required, initial }: FormField): number => {
    if (wrong.includes(name)) return 0;
    if (required) return (initial ?? "") === "" ? 1 : 2;
    return (initial ?? "") === "" ? 4 : 3;
  };
  const chosen = new Set(form.fields.toSorted((a, b) => rank(a) - rank(b)).slice(0, MAX_FIELDS));
  return form.fields.filter((field) => chosen.has(field));
}

/** What was given and has no field on this page. */
export function keptBeside(form: Form, page: readonly FormField[]): Record<string, string> {
  const kept = { ...form.given };
  for (const field of form.fields) {
    if (!page.includes(field) && field.initial !== undefined) kept[field.name] = field.initial;
  }
  return kept;
}

export function newNonce(): string {
  return randomBytes(9).toString("base64url");
}

export function formId({ action, dryRun, nonce }: FormId): string {
  return [FORM, action, dryRun ? "dry" : "", nonce].join(":");
}

/** Room for the action in a custom_id; a longer name is kept in the draft. */
export function fitsFormId(id: FormId): boolean {
  return formId(id).length <= MAX_CUSTOM_ID;
}

export function readFormId(customId: string): FormId | null {
  const [kind, action, dry, nonce] = customId.split(":");
  if (kind !== FORM || action === undefined || nonce === undefined) return null;
  return { action, dryRun: dry === "dry", nonce };
}

/** `choices`: of those lookups that are short enough for a list. */
export function renderForm(
  form: Form,
  page: readonly FormField[],
  { customId, choices }: { customId: string; choices: ReadonlyMap<string, Choices> },
): APIModalInteractionResponseCallbackData {
  return {
    custom_id: customId,
    title: plain(form.title, MAX_TITLE) || "Ratatosk",
    components: page.map((field) => label(field, field.choices ?? choices.get(field.name) ?? [])),
  };
}

function label(field: FormField, choices: Choices): APILabelComponent {
  const help = plain(field.help ?? "", MAX_TEXT);
  return {
    type: ComponentType.Label,
    label: plain(field.label, MAX_LABEL) || field.name,
    ...(help === "" ? {} : { description: help }),
    component: isList(field, choices) ? select(field, choices) : text(field, choices),
  };
}

/** Whether all that could be chosen fits into a select, unshortened, and what was given is among it. */
function isList({ initial, kind }: FormField, choices: Choices): boolean {
  const values = new Set(choices.map(({ value }) => value));
  return (
    kind !== "text" &&
    choices.length > 0 &&
    choices.length <= MAX_CHOICES &&
    values.size === choices.length &&
    choices.every(({ value }) => value !== "" && value.length <= MAX_TEXT) &&
    (initial === undefined || initial === "" || values.has(initial))
  );
}

function select({ name, required, initial }: FormField, choices: Choices): APIStringSelectComponent {
  return {
    type: ComponentType.StringSelect,
    custom_id: name,
    required,
    min_values: required ? 1 : 0,
    max_values: 1,
    options: choices.map(({ value, label: shown }) => ({
      value,
      label: plain(shown, MAX_TEXT) || value,
      ...(value === initial ? { default: true } : {}),
    })),
  };
}

function text(field: FormField, choices: Choices): APITextInputComponent {
  const { name, required, initial, kind, multiline } = field;
  const few = choices.slice(0, 8).map(({ value }) => value);
  const hint = few.length > 0 ? `${few.join(", ")}, …` : kind === "lookup" ? "A name or an id" : "";
  return {
    type: ComponentType.TextInput,
    custom_id: name,
    style: multiline === true ? TextInputStyle.Paragraph : TextInputStyle.Short,
    required,
    max_length: MAX_INPUT,
    ...(hint === "" ? {} : { placeholder: clip(hint, MAX_TEXT) }),
    ...(initial === undefined || initial === "" ? {} : { value: clip(initial, MAX_INPUT) }),
  };
}

/** Field name → text; fields left empty are not in it. */
export function readEntered(fields: ModalSubmitFields): Record<string, string> {
  const entered: Record<string, string> = {};
  for (const [name, field] of fields.fields) {
    const value = "value" in field && typeof field.value === "string" ? field.value : valueOfSelect(field);
    if (value !== undefined && value.trim() !== "") entered[name] = value;
  }
  return entered;
}

function valueOfSelect(field: object): string | undefined {
  if (!("values" in field) || !Array.isArray(field.values)) return undefined;
  const [value] = field.values as unknown[];
  return typeof value === "string" ? value : undefined;
}

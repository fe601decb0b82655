/** A form → a Slack modal, and a submitted modal → what was entered. */
import type { types, ViewOutput } from "@slack/bolt";
import { z } from "zod";
import { ServiceError } from "../../core/errors.ts";
import type { Form, FormField } from "../../core/form.ts";
import type { View } from "../../core/view.ts";
import { clip, paragraph, plain } from "../text.ts";
import { note, renderView, sections } from "./message.ts";

export const FORM_CALLBACK = "form";
/** An input's action_id is this and the option's name, its block's id the name alone. */
const INPUT = "input:";
export const INPUT_PATTERN = new RegExp(`^${INPUT}`, "u");
export const MAX_CHOICES = 100;

const MAX_TITLE = 24;
const MAX_METADATA = 3_000;
const MAX_LABEL = 150;
const MAX_HINT = 150;
const MAX_OPTION_TEXT = 75;
/** The types of @slack/types say 75 for an option's value too. */
export const MAX_OPTION_VALUE = 75;
const MAX_INPUT = 3_000;

/** What a modal must remember until it is submitted. It passes through the person's client: no secret belongs here. */
const Metadata = z.object({
  action: z.string(),
  given: z.record(z.string(), z.string()),
  /** Where the command was typed, and so where the card goes. */
  channel: z.string(),
  dryRun: z.boolean(),
});
export type Metadata = z.infer<typeof Metadata>;

export interface FormContext {
  channel: string;
  dryRun: boolean;
}

/** Throws ServiceError `invalid_input` when more was given on the command line than a modal can carry. */
export function renderForm(form: Form, context: FormContext): types.ModalView {
  const { channel, dryRun } = context;
  const metadata: Metadata = { action: form.action, given: form.given, channel, dryRun };
  const json = JSON.stringify(metadata);
  if (json.length > MAX_METADATA) {
    throw new ServiceError(
      "invalid_input",
      "That is more text than a Slack form can keep. Give the missing options on the command line too.",
    );
  }
  return {
    type: "modal",
    callback_id: FORM_CALLBACK,
    private_metadata: json,
    title: plainText(form.title, MAX_TITLE),
    submit: plainText(form.submit, MAX_TITLE),
    close: plainText("Cancel", MAX_TITLE),
    blocks: [
      ...(form.title.length > MAX_TITLE ? sections([plain(form.title)]) : []),
      ...givenNote(form),
      ...form.fields.flatMap((field) => inputBlocks(field, form.errors?.[field.name])),
    ],
  };
}

function givenNote(form: Form): types.KnownBlock[] {
  const given = Object.entries(form.given);
  if (given.length === 0) return [];
  return [note(given.map(([name, value]) => `${name}: ${clip(plain(value), 100)}`).join(" · "))];
}

function inputBlocks(field: FormField, error: string | undefined): types.KnownBlock[] {
  return [
    {
      type: "input",
      block_id: field.name,
      label: plainText(field.label, MAX_LABEL),
      optional: !field.required,
      element: element(field),
      ...(field.help === undefined ? {} : { hint: plainText(field.help, MAX_HINT) }),
    },
    ...(error === undefined ? [] : [note(`⚠️ ${error}`)]),
  ];
}

function element(field: FormField): types.InputBlockElement {
  const { kind, initial } = field;
  const choices = field.choices ?? [];
  if (kind === "text") {
    return {
      type: "plain_text_input",
      action_id: INPUT + field.name,
      multiline: field.multiline ?? false,
      max_length: MAX_INPUT,
      ...(initial === undefined || initial === "" ? {} : { initial_value: clip(initial, MAX_INPUT) }),
    };
  }
  if (kind === "choice" && choices.length <= MAX_CHOICES) {
    const chosen = choices.find(({ value }) => value === initial);
    return {
      type: "static_select",
      action_id: INPUT + field.name,
      options: choices.map(option),
      ...(chosen === undefined ? {} : { initial_option: option(chosen) }),
    };
  }
  return {
    type: "external_select",
    action_id: INPUT + field.name,
    min_query_length: 0,
    ...(initial === undefined || initial === "" || initial.length > MAX_OPTION_VALUE
      ? {}
      : { initial_option: option({ value: initial, label: labelOf(choices, initial) }) }),
  };
}

function labelOf(choices: readonly { value: string; label: string }[], value: string): string {
  return choices.find((choice) => choice.value === value)?.label ?? value;
}

/** Throws when the value is too long: cut, it would stand for something else. */
export function option(choice: { value: string; label: string }): types.PlainTextOption {
  if (choice.value.length > MAX_OPTION_VALUE) {
    throw new RangeError(
      `Slack takes at most ${MAX_OPTION_VALUE} characters as a choice's value: ${choice.value}`,
    );
  }
  return { text: plainText(choice.label, MAX_OPTION_TEXT, choice.value), value: choice.value };
}

function plainText(text: string, maxLength: number, whenEmpty = "–"): types.PlainTextElement {
  return { type: "plain_text", text: plain(text, maxLength) || plain(whenEmpty, maxLength), emoji: false };
}

/** What a submitted (or half filled) modal holds: the values given before it, and those entered in it. */
export function readForm(view: ViewOutput): Metadata & { entered: Record<string, string>; fields: string[] } {
  const metadata = Metadata.parse(JSON.parse(view.private_metadata));
  const entered: Record<string, string> = {};
  for (const [name, inputs] of Object.entries(view.state.values)) {
    const input = inputs[INPUT + name];
    const value = input?.selected_option?.value ?? input?.value;
    if (value !== undefined && value !== null && value.trim() !== "") entered[name] = value;
  }
  const fields = view.blocks.filter(({ type }) => type === "input").flatMap((block) => block.block_id ?? []);
  return { ...metadata, entered, fields };
}

/** A view in a modal: an answer to a submitted form, or an error about it. */
export function viewModal(view: View): types.ModalView {
  return {
    type: "modal",
    title: plainText(view.title, MAX_TITLE),
    close: plainText("Close", MAX_TITLE),
    blocks: renderView(view, "modal").blocks,
  };
}

/** Rich text is shown as it is: no character of a secret is read as markup, and it copies exactly. */
export function secretModal(secret: { label: string; text: string }): types.ModalView {
  return {
    type: "modal",
    title: plainText(secret.label, MAX_TITLE),
    close: plainText("Close", MAX_TITLE),
    blocks: [
      ...sections([paragraph(secret.label, 300)]),
      {
        type: "rich_text",
        elements: [{ type: "rich_text_preformatted", elements: [{ type: "text", text: secret.text }] }],
      },
      note("Only you see this, and only once: copy it before you close the window."),
    ],
  };
}

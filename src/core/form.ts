/** Neutral input: made from an action's options, rendered as a Slack modal, a Discord modal or console prompts. */
import type { LookupKind } from "./action.ts";

export interface FormField {
  /** The option's name: what a person would type as `name:value`. */
  name: string;
  label: string;
  help?: string;
  required: boolean;
  kind: "text" | "choice" | "lookup";
  /** For `choice`. */
  choices?: { value: string; label: string }[];
  /** For `lookup`: answered from the database, filtered by principal (core/lookup.ts). */
  lookup?: LookupKind;
  initial?: string;
  multiline?: boolean;
}

export interface Form {
  /** The action's name. */
  action: string;
  title: string;
  submit: string;
  fields: FormField[];
  /** Values that were given already and have no field. */
  given: Record<string, string>;
  /** Field name → sentence, when the form comes back. */
  errors?: Record<string, string>;
}

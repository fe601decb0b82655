/** PVE::JSONSchema's checks, with its words: what it refuses is refused here, before any handler runs. */
import { type Params, paramError } from "./wire.ts";

export type Format = (value: string) => string | undefined;

export interface Rule {
  type: "integer" | "number" | "string" | "boolean" | "array";
  optional: boolean;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  pattern?: RegExp;
  enum?: readonly string[];
  /** Returns what is wrong with the value. */
  format?: Format;
  /** Another parameter that must be given with it. */
  requires?: string;
  /** Known since this version only. */
  since?: "9.2";
}

/** Rules by name; `net[n]` stands for net0 … net31 and so on. */
export type Schema = Readonly<Record<string, Rule>>;

type Limits = Partial<Omit<Rule, "type" | "optional">>;

export const integer = (limits: Limits = {}): Rule => ({ type: "integer", optional: true, ...limits });
export const decimal = (limits: Limits = {}): Rule => ({ type: "number", optional: true, ...limits });
export const string = (limits: Limits = {}): Rule => ({ type: "string", optional: true, ...limits });
export const boolean = (limits: Limits = {}): Rule => ({ type: "boolean", optional: true, ...limits });
export const list = (limits: Limits = {}): Rule => ({ type: "array", optional: true, ...limits });
export const oneOf = (...values: string[]): Rule => string({ enum: values });
export const needed = (rule: Rule): Rule => ({ ...rule, optional: false });

/** Only the whole value counts: Perl's m/^…$/. */
const whole = (pattern: RegExp): RegExp => new RegExp(`^(?:${pattern.source})$`, pattern.flags);

/** How many of an indexed option there are. */
const INDEX_LIMITS: Readonly<Record<string, number>> = {
  net: 32,
  ipconfig: 32,
  ide: 4,
  sata: 6,
  scsi: 31,
  virtio: 16,
  unused: 256,
  serial: 4,
  parallel: 3,
  usb: 14,
  hostpci: 16,
  numa: 8,
  virtiofs: 10,
};

export function ruleFor(schema: Schema, key: string): Rule | undefined {
  const own = Object.hasOwn(schema, key) ? schema[key] : undefined;
  if (own) return own;
  const [, name = "", index = ""] = /^([a-z]+)(0|[1-9]\d*)$/.exec(key) ?? [];
  const limit = INDEX_LIMITS[name];
  return limit !== undefined && Number(index) < limit ? schema[`${name}[n]`] : undefined;
}

/** Checks everything that came and returns it in a form handlers can trust; throws PVE's 400 with all errors. */
export function checkParams(
  schema: Schema,
  given: ReadonlyMap<string, unknown>,
  version: "8.4" | "9.2",
): Params {
  const errors: Record<string, string> = {};
  const params: Params = new Map();
  for (const [key, value] of given) {
    const rule = ruleFor(schema, key);
    if (!rule || (rule.since === "9.2" && version !== "9.2")) {
      errors[key] = "property is not defined in schema and the schema does not allow additional properties";
      continue;
    }
    const checked = checkValue(rule, value);
    if ("error" in checked) errors[key] = checked.error;
    else params.set(key, checked.value);
    if (rule.requires !== undefined && !given.has(rule.requires)) {
      errors[rule.requires] = `missing property - '${key}' requires this property`;
    }
  }
  for (const [key, rule] of Object.entries(schema)) {
    if (!rule.optional && !given.has(key)) errors[key] = "property is missing and it is not optional";
  }
  if (Object.keys(errors).length > 0) throw paramError(errors);
  return params;
}

type Checked = { value: string | string[] } | { error: string };

function checkValue(rule: Rule, value: unknown): Checked {
  if (rule.type === "array") {
    // A form cannot say that a single value is a list.
    const items = Array.isArray(value) ? value : [value];
    return { value: items.map(String) };
  }
  const typed = checkType(rule.type, value);
  if (typeof typed !== "string") return typed;
  const error = problemOf(rule, typed);
  return error === undefined ? { value: typed } : { error };
}

function checkType(type: Exclude<Rule["type"], "array">, value: unknown): string | { error: string } {
  const text = scalar(value);
  if (text === undefined) {
    const got = Array.isArray(value) ? "array" : typeof value;
    return { error: `type check ('${type}') failed - got '${got}'` };
  }
  if (type === "boolean") {
    if (/^(1|on|yes|true)$/i.test(text)) return "1";
    if (/^(0|off|no|false)$/i.test(text)) return "0";
    return { error: `type check ('boolean') failed - got '${text}'` };
  }
  if (type === "integer" && !/^[+-]?\d+$/.test(text)) {
    return { error: `type check ('integer') failed - got '${text}'` };
  }
  if (type === "number" && !/^[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?$/i.test(text)) {
    return { error: `type check ('number') failed - got '${text}'` };
  }
  return text;
}

function scalar(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (typeof value === "number") return String(value);
  // Perl's JSON booleans count as 1 and 0.
  if (typeof value === "boolean") return value ? "1" : "0";
  return undefined;
}

function problemOf(rule: Rule, value: string): string | undefined {
  const format = rule.format?.(value);
  if (format !== undefined) return `invalid format - ${format}`;
  if (rule.pattern && !whole(rule.pattern).test(value)) return "value does not match the regex pattern";
  const { minLength, maxLength, minimum, maximum } = rule;
  if (maxLength !== undefined && value.length > maxLength) {
    return `value may only be ${maxLength} characters long`;
  }
  if (minLength !== undefined && value.length < minLength) {
    return `value must be at least ${minLength} characters long`;
  }
  if (rule.type === "integer" || rule.type === "number") {
    if (maximum !== undefined && Number(value) > maximum)
      return `value must have a maximum value of ${maximum}`;
    if (minimum !== undefined && Number(value) < minimum)
      return `value must have a minimum value of ${minimum}`;
  }
  if (rule.enum && !rule.enum.includes(value)) {
    return `value '${value}' does not have a value in the enumeration '${rule.enum.join(", ")}'`;
  }
  return undefined;
}

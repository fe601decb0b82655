import { isIPv4, isIPv6 } from "node:net";
import { pythonRepr, pythonStr } from "./python-text.ts";

/**
 * The part of JSON Schema (draft 4) that Nova's request checks use, with the messages of Python's
 * jsonschema. Like `Validator.validate()` there, it reports the first error it meets, walking the
 * keywords in the order in which the schema writes them; so their order matters here too.
 */
export interface Schema {
  type?: string | string[];
  enum?: unknown[];
  minLength?: number;
  maxLength?: number;
  pattern?: string;
  format?: keyof typeof formats;
  minimum?: number;
  maximum?: number;
  items?: Schema;
  minItems?: number;
  maxItems?: number;
  properties?: Record<string, Schema>;
  patternProperties?: Record<string, Schema>;
  required?: string[];
  minProperties?: number;
  maxProperties?: number;
  additionalProperties?: boolean;
  oneOf?: Schema[];
}

interface SchemaError {
  path: (string | number)[];
  value: unknown;
  message: string;
  /** Replaces the whole text; Nova does so for names. */
  detail?: string;
}

const UUID = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i;

const formats = {
  uuid: (value: string) => UUID.test(value),
  ipv4: (value: string) => isIPv4(value),
  ipv6: (value: string) => isIPv6(value),
  base64: (value: string) =>
    value.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(value.replaceAll("\n", "")),
  regex: isRegex,
  "date-time": (value: string) => /^\d{4}-\d{2}-\d{2}/.test(value) && !Number.isNaN(parseTime(value)),
  name: isName,
};

/** As Python counts. */
function codePoints(value: string): number {
  return Array.from(value).length;
}

/** ISO 8601; Nova takes a time without a zone as UTC. */
export function parseTime(value: string): number {
  const zoned = /(Z|[+-]\d{2}:?\d{2})$/.test(value) || !value.includes("T");
  return Date.parse(zoned ? value : `${value}Z`);
}

function isRegex(value: string): boolean {
  try {
    return RegExp(value) instanceof RegExp;
  } catch {
    return false;
  }
}

/**
 * Printable, no white space at either end. Nova's character class is built from the basic plane only
 * (api/validation/parameter_types.py, _get_all_chars), so every emoji is refused.
 */
function isName(value: string): boolean {
  if (/[\u{10000}-\u{10FFFF}]/u.test(value)) return false;
  if (/[\p{C}\p{Zl}\p{Zp}]/u.test(value)) return false;
  return !/^\p{Zs}|\p{Zs}$/u.test(value);
}

/** The text of Nova's 400, or undefined when the body is fine. */
export function checkBody(schema: Schema, body: unknown): string | undefined {
  return describe(firstError(schema, body, []), "field/attribute", (path) => path.at(-1));
}

/** Query parameters arrive as lists; the name of the parameter is the first part of the path. */
export function checkQuery(schema: Schema, query: URLSearchParams): string | undefined {
  const lists: Record<string, string[]> = {};
  for (const key of new Set(query.keys())) lists[key] = query.getAll(key);
  return describe(firstError(schema, lists, []), "query parameters", (path) => path[0]);
}

function describe(
  error: SchemaError | undefined,
  kind: string,
  name: (path: (string | number)[]) => string | number | undefined,
): string | undefined {
  if (!error) return undefined;
  if (error.detail !== undefined) return error.detail;
  if (error.path.length === 0) return error.message;
  return `Invalid input for ${kind} ${name(error.path)}. Value: ${pythonStr(error.value)}. ${error.message}`;
}

function firstError(schema: Schema, value: unknown, path: (string | number)[]): SchemaError | undefined {
  for (const keyword of Object.keys(schema)) {
    const found = checks[keyword]?.(schema, value, path);
    if (typeof found === "string") return { path, value, message: found };
    if (found) return found;
  }
  return undefined;
}

type Check = (schema: Schema, value: unknown, path: (string | number)[]) => string | SchemaError | undefined;

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function hasType(value: unknown, type: string): boolean {
  switch (type) {
    case "object":
      return isObject(value);
    case "array":
      return Array.isArray(value);
    case "integer":
      return Number.isInteger(value);
    case "null":
      return value === null;
    default:
      return typeof value === type;
  }
}

/** Nova checks numbers in strings as well. */
function numeric(value: unknown): number | undefined {
  if (typeof value === "number") return value;
  return typeof value === "string" && value.trim() !== "" && !Number.isNaN(Number(value))
    ? Number(value)
    : undefined;
}

const checks: Record<string, Check> = {
  type: ({ type = [] }, value) => {
    const types = Array.isArray(type) ? type : [type];
    if (types.some((candidate) => hasType(value, candidate))) return undefined;
    return `${pythonRepr(value)} is not of type ${types.map(pythonRepr).join(", ")}`;
  },
  enum: (schema, value) =>
    schema.enum?.includes(value)
      ? undefined
      : `${pythonRepr(value)} is not one of ${pythonRepr(schema.enum)}`,
  minLength: ({ minLength = 0 }, value) =>
    typeof value === "string" && codePoints(value) < minLength
      ? `${pythonRepr(value)} is too short`
      : undefined,
  maxLength: ({ maxLength = 0 }, value) =>
    typeof value === "string" && codePoints(value) > maxLength
      ? `${pythonRepr(value)} is too long`
      : undefined,
  pattern: ({ pattern = "" }, value) =>
    typeof value === "string" && !new RegExp(pattern).test(value)
      ? `${pythonRepr(value)} does not match ${pythonRepr(pattern)}`
      : undefined,
  format: ({ format }, value, path) => {
    if (format === undefined || typeof value !== "string" || formats[format](value)) return undefined;
    const message = `${pythonRepr(value)} is not a ${pythonRepr(format)}`;
    if (format !== "name") return message;
    const detail =
      "An invalid 'name' value was provided. The name must be: printable characters. Can not start or end with whitespace.";
    return { path, value, message, detail };
  },
  minimum: ({ minimum = 0 }, value) => {
    const number = numeric(value);
    return number !== undefined && number < minimum
      ? `${number} is less than the minimum of ${minimum}`
      : undefined;
  },
  maximum: ({ maximum = 0 }, value) => {
    const number = numeric(value);
    return number !== undefined && number > maximum
      ? `${number} is greater than the maximum of ${maximum}`
      : undefined;
  },
  items: ({ items = {} }, value, path) => {
    if (!Array.isArray(value)) return undefined;
    for (const [index, item] of value.entries()) {
      const error = firstError(items, item, [...path, index]);
      if (error) return error;
    }
    return undefined;
  },
  minItems: ({ minItems = 0 }, value) =>
    Array.isArray(value) && value.length < minItems ? `${pythonRepr(value)} is too short` : undefined,
  maxItems: ({ maxItems = 0 }, value) =>
    Array.isArray(value) && value.length > maxItems ? `${pythonRepr(value)} is too long` : undefined,
  properties: ({ properties = {} }, value, path) => {
    if (!isObject(value)) return undefined;
    for (const [name, schema] of Object.entries(properties)) {
      if (!Object.hasOwn(value, name)) continue;
      const error = firstError(schema, value[name], [...path, name]);
      if (error) return error;
    }
    return undefined;
  },
  patternProperties: ({ patternProperties = {} }, value, path) => {
    if (!isObject(value)) return undefined;
    for (const [pattern, schema] of Object.entries(patternProperties)) {
      for (const [name, item] of Object.entries(value)) {
        if (!new RegExp(pattern).test(name)) continue;
        const error = firstError(schema, item, [...path, name]);
        if (error) return error;
      }
    }
    return undefined;
  },
  required: ({ required = [] }, value) => {
    const missing = isObject(value) ? required.find((name) => !Object.hasOwn(value, name)) : undefined;
    return missing === undefined ? undefined : `${pythonRepr(missing)} is a required property`;
  },
  minProperties: ({ minProperties = 0 }, value) =>
    isObject(value) && Object.keys(value).length < minProperties
      ? `${pythonRepr(value)} does not have enough properties`
      : undefined,
  maxProperties: ({ maxProperties = 0 }, value) =>
    isObject(value) && Object.keys(value).length > maxProperties
      ? `${pythonRepr(value)} has too many properties`
      : undefined,
  additionalProperties: (schema, value) => {
    if (schema.additionalProperties !== false || !isObject(value)) return undefined;
    const patterns = Object.keys(schema.patternProperties ?? {});
    const extras = Object.keys(value)
      .filter((name) => !Object.hasOwn(schema.properties ?? {}, name))
      .filter((name) => !patterns.some((pattern) => new RegExp(pattern).test(name)))
      .toSorted();
    if (extras.length === 0) return undefined;
    const names = extras.map(pythonRepr).join(", ");
    if (patterns.length > 0) {
      const verb = extras.length === 1 ? "does" : "do";
      return `${names} ${verb} not match any of the regexes: ${patterns.map(pythonRepr).join(", ")}`;
    }
    return `Additional properties are not allowed (${names} ${extras.length === 1 ? "was" : "were"} unexpected)`;
  },
  oneOf: ({ oneOf = [] }, value) =>
    oneOf.some((schema) => firstError(schema, value, []) === undefined)
      ? undefined
      : `${pythonRepr(value)} is not valid under any of the given schemas`,
};

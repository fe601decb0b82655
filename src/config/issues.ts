/** What zod found, as "what — how to fix it". Values are never repeated: any of them may be a secret. */
import { z } from "zod";
import { type Document, type Path, pathText } from "./document.ts";
import { adviceFor, type Problems } from "./problems.ts";

export interface Reading {
  document: Document;
  problems: Problems;
}

/** The part of the document parsed by its schema; undefined when something is wrong with it, which was told then. */
export function parsePart<Schema extends z.ZodType>(
  schema: Schema,
  path: Path,
  { document, problems }: Reading,
): z.output<Schema> | undefined {
  const value = path.reduce<unknown>(
    (group, part) => (typeof group === "object" && group !== null ? Reflect.get(group, part) : undefined),
    document.data,
  );
  const parsed = schema.safeParse(value, { error: wording });
  if (parsed.success) return parsed.data;
  for (const issue of parsed.error.issues) {
    const at = [...path, ...issue.path.filter((part) => typeof part !== "symbol")];
    if (document.isSpoilt(at)) continue;
    const { what, fix } = split(issue.message);
    problems.add(`${document.where(at)}: ${pathText(at)} ${what}`, fix);
  }
  return undefined;
}

// zod asks this only where the schema has no message of its own.
function wording(issue: z.core.$ZodRawIssue): string {
  // oxlint-disable-next-line typescript/switch-exhaustiveness-check -- what else zod finds has no better wording
  switch (issue.code) {
    case "invalid_type":
      return issue.input === undefined
        ? "is missing — add it"
        : `must be ${article(issue.expected)} — correct it`;
    case "unrecognized_keys": {
      const known = knownKeys(issue.inst);
      return issue.keys
        .map(
          (key) =>
            `has no setting "${key}" — ${adviceFor(key, known, `remove it; there are ${known.join(", ")}`)}`,
        )
        .join("; ");
    }
    case "invalid_value": {
      const values = issue.values.map(String);
      const typed = typeof issue.input === "string" ? issue.input : "";
      if (issue.input === undefined) return `is missing — write one of ${values.join(", ")}`;
      return `must be one of ${values.join(", ")} — ${adviceFor(typed, values, "choose one")}`;
    }
    case "too_small":
      return issue.origin === "string" || issue.origin === "array"
        ? "is empty — fill it in or remove it"
        : `must be at least ${issue.minimum} — correct it`;
    case "too_big":
      return issue.origin === "string" || issue.origin === "array"
        ? `is longer than ${issue.maximum} — shorten it`
        : `must be at most ${issue.maximum} — correct it`;
    default:
      return "is not valid — see docs/configuration.md";
  }
}

function knownKeys(schema: unknown): string[] {
  return schema instanceof z.ZodObject ? Object.keys(schema.shape) : [];
}

function article(expected: string): string {
  const names: Readonly<Record<string, string>> = {
    string: "text",
    int: "a whole number",
    number: "a number",
    boolean: "true or false",
    array: "a list",
    tuple: "a list",
    object: "a group of settings",
    record: "a group of settings",
  };
  return names[expected] ?? expected;
}

function split(message: string): { what: string; fix: string } {
  const cut = message.indexOf(" — ");
  return cut === -1
    ? { what: message, fix: "correct it" }
    : { what: message.slice(0, cut), fix: message.slice(cut + 3) };
}

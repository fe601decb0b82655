/** ratatosk.yaml → plain data: parsed, `${VAR}` filled in, with the line of every key for the problems. */
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { isMap, isNode, isScalar, LineCounter, parseDocument } from "yaml";
import { adviceFor, type Problems } from "./problems.ts";

export type Path = readonly (string | number)[];

export interface Document {
  readonly data: Readonly<Record<string, unknown>>;
  /** "ratatosk.yaml line 12", of the deepest part of the path that is there. */
  where(path: Path): string;
  /** A problem was told about this value already, so that what follows from it isn't. */
  isSpoilt(path: Path): boolean;
}

const EMPTY: Document = { data: {}, where: () => "ratatosk.yaml", isSpoilt: () => false };

export interface DocumentOptions {
  path: string;
  /** RATATOSK_CONFIG named it, so it must exist. */
  required: boolean;
  env: Readonly<Record<string, string | undefined>>;
  problems: Problems;
}

export function readDocument({ path, required, env, problems }: DocumentOptions): Document {
  const text = readText(path, required, problems);
  if (text === undefined) return EMPTY;
  const file = basename(path);
  const lines = new LineCounter();
  // Big integers because the ids of Discord have 18 digits and more: as numbers they would silently become others.
  const parsed = parseDocument(text, { lineCounter: lines, prettyErrors: false, intAsBigInt: true });
  for (const error of parsed.errors) {
    const { line, col } = lines.linePos(error.pos[0]);
    // The parser's own text may quote the file, and so a secret.
    problems.add(
      `${file} line ${line}, column ${col}: not valid YAML (${words(error.code)})`,
      "correct this line",
    );
  }
  if (parsed.errors.length > 0) return EMPTY;
  if (parsed.contents === null) return EMPTY;
  if (!isMap(parsed.contents)) {
    problems.add(`${file} holds no settings`, 'write them as "key: value" lines, see ratatosk.example.yaml');
    return EMPTY;
  }

  const where = (wanted: Path): string => {
    for (let length = wanted.length; length > 0; length -= 1) {
      const node = parsed.getIn(wanted.slice(0, length), true);
      if (isNode(node) && node.range) return `${file} line ${lines.linePos(node.range[0]).line}`;
      if (isScalar(node)) break;
    }
    return file;
  };
  const spoilt: string[] = [];
  const raw = toData(parsed, file, problems);
  const data = fillIn(raw, [], {
    env,
    missing(name, at) {
      spoilt.push(key(at));
      const advice = adviceFor(name, Object.keys(env), "set it in the environment or in .env");
      problems.add(`${where(at)}: ${pathText(at)} uses \${${name}}, which is not set`, advice);
    },
  });
  return {
    data: isRecord(data) ? data : {},
    where,
    isSpoilt(wanted) {
      const at = camelCase(key(wanted));
      return spoilt.some((place) => at === camelCase(place) || at.startsWith(`${camelCase(place)}\n`));
    },
  };
}

/** `auth_url` and `authUrl` are the same setting. */
export function camelCase(name: string): string {
  return name.replaceAll(/_([a-z])/g, (_all, letter: string) => letter.toUpperCase());
}

/** `plans[0].memory` */
export function pathText(path: Path): string {
  return path
    .map((part, index) => (typeof part === "number" ? `[${part}]` : `${index === 0 ? "" : "."}${part}`))
    .join("");
}

function readText(path: string, required: boolean, problems: Problems): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "unknown error";
    if (code === "ENOENT" && !required) return undefined;
    problems.add(
      `The settings file ${path} cannot be read (${code})`,
      required ? "correct RATATOSK_CONFIG or make the file readable" : "make it readable",
    );
    return undefined;
  }
}

function toData(parsed: ReturnType<typeof parseDocument>, file: string, problems: Problems): unknown {
  try {
    return parsed.toJS();
  } catch {
    // An alias without its anchor, or aliases that grow without end; the parser's text may quote.
    problems.add(
      `${file} uses an alias (*name) that cannot be resolved`,
      "put text that begins with * into quotes",
    );
    return {};
  }
}

interface Filling {
  env: Readonly<Record<string, string | undefined>>;
  missing(name: string, at: Path): void;
}

function fillIn(value: unknown, at: Path, filling: Filling): unknown {
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
  if (Array.isArray(value)) return value.map((item, index) => fillIn(item, [...at, index], filling));
  if (isRecord(value)) {
    return Object.fromEntries(
      Object.entries(value).map(([name, item]) => [name, fillIn(item, [...at, name], filling)]),
    );
  }
  if (typeof value !== "string") return value;
  // "$${" stands for "${" itself.
  return value.replaceAll(
    /\$(\$\{)|\$\{([^}]*)\}/g,
    (_all, escaped: string | undefined, name: string | undefined) => {
      if (escaped !== undefined) return escaped;
      const text = filling.env[name ?? ""];
      if (text === undefined || text === "") filling.missing(name ?? "", at);
      return text ?? "";
    },
  );
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function words(code: string): string {
  return code.toLowerCase().replaceAll("_", " ");
}

function key(path: Path): string {
  return path.join("\n");
}

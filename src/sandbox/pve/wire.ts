import type { IncomingHttpHeaders } from "node:http";

/** One HTTP request, read completely. */
export interface Exchange {
  method: string;
  path: string;
  query: URLSearchParams;
  /** Path and query as sent. */
  target: string;
  headers: IncomingHttpHeaders;
  rawBody: string;
}

export interface Answer {
  status: number;
  /** The reason phrase: PVE puts the message there. */
  reason?: string;
  /** A string is sent as plain text. */
  body?: unknown;
  headers?: Record<string, string>;
  /** The request is never answered. */
  hang?: boolean;
  /** The connection is cut instead of an answer. */
  drop?: boolean;
}

/** What PVE's `die` and `raise` become: in an answer, or as a task's exit status. */
export class PveError extends Error {
  readonly status: number;
  readonly errors: Record<string, string> | undefined;

  /** `message` ends with a newline where PVE's does. */
  constructor(status: number, message: string, errors?: Record<string, string>) {
    super(message);
    this.name = "PveError";
    this.status = status;
    this.errors = errors;
  }
}

/** PVE::Exception::raise_param_exc. */
export function paramError(errors: Record<string, string>): PveError {
  return new PveError(400, "Parameter verification failed.\n", errors);
}

/** A refusal outside the formatter: the reason phrase, and no body or a plain one. */
export class PlainRefusal extends Error {
  readonly answer: Answer;

  constructor(answer: Answer) {
    super(answer.reason ?? `refused with ${answer.status}`);
    this.name = "PlainRefusal";
    this.answer = answer;
  }
}

export function plainError(status: number, message: string): PlainRefusal {
  const reason = message.split("\n")[0] ?? "";
  return new PlainRefusal({ status, reason, body: message });
}

/** What the simulator does not play is said, never invented. */
export function notPlayed(what: string): PveError {
  return new PveError(501, `The simulator does not play ${what}.\n`);
}

/** A parameter after its check: forms know text and lists, JSON numbers and booleans too. */
export type Params = Map<string, string | string[]>;

export function text(params: Params, key: string): string | undefined {
  const value = params.get(key);
  return typeof value === "string" ? value : undefined;
}

export function needText(params: Params, key: string): string {
  return text(params, key) ?? "";
}

export function number(params: Params, key: string): number | undefined {
  const value = text(params, key);
  return value === undefined ? undefined : Number(value);
}

/** Booleans are "1" and "0" after the check. */
export function flag(params: Params, key: string): boolean | undefined {
  const value = text(params, key);
  return value === undefined ? undefined : value === "1";
}

/** PVE::Tools::split_list. */
export function splitList(value: string | undefined): string[] {
  return (value ?? "").split(/[,;\s\0]+/).filter((part) => part !== "");
}

/** `a=b,c` with a default key for the first word: `virtio=MAC,bridge=vmbr0`, `local:1/x.qcow2,size=4G`. */
export function parseProperties(value: string, defaultKey: string): Map<string, string> {
  const properties = new Map<string, string>();
  for (const part of value.split(",")) {
    const at = part.indexOf("=");
    if (at < 0) properties.set(defaultKey, part);
    else properties.set(part.slice(0, at), part.slice(at + 1));
  }
  return properties;
}

export function printProperties(properties: Map<string, string>, defaultKey?: string): string {
  return [...properties].map(([key, value]) => (key === defaultKey ? value : `${key}=${value}`)).join(",");
}

import type { IncomingHttpHeaders } from "node:http";

/** One HTTP request, read completely. */
export interface Exchange {
  method: string;
  /** Decoded lazily: handlers see the raw path. */
  path: string;
  query: URLSearchParams;
  /** Path and query as sent. */
  target: string;
  headers: IncomingHttpHeaders;
  rawBody: string;
  /** What this call is known by in X-OpenStack-Request-Id and in instance actions. */
  requestId: string;
  /** http://host:port as the client wrote it: OpenStack builds its links from the Host header. */
  origin: string;
}

export interface Answer {
  status: number;
  body?: unknown;
  headers?: Record<string, string>;
  /** The reason phrase, when it is not the usual one. */
  reason?: string;
  /** The request is never answered. */
  hang?: boolean;
  /** The connection is cut instead of an answer. */
  drop?: boolean;
}

export function header(exchange: Exchange, name: string): string | undefined {
  const value = exchange.headers[name];
  return Array.isArray(value) ? value.join(", ") : value;
}

/** An answer that a handler throws to end the call. */
export class Refusal extends Error {
  readonly answer: Answer;

  constructor(answer: Answer) {
    super(`refused with ${answer.status}`);
    this.name = "Refusal";
    this.answer = answer;
  }
}

const REASONS: Readonly<Record<number, string>> = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  409: "Conflict",
  412: "Precondition Failed",
  413: "Request Entity Too Large",
  429: "Too Many Requests",
  500: "Internal Server Error",
  501: "Not Implemented",
  502: "Bad Gateway",
  503: "Service Unavailable",
  504: "Gateway Timeout",
};

export function reason(status: number): string {
  return REASONS[status] ?? "Error";
}

/**
 * webob's form, which Glance answers with (and Nova for paths it does not know):
 * JSON only for a client that asks for JSON, else an HTML page.
 */
export function webobError(exchange: Exchange, status: number, message: string): Answer {
  const title = reason(status);
  if (header(exchange, "accept")?.includes("application/json")) {
    const body = { message: `${message}<br /><br />\n\n\n`, code: `${status} ${title}`, title };
    return { status, body };
  }
  const html = `<html>\n <head>\n  <title>${status} ${title}</title>\n </head>\n <body>\n  <h1>${status} ${title}</h1>\n  ${message}<br /><br />\n\n\n\n </body>\n</html>`;
  return { status, body: html, headers: { "Content-Type": "text/html; charset=UTF-8" } };
}

/** keystonemiddleware's answer to a missing or bad token; Nova and Neutron share it. */
export function tokenRefused(exchange: Exchange): Answer {
  return {
    status: 401,
    headers: { "WWW-Authenticate": `Keystone uri="${exchange.origin}/identity/v3"` },
    body: {
      error: {
        code: 401,
        title: "Unauthorized",
        message: "The request you have made requires authentication.",
      },
    },
  };
}

/** Neutron's error shape. */
export function neutronError(status: number, type: string, message: string): Answer {
  return { status, body: { NeutronError: { type, message, detail: "" } } };
}

export interface Route<Call> {
  method: string;
  pattern: RegExp;
  /** First Nova microversion (2.x) that knows it. */
  from: number;
  /** Last one, when it was removed. */
  to: number;
  handler: (call: Call, ...params: string[]) => Answer | Promise<Answer>;
}

/** `:name` stands for one path segment. */
export function route<Call>(
  method: string,
  path: string,
  handler: Route<Call>["handler"],
  versions: { from?: number; to?: number } = {},
): Route<Call> {
  const pattern = new RegExp(`^${path.replaceAll(/:[a-zA-Z]+/g, "([^/]+)")}$`);
  return { method, pattern, handler, from: versions.from ?? 1, to: versions.to ?? Infinity };
}

export function findRoute<Call>(
  routes: readonly Route<Call>[],
  method: string,
  path: string,
): { route: Route<Call>; params: string[] } | undefined {
  for (const candidate of routes) {
    if (candidate.method !== method) continue;
    const match = candidate.pattern.exec(path);
    if (match) return { route: candidate, params: match.slice(1).map(decodeSegment) };
  }
  return undefined;
}

function decodeSegment(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

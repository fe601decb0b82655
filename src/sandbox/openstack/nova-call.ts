import type { ZodType } from "zod";
import type { Cloud } from "./cloud.ts";
import { type Answer, type Exchange, Refusal } from "./http.ts";
import { checkBody, checkQuery, type Schema } from "./json-schema.ts";
import type { Server, Token } from "./types.ts";

/** A request to Nova after authentication and version negotiation. */
export interface NovaCall {
  cloud: Cloud;
  exchange: Exchange;
  token: Token;
  projectId: string;
  /** The 90 of 2.90. */
  version: number;
  /** Undefined when there was none. */
  body: unknown;
  /** Root of the links in answers, e.g. http://127.0.0.1:1234/compute/v2.1. */
  base: string;
  /** Root of bookmark links: without the version. */
  bookmarkBase: string;
}

const FAULT_NAMES: Readonly<Record<number, string>> = {
  400: "badRequest",
  401: "unauthorized",
  403: "forbidden",
  404: "itemNotFound",
  405: "badMethod",
  409: "conflictingRequest",
  413: "overLimit",
  415: "badMediaType",
  429: "overLimit",
  501: "notImplemented",
  503: "serviceUnavailable",
};

export function novaFault(status: number, message: string): Answer {
  const name = FAULT_NAMES[status] ?? "computeFault";
  return {
    status,
    body: { [name]: { code: status, message } },
    headers: { "Content-Type": "application/json; charset=UTF-8" },
  };
}

export function refuse(status: number, message: string): Refusal {
  return new Refusal(novaFault(status, message));
}

export function policyRefusal(policy: string): Refusal {
  return refuse(403, `Policy doesn't allow os_compute_api:${policy} to be performed.`);
}

/** The body, once Nova's schema has passed it; `shape` only tells TypeScript what that schema lets through. */
export function requireBody<T>(call: NovaCall, schema: Schema, shape: ZodType<T>): T {
  const error = checkBody(schema, call.body ?? null);
  if (error !== undefined) throw refuse(400, error);
  return shape.parse(call.body ?? null);
}

export function requireQuery(call: NovaCall, schema: Schema): void {
  const error = checkQuery(schema, call.exchange.query);
  if (error !== undefined) throw refuse(400, error);
}

/** The last one wins when a parameter comes twice, as in webob's GET. */
export function parameter(call: NovaCall, name: string): string | undefined {
  return call.exchange.query.getAll(name).at(-1);
}

export function notFoundMessage(id: string): string {
  return `Instance ${id} could not be found.`;
}

/** Another project's server and an absent one are the same: 404. */
export function findServer(
  call: NovaCall,
  id: string,
  options: { evenDeleted?: boolean; unknownText?: string } = {},
): Server {
  const server = call.cloud.servers.get(id);
  const mine = server !== undefined && (call.token.admin || server.projectId === call.projectId);
  if (!server || !mine) throw refuse(404, options.unknownText ?? notFoundMessage(id));
  // A deleted server stays visible for a moment: until its row is marked as well.
  if (options.evenDeleted !== true && server.deletedAt !== null && server.vmState === "deleted")
    throw refuse(404, notFoundMessage(id));
  return server;
}

/** `limit` and `marker` of a list in Nova's way: the page, and whether a next link is due. */
export function page<T>(
  call: NovaCall,
  items: readonly T[],
  idOf: (item: T) => string,
  /** `start`: index of the first item after the marker, -1 when there is no such marker. */
  find: { missing: (marker: string) => Refusal; start?: (marker: string) => number },
): { items: T[]; nextMarker: string | undefined } {
  const marker = parameter(call, "marker");
  const asked = parameter(call, "limit");
  const max = call.cloud.options.maxLimit;
  const limit = asked === undefined || asked === "" ? max : Math.min(Number(asked), max);
  const locate = find.start ?? ((id: string) => items.findIndex((item) => idOf(item) === id) + 1 || -1);
  const start = marker === undefined ? 0 : locate(marker);
  if (marker !== undefined && start < 0) throw find.missing(marker);
  const shown = items.slice(start, start + limit);
  const last = shown.at(-1);
  // A full page gets a next link even when nothing follows; Nova does not look ahead.
  const full = limit > 0 && shown.length === limit && last !== undefined;
  return { items: shown, nextMarker: full ? idOf(last) : undefined };
}

export function nextLink(call: NovaCall, path: string, marker: string): { rel: string; href: string }[] {
  const query = new URLSearchParams();
  // Of a repeated parameter only the last one makes it into the link.
  for (const [name, value] of call.exchange.query) query.set(name, value);
  query.delete("marker");
  query.append("marker", marker);
  return [{ rel: "next", href: `${call.base}${path}?${query.toString()}` }];
}

export function links(call: NovaCall, path: string): { rel: string; href: string }[] {
  return [
    { rel: "self", href: call.base + path },
    { rel: "bookmark", href: call.bookmarkBase + path },
  ];
}

// One authenticated call to a service of the cloud: token, microversion, errors, pages.
import type { Logger } from "pino";
import type { z } from "zod";
import { ServiceError } from "../../core/errors.ts";
import type { HttpClient, HttpResponse } from "../http.ts";
import { errorOf } from "./errors.ts";
import { createIdentity, jsonOf, type Service, type Session, secretsOf } from "./identity.ts";
import { createNegotiation } from "./microversion.ts";
import type { OpenStackCloudOptions } from "./options.ts";
import { nextQuery } from "./pages.ts";

export interface Call {
  service: Service;
  method: "GET" | "POST" | "PUT" | "DELETE";
  /** Below the service's endpoint: "/servers/detail". */
  path: string;
  query?: Record<string, string>;
  body?: unknown;
  timeoutMs?: number | undefined;
  signal?: AbortSignal | undefined;
  /** Values of the body that must not appear anywhere. */
  secrets?: readonly string[];
}

export interface Answer {
  body: unknown;
  requestId: string | undefined;
  date: Date | undefined;
}

export interface ListCall<T> {
  service: Service;
  path: string;
  query?: Record<string, string>;
  /** The name of the list in the body: "servers". */
  key: string;
  item: z.ZodType<T>;
  signal?: AbortSignal | undefined;
}

export interface List<T> {
  rows: T[];
  /** The Date header of the first page: whatever changed later may be missing. */
  date: Date | undefined;
}

export interface OpenStackClient {
  readonly cloud: string;
  readonly log: Logger;
  /**
   * Any status below 300 is an answer. Throws the codes of core/cloud.ts. A GET is a reading call, everything else a
   * changing one, which is sent again only after a 401: the token is checked before the service looks at the request.
   */
  call(request: Call): Promise<Answer>;
  /** A reading call whose body must be of this shape. */
  read<T>(request: Omit<Call, "method" | "body">, schema: z.ZodType<T>): Promise<T>;
  /** All pages of a list. Throws when any page fails: a shorter list is never returned as the whole. */
  list<T>(request: ListCall<T>): Promise<List<T>>;
  /** The cloud's clock minus ours, by the last Date header. Milliseconds. */
  clockOffsetMs(): number;
  microversion(): Promise<string>;
  session(): Promise<Session>;
  close(): Promise<void>;
}

const MAX_PAGES = 1_000;

export function createClient(
  options: OpenStackCloudOptions,
  http: HttpClient,
  { log, now }: { log: Logger; now: () => number },
): OpenStackClient {
  const identity = createIdentity(options, http, now);
  const negotiation = createNegotiation(options, http, identity);
  const credentialSecrets = secretsOf(options.auth);
  let offsetMs = 0;

  async function exchange(request: Call, session: Session): Promise<HttpResponse> {
    const query = new URLSearchParams(request.query ?? {}).toString();
    const url = `${identity.endpoint(session, request.service)}${request.path}${query === "" ? "" : `?${query}`}`;
    const response = await http.send({
      method: request.method,
      url,
      label: labelOf(request),
      changing: request.method !== "GET",
      headers: {
        // Without it Glance and unknown paths answer in HTML.
        Accept: "application/json",
        "X-Auth-Token": session.token,
        ...(request.body === undefined ? {} : { "Content-Type": "application/json" }),
        // Nova only: Cinder refuses a header that names another service.
        ...(request.service === "compute"
          ? { "OpenStack-API-Version": `compute ${await negotiation.microversion()}` }
          : {}),
      },
      ...(request.body === undefined ? {} : { body: JSON.stringify(request.body) }),
      ...(request.timeoutMs === undefined ? {} : { timeoutMs: request.timeoutMs }),
      signal: request.signal,
    });
    if (response.date !== undefined) offsetMs = response.date.getTime() - now();
    return response;
  }

  async function send(request: Call): Promise<HttpResponse> {
    const session = await identity.session();
    const first = await exchange(request, session);
    if (first.status !== 401) return first;
    identity.invalidate(session.token);
    // Once only: a forbidden access rule of an application credential is a 401 too, for ever.
    return exchange(request, await identity.session());
  }

  async function call(request: Call): Promise<Answer> {
    const response = await send(request);
    if (response.status >= 200 && response.status < 300) {
      return { body: jsonOf(response.text), requestId: response.requestId, date: response.date };
    }
    // The cloud was exchanged under us; the next call asks again.
    if (response.status === 406) negotiation.forget();
    throw errorOf({
      cloud: options.name,
      label: labelOf(request),
      changing: request.method !== "GET",
      response,
      secrets: [...credentialSecrets, ...(request.secrets ?? [])],
    });
  }

  return {
    cloud: options.name,
    log,
    call,
    async read<T>(request: Omit<Call, "method" | "body">, schema: z.ZodType<T>): Promise<T> {
      const { body } = await call({ ...request, method: "GET" });
      return shaped(schema, body, { cloud: options.name, label: labelOf({ ...request, method: "GET" }) });
    },
    list: (request) => listPages(options.name, call, request),
    clockOffsetMs: () => offsetMs,
    microversion: () => negotiation.microversion(),
    session: () => identity.session(),
    close: () => http.close(),
  };
}

async function listPages<T>(
  cloud: string,
  call: (request: Call) => Promise<Answer>,
  request: ListCall<T>,
): Promise<List<T>> {
  const where: Where = { cloud, label: labelOf({ ...request, method: "GET" }) };
  const rows = new Map<string, T>();
  let query: Record<string, string> | undefined = request.query ?? {};
  let date: Date | undefined;
  const seen = new Set<string>();
  while (query !== undefined) {
    const page = new URLSearchParams(query).toString();
    if (seen.size >= MAX_PAGES || seen.has(page)) {
      throw new ServiceError("unreachable", "The cloud's list does not end, so it was not used.", {
        facts: { cloud },
        staffDetail: `${cloud}: ${where.label}: page ${seen.size + 1} repeats an earlier one or exceeds ${MAX_PAGES}`,
      });
    }
    seen.add(page);
    // oxlint-disable-next-line no-await-in-loop -- a page names the next one
    const answer: Answer = await call({
      service: request.service,
      method: "GET",
      path: request.path,
      query,
      signal: request.signal,
    });
    date ??= answer.date;
    const body = recordOf(answer.body, where);
    const items = body[request.key];
    if (!Array.isArray(items)) throw unreadable(where, request.key);
    for (const item of items) {
      const row = shaped(request.item, item, where);
      // Pages are no snapshot: a row may come twice, and the later one is the newer. Rows without an id are all kept.
      rows.set(idOf(row) ?? `row ${rows.size}`, row);
    }
    query = nextQuery(body, request.key);
  }
  return { rows: [...rows.values()], date };
}

function labelOf(request: Pick<Call, "service" | "method" | "path">): string {
  return `${request.service} ${request.method} ${request.path}`;
}

interface Where {
  cloud: string;
  label: string;
}

function shaped<T>(schema: z.ZodType<T>, body: unknown, where: Where): T {
  const result = schema.safeParse(body);
  if (result.success) return result.data;
  throw unreadable(where, result.error.issues.map((issue) => issue.path.join(".")).join(", "));
}

function unreadable(where: Where, fields: string): ServiceError {
  return new ServiceError("unreachable", "The cloud's answer cannot be understood, so it was not used.", {
    facts: { cloud: where.cloud },
    staffDetail: `${where.cloud}: ${where.label}: unexpected shape${fields === "" ? "" : ` at ${fields}`}`,
  });
}

function recordOf(body: unknown, where: Where): Record<string, unknown> {
  if (typeof body !== "object" || body === null || Array.isArray(body)) throw unreadable(where, "");
  return Object.fromEntries(Object.entries(body));
}

function idOf(row: unknown): string | undefined {
  if (typeof row !== "object" || row === null || !("id" in row)) return undefined;
  return typeof row.id === "string" ? row.id : undefined;
}

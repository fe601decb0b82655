// One authenticated call to PVE's API.
import type { Logger } from "pino";
import type { z } from "zod";
import { ServiceError } from "../../core/errors.ts";
import type { HttpClient, HttpResponse } from "../http.ts";
import type { WebSocket } from "../web-socket.ts";
import { noteWrite } from "./doubt.ts";
import { errorOf } from "./errors.ts";
import { encodeForm, FORM, type Parameters, unwrap } from "./form.ts";
import type { PveCloudOptions } from "./options.ts";
import { createRecent, type Recent } from "./recent.ts";
import { createSessions, type Session } from "./session.ts";
import { createSocketOpener, type SocketCall } from "./socket.ts";
import { parseUpid, type Upid } from "./upid.ts";

export interface Call {
  method: "GET" | "POST" | "PUT" | "DELETE";
  /** Below /api2/json: "/nodes/pve1/qemu". */
  path: string;
  parameters?: Parameters;
  /** Default: everything but GET. The guest agent's POSTs may only look. */
  changing?: boolean;
  timeoutMs?: number | undefined;
  signal?: AbortSignal | undefined;
  /** Values that must not appear anywhere. */
  secrets?: readonly string[];
  /** Sent although the credential was refused a moment ago. */
  anyway?: boolean;
  /** Of a reading call: an answer that was asked for at this moment of `recent.now()` or later will do. */
  since?: number | undefined;
}

export interface PveClient {
  readonly cloud: string;
  readonly log: Logger;
  readonly options: PveCloudOptions;
  readonly recent: Recent;
  /** `data` of a good answer. Throws the codes of core/cloud.ts. */
  call(request: Call): Promise<unknown>;
  /** A reading call whose answer must be of this shape. */
  read<T>(request: Omit<Call, "method">, schema: z.ZodType<T>): Promise<T>;
  /** A call that begins a task, or, where older versions do it at once, none: null. */
  begin(request: Call): Promise<Upid | null>;
  /** A call that becomes a WebSocket. Throws as a reading call. */
  openSocket(request: SocketCall): Promise<WebSocket>;
  /** The cluster's clock minus ours, by the last Date header. Milliseconds. */
  clockOffsetMs(): number;
  now(): number;
  close(): Promise<void>;
}

export function createClient(
  options: PveCloudOptions,
  http: HttpClient,
  { log, now }: { log: Logger; now: () => number },
): PveClient {
  const sessions = createSessions(options, http, now);
  const recent = createRecent();
  let offsetMs = 0;

  async function send(request: Call): Promise<HttpResponse> {
    const encoded = encodeForm(request.parameters ?? {});
    const inQuery = request.method === "GET" || request.method === "DELETE";
    const query = inQuery && encoded !== "" ? `?${encoded}` : "";
    const exchange = async (session: Session): Promise<HttpResponse> => {
      const response = await http.send({
        method: request.method,
        url: `${options.url}/api2/json${request.path}${query}`,
        label: labelOf(request),
        changing: isChanging(request),
        headers: {
          ...(inQuery || encoded === "" ? { Accept: "application/json" } : FORM),
          ...session.headers,
        },
        ...(inQuery || encoded === "" ? {} : { body: encoded }),
        ...(request.timeoutMs === undefined ? {} : { timeoutMs: request.timeoutMs }),
        signal: request.signal,
      });
      if (response.date !== undefined) offsetMs = response.date.getTime() - now();
      return response;
    };
    return sessions.send(exchange, { anyway: request.anyway === true });
  }

  async function sendOnce(request: Call): Promise<HttpResponse> {
    if (!isChanging(request)) return send(request);
    recent.wrote(request.path);
    return send(request).finally(() => recent.wrote(request.path));
  }

  async function call(request: Call): Promise<unknown> {
    const response = await sendOnce(request);
    if (response.status >= 200 && response.status < 300) {
      if (isChanging(request)) noteWrite();
      return unwrap(response.text);
    }
    throw errorOf({
      cloud: options.name,
      label: labelOf(request),
      changing: isChanging(request),
      response,
      secrets: [...sessions.secrets, ...(request.secrets ?? [])],
    });
  }

  return {
    cloud: options.name,
    log,
    options,
    recent,
    call,
    async read<T>(request: Omit<Call, "method">, schema: z.ZodType<T>): Promise<T> {
      const question = `${request.path}?${encodeForm(request.parameters ?? {})}`;
      const kept = request.since === undefined ? undefined : recent.find(question, request.since);
      const ask = () => call({ ...request, method: "GET" });
      const result = schema.safeParse(kept?.answer ?? (await recent.keep(question, request.path, ask)));
      if (result.success) return result.data;
      throw notUnderstood(options.name, labelOf({ ...request, method: "GET" }), result.error);
    },
    async begin(request) {
      const data = await call(request);
      const upid = parseUpid(data);
      if (upid !== null || data === null) return upid;
      throw new ServiceError(
        "unknown_outcome",
        "The cloud's answer cannot be understood, so it is not known yet whether the change was made.",
        { facts: { cloud: options.name }, staffDetail: `${options.name}: ${labelOf(request)}: no task id` },
      );
    },
    openSocket: createSocketOpener({ options, http, sessions }),
    clockOffsetMs: () => offsetMs,
    now,
    close: () => http.close(),
  };
}

function notUnderstood(cloud: string, label: string, { issues }: z.ZodError): ServiceError {
  const fields = issues.map((issue) => issue.path.join(".")).join(", ");
  return new ServiceError("unreachable", "The cloud's answer cannot be understood, so it was not used.", {
    facts: { cloud },
    staffDetail: `${cloud}: ${label}: unexpected shape at ${fields}`,
  });
}

function isChanging(request: Call): boolean {
  return request.changing ?? request.method !== "GET";
}

/** Without its parameters: they hold passwords. */
function labelOf(request: Pick<Call, "method" | "path">): string {
  return `${request.method} ${request.path}`;
}

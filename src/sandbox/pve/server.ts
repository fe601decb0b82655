/** pveproxy's HTTP side: what it takes, what it refuses before PVE's API sees it, and how answers look. */
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { Duplex } from "node:stream";
import { text as readText } from "node:stream/consumers";
import { answerUnderFault, type Fault, parseFaultHeader, takeFault, trickle } from "../faults.ts";
import { pause, pauseExactly } from "../pace.ts";
import { authenticate, type Who } from "./access.ts";
import { methods } from "./api.ts";
import type { Certificate } from "./certificate.ts";
import type { Cluster, RequestLogEntry } from "./cluster.ts";
import { requestCame } from "./hooks.ts";
import { faultPresets } from "./presets.ts";
import { checkPermission, dispatch, findMethod, mergeParams } from "./router.ts";
import { simApi } from "./sim-api.ts";
import { answerUpgrade } from "./upgrade.ts";
import { type Answer, type Exchange, PlainRefusal, PveError, plainError } from "./wire.ts";

const MAX_LOGGED_REQUESTS = 50_000;
const BASE = "/api2/json";
const SECRETS = new Set(["password", "cipassword", "otp", "vncticket"]);

export function createServer(
  cluster: Cluster,
  tls: Certificate | undefined,
  log: (line: string) => void,
): Server {
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    void serve(cluster, { request, response, log });
  };
  const server = tls
    ? createHttpsServer({ key: tls.key, cert: tls.chain }, listener)
    : createHttpServer(listener);
  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    cluster.upgraded.add(socket);
    socket.on("error", () => socket.destroy()).on("close", () => cluster.upgraded.delete(socket));
    void serveUpgrade(cluster, { request, socket, head, log });
  });
  // pveproxy allows 100 requests per connection; a client must notice the Connection: close.
  server.maxRequestsPerSocket = 100;
  server.keepAliveTimeout = 120_000;
  server.headersTimeout = 130_000;
  return server;
}

interface Serving {
  request: IncomingMessage;
  response: ServerResponse;
  log: (line: string) => void;
}

async function serve(cluster: Cluster, { request, response, log }: Serving): Promise<void> {
  const exchange = await readExchange(request);
  if (!exchange) return;
  if (exchange.path.startsWith("/_sim/")) {
    send(response, simApi(cluster, exchange, exchange.path.slice("/_sim".length)));
    return;
  }
  const { answer, fault } = await answerTo(cluster, exchange, log);
  if (answer.hang === true) return;
  if (answer.drop === true) request.socket.destroy();
  else if (fault?.kind === "trickle") {
    const payload = writeHead(response, answer);
    await trickle(response, payload, () => pauseExactly(cluster, fault.delayMs ?? 100));
  } else send(response, answer);
}

/** Only what the API has a WebSocket for; it has looked at who asks, as for any other call. */
async function serveUpgrade(
  cluster: Cluster,
  { request, socket, head, log }: Pick<Serving, "request" | "log"> & { socket: Duplex; head: Buffer },
): Promise<void> {
  const target = request.url ?? "/";
  const { pathname, searchParams } = new URL(target, "http://localhost");
  const { headers, method = "GET" } = request;
  const exchange = { method, path: pathname, query: searchParams, target, headers, rawBody: "" };
  const { answer } = await answerTo(cluster, exchange, log);
  answerUpgrade(cluster, { request, socket, head }, answer);
}

async function answerTo(
  cluster: Cluster,
  exchange: Exchange,
  log: (line: string) => void,
): Promise<{ answer: Answer; fault: Fault | undefined }> {
  const entry: RequestLogEntry = {
    at: new Date().toISOString(),
    method: exchange.method,
    path: exchange.target,
    status: 0,
    template: undefined,
    params: {},
    user: undefined,
  };
  const fault = chooseFault(cluster, exchange);
  requestCame(cluster.hooks, exchange);
  if (fault) entry.fault = fault.kind;
  let answer: Answer;
  try {
    answer = await answerUnderFault<Answer>(fault, {
      answer: () => answerOf(cluster, exchange, entry),
      refuse: faultAnswer,
      pauseExactly: (ms) => pauseExactly(cluster, ms),
      hang: { status: 0, hang: true },
      drop: { status: 0, drop: true },
    });
  } catch (error) {
    // A mistake of the simulator, not a behaviour of PVE: say so loudly.
    const trace = error instanceof Error ? (error.stack ?? error.message) : String(error);
    log(`simulator error on ${exchange.method} ${exchange.target}: ${trace}`);
    answer = { status: 500, reason: "simulator error", body: { simulatorError: trace } };
  }
  entry.status = answer.hang === true || answer.drop === true ? 0 : answer.status;
  record(cluster, entry);
  log(`${entry.method} ${entry.path} ${entry.status}${fault ? ` (fault: ${fault.kind})` : ""}`);
  return { answer, fault };
}

async function readExchange(request: IncomingMessage): Promise<Exchange | undefined> {
  let rawBody: string;
  try {
    rawBody = await readText(request);
  } catch {
    // The client went away in the middle of its own request: nobody to answer.
    return undefined;
  }
  const target = request.url ?? "/";
  const { pathname, searchParams } = new URL(target, "http://localhost");
  const { headers } = request;
  return { method: request.method ?? "GET", path: pathname, query: searchParams, target, headers, rawBody };
}

/** By header for this one request, else the first armed fault that wants it. */
function chooseFault(cluster: Cluster, exchange: Exchange): Fault | undefined {
  const asked = exchange.headers["x-sim-fault"];
  const own = typeof asked === "string" ? parseFaultHeader(asked, faultPresets) : undefined;
  return own ?? takeFault(cluster.faults, exchange);
}

/** Errors of the proxy have their text in the reason phrase and no body. */
function faultAnswer(fault: Fault): Answer {
  const status = fault.status ?? 503;
  return {
    status,
    ...(fault.reason === undefined ? {} : { reason: fault.reason }),
    ...(fault.body === undefined ? {} : { body: fault.body }),
    headers: { ...fault.headers },
  };
}

async function answerOf(cluster: Cluster, exchange: Exchange, entry: RequestLogEntry): Promise<Answer> {
  try {
    return await callApi(cluster, exchange, entry);
  } catch (error) {
    if (error instanceof PlainRefusal) {
      if (error.answer.status === 401) await pause(cluster, cluster.traps.authDelayMs ?? 3000);
      return error.answer;
    }
    if (!(error instanceof PveError)) throw error;
    if (error.status === 401) await pause(cluster, cluster.traps.authDelayMs ?? 3000);
    return errorAnswer(cluster, error);
  }
}

/** The message is always in the reason phrase; in the body since libpve-http-server 5.2.0. */
function errorAnswer(cluster: Cluster, error: PveError): Answer {
  const withMessage = cluster.traps.errorStyle !== "reason";
  return {
    status: error.status,
    reason: error.message.split("\n")[0] ?? "",
    body: {
      data: null,
      ...(withMessage ? { message: error.message } : {}),
      ...(error.errors ? { errors: error.errors } : {}),
    },
  };
}

async function callApi(cluster: Cluster, exchange: Exchange, entry: RequestLogEntry): Promise<Answer> {
  if (exchange.headers["transfer-encoding"] !== undefined) {
    throw plainError(501, "chunked transfer encoding not supported");
  }
  if (!["GET", "POST", "PUT", "DELETE"].includes(exchange.method)) {
    throw plainError(501, `method '${exchange.method}' not available`);
  }
  if (!exchange.path.startsWith(`${BASE}/`)) throw plainError(404, `no such file '${exchange.path}'`);
  const path = exchange.path.slice(BASE.length);
  const found = findMethod(methods, exchange.method, path);
  const world = found?.method.permission === "world";
  const who: Who = world ? nobody : authenticate(cluster, exchange);
  entry.user = who.id;
  checkContent(exchange);
  const given = readParams(exchange);
  if (!found) throw new PveError(501, `Method '${exchange.method} ${path}' not implemented`);
  entry.template = found.method.path;
  entry.params = Object.fromEntries(
    [...found.uri, ...given].map(([key, value]) => [key, SECRETS.has(key) ? "<hidden>" : value]),
  );
  const merged = mergeParams(found.uri, given);
  checkPermission(cluster, found.method, who, merged);
  const { data, total } = await dispatch(cluster, found, { who, given: merged });
  return { status: 200, body: { data: data ?? null, ...(total === undefined ? {} : { total }) } };
}

const nobody: Who = {
  id: "",
  token: false,
  account: { id: "", secret: "", enabled: true, acl: new Map() },
};

function contentType(exchange: Exchange): string | undefined {
  return exchange.headers["content-type"]?.split(";")[0]?.trim().toLowerCase();
}

function checkContent(exchange: Exchange): void {
  const { method, rawBody } = exchange;
  if (rawBody === "") return;
  if (method !== "POST" && method !== "PUT")
    throw plainError(501, `Unexpected content for method '${method}'`);
  const type = contentType(exchange);
  if (type === undefined || type === "application/json" || type === "application/x-www-form-urlencoded")
    return;
  throw plainError(506, `upload 'Content-Type '${exchange.headers["content-type"]}' not implemented`);
}

function readParams(exchange: Exchange): Map<string, unknown> {
  const { method, rawBody } = exchange;
  const writes = method === "POST" || method === "PUT";
  const body = writes && contentType(exchange) === "application/json" ? readJson(rawBody) : undefined;
  const params = body ?? readForm(writes ? new URLSearchParams(rawBody) : new URLSearchParams());
  for (const [key, value] of readForm(exchange.query)) params.set(key, value);
  return params;
}

/** A key that is repeated is a list. */
function readForm(form: URLSearchParams): Map<string, unknown> {
  const params = new Map<string, unknown>();
  for (const key of new Set(form.keys())) {
    const values = form.getAll(key);
    params.set(key, values.length > 1 ? values : values[0]);
  }
  return params;
}

function readJson(body: string): Map<string, unknown> {
  const where = "at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 934.\n";
  if (body.trim() === "") {
    const what =
      "malformed JSON string, neither tag, array, object, number, string or atom, at character offset 0";
    throw plainError(500, `${what} (before "(end of string)") ${where}`);
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(body);
  } catch {
    throw plainError(500, `'"' expected, at character offset 1 (before "${body.slice(1, 12)}") ${where}`);
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    throw plainError(500, `Not a HASH reference ${where}`);
  }
  return new Map(Object.entries(parsed));
}

function record(cluster: Cluster, entry: RequestLogEntry): void {
  cluster.requests.push(entry);
  if (cluster.requests.length > MAX_LOGGED_REQUESTS) cluster.requests.splice(0, MAX_LOGGED_REQUESTS / 10);
  const key = `${entry.method} ${entry.template ?? entry.path.split("?")[0]} ${entry.status}`;
  cluster.counts.set(key, (cluster.counts.get(key) ?? 0) + 1);
}

function writeHead(response: ServerResponse, answer: Answer): Buffer {
  const { body } = answer;
  const plain = typeof body === "string";
  const payload = Buffer.from(plain ? body : body === undefined ? "" : JSON.stringify(body));
  if (answer.reason !== undefined) response.statusMessage = headerSafe(answer.reason);
  response.writeHead(answer.status, {
    ...(body === undefined
      ? {}
      : { "Content-Type": plain ? "text/plain" : "application/json;charset=UTF-8" }),
    "Content-Length": String(payload.length),
    "Cache-Control": "max-age=0",
    Server: "pve-api-daemon/3.0",
    ...answer.headers,
  });
  return payload;
}

/** Node refuses other characters in a reason phrase; PVE sends bytes. */
function headerSafe(reason: string): string {
  return reason.replaceAll(/[^\t\x20-\x7E\x80-\xFF]/g, "?");
}

function send(response: ServerResponse, answer: Answer): void {
  const payload = writeHead(response, answer);
  response.end(answer.status === 204 ? undefined : payload);
}

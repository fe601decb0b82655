import {
  createServer,
  type Server as HttpServer,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import { text } from "node:stream/consumers";
import { answerUnderFault, type Fault, parseFaultHeader, takeFault, trickle } from "../faults.ts";
import { pause, pauseExactly } from "../pace.ts";
import type { Cloud } from "./cloud.ts";
import { faultPresets } from "./faults.ts";
import { glance, glanceUnauthorized, glanceVersions } from "./glance.ts";
import {
  type Answer,
  type Exchange,
  header,
  neutronError,
  reason,
  tokenRefused,
  webobError,
} from "./http.ts";
import { keystone } from "./keystone.ts";
import { validToken } from "./keystone-auth.ts";
import { neutron, neutronVersions } from "./neutron.ts";
import { nova, novaVersions } from "./nova.ts";
import { novaFault } from "./nova-call.ts";
import { simApi } from "./sim-api.ts";
import { newRequestId } from "./time.ts";

const MAX_LOGGED_REQUESTS = 50_000;

type Service = "identity" | "compute" | "image" | "network";

export function createHttpServer(cloud: Cloud, log: (line: string) => void): HttpServer {
  const server = createServer((request, response) => {
    void serve(cloud, request, response, log);
  });
  // Longer than the idle time of any client's pool, so that it is never us who close first.
  server.keepAliveTimeout = 120_000;
  server.headersTimeout = 130_000;
  return server;
}

async function serve(
  cloud: Cloud,
  request: IncomingMessage,
  response: ServerResponse,
  log: (line: string) => void,
): Promise<void> {
  const exchange = await readExchange(request);
  if (!exchange) return;
  if (exchange.path.startsWith("/_sim/")) {
    send(response, exchange, simApi(cloud, exchange, exchange.path.slice("/_sim".length)));
    return;
  }
  const at = new Date().toISOString();
  const fault = chooseFault(cloud, exchange);
  let answer: Answer;
  try {
    answer = await answerWith(cloud, exchange, fault);
  } catch (error) {
    // A mistake of the simulator, not a behaviour of the cloud: say so loudly.
    const trace = error instanceof Error ? (error.stack ?? error.message) : String(error);
    log(`simulator error on ${exchange.method} ${exchange.target}: ${trace}`);
    answer = { status: 500, body: { simulatorError: trace } };
  }
  const status = answer.hang === true || answer.drop === true ? 0 : answer.status;
  record(cloud, exchange, { at, status, fault });
  log(`${exchange.method} ${exchange.target} ${status}${fault ? ` (fault: ${fault.kind})` : ""}`);
  if (answer.hang === true) return;
  if (answer.drop === true) request.socket.destroy();
  else if (fault?.kind === "trickle") await sendSlowly(cloud, response, { exchange, answer, fault });
  else send(response, exchange, answer);
}

async function readExchange(request: IncomingMessage): Promise<Exchange | undefined> {
  let rawBody: string;
  try {
    rawBody = await text(request);
  } catch {
    // The client went away in the middle of its own request: nobody to answer.
    return undefined;
  }
  const target = request.url ?? "/";
  const origin = `http://${request.headers.host ?? "127.0.0.1"}`;
  const { pathname, searchParams } = new URL(target, origin);
  return {
    method: request.method ?? "GET",
    path: pathname,
    query: searchParams,
    target,
    headers: request.headers,
    rawBody,
    requestId: newRequestId(),
    origin,
  };
}

/** By header for this one request, else the first armed fault that wants it. */
function chooseFault(cloud: Cloud, exchange: Exchange): Fault | undefined {
  const asked = header(exchange, "x-sim-fault");
  return (
    (asked === undefined ? undefined : parseFaultHeader(asked, faultPresets)) ??
    takeFault(cloud.faults, exchange)
  );
}

function answerWith(cloud: Cloud, exchange: Exchange, fault: Fault | undefined): Promise<Answer> {
  return answerUnderFault<Answer>(fault, {
    answer: () => answerOf(cloud, exchange),
    refuse: (wanted) => faultAnswer(exchange, wanted),
    pauseExactly: (ms) => pauseExactly(cloud, ms),
    hang: { status: 0, hang: true },
    drop: { status: 0, drop: true },
  });
}

function serviceOf(path: string): Service | undefined {
  const name = path.split("/")[1];
  return name === "identity" || name === "compute" || name === "image" || name === "network"
    ? name
    : undefined;
}

/** Without a body of its own a status fault takes the error shape of the service that was called. */
function faultAnswer(exchange: Exchange, fault: Fault): Answer {
  const status = fault.status ?? 503;
  const message = `${reason(status)} (injected by the simulator)`;
  const headers = { ...fault.headers };
  const phrase = fault.reason === undefined ? {} : { reason: fault.reason };
  if (fault.body !== undefined) return { status, body: fault.body, headers, ...phrase };
  const shapes: Record<Service, () => Answer> = {
    identity: () => ({ status, body: { error: { code: status, message, title: reason(status) } } }),
    compute: () => (status === 401 ? tokenRefused(exchange) : novaFault(status, message)),
    image: () => (status === 401 ? glanceUnauthorized(exchange) : webobError(exchange, status, message)),
    network: () => (status === 401 ? tokenRefused(exchange) : neutronError(status, "HTTPError", message)),
  };
  const answer = shapes[serviceOf(exchange.path) ?? "compute"]();
  return { ...answer, ...phrase, headers: { ...answer.headers, ...headers } };
}

async function answerOf(cloud: Cloud, exchange: Exchange): Promise<Answer> {
  const service = serviceOf(exchange.path);
  if (!service) return { status: 404, body: { error: "no such service; see the Keystone catalogue" } };
  const path = exchange.path.slice(service.length + 1);
  const down = outage(cloud, service);
  if (down) return down;
  if (service === "identity") return keystone(cloud, exchange, path);
  const open = {
    compute: novaVersions(exchange, path),
    image: glanceVersions(exchange, path),
    network: neutronVersions(exchange, path),
  }[service];
  if (open) return open;
  const refused = service === "image" ? glanceUnauthorized(exchange) : tokenRefused(exchange);
  const token = validToken(cloud, header(exchange, "x-auth-token"), cloud.traps.tokenCacheMs);
  if (cloud.traps.keystone === "503") {
    // Nova and Neutron say 503 after their retries; Glance has delay_auth_decision and says 401.
    await pause(cloud, 3500);
    return service === "image" ? refused : presetAnswer("keystone_503");
  }
  if (!token || token.projectId === null) return refused;
  if (service === "compute") return nova(cloud, exchange, token, path);
  return service === "image" ? glance(cloud, exchange, token, path) : neutron(cloud, exchange, token, path);
}

function outage(cloud: Cloud, service: Service): Answer | undefined {
  const { traps } = cloud;
  // A hung Keystone hangs everybody who has a token to validate.
  if (traps.keystone === "hang") return { status: 0, hang: true };
  if (traps.keystone === "503" && service === "identity") return presetAnswer("gateway_503");
  const refused = (service === "network" && traps.neutronDown) || (service === "image" && traps.glanceDown);
  return refused === true ? { status: 0, drop: true } : undefined;
}

function presetAnswer(name: string): Answer {
  const preset = faultPresets[name];
  return { status: preset?.status ?? 503, body: preset?.body, headers: { ...preset?.headers } };
}

function record(
  cloud: Cloud,
  exchange: Exchange,
  result: { at: string; status: number; fault: Fault | undefined },
): void {
  const { method, target: path, requestId } = exchange;
  const fault = result.fault ? { fault: result.fault.kind } : {};
  cloud.requests.push({ at: result.at, method, path, status: result.status, requestId, ...fault });
  if (cloud.requests.length > MAX_LOGGED_REQUESTS) cloud.requests.splice(0, MAX_LOGGED_REQUESTS / 10);
  const key = `${method} ${generalPath(exchange.path)} ${result.status}`;
  cloud.counts.set(key, (cloud.counts.get(key) ?? 0) + 1);
}

function generalPath(path: string): string {
  return path
    .replaceAll(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, "{id}")
    .replaceAll(/req-\{id\}/g, "{request}")
    .replaceAll(/\b[0-9a-f]{32}\b/g, "{project}");
}

function headersOf(exchange: Exchange, answer: Answer): { headers: Record<string, string>; payload: string } {
  const { body } = answer;
  const payload = typeof body === "string" ? body : body === undefined ? "" : JSON.stringify(body);
  const service = serviceOf(exchange.path);
  const anonymous = service === "image" && answer.status === 401;
  const headers: Record<string, string> = {
    "Content-Type": typeof body === "string" ? "text/html; charset=UTF-8" : "application/json",
    ...(anonymous ? {} : { "X-OpenStack-Request-Id": exchange.requestId }),
    ...(service === "compute" ? { "X-Compute-Request-Id": exchange.requestId } : {}),
    ...answer.headers,
  };
  return { headers, payload };
}

function send(response: ServerResponse, exchange: Exchange, answer: Answer): void {
  const { headers, payload } = headersOf(exchange, answer);
  const bodiless = answer.status === 204 || exchange.method === "HEAD";
  // Nova names a type even where there is no body.
  if (answer.status === 204 && serviceOf(exchange.path) !== "compute") delete headers["Content-Type"];
  if (answer.reason !== undefined) response.statusMessage = answer.reason;
  response.writeHead(answer.status, headers);
  response.end(bodiless ? undefined : payload);
}

function sendSlowly(
  cloud: Cloud,
  response: ServerResponse,
  { exchange, answer, fault }: { exchange: Exchange; answer: Answer; fault: Fault },
): Promise<void> {
  const { headers, payload } = headersOf(exchange, answer);
  const bytes = Buffer.from(payload);
  response.writeHead(answer.status, { ...headers, "Content-Length": String(bytes.length) });
  return trickle(response, bytes, () => pauseExactly(cloud, fault.delayMs ?? 100));
}

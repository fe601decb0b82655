// One HTTP exchange with a cloud. It knows whether a call changes something, because that decides what a lost answer means:
// a reading call may be repeated, a changing call whose answer was lost may have happened and is never sent again from here.
import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "pino";
import { Agent, buildConnector, type Dispatcher, request as undiciRequest } from "undici";
import { ServiceError } from "../core/errors.ts";
import { requireTime } from "../core/operations/call.ts";
import { assertOutsideTransaction } from "../database/transaction.ts";
import { openWebSocket, type SocketRequest, type WebSocket } from "./web-socket.ts";

export interface HttpClientOptions {
  /** The cloud's name in the configuration. */
  cloud: string;
  connectTimeoutMs: number;
  /** From the first byte asked to the last byte read. */
  timeoutMs: number;
  verifyTls: boolean;
  /** PEM. */
  ca?: string;
  /** SHA-256 of the one certificate that is trusted, whoever signed it; then `ca` and `verifyTls` do not matter. */
  fingerprint?: string;
  maxBodyBytes?: number;
  log: Logger;
  now?: () => number;
  /** How the pause before a reading call is repeated is made. */
  sleep?: (ms: number, signal: AbortSignal | undefined) => Promise<void>;
}

export interface HttpRequest {
  method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  url: string;
  /** What is asked, for the log and for staff: "compute POST /servers". Never a value that may be secret. */
  label: string;
  headers?: Record<string, string>;
  body?: string;
  /** Whether the far side may do something because of it. */
  changing: boolean;
  timeoutMs?: number;
  signal?: AbortSignal | undefined;
}

export interface HttpResponse {
  status: number;
  statusText: string;
  headers: Readonly<Record<string, string>>;
  text: string;
  requestId: string | undefined;
  /** The far side's clock, by its Date header. */
  date: Date | undefined;
  /** From a Retry-After header of seconds or a date. */
  retryAfterMs: number | undefined;
}

export interface HttpClient {
  /**
   * Returns every answer, whatever its status. Throws ServiceError:
   * `unreachable` nothing was sent; `timeout` a reading call was not answered in time; `unknown_outcome` a changing call was
   * sent and its answer was lost, cut, late or too long.
   */
  send(request: HttpRequest): Promise<HttpResponse>;
  /** By the same connector. Returns the open WebSocket, paused, or the answer that refuses it; throws as `send` for a reading call. */
  openSocket(request: SocketRequest): Promise<WebSocket | HttpResponse>;
  close(): Promise<void>;
}

const DEFAULT_MAX_BODY_BYTES = 32 * 1024 * 1024;
/** The pauses before the second and the third try of a reading call. */
const RETRY_PAUSES_MS = [200, 1_000] as const;
/** A Retry-After beyond this is left to whoever asked: a worker must not sleep on it. */
const MAX_RETRY_PAUSE_MS = 5_000;
const RETRIED_STATUSES = new Set([429, 502, 503, 504]);

export function createHttpClient(options: HttpClientOptions): HttpClient {
  const agent = new Agent({
    connect: connectorOf(options),
    // The total timeout of each call rules; undici's own would end it with another error.
    headersTimeout: 0,
    bodyTimeout: 0,
    // Short, so that a changing call seldom meets a connection that the far side has just given up.
    keepAliveTimeout: 4_000,
  });
  const pause = options.sleep ?? sleepUnlessAborted;

  async function send(request: HttpRequest): Promise<HttpResponse> {
    assertOutsideTransaction("an HTTP call");
    for (let attempt = 0; ; attempt += 1) {
      const pauseMs = request.changing ? undefined : RETRY_PAUSES_MS[attempt];
      try {
        const response = await exchange(agent, options, request);
        const wanted = RETRIED_STATUSES.has(response.status) ? (response.retryAfterMs ?? pauseMs) : undefined;
        if (pauseMs === undefined || wanted === undefined || wanted > MAX_RETRY_PAUSE_MS) return response;
        await pause(Math.max(wanted, pauseMs), request.signal);
      } catch (error) {
        const again = error instanceof ServiceError && error.code === "unreachable" && error.retryable;
        if (pauseMs === undefined || !again || request.signal?.aborted === true) throw error;
        await pause(pauseMs, request.signal);
      }
    }
  }

  async function openSocket(request: SocketRequest): Promise<WebSocket | HttpResponse> {
    assertOutsideTransaction("a WebSocket");
    try {
      return await openWebSocket(connectorOf(options, { allowH2: false }), request);
    } catch (error) {
      const { timeoutMs } = request;
      const timedOut = error instanceof Error && error.name === "TimeoutError";
      const problem = transportError(error, {
        options,
        request: { ...request, method: "GET", changing: false },
        timedOut,
        timeoutMs,
      });
      const { code, staffDetail: reason } = problem;
      options.log.warn({ cloud: options.cloud, call: request.label, code, reason }, "cloud call failed");
      throw problem;
    }
  }

  return { send, openSocket, close: () => agent.destroy() };
}

/** `allowH2: false` for WebSockets, which a server that has agreed on HTTP/2 cannot switch to. */
function connectorOf(options: HttpClientOptions, { allowH2 = true } = {}): buildConnector.connector {
  const { fingerprint, connectTimeoutMs: timeout } = options;
  if (fingerprint === undefined) {
    return buildConnector({
      allowH2,
      timeout,
      rejectUnauthorized: options.verifyTls,
      ...(options.ca === undefined ? {} : { ca: options.ca }),
    });
  }
  // A resumed TLS session shows no certificate, so none is resumed.
  const connect = buildConnector({ allowH2, timeout, rejectUnauthorized: false, maxCachedSessions: 0 });
  const wanted = normalFingerprint(fingerprint);
  return (target, callback) => {
    connect(target, (error, socket) => {
      if (error !== null) return callback(error, null);
      // Before a byte of ours is sent. A connection without TLS has no certificate, and so not the pinned one.
      const seen = "getPeerCertificate" in socket ? socket.getPeerCertificate().fingerprint256 : undefined;
      if (seen !== undefined && normalFingerprint(seen) === wanted) return callback(null, socket);
      socket.destroy();
      const message = `the certificate has the fingerprint ${seen ?? "(none: no TLS)"}, not the configured one`;
      return callback(Object.assign(new Error(message), { code: "ERR_TLS_FINGERPRINT" }), null);
    });
  };
}

function normalFingerprint(text: string): string {
  return text.replaceAll(/[^0-9a-f]/giu, "").toLowerCase();
}

async function exchange(
  agent: Agent,
  options: HttpClientOptions,
  request: HttpRequest,
): Promise<HttpResponse> {
  const now = options.now ?? Date.now;
  const startedAt = now();
  const timeoutMs = request.timeoutMs ?? options.timeoutMs;
  const timeout = AbortSignal.timeout(timeoutMs);
  const signal = request.signal === undefined ? timeout : AbortSignal.any([timeout, request.signal]);
  if (request.signal?.aborted === true) throw givenUpBeforeSending(options, request);
  try {
    const answer = await undiciRequest(request.url, {
      dispatcher: agent.compose(
        (dispatch) => (call, handler) => dispatch(call, lookingLast(handler, request.signal)),
      ),
      method: request.method,
      headers: request.headers ?? {},
      ...(request.body === undefined ? {} : { body: request.body }),
      signal,
    });
    const text = await readBody(answer.body, options.maxBodyBytes ?? DEFAULT_MAX_BODY_BYTES);
    const headers = flatten(answer.headers);
    const response: HttpResponse = {
      status: answer.statusCode,
      statusText: answer.statusText,
      headers,
      text,
      requestId: headers["x-openstack-request-id"] ?? headers["x-compute-request-id"],
      date: dateOf(headers["date"]),
      retryAfterMs: retryAfterOf(headers["retry-after"], now()),
    };
    options.log.debug(
      {
        cloud: options.cloud,
        call: request.label,
        status: response.status,
        requestId: response.requestId,
        tookMs: now() - startedAt,
      },
      "cloud call",
    );
    return response;
  } catch (error) {
    const problem = transportError(error, { options, request, timedOut: timeout.aborted, timeoutMs });
    options.log.warn(
      {
        cloud: options.cloud,
        call: request.label,
        code: problem.code,
        reason: problem.staffDetail,
        tookMs: now() - startedAt,
      },
      "cloud call failed",
    );
    throw problem;
  }
}

/** Looks once more when the connection is there, immediately before the request is written (undici's client-h1.js, writeH1). */
function lookingLast(handler: Dispatcher.DispatchHandler, signal: AbortSignal | undefined) {
  const wrapped: Dispatcher.DispatchHandler = {
    onRequestStart(controller, context) {
      requireTime(signal);
      handler.onRequestStart?.(controller, context);
    },
    onResponseStart: (...args) => handler.onResponseStart?.(...args),
    onResponseData: (...args) => handler.onResponseData?.(...args),
    onResponseEnd: (...args) => handler.onResponseEnd?.(...args),
    onResponseError: (...args) => handler.onResponseError?.(...args),
  };
  return wrapped;
}

class BodyTooLong extends Error {}

async function readBody(
  body: AsyncIterable<Uint8Array> & { destroy(): unknown },
  maxBytes: number,
): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.byteLength;
    if (bytes > maxBytes) {
      body.destroy();
      throw new BodyTooLong(`the answer is longer than ${maxBytes} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

interface Circumstances {
  options: HttpClientOptions;
  request: HttpRequest;
  timedOut: boolean;
  timeoutMs: number;
}

function transportError(
  error: unknown,
  { options, request, timedOut, timeoutMs }: Circumstances,
): ServiceError {
  if (error instanceof ServiceError) return error;
  const reason = reasonOf(error);
  const staffDetail = `${options.cloud}: ${request.label}: ${timedOut ? `no answer within ${timeoutMs} ms` : reason}`;
  const facts = { cloud: options.cloud, call: request.label };
  const common = { cause: error, facts, staffDetail };
  if (isCertificateProblem(error)) {
    return new ServiceError(
      "unreachable",
      "The cloud's certificate is not trusted, so nothing was sent to it. The operators must check its address and its CA in the configuration.",
      common,
    );
  }
  if (isBeforeSending(error)) {
    return new ServiceError(
      "unreachable",
      "The cloud cannot be reached at the moment, so nothing was changed. Try again later.",
      { ...common, retryable: true },
    );
  }
  if (request.changing) {
    return new ServiceError(
      "unknown_outcome",
      "The cloud's answer was lost, so it is not known yet whether the change was made.",
      { ...common, retryable: false },
    );
  }
  if (timedOut) {
    return new ServiceError(
      "timeout",
      "The cloud did not answer in time. Nothing was changed; try again later.",
      {
        ...common,
        retryable: true,
      },
    );
  }
  if (request.signal?.aborted === true) return givenUpBeforeSending(options, request, error);
  return new ServiceError(
    "unreachable",
    "The connection to the cloud broke. Nothing was changed; try again later.",
    {
      ...common,
      // A longer answer does not get shorter by asking again.
      retryable: !(error instanceof BodyTooLong),
    },
  );
}

function givenUpBeforeSending(
  options: HttpClientOptions,
  request: HttpRequest,
  cause?: unknown,
): ServiceError {
  return new ServiceError(
    "unreachable",
    "The work was stopped before the cloud was asked, so nothing was changed by it.",
    {
      cause,
      facts: { cloud: options.cloud, call: request.label },
      staffDetail: `${options.cloud}: ${request.label}: given up by our side`,
    },
  );
}

const CONNECT_CODES = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
]);

/** The connection was never made: the request cannot have left. */
function isBeforeSending(error: unknown): boolean {
  const { code, syscall } = systemFields(error);
  if (code !== undefined && CONNECT_CODES.has(code)) return true;
  // Several addresses of one name: Node tries each and reports them together.
  if (error instanceof AggregateError && error.errors.length > 0) return error.errors.every(isBeforeSending);
  return syscall === "connect" || syscall === "getaddrinfo";
}

// The codes of OpenSSL's verification as Node names them, https://nodejs.org/api/tls.html#x509-certificate-error-codes
const CERTIFICATE =
  /^(ERR_TLS_|ERR_SSL_|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|HOSTNAME_MISMATCH|INVALID_CA|PATH_LENGTH)/u;

function isCertificateProblem(error: unknown): boolean {
  const { code } = systemFields(error);
  return code !== undefined && CERTIFICATE.test(code);
}

function systemFields(error: unknown): { code?: string; syscall?: string } {
  if (!(error instanceof Error)) return {};
  const fields: { code?: string; syscall?: string } = {};
  if ("code" in error && typeof error.code === "string") fields.code = error.code;
  if ("syscall" in error && typeof error.syscall === "string") fields.syscall = error.syscall;
  return fields;
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return "unknown error";
  const { code } = systemFields(error);
  return code === undefined ? error.message : `${code}: ${error.message}`;
}

function flatten(headers: Record<string, string | string[] | undefined>): Record<string, string> {
  const flat: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) flat[name.toLowerCase()] = Array.isArray(value) ? value.join(", ") : value;
  }
  return flat;
}

function dateOf(header: string | undefined): Date | undefined {
  if (header === undefined) return undefined;
  const date = new Date(header);
  return Number.isNaN(date.getTime()) ? undefined : date;
}

function retryAfterOf(header: string | undefined, nowMs: number): number | undefined {
  if (header === undefined) return undefined;
  if (/^\d+$/u.test(header.trim())) return Number(header) * 1_000;
  const date = dateOf(header);
  return date === undefined ? undefined : Math.max(0, date.getTime() - nowMs);
}

async function sleepUnlessAborted(ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await delay(ms, undefined, signal === undefined ? {} : { signal });
  } catch {
    // Aborted: the next try sees the same signal and says so in our own words.
  }
}

/** Takes every given secret out of a text, also in base64, as it stands in `user_data`. */
export function withoutSecrets(text: string, secrets: readonly string[]): string {
  let clean = text;
  for (const secret of secrets) {
    if (secret.length === 0) continue;
    for (const form of [secret, Buffer.from(secret).toString("base64"), encodeURIComponent(secret)]) {
      clean = clean.replaceAll(form, "[removed]");
    }
  }
  return clean;
}

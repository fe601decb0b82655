/**
 * The HTTP side: health, and the bots' receivers, which stand before any body parser because their signatures are over
 * the raw body (and Bolt refuses JSON events that somebody else has read).
 */
import { createServer, type IncomingMessage, type RequestListener, type Server } from "node:http";
import type { Duplex } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import express, { type ErrorRequestHandler, type Express, type Request, type Response } from "express";
import type { Logger } from "pino";
import { ServiceError } from "../core/errors.ts";
import { refuseUpgrade } from "../net/upgrade.ts";

export interface Receiver {
  path: string;
  listener: RequestListener;
}

/** Everything at a path and below it, with its WebSockets. */
export interface Section {
  path: string;
  listener: RequestListener;
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
}

/** One thing that this process needs, or would like to have. */
export interface ReadinessCheck {
  name: string;
  /** Without it this process is not ready; otherwise it is told, and work goes on or waits. */
  required: boolean;
  /** Rejects, or answers `ok: false`. Details are for operators: no secrets, no addresses. */
  check(): Promise<{ ok: boolean; detail: string }>;
}

export interface ApiOptions {
  receivers: readonly Receiver[];
  sections?: readonly Section[];
  checks: readonly ReadinessCheck[];
  log: Logger;
  version: string;
}

export interface ApiServer {
  /** Throws ServiceError `configuration` when the port cannot be had. Answers where it listens. */
  listen(address: { host: string; port: number }): Promise<{ host: string; port: number; url: string }>;
  /** New connections are refused at once, running requests get `graceMs`, then everything is cut. */
  close(graceMs?: number): Promise<void>;
}

const CHECK_TIMEOUT_MS = 2_000;
const DEFAULT_GRACE_MS = 2_000;

export function createApiServer(options: ApiOptions): ApiServer {
  const sections = options.sections ?? [];
  const server = createServer(
    {
      // Anything else that would be more than HTTP (curl asks for HTTP/2 so) is answered as what it is without that.
      shouldUpgradeCallback: ({ url = "", headers }) =>
        headers.upgrade?.toLowerCase() === "websocket" && sections.some(({ path }) => isWithin(url, path)),
    },
    createApp(options),
  );
  serveUpgrades(server, sections);
  // A slow or silent client must not hold a connection for ever.
  server.requestTimeout = 30_000;
  server.headersTimeout = 10_000;
  return {
    listen: (address) => listen(server, address),
    close: (graceMs = DEFAULT_GRACE_MS) => close(server, graceMs),
  };
}

/** Node before 24.9 asks for every upgrade: what is nobody's gets an answer. */
function serveUpgrades(server: Server, sections: readonly Section[]): void {
  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on("error", () => socket.destroy());
    const section = sections.find(({ path }) => isWithin(request.url ?? "", path));
    if (section !== undefined) section.upgrade(request, socket, head);
    else refuseUpgrade(socket, 404);
  });
}

function isWithin(address: string, path: string): boolean {
  return address === path || address.startsWith(`${path}/`);
}

function createApp({ receivers, sections = [], checks, log, version }: ApiOptions): Express {
  const app = express();
  app.disable("x-powered-by");
  for (const { path, listener } of receivers) {
    // Not app.use(path, …): that would cut the path off the address which the receiver compares with its own.
    app.use((request, response, next) => {
      if (request.path === path) listener(request, response);
      else next();
    });
  }
  for (const { path, listener } of sections) {
    app.use((request, response, next) => {
      if (isWithin(request.path, path)) listener(request, response);
      else next();
    });
  }
  app.get("/healthz", (_request, response) => {
    response.set("Cache-Control", "no-store").json({ status: "ok", version });
  });
  app.get("/readyz", async (_request, response) => {
    const results = await Promise.all(checks.map((check) => run(check)));
    const isReady = results.every((result) => result.ok || !result.required);
    response
      .status(isReady ? 200 : 503)
      .set("Cache-Control", "no-store")
      .json({
        status: isReady ? "ready" : "not ready",
        checks: Object.fromEntries(
          results.map(({ name, ok, required, detail }) => [name, { ok, required, detail }]),
        ),
      });
  });
  app.use((request, response) => {
    problem(request, response, {
      status: 404,
      title: "Not Found",
      detail: "There is nothing at this address.",
    });
  });
  const onError: ErrorRequestHandler = (error: unknown, request, response, next) => {
    if (response.headersSent) {
      next(error);
      return;
    }
    // Express gives what the client did wrong (a bad escape in the address) its own status.
    const status = clientStatus(error);
    if (status === undefined) log.error({ err: error, path: request.path }, "a request failed");
    problem(request, response, {
      status: status ?? 500,
      title: status === undefined ? "Internal Server Error" : "Bad Request",
      detail:
        status === undefined
          ? "Something went wrong on our side; the log has the details."
          : "The request could not be read.",
    });
  };
  app.use(onError);
  return app;
}

async function run({ name, required, check }: ReadinessCheck) {
  const stop = new AbortController();
  const late = delay(
    CHECK_TIMEOUT_MS,
    { ok: false, detail: `no answer within ${CHECK_TIMEOUT_MS} ms` },
    { signal: stop.signal },
  );
  try {
    return { name, required, ...(await Promise.race([check(), late])) };
  } catch {
    // An error's text may have an address or a password in it.
    return { name, required, ok: false, detail: "failed; the log has the details" };
  } finally {
    stop.abort();
    late.catch(() => {});
  }
}

/** RFC 9457. */
function problem(
  request: Request,
  response: Response,
  { status, title, detail }: { status: number; title: string; detail: string },
): void {
  response.status(status).set("Cache-Control", "no-store").type("application/problem+json");
  response.send(JSON.stringify({ type: "about:blank", title, status, detail, instance: request.path }));
}

function clientStatus(error: unknown): number | undefined {
  if (typeof error !== "object" || error === null || !("status" in error)) return undefined;
  return typeof error.status === "number" && error.status >= 400 && error.status < 500
    ? error.status
    : undefined;
}

async function listen(server: Server, { host, port }: { host: string; port: number }) {
  await new Promise<void>((resolve, reject) => {
    const onError = (error: NodeJS.ErrnoException) => reject(listenError(error, host, port));
    server.once("error", onError);
    server.listen({ host, port }, () => {
      server.off("error", onError);
      resolve();
    });
  });
  const bound = server.address();
  if (bound === null || typeof bound === "string") throw new Error("The server listens on no address.");
  const named = bound.family === "IPv6" ? `[${bound.address}]` : bound.address;
  return { host: bound.address, port: bound.port, url: `http://${named}:${bound.port}` };
}

function listenError(error: NodeJS.ErrnoException, host: string, port: number): ServiceError {
  const sentences: Readonly<Record<string, string>> = {
    EADDRINUSE: `Port ${port} on ${host} is in use by another program. Stop it, or set PORT to another one.`,
    EACCES: `This user may not listen on port ${port}. Set PORT to one above 1023.`,
    EADDRNOTAVAIL: `This machine has no address ${host}. Correct HOST (0.0.0.0 is all addresses).`,
    ENOTFOUND: `The name ${host} has no address. Correct HOST.`,
  };
  const sentence =
    sentences[error.code ?? ""] ??
    `Cannot listen on ${host}, port ${port} (${error.code ?? error.message}). Correct HOST and PORT.`;
  return new ServiceError("configuration", sentence, { cause: error });
}

async function close(server: Server, graceMs: number): Promise<void> {
  if (!server.listening) return;
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  server.closeIdleConnections();
  const stop = new AbortController();
  const grace = delay(graceMs, undefined, { signal: stop.signal }).catch(() => {});
  await Promise.race([closed, grace]);
  stop.abort();
  server.closeAllConnections();
  await closed;
}

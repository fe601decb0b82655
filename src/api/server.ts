/** HTTP: the chat platforms' receivers, health, and one shape for whatever is not there (RFC 9457). */
import { createServer, type Server } from "node:http";
import express, { type Express, type Request, type Response } from "express";
import type { Logger } from "pino";
import type { Bot } from "../core/bot.ts";
import type { Clouds } from "../core/cloud.ts";
import { ServiceError } from "../core/errors.ts";
import type { Queryable } from "../database/client.ts";

export interface ApiOptions {
  database: Queryable;
  /** The queue; `ping` rejects when it is away. */
  jobs: { ping(): Promise<void> };
  clouds: Pick<Clouds, "list">;
  bots: readonly Bot[];
  log: Logger;
}

export interface Api {
  /** Throws ServiceError `configuration` when the port is taken. */
  listen(port: number, host: string): Promise<void>;
  /** http://127.0.0.1:3000; null before `listen`. */
  url(): string | null;
  /** The ports that webhooks may not be sent to. */
  ports(): readonly number[];
  close(): Promise<void>;
}

interface Check {
  ok: boolean;
  detail: string;
}

export function createApi(options: ApiOptions): Api {
  const server = createServer(routes(options));
  return {
    listen: (port, host) => listen(server, port, host),
    url() {
      const address = server.address();
      if (address === null || typeof address === "string") return null;
      const host = address.family === "IPv6" ? `[${address.address}]` : address.address;
      return `http://${host}:${address.port}`;
    },
    ports() {
      const address = server.address();
      return address === null || typeof address === "string" ? [] : [address.port];
    },
    async close() {
      if (!server.listening) return;
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
    },
  };
}

function routes(options: ApiOptions): Express {
  const web = express();
  web.disable("x-powered-by");
  // Before any body parser: a receiver checks the signature of the bytes as they came.
  for (const { http } of options.bots) if (http !== undefined) web.use(http.path, http.listener);
  web.get("/healthz", (_request, response) => {
    response.json({ status: "ok" });
  });
  web.get("/readyz", async (_request, response) => {
    const checks = await checkAll(options);
    const ready = checks["database"]?.ok === true;
    response.status(ready ? 200 : 503).json({ status: ready ? "ready" : "not ready", checks });
  });
  web.use((request: Request, response: Response) => {
    response
      .status(404)
      .type("application/problem+json")
      .json({ type: "about:blank", title: "Not Found", status: 404, detail: `There is no ${request.path} here.` });
  });
  return web;
}

/** Only the database decides: without Redis, a cloud or a chat platform there is still work that goes on. */
async function checkAll({ database, jobs, clouds, bots }: ApiOptions): Promise<Record<string, Check>> {
  const checks: Record<string, Check> = {
    database: await attempt(() => database.sql("SELECT 1")),
    queue: await attempt(() => jobs.ping()),
  };
  for (const bot of bots) checks[bot.platform] = bot.status();
  if (checks["database"]?.ok !== true) return checks;
  const rows = await database.sql<{ name: string; problem: { message?: string } | null; lastOkAt: Date | null }>(
    `SELECT name, last_problem AS problem, last_ok_at AS "lastOkAt" FROM clouds WHERE name = ANY($1::text[])`,
    [clouds.list().map((cloud) => cloud.name)],
  );
  for (const { name, problem, lastOkAt } of rows) {
    const seen = lastOkAt === null ? "not asked yet" : `answered at ${lastOkAt.toISOString()}`;
    checks[`cloud:${name}`] = { ok: problem === null, detail: problem?.message ?? seen };
  }
  return checks;
}

async function attempt(work: () => Promise<unknown>): Promise<Check> {
  try {
    await work();
    return { ok: true, detail: "answers" };
  } catch (error) {
    return { ok: false, detail: error instanceof ServiceError ? error.message : "does not answer; the log says why" };
  }
}

async function listen(server: Server, port: number, host: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const taken = error.code === "EADDRINUSE";
      const why = taken ? `${host}:${port} is taken by another program` : `${host}:${port} cannot be listened on (${error.code})`;
      reject(new ServiceError("configuration", `${why}. Set PORT and HOST to an address that is free here.`, { cause: error }));
    });
    server.listen(port, host, resolve);
  });
}

/** A local Slack for tests that need no harness: records the Web API calls of the bot and signs requests like Slack. */
import { createHmac } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type SlackSockets, slackSockets } from "./slack-socket.ts";

export interface ApiCall {
  method: string;
  args: Record<string, unknown>;
}

export interface Reply {
  status?: number;
  headers?: Record<string, string>;
  body?: unknown;
  /** Cut the connection: before the call counts, or after it (the answer is lost). */
  cut?: "before" | "after";
}

export interface FakeSlack {
  /** To be given as `apiUrl`. */
  url: string;
  calls: ApiCall[];
  of(method: string): Record<string, unknown>[];
  /** The answer to the next call of `method`; later ones are answered normally again. */
  next(method: string, reply: Reply): void;
  /** Calls of `method` are not answered before the returned function is called. */
  hold(method: string): () => void;
  /** Bodies posted to a response_url. */
  responses: Record<string, unknown>[];
  responseUrl: string;
  /** Socket Mode. */
  sockets: SlackSockets;
  close(): Promise<void>;
}

const botUser = "U0BOT";

export async function fakeSlack(port = 0): Promise<FakeSlack> {
  const calls: ApiCall[] = [];
  const responses: Record<string, unknown>[] = [];
  const held = new Map<string, Promise<void>>();
  const planned = new Map<string, Reply[]>();
  let base = "";
  let clock = 1_700_000_000_000_000;

  function normal(method: string, args: Record<string, unknown>): Record<string, unknown> {
    switch (method) {
      case "auth.test":
        return {
          ok: true,
          url: "https://acme.slack.com/",
          team: "Acme",
          user: "ratatosk",
          team_id: "T1",
          user_id: botUser,
        };
      case "apps.connections.open":
        return { ok: true, url: `${base.replace("http", "ws")}/link` };
      case "chat.postMessage":
        clock += 1;
        return {
          ok: true,
          channel: args["channel"],
          ts: `${Math.floor(clock / 1e6)}.${String(clock % 1e6).padStart(6, "0")}`,
        };
      case "conversations.open":
        return { ok: true, channel: { id: `D${String(args["users"]).slice(1)}` } };
      default:
        return { ok: true };
    }
  }

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await textOf(request);
    if (request.url?.startsWith("/respond") === true) {
      responses.push(JSON.parse(body) as Record<string, unknown>);
      response.writeHead(200).end("ok");
      return;
    }
    const method = (request.url ?? "").replace("/api/", "");
    const args = parsed(new URLSearchParams(body));
    const reply = planned.get(method)?.shift();
    if (reply?.cut !== "before") calls.push({ method, args });
    await held.get(method);
    if (reply?.cut !== undefined) {
      request.socket.destroy();
      return;
    }
    response.writeHead(reply?.status ?? 200, { "content-type": "application/json", ...reply?.headers });
    response.end(JSON.stringify(reply?.body ?? normal(method, args)));
  }

  const server = createServer((request, response) => void handle(request, response));
  const sockets = slackSockets(server);
  base = await listen(server, port);
  return {
    url: `${base}/api/`,
    calls,
    responses,
    responseUrl: `${base}/respond/1`,
    of: (method) => calls.filter((call) => call.method === method).map(({ args }) => args),
    next(method, reply) {
      planned.set(method, [...(planned.get(method) ?? []), reply]);
    },
    hold(method) {
      const { promise, resolve } = Promise.withResolvers<void>();
      held.set(method, promise);
      return () => {
        held.delete(method);
        resolve();
      };
    },
    sockets,
    async close() {
      // A socket that was upgraded is no longer one of the server's own connections.
      sockets.kill();
      await close(server);
    },
  };
}

export async function listen(server: Server, port = 0): Promise<string> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", resolve);
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

export async function close(server: Server): Promise<void> {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
}

async function textOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

function parsed(form: URLSearchParams): Record<string, unknown> {
  const decode = (value: string): unknown => (/^[[{]/.test(value) ? JSON.parse(value) : value);
  return Object.fromEntries([...form].map(([name, value]) => [name, decode(value)]));
}

export interface SignedOptions {
  secret: string;
  /** Seconds from now; Slack's own requests have about 0. */
  skewSeconds?: number;
}

/** The request that Slack would make with this body. */
export function signed(body: string, { secret, skewSeconds = 0 }: SignedOptions): RequestInit {
  const timestamp = Math.floor(Date.now() / 1000) + skewSeconds;
  const signature = createHmac("sha256", secret).update(`v0:${timestamp}:${body}`).digest("hex");
  return {
    method: "POST",
    body,
    headers: {
      "content-type": "application/x-www-form-urlencoded",
      "x-slack-request-timestamp": String(timestamp),
      "x-slack-signature": `v0=${signature}`,
    },
  };
}

import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import { text } from "node:stream/consumers";
import { Webhook } from "standardwebhooks";

export interface ReceiverOptions {
  /** Default 127.0.0.1. */
  host?: string;
  /** Default 0: any free port. */
  port?: number;
  /** The endpoint's secret, `whsec_…`. */
  secret: string;
  onDelivery?: (delivery: Delivery) => void;
}

export interface Delivery {
  at: string;
  /** The `webhook-id` header; the same for every attempt and for a replay. */
  id: string;
  /** `type` of the body, when it is JSON with one. */
  type: string;
  path: string;
  /** Whether the signature of the `standardwebhooks` package's verifier holds: somebody else's code. */
  verified: boolean;
  /** Why not. */
  problem: string | undefined;
  /** This id was here before. */
  duplicate: boolean;
  /** Parsed JSON, or the raw text. */
  body: unknown;
  headers: Record<string, string>;
  /** What it was answered with. */
  status: number;
}

export interface Receiver {
  url: string;
  deliveries: Delivery[];
  /** Answers to the next deliveries, in turn; afterwards 204 again. 0 cuts the connection. */
  answerWith(...statuses: number[]): void;
  /** After a rotation. */
  useSecret(secret: string): void;
  close(): Promise<void>;
}

/** A webhook receiver as a customer would write one: raw body, verify, remember the id, answer. */
export async function startReceiver(options: ReceiverOptions): Promise<Receiver> {
  const deliveries: Delivery[] = [];
  const seen = new Set<string>();
  const statuses: number[] = [];
  let webhook = new Webhook(options.secret);
  const server = createServer((request, response) => {
    void readDelivery(request, webhook).then((received) => {
      if (!received) return;
      // An unverified delivery is refused like a real receiver would, unless the test said otherwise.
      const status = statuses.shift() ?? (received.verified ? 204 : 401);
      const delivery = { ...received, duplicate: seen.has(received.id), status };
      // A refused one was not processed, so its retry is no duplicate.
      if (status >= 200 && status < 300) seen.add(delivery.id);
      deliveries.push(delivery);
      options.onDelivery?.(delivery);
      if (status === 0) request.socket.destroy();
      else response.writeHead(status).end();
    });
  });
  server.keepAliveTimeout = 120_000;
  const host = options.host ?? "127.0.0.1";
  server.listen(options.port ?? 0, host);
  await once(server, "listening");
  const address = server.address();
  const port = typeof address === "object" ? address?.port : undefined;
  return {
    url: `http://${host}:${port}`,
    deliveries,
    answerWith: (...next) => {
      statuses.push(...next);
    },
    useSecret: (secret) => {
      webhook = new Webhook(secret);
    },
    close: async () => {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

async function readDelivery(
  request: IncomingMessage,
  webhook: Webhook,
): Promise<Omit<Delivery, "duplicate" | "status"> | undefined> {
  let raw: string;
  try {
    raw = await text(request);
  } catch {
    // The sender went away in the middle.
    return undefined;
  }
  const headers = flatHeaders(request);
  const body = parseBody(raw);
  const problem = verify(webhook, raw, headers);
  return {
    at: new Date().toISOString(),
    id: headers["webhook-id"] ?? "",
    type: typeOf(body),
    path: request.url ?? "/",
    verified: problem === undefined,
    problem,
    body,
    headers,
  };
}

function flatHeaders(request: IncomingMessage): Record<string, string> {
  const entries = Object.entries(request.headers).map(([name, value]): [string, string] => [
    name,
    Array.isArray(value) ? value.join(", ") : (value ?? ""),
  ]);
  return Object.fromEntries(entries);
}

function verify(webhook: Webhook, raw: string, headers: Record<string, string>): string | undefined {
  try {
    webhook.verify(raw, headers);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function parseBody(raw: string): unknown {
  try {
    return JSON.parse(raw);
  } catch {
    return raw;
  }
}

function typeOf(body: unknown): string {
  if (typeof body !== "object" || body === null || !("type" in body)) return "";
  return typeof body.type === "string" ? body.type : "";
}

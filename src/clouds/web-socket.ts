// A WebSocket to a cloud, over whatever connection its HTTP client trusts.
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { buildConnector } from "undici";
import { WebSocket } from "ws";
import type { HttpResponse } from "./http.ts";

export { WebSocket } from "ws";

export interface SocketRequest {
  /** http or https. */
  url: string;
  /** What is asked, for the log and for staff. Never a value that may be secret. */
  label: string;
  headers: Record<string, string>;
  /** From the first look for the address to the switched protocol. */
  timeoutMs: number;
  /** Of one message from the cloud. */
  maxMessageBytes: number;
  /** Only while it is being opened. */
  signal: AbortSignal;
}

const MAX_REFUSAL_BYTES = 64 * 1024;

/** The WebSocket is paused until somebody reads it. Throws what the connection, or the wait for it, ended with; a TimeoutError when it took too long. */
export async function openWebSocket(
  connect: buildConnector.connector,
  request: SocketRequest,
): Promise<WebSocket | HttpResponse> {
  const signal = AbortSignal.any([request.signal, AbortSignal.timeout(request.timeoutMs)]);
  const url = new URL(request.url);
  const socket = await dial(connect, url, signal);
  const webSocket = new WebSocket(url.href.replace(/^http/u, "ws"), {
    createConnection: () => socket,
    headers: request.headers,
    // PVE refuses what is compressed, and what comes in several frames.
    perMessageDeflate: false,
    followRedirects: false,
    maxPayload: request.maxMessageBytes,
  });
  const { promise, resolve, reject } = Promise.withResolvers<WebSocket | HttpResponse>();
  const giveUp = () => {
    reject(signal.reason instanceof Error ? signal.reason : new Error("given up"));
    webSocket.terminate();
    socket.destroy();
  };
  signal.addEventListener("abort", giveUp, { once: true });
  webSocket.once("open", () => {
    // What came in one piece with the answer would be told before anybody listens.
    webSocket.pause();
    resolve(webSocket);
  });
  webSocket.once("unexpected-response", (_request, response) => {
    refusalOf(response)
      .then(resolve, reject)
      .finally(() => socket.destroy());
  });
  // Also afterwards: a connection that breaks ends with "close", and nobody else may be listening to this.
  webSocket.on("error", reject);
  try {
    return await promise;
  } finally {
    signal.removeEventListener("abort", giveUp);
  }
}

function dial(connect: buildConnector.connector, url: URL, signal: AbortSignal): Promise<Socket> {
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const giveUp = () => reject(signal.reason instanceof Error ? signal.reason : new Error("given up"));
  signal.addEventListener("abort", giveUp, { once: true });
  const { protocol, host, hostname, port } = url;
  connect({ protocol, host, hostname: hostname.replace(/^\[|\]$/gu, ""), port }, (error, socket) => {
    signal.removeEventListener("abort", giveUp);
    if (error !== null) reject(error);
    else if (signal.aborted) socket.destroy();
    else resolve(socket);
  });
  return promise;
}

async function refusalOf(response: IncomingMessage): Promise<HttpResponse> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response) {
    if (!Buffer.isBuffer(chunk)) continue;
    bytes += chunk.length;
    if (bytes > MAX_REFUSAL_BYTES) break;
    chunks.push(chunk);
  }
  const headers = Object.entries(response.headers).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, String(value)] as const],
  );
  return {
    status: response.statusCode ?? 0,
    statusText: response.statusMessage ?? "",
    headers: Object.fromEntries(headers),
    text: Buffer.concat(chunks).toString("utf8"),
    requestId: undefined,
    date: undefined,
    retryAfterMs: undefined,
  };
}

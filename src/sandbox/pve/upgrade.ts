/** What pveproxy does with a request that wants to become a WebSocket (AnyEvent.pm, websocket_proxy). */
import { type IncomingMessage, STATUS_CODES } from "node:http";
import type { Duplex } from "node:stream";
import { createWebSocketStream, WebSocketServer } from "ws";
import type { Cluster } from "./cluster.ts";
import type { Answer } from "./wire.ts";

/** Its $max_payload_size; what is compressed or in several frames it refuses, too. */
const MAX_FRAME_BYTES = 128 * 1024;

const sockets = new WebSocketServer({
  noServer: true,
  perMessageDeflate: false,
  maxPayload: MAX_FRAME_BYTES,
  handleProtocols: (protocols) => [...protocols][0] ?? false,
});

interface Upgrade {
  request: IncomingMessage;
  socket: Duplex;
  head: Buffer;
}

/** `answer` is what the API says: a port to be connected with, or a refusal. */
export function answerUpgrade(cluster: Cluster, { request, socket, head }: Upgrade, answer: Answer): void {
  if (answer.hang === true) return;
  const port = answer.drop === true ? undefined : portIn(answer);
  if (answer.drop === true || port === undefined) {
    if (answer.drop === true) socket.destroy();
    else refuse(socket, answer);
    return;
  }
  const accept = cluster.vncPorts.get(port)?.accept;
  const own = cluster.vncPorts.get(port);
  // Nobody listens there any more, or somebody came before: pveproxy never answers then.
  if (accept === undefined || own === undefined) return;
  own.accept = undefined;
  sockets.handleUpgrade(request, socket, head, (visitor) => {
    const stream = createWebSocketStream(visitor);
    stream.on("error", () => stream.destroy());
    accept(stream);
  });
}

function portIn({ status, body }: Answer): number | undefined {
  if (status !== 200 || typeof body !== "object" || body === null || !("data" in body)) return undefined;
  const { data } = body;
  return typeof data === "object" && data !== null && "port" in data ? Number(data.port) : undefined;
}

function refuse(socket: Duplex, { status, reason, body }: Answer): void {
  const text = typeof body === "string" ? body : body === undefined ? "" : JSON.stringify(body);
  const phrase = (reason ?? STATUS_CODES[status] ?? "").replaceAll(/[^\t\x20-\x7E]/g, "?");
  const type = typeof body === "string" ? "text/plain" : "application/json;charset=UTF-8";
  socket.end(
    [
      `HTTP/1.1 ${status} ${phrase}`,
      ...(text === "" ? [] : [`Content-Type: ${type}`]),
      `Content-Length: ${Buffer.byteLength(text)}`,
      "Connection: close",
      "",
      text,
    ].join("\r\n"),
  );
}

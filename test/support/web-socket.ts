/** The server's end of a WebSocket (RFC 6455), as far as a test needs it: whole text frames, ping, close. */
import { createHash } from "node:crypto";
import type { IncomingMessage, Server } from "node:http";
import type { Socket } from "node:net";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const [TEXT, CLOSE, PING, PONG] = [0x1, 0x8, 0x9, 0xa];

export interface WebSocketEnd {
  request: IncomingMessage;
  send(text: string): void;
  /** Answers to what the other end says. */
  onText(listener: (text: string) => void): void;
  onGone(listener: () => void): void;
  /** Cuts the connection, as a network does. */
  kill(): void;
}

/** Every upgrade of `server` becomes a connection. */
export function acceptWebSockets(server: Server, connected: (end: WebSocketEnd) => void): void {
  server.on("upgrade", (request: IncomingMessage, socket: Socket) => {
    const key = String(request.headers["sec-websocket-key"]);
    const accept = createHash("sha1")
      .update(key + GUID)
      .digest("base64");
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
    );
    connected(endOf(request, socket));
  });
}

function endOf(request: IncomingMessage, socket: Socket): WebSocketEnd {
  const heard: ((text: string) => void)[] = [];
  let pending = Buffer.alloc(0);
  socket.on("data", (chunk) => {
    pending = Buffer.concat([pending, chunk]);
    for (;;) {
      const frame = readFrame(pending);
      if (frame === undefined) return;
      pending = pending.subarray(frame.length);
      if (frame.opcode === TEXT) for (const listener of heard) listener(frame.payload.toString());
      if (frame.opcode === PING) socket.write(frameOf(PONG, frame.payload));
      if (frame.opcode === CLOSE) socket.end(frameOf(CLOSE, frame.payload));
    }
  });
  // A cut connection is what some tests are about; onGone tells.
  socket.on("error", () => undefined);
  return {
    request,
    send: (text) => void socket.write(frameOf(TEXT, Buffer.from(text))),
    onText: (listener) => void heard.push(listener),
    onGone: (listener) => void socket.once("close", listener),
    kill: () => socket.resetAndDestroy(),
  };
}

function frameOf(opcode: number, payload: Buffer): Buffer {
  const { length } = payload;
  const head = Buffer.alloc(length < 126 ? 2 : 4);
  head[0] = 0x80 | opcode;
  head[1] = Math.min(length, 126);
  if (length >= 126) head.writeUInt16BE(length, 2);
  return Buffer.concat([head, payload]);
}

/** A client's frames are masked, and its messages (acknowledgements) come in one frame each. */
function readFrame(data: Buffer): { opcode: number; payload: Buffer; length: number } | undefined {
  if (data.length < 6) return undefined;
  const short = data.readUInt8(1) & 0x7f;
  if (short === 127) throw new Error("a frame of 64 KiB and more: not expected here");
  const at = short === 126 ? 4 : 2;
  if (data.length < at + 4) return undefined;
  const size = short === 126 ? data.readUInt16BE(2) : short;
  const length = at + 4 + size;
  if (data.length < length) return undefined;
  const mask = data.subarray(at, at + 4);
  const payload = Buffer.from(data.subarray(at + 4, length).map((byte, n) => byte ^ (mask[n % 4] ?? 0)));
  return { opcode: data.readUInt8(0) & 0x0f, payload, length };
}

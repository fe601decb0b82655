/** Bytes between a browser and a screen, both ways; whoever is slower holds the other up, so that little waits in between. */
import type { Duplex } from "node:stream";
import type { RawData, WebSocket } from "ws";

/** More than this waiting for the browser: the cloud is not read from until it is less again. */
const MOST_WAITING_BYTES = 1024 * 1024;
const LITTLE_WAITING_BYTES = 256 * 1024;

export interface Relayed {
  socket: WebSocket;
  stream: Duplex;
  /** What the page says beside the screen. */
  onText(text: string): void;
  /** The cloud has ended it, or the way there broke. */
  onCloudEnd(): void;
}

/** `socket` must have no other listener for messages. */
export function relay({ socket, stream, onText, onCloudEnd }: Relayed): void {
  socket.on("message", (data: RawData, isBinary: boolean) => {
    const bytes = bytesOf(data);
    if (!isBinary) {
      onText(bytes.toString("utf8"));
      return;
    }
    if (stream.destroyed || stream.writableEnded || stream.write(bytes)) return;
    socket.pause();
    stream.once("drain", () => socket.resume());
  });
  stream.on("data", (chunk: Buffer) => {
    socket.send(chunk, { binary: true }, () => {
      if (socket.bufferedAmount < LITTLE_WAITING_BYTES && stream.isPaused()) stream.resume();
    });
    if (socket.bufferedAmount > MOST_WAITING_BYTES) stream.pause();
  });
  stream.once("close", onCloudEnd);
  stream.once("end", onCloudEnd);
  // "close" follows.
  stream.on("error", () => undefined);
}

export function bytesOf(data: RawData): Buffer {
  if (Array.isArray(data)) return Buffer.concat(data);
  return Buffer.isBuffer(data) ? data : Buffer.from(data);
}

/** No to somebody who asked for a WebSocket. */
import { STATUS_CODES } from "node:http";
import type { Duplex } from "node:stream";

/** Whoever does not close their side would keep the connection, which no timeout of the server counts any more, for ever. */
export function refuseUpgrade(socket: Duplex, status: 403 | 404 | 503): void {
  socket.once("finish", () => socket.destroy());
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
}

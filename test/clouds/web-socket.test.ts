/** A WebSocket through a cloud's HTTP client: nothing is missed, and every way it can fail has its own error. */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { setImmediate as turn } from "node:timers/promises";
import { afterEach, expect, it } from "vitest";
import { createWebSocketStream } from "ws";
import { createHttpClient, type HttpClient } from "../../src/clouds/http.ts";
import { WebSocket } from "../../src/clouds/web-socket.ts";
import { recordingLog } from "./recording-log.ts";

const opened: { close(): unknown }[] = [];
afterEach(async () => {
  for (const one of opened.splice(0)) await one.close();
});

/** Answers each connection's first bytes with what `answer` says. */
async function serve(answer: (socket: Socket, request: string) => void): Promise<string> {
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => socket.destroy());
    socket.once("data", (data) => answer(socket, data.toString("latin1")));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  opened.push({
    close: () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  });
  const address = server.address();
  return `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`;
}

function client(): { http: HttpClient; logged(): string } {
  const { log, logged } = recordingLog();
  const http = createHttpClient({ cloud: "c", connectTimeoutMs: 500, timeoutMs: 500, verifyTls: true, log });
  opened.push(http);
  return { http, logged };
}

const request = (url: string, more: { timeoutMs?: number; signal?: AbortSignal } = {}) => ({
  url: `${url}/screen?ticket=s3cret`,
  label: "GET /screen",
  headers: { Authorization: "t0ken" },
  timeoutMs: 2_000,
  maxMessageBytes: 1024,
  signal: new AbortController().signal,
  ...more,
});

function switching(asked: string): string {
  const [, key = ""] = /sec-websocket-key: (\S+)/i.exec(asked) ?? [];
  const accept = createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
  return `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`;
}

it("bytes that come in one piece with the answer are not missed, however late they are read", async () => {
  let asked = "";
  const url = await serve((socket, text) => {
    asked = text;
    socket.write(Buffer.concat([Buffer.from(switching(text)), Buffer.of(0x82, 3, 1, 2, 3)]));
  });
  const socket = await client().http.openSocket(request(url));
  if (!(socket instanceof WebSocket)) throw new Error("refused");
  // Everything that was due has happened.
  await turn();
  await turn();
  const [first] = await once(createWebSocketStream(socket), "data");
  expect([...first]).toEqual([1, 2, 3]);
  expect(asked).toMatch(/^GET \/screen\?ticket=s3cret HTTP\/1\.1/);
  expect(asked).toMatch(/authorization: t0ken/i);
  expect(asked).not.toMatch(/permessage-deflate/i);
  socket.terminate();
});

it("a refusal is an answer like any other, with its status, reason and text", async () => {
  const url = await serve((socket) =>
    socket.end("HTTP/1.1 596 Connection timed out\r\nContent-Length: 2\r\nX-A: b\r\n\r\nno"),
  );
  expect(await client().http.openSocket(request(url))).toMatchObject({
    status: 596,
    statusText: "Connection timed out",
    text: "no",
    headers: { "x-a": "b" },
  });
});

it("nobody there, a cut, silence and a giving up have their own errors, and no secret is in them", async () => {
  const { http, logged } = client();
  const cut = await serve((socket) => socket.destroy());
  const silent = await serve(() => undefined);
  const given = new AbortController();
  const outcomes = [
    http.openSocket(request("http://127.0.0.1:1")),
    http.openSocket(request(cut)),
    http.openSocket(request(silent, { timeoutMs: 50 })),
    http.openSocket(request(silent, { signal: given.signal })),
  ];
  given.abort();
  const told = await Promise.allSettled(outcomes);
  expect(told.map((one) => (one.status === "rejected" ? one.reason.code : "open"))).toEqual([
    "unreachable",
    "unreachable",
    "timeout",
    "unreachable",
  ]);
  expect(logged()).toContain("GET /screen");
  expect(logged()).not.toMatch(/s3cret|t0ken/);
});

it("an answer that is no WebSocket's ends as broken, not as open", async () => {
  const url = await serve((socket) =>
    socket.write(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: no\r\n\r\n",
    ),
  );
  await expect(client().http.openSocket(request(url))).rejects.toMatchObject({ code: "unreachable" });
});

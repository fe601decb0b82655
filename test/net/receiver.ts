/** Servers on a free port of 127.0.0.1, closed after each test. */
import http from "node:http";
import https from "node:https";
import net, { type AddressInfo } from "node:net";
import { afterEach } from "vitest";

export interface Received {
  path: string;
  headers: http.IncomingHttpHeaders;
  body: Buffer;
}

export interface Receiver {
  url: string;
  port: number;
  requests: Received[];
  /** How many connections were opened. */
  connections: number;
  close(): Promise<void>;
}

type Answer = (request: Received, response: http.ServerResponse) => void;

const open = new Set<Receiver>();

afterEach(async () => {
  await Promise.all([...open].map((receiver) => receiver.close()));
});

export async function receive(answer: Answer, tls?: { cert: string; key: string }): Promise<Receiver> {
  const listener: http.RequestListener = (request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const received = { path: request.url ?? "", headers: request.headers, body: Buffer.concat(chunks) };
      receiver.requests.push(received);
      answer(received, response);
    });
  };
  const server = tls ? https.createServer(tls, listener) : http.createServer(listener);
  const receiver = await listen(server, tls ? "https" : "http");
  return receiver;
}

/** For answers that no HTTP server would give. */
export async function receiveRaw(onConnection: (socket: net.Socket) => void): Promise<Receiver> {
  const server = net.createServer((socket) => {
    socket.on("error", () => {}); // the client cuts; that is what most of these tests are about
    onConnection(socket);
  });
  return await listen(server, "http");
}

async function listen(server: net.Server, scheme: string): Promise<Receiver> {
  const sockets = new Set<net.Socket>();
  server.on("connection", (socket: net.Socket) => {
    receiver.connections += 1;
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  const receiver: Receiver = {
    url: "",
    port: 0,
    requests: [],
    connections: 0,
    async close() {
      open.delete(receiver);
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  // listen() on a TCP port always answers an AddressInfo.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  receiver.port = (server.address() as AddressInfo).port;
  receiver.url = `${scheme}://127.0.0.1:${receiver.port}/`;
  open.add(receiver);
  return receiver;
}

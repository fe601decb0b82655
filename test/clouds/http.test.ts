import http from "node:http";
import net, { type AddressInfo } from "node:net";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import {
  createHttpClient,
  type HttpClient,
  type HttpRequest,
  withoutSecrets,
} from "../../src/clouds/http.ts";
import { ServiceError } from "../../src/core/errors.ts";
import type { Database } from "../../src/database/client.ts";
import { testDatabase } from "../support/database.ts";

type Behaviour = (request: http.IncomingMessage, response: http.ServerResponse) => void;

const closers: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

async function serve(behaviour: Behaviour): Promise<{ url: string; requests: string[] }> {
  const requests: string[] = [];
  const server = http.createServer((request, response) => {
    requests.push(`${request.method} ${request.url}`);
    request.resume();
    request.on("end", () => behaviour(request, response));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closers.push(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests };
}

function open(options: { timeoutMs?: number; maxBodyBytes?: number; pauses?: number[] } = {}): HttpClient {
  const client = createHttpClient({
    cloud: "test",
    connectTimeoutMs: 500,
    timeoutMs: options.timeoutMs ?? 2_000,
    verifyTls: true,
    ...(options.maxBodyBytes === undefined ? {} : { maxBodyBytes: options.maxBodyBytes }),
    log: pino({ level: "silent" }),
    sleep: (ms) => {
      options.pauses?.push(ms);
      return Promise.resolve();
    },
  });
  closers.push(() => client.close());
  return client;
}

const read = (url: string): HttpRequest => ({ method: "GET", url, label: "GET /", changing: false });
const change = (url: string): HttpRequest => ({
  method: "POST",
  url,
  label: "POST /",
  changing: true,
  body: "{}",
});

async function problemOf(work: Promise<unknown>): Promise<ServiceError> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof ServiceError) return error;
  throw new Error(`no ServiceError: ${String(error)}`);
}

const cut: Behaviour = (request) => request.socket.destroy();
const cutInTheMiddle: Behaviour = (request, response) => {
  response.writeHead(200, { "Content-Length": "1000" });
  response.write("half");
  setImmediate(() => request.socket.destroy());
};
const never: Behaviour = () => {};

describe("what a lost answer means", () => {
  it.each([
    ["cut", cut, "unreachable", 3],
    ["cut in the middle", cutInTheMiddle, "unreachable", 3],
    ["never", never, "timeout", 1],
  ] as const)(
    "%s: a read may be asked again, a change is unknown and sent once",
    async (_name, behaviour, code, tries) => {
      const client = open({ timeoutMs: 150 });
      const reading = await serve(behaviour);
      expect((await problemOf(client.send(read(reading.url)))).code).toBe(code);
      expect(reading.requests).toHaveLength(tries);
      const changing = await serve(behaviour);
      const error = await problemOf(client.send(change(changing.url)));
      expect(error).toMatchObject({ code: "unknown_outcome", retryable: false });
      expect(changing.requests).toHaveLength(1);
    },
  );

  it("a port nobody listens on is unreachable, also for a change", async () => {
    const { port } = await new Promise<AddressInfo>((resolve) => {
      const server = net.createServer().listen(0, "127.0.0.1", () => {
        const address = server.address() as AddressInfo;
        server.close(() => resolve(address));
      });
    });
    const client = open();
    for (const request of [read, change]) {
      const error = await problemOf(client.send(request(`http://127.0.0.1:${port}/`)));
      expect(error).toMatchObject({ code: "unreachable", retryable: true });
    }
    expect((await problemOf(client.send(change("http://nowhere.invalid/")))).code).toBe("unreachable");
  });

  it("a wrong certificate is told as one, and nothing is sent", async () => {
    const plain = await serve(never);
    const error = await problemOf(open().send(change(plain.url.replace("http:", "https:"))));
    expect(error).toMatchObject({ code: "unreachable", retryable: false });
    expect(error.message).toMatch(/certificate/u);
    expect(plain.requests).toEqual([]);
  });

  it("an answer that is too long is not read to its end", async () => {
    const { url } = await serve((_request, response) => response.end("x".repeat(5_000)));
    const client = open({ maxBodyBytes: 1_000 });
    expect(await problemOf(client.send(read(url)))).toMatchObject({ code: "unreachable", retryable: false });
    expect((await problemOf(client.send(change(url)))).code).toBe("unknown_outcome");
  });

  it("given up by us: before sending nothing was done, after it nobody knows", async () => {
    const { url, requests } = await serve(never);
    const client = open();
    const before = AbortSignal.abort();
    expect((await problemOf(client.send({ ...change(url), signal: before }))).code).toBe("unreachable");
    expect(requests).toEqual([]);
    const during = new AbortController();
    const sent = problemOf(client.send({ ...change(url), signal: during.signal }));
    await expect.poll(() => requests.length).toBe(1);
    during.abort();
    expect((await sent).code).toBe("unknown_outcome");
  });
});

describe("gateways", () => {
  it("a read waits as long as it is told, within bounds, and a change does not wait", async () => {
    let answers = 0;
    const { url, requests } = await serve((_request, response) => {
      answers += 1;
      response.writeHead(answers === 1 ? 503 : 200, answers === 1 ? { "Retry-After": "2" } : {});
      response.end("ok");
    });
    const pauses: number[] = [];
    const client = open({ pauses });
    expect((await client.send(read(url))).status).toBe(200);
    expect(pauses).toEqual([2_000]);
    answers = 0;
    expect((await client.send(change(url))).status).toBe(503);
    expect(requests).toHaveLength(3);
  });

  it("a longer wait is left to the caller", async () => {
    const { url, requests } = await serve((_request, response) => {
      response.writeHead(429, { "Retry-After": "120" });
      response.end();
    });
    const response = await open().send(read(url));
    expect(response).toMatchObject({ status: 429, retryAfterMs: 120_000 });
    expect(requests).toHaveLength(1);
  });

  it("hands on status, reason, request id and the far clock", async () => {
    const { url } = await serve((_request, response) => {
      response.writeHead(500, "VM is locked (clone)", {
        "X-Openstack-Request-Id": "req-1",
        Date: "Sat, 21 Nov 2026 15:00:00 GMT",
      });
      response.end("no");
    });
    expect(await open().send(change(url))).toMatchObject({
      status: 500,
      statusText: "VM is locked (clone)",
      requestId: "req-1",
      date: new Date("2026-11-21T15:00:00Z"),
      text: "no",
    });
  });
});

describe("inside a transaction", () => {
  let database: Database;
  beforeAll(async () => {
    database = await testDatabase();
  });
  afterAll(() => database.close());

  it("no call leaves", async () => {
    const { url, requests } = await serve((_request, response) => response.end());
    const client = open();
    await expect(database.transaction(() => client.send(read(url)))).rejects.toThrow(/inside a transaction/u);
    expect(requests).toEqual([]);
  });
});

it("takes secrets out of texts in every form they travel in", () => {
  const secret = "pä ss/1";
  const text = `${secret} ${Buffer.from(secret).toString("base64")} ${encodeURIComponent(secret)}`;
  expect(withoutSecrets(text, [secret, ""])).toBe("[removed] [removed] [removed]");
});

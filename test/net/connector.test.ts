import { readFileSync } from "node:fs";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
  type Connector,
  ConnectorError,
  type ConnectorErrorCode,
  type ConnectorOptions,
  createConnector,
} from "../../src/net/connector.ts";
import { checkUrl } from "../../src/net/dial.ts";
import { receive, receiveRaw } from "./receiver.ts";

const LOCAL: ConnectorOptions = { allow: ["127.0.0.0/8"] };
const body = Buffer.from('{"hello":"wörld"}');
const connectors: Connector[] = [];

function connector(options: ConnectorOptions = LOCAL): Connector {
  const made = createConnector(options);
  connectors.push(made);
  return made;
}

function post(url: string, options: { via?: Connector; timeoutMs?: number } = {}) {
  const { via = connector(), timeoutMs = 5_000 } = options;
  return via.post({ url, headers: { "content-type": "application/json" }, body, timeoutMs });
}

async function failure(call: Promise<unknown>): Promise<ConnectorError> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof ConnectorError)) throw new Error(`expected a ConnectorError, got ${String(error)}`);
  return error;
}

async function codeOf(call: Promise<unknown>): Promise<ConnectorErrorCode> {
  return (await failure(call)).code;
}

function fixture(name: string): string {
  return readFileSync(new URL(`fixtures/${name}`, import.meta.url), "utf8");
}

const at = (address: string) => ({ address, family: address.includes(":") ? 6 : 4 });

afterEach(async () => {
  await Promise.all(connectors.splice(0).map((made) => made.close()));
});

describe("vetting an address", () => {
  it("answers with what a call would dial, and connects to nothing", async () => {
    const receiver = await receive((_request, response) => response.end());
    const resolve = () => Promise.resolve([at("93.184.215.14"), at("2606:4700:4700::1111")]);
    await expect(connector({ resolve }).vet("https://hooks.example/x")).resolves.toEqual([
      "93.184.215.14",
      "2606:4700:4700::1111",
    ]);
    await expect(connector().vet(receiver.url)).resolves.toEqual(["127.0.0.1"]);
    expect(receiver.connections).toBe(0);
  });

  it("refuses what a call would refuse", async () => {
    const mixed = () => Promise.resolve([at("93.184.215.14"), at("10.0.0.5")]);
    const none = () => Promise.reject(Object.assign(new Error("no"), { code: "ENOTFOUND" }));
    const vet = (url: string, options: ConnectorOptions = {}) => codeOf(connector(options).vet(url));
    expect(await vet("https://hooks.example/", { resolve: mixed })).toBe("refused_address");
    expect(await vet("https://hooks.example/", { resolve: none })).toBe("dns");
    expect(
      await vet("http://hooks.example/", { resolve: () => Promise.resolve([at("93.184.215.14")]) }),
    ).toBe("refused_address");
    expect(await vet("https://169.254.169.254/")).toBe("refused_address");
    expect(await vet("ftp://hooks.example/")).toBe("refused_address");
  });
});

describe("an ordinary call", () => {
  it("sends the bytes as they are and gives back status, headers and body", async () => {
    const receiver = await receive((_request, response) => {
      response.writeHead(202, { "X-Seen": "yes", "set-cookie": ["a=1", "b=2"] });
      response.end("thank you");
    });
    const result = await post(`${receiver.url}hook?x=1`);
    expect(result).toMatchObject({ status: 202, body: "thank you" });
    expect(result.headers).toMatchObject({ "x-seen": "yes", "set-cookie": "a=1, b=2" });
    expect(result.durationMs).toBeGreaterThanOrEqual(0);
    expect(receiver.requests[0]).toMatchObject({ path: "/hook?x=1", body });
    expect(receiver.requests[0]?.headers["content-length"]).toBe(String(body.length));
  });

  it("reuses its connections", async () => {
    const receiver = await receive((_request, response) => response.end());
    const via = connector();
    for (let n = 0; n < 20; n += 1) await post(receiver.url, { via });
    // Two, because undici frees a connection a moment after its answer was handed over.
    expect(receiver.connections).toBeLessThanOrEqual(2);
  });

  it("does not follow a redirect", async () => {
    const target = await receive((_request, response) => response.end("never"));
    for (const status of [301, 302, 303, 307, 308]) {
      const receiver = await receive((_request, response) => {
        response.writeHead(status, { location: target.url }).end();
      });
      expect((await post(receiver.url)).status).toBe(status);
    }
    expect(target.connections).toBe(0);
  });

  it("ignores the environment's proxy", async () => {
    const proxy = await receive((_request, response) => response.writeHead(502).end());
    const receiver = await receive((_request, response) => response.end());
    for (const name of ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"])
      vi.stubEnv(name, proxy.url);
    try {
      expect((await post(receiver.url)).status).toBe(200);
      expect(proxy.connections).toBe(0);
    } finally {
      vi.unstubAllEnvs();
    }
  });

  it("does not inflate a compressed answer and survives bytes that are not UTF-8", async () => {
    const receiver = await receive((_request, response) => {
      response
        .writeHead(200, { "content-encoding": "gzip" })
        .end(Buffer.from([0x1f, 0x8b, 0xff, 0x00, 0x41]));
    });
    expect((await post(receiver.url)).body).toBe("\u001f\ufffd\ufffd\u0000A");
  });

  it("answers 204, HTTP/1.0 and informational answers before the real one", async () => {
    const answers = [
      "HTTP/1.1 204 No Content\r\n\r\n",
      "HTTP/1.0 200 OK\r\n\r\nold",
      `${"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(50)}HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok`,
    ];
    const results: unknown[] = [];
    for (const answer of answers) {
      const receiver = await receiveRaw((socket) => socket.once("data", () => socket.end(answer)));
      const { status, body: text } = await post(receiver.url);
      results.push([status, text]);
    }
    expect(results).toEqual([
      [204, ""],
      [200, "old"],
      [201, "ok"],
    ]);
  });

  it("asks the guard first", async () => {
    const receiver = await receive((_request, response) => response.end());
    const via = connector({
      ...LOCAL,
      guard: () => {
        throw new Error("inside a transaction");
      },
    });
    await expect(post(receiver.url, { via })).rejects.toThrow("inside a transaction");
    expect(receiver.connections).toBe(0);
  });

  it("refuses headers that would smuggle another one", async () => {
    const receiver = await receive((_request, response) => response.end());
    const call = connector().post({
      url: receiver.url,
      headers: { "x-name": "a\r\nx-admin: 1" },
      body,
      timeoutMs: 1_000,
    });
    await expect(call).rejects.toThrow(/invalid x-name header/);
    expect(receiver.requests).toEqual([]);
  });
});

describe("addresses that are not called", () => {
  const literals = [
    "https://127.0.0.1/",
    "https://10.0.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://100.64.0.1/",
    "https://240.0.0.1/",
    "https://224.0.0.1/",
    "https://0.0.0.0/",
    "https://0/",
    "https://0x7f.1/",
    "https://0177.0.0.1/",
    "https://2130706433/",
    "https://127.1/",
    "https://127.0.0.1./",
    "https://１２７.０.０.１/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2001:0:4136:e378:8000:63bf:80ff:fffe]/",
    "https://[fd00:ec2::254]/",
    "https://[fe80::1]/",
  ];

  it.each(literals)("%s", async (url) => {
    expect(await codeOf(post(url, { via: connector({}) }))).toBe("refused_address");
  });

  it.each([
    ["a private address", ["10.0.0.5"]],
    ["a mixed answer, public first", ["93.184.215.14", "127.0.0.1"]],
    ["a mixed answer, private first", ["::1", "2606:4700:4700::1111"]],
    ["an IPv6 answer that hides IPv4", ["::ffff:10.0.0.1"]],
    ["NAT64", ["64:ff9b::a00:1"]],
  ])("a name with %s", async (_name, addresses) => {
    const via = connector({ resolve: async () => addresses.map(at) });
    expect(await codeOf(post("https://receiver.test/", { via }))).toBe("refused_address");
  });

  it("localhost through the system's resolver", async () => {
    const receiver = await receive((_request, response) => response.end());
    expect(await codeOf(post(`http://localhost:${receiver.port}/`, { via: connector({}) }))).toBe(
      "refused_address",
    );
    expect(receiver.connections).toBe(0);
  });

  it("a range that is allowed does not open the others", async () => {
    expect(await codeOf(post("http://10.0.0.1/"))).toBe("refused_address");
    const via = connector({ ...LOCAL, resolve: async () => [at("127.0.0.1"), at("10.0.0.1")] });
    expect(await codeOf(post("http://receiver.test/", { via }))).toBe("refused_address");
  });

  it("dials the address that was judged, not what the name resolves to later", async () => {
    const receiver = await receive((_request, response) => response.end("judged"));
    let asked = 0;
    const via = connector({
      ...LOCAL,
      resolve: async () => [at(["127.0.0.1", "127.99.99.99"][asked++] ?? "10.0.0.1")],
    });
    const result = await post(`http://rebinding.test:${receiver.port}/`, { via });
    expect(result.body).toBe("judged");
    expect(receiver.requests[0]?.headers.host).toBe(`rebinding.test:${receiver.port}`);
    expect(asked).toBe(1);
  });

  it("judges again for each new connection", async () => {
    const receiver = await receive((_request, response) => response.end());
    let asked = 0;
    const via = connector({ ...LOCAL, resolve: async () => [at(asked++ === 0 ? "127.0.0.1" : "10.0.0.1")] });
    const url = `http://rebinding.test:${receiver.port}/`;
    await post(url, { via });
    await receiver.close();
    expect(["refused_address", "reset"]).toContain(await codeOf(post(url, { via })));
    expect(await codeOf(post(url, { via }))).toBe("refused_address");
  });

  it("plain http, unless the range is allowed or http is", async () => {
    const publicName = { resolve: async () => [at("93.184.215.14")] };
    expect(await codeOf(post("http://receiver.test/", { via: connector(publicName) }))).toBe(
      "refused_address",
    );
    expect(await codeOf(post("http://93.184.215.14/", { via: connector({}) }))).toBe("refused_address");
    const receiver = await receive((_request, response) => response.end());
    expect((await post(receiver.url)).status).toBe(200);
    // Not called for real: the judgement alone.
    const rules = {
      allowed: [],
      allowHttp: true,
      ownPorts: () => [],
      connectTimeoutMs: 1,
      ca: [],
      resolve: async () => [],
    };
    expect(checkUrl("http://93.184.215.14/", rules).hostname).toBe("93.184.215.14");
    expect(() => checkUrl("http://93.184.215.14/", { ...rules, allowHttp: false })).toThrow(/over https/);
  });

  it("other schemes, credentials in the URL, no URL", async () => {
    for (const url of [
      "ftp://example.com/",
      "file:///etc/passwd",
      "https://a:b@example.com/",
      "https://a@example.com/",
      "x",
    ])
      expect(await codeOf(post(url))).toBe("refused_address");
  });

  it("our own port, by literal and by name, even in an allowed range", async () => {
    const own = await receive((_request, response) => response.end());
    const other = await receive((_request, response) => response.end());
    const via = connector({ ...LOCAL, ownPorts: () => [own.port], resolve: async () => [at("127.0.0.1")] });
    expect(await codeOf(post(own.url, { via }))).toBe("refused_address");
    expect(await codeOf(post(`http://127.8.8.8:${own.port}/`, { via }))).toBe("refused_address");
    expect(await codeOf(post(`http://me.test:${own.port}/`, { via }))).toBe("refused_address");
    expect((await post(other.url, { via })).status).toBe(200);
    expect(own.connections).toBe(0);
  });
});

describe("failures have distinct codes", () => {
  it("dns: unknown name, no address, too slow", async () => {
    const nxdomain = Object.assign(new Error("getaddrinfo ENOTFOUND"), { code: "ENOTFOUND" });
    const unknown = connector({ resolve: () => Promise.reject(nxdomain) });
    const error = await failure(post("https://nowhere.test/", { via: unknown }));
    expect(error).toMatchObject({ code: "dns", message: "nowhere.test does not resolve (ENOTFOUND)." });
    expect(await codeOf(post("https://a.test/", { via: connector({ resolve: async () => [] }) }))).toBe(
      "dns",
    );
    const slow = connector({ resolve: () => new Promise(() => {}), connectTimeoutMs: 30 });
    expect(await codeOf(post("https://a.test/", { via: slow }))).toBe("dns");
  });

  it("connect: refused", async () => {
    const receiver = await receive((_request, response) => response.end());
    await receiver.close();
    expect(await codeOf(post(receiver.url))).toBe("connect");
  });

  it("tls: unknown authority, wrong name, expired, not TLS at all", async () => {
    const good = { cert: fixture("receiver.crt"), key: fixture("receiver.key") };
    const receiver = await receive((_request, response) => response.end("secret"), good);
    const resolve = async () => [at("127.0.0.1")];
    const trusting = connector({ ...LOCAL, resolve, ca: [good.cert] });
    const named = `https://receiver.test:${receiver.port}/`;
    expect((await post(named, { via: trusting })).body).toBe("secret");
    expect(await codeOf(post(named, { via: connector({ ...LOCAL, resolve }) }))).toBe("tls");
    expect(await codeOf(post(`https://other.test:${receiver.port}/`, { via: trusting }))).toBe("tls");
    expect(await codeOf(post(receiver.url, { via: trusting }))).toBe("tls");

    const old = { cert: fixture("expired.crt"), key: fixture("expired.key") };
    const expired = await receive((_request, response) => response.end(), old);
    const via = connector({ ...LOCAL, resolve, ca: [old.cert] });
    expect(await failure(post(`https://receiver.test:${expired.port}/`, { via }))).toMatchObject({
      code: "tls",
      message: expect.stringMatching(/expired/),
    });

    const plain = await receiveRaw((socket) => socket.once("data", () => socket.end("hello\r\n")));
    expect(await codeOf(post(plain.url.replace("http:", "https:")))).toBe("tls");
    expect(receiver.requests.length).toBe(1);
  });

  it("connect timeout while the peer accepts but never speaks TLS", async () => {
    const silent = await receiveRaw(() => {});
    const via = connector({ ...LOCAL, connectTimeoutMs: 50 });
    expect(await codeOf(post(silent.url.replace("http:", "https:"), { via }))).toBe("tls");
  });

  it("reset: before the head, within the head, within the body", async () => {
    const beginnings = ["", "HTTP/1.1 200 OK\r\nx-a", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"];
    for (const beginning of beginnings) {
      const receiver = await receiveRaw((socket) => {
        socket.once("data", () => {
          if (beginning === "") socket.resetAndDestroy();
          else socket.write(beginning, () => setImmediate(() => socket.resetAndDestroy()));
        });
      });
      expect(await codeOf(post(receiver.url))).toBe("reset");
      // A fresh connection that is cut spends the attempt: it may have been received.
      expect(receiver.connections).toBe(1);
    }
  });

  it("reset: a clean end in the middle of the body is no complete answer", async () => {
    const receiver = await receiveRaw((socket) =>
      socket.once("data", () => socket.end("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")),
    );
    expect(await codeOf(post(receiver.url))).toBe("reset");
  });

  it("protocol: what comes back is not HTTP", async () => {
    const receiver = await receiveRaw((socket) =>
      socket.once("data", () => socket.end("SSH-2.0-OpenSSH\r\n")),
    );
    expect(await codeOf(post(receiver.url))).toBe("protocol");
  });

  it("too_large: a header line of 64 kB", async () => {
    const receiver = await receiveRaw((socket) =>
      socket.once("data", () => socket.end(`HTTP/1.1 200 OK\r\nx-a: ${"a".repeat(65_536)}\r\n\r\n`)),
    );
    expect(await codeOf(post(receiver.url))).toBe("too_large");
  });

  it("closed: after close()", async () => {
    const receiver = await receive((_request, response) => response.end());
    const via = connector();
    await via.close();
    expect(await codeOf(post(receiver.url, { via }))).toBe("closed");
  });
});

describe("deadline and cap", () => {
  const intervals: NodeJS.Timeout[] = [];
  beforeEach(() => intervals.splice(0));
  afterEach(() => intervals.forEach(clearInterval));

  function drip(first: string, piece: string) {
    return receiveRaw((socket) => {
      socket.once("data", () => {
        socket.write(first);
        const timer = setInterval(() => socket.write(piece), 20);
        intervals.push(timer);
        socket.on("close", () => clearInterval(timer));
      });
    });
  }

  it.each([
    ["a header drip", "HTTP/1.1 200 OK\r\n", "x-a: b\r\n"],
    ["a body drip", "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", "."],
    ["a chunked body without end", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "1\r\n.\r\n"],
    [
      "informational answers for ever",
      "HTTP/1.1 103 Early Hints\r\n\r\n",
      "HTTP/1.1 103 Early Hints\r\n\r\n",
    ],
  ])("%s ends at the total deadline and frees the connection", async (_name, first, piece) => {
    const receiver = await drip(first, piece);
    const via = connector({ ...LOCAL, maxConnections: 1 });
    const startedAt = performance.now();
    expect(await codeOf(post(receiver.url, { via, timeoutMs: 200 }))).toBe("timeout");
    const tookMs = performance.now() - startedAt;
    expect(tookMs).toBeGreaterThan(190);
    expect(tookMs).toBeLessThan(2_000);
    // The one connection is free for the next call, which gets one of its own.
    expect(await codeOf(post(receiver.url, { via, timeoutMs: 100 }))).toBe("timeout");
    expect(receiver.connections).toBe(2);
  });

  it("a call that waits for a connection has the same deadline and is never sent", async () => {
    const silent = await receiveRaw(() => {});
    const via = connector({ ...LOCAL, maxConnections: 1 });
    const first = codeOf(post(silent.url, { via, timeoutMs: 400 }));
    const started = performance.now();
    expect(await codeOf(post(silent.url, { via, timeoutMs: 100 }))).toBe("timeout");
    expect(performance.now() - started).toBeLessThan(390);
    expect(await first).toBe("timeout");
    expect(silent.connections).toBe(1);
  });

  it("reads no more than the cap of a 256 MB answer", async () => {
    const total = 256 * 1024 * 1024;
    let sent = 0;
    const receiver = await receive((_request, response) => {
      response.writeHead(200, { "content-length": total, "x-a": "b" });
      const chunk = Buffer.alloc(64 * 1024, "x");
      const pump = (): void => {
        while (sent < total && !response.destroyed) {
          sent += chunk.length;
          if (!response.write(chunk)) return void response.once("drain", pump);
        }
      };
      pump();
    });
    const error = await failure(post(receiver.url, { via: connector({ ...LOCAL, maxBodyBytes: 1_000 }) }));
    expect(error.code).toBe("too_large");
    expect(error.partial).toMatchObject({ status: 200, headers: { "x-a": "b" }, body: "x".repeat(1_000) });
    expect(sent).toBeLessThan(total / 8);
  });

  it("an answer of exactly the cap is complete", async () => {
    const receiver = await receive((_request, response) => response.end("x".repeat(1_000)));
    const result = await post(receiver.url, { via: connector({ ...LOCAL, maxBodyBytes: 1_000 }) });
    expect(result.body.length).toBe(1_000);
  });
});

describe("a stale keep-alive connection", () => {
  // Answers the first request of each connection and cuts at the second, as a server does whose idle timer has just run
  // out; only a client that keeps the connection gets there.
  function cutAtSecondRequest(cut: "reset" | "end") {
    const seen: string[] = [];
    const receiver = receiveRaw((socket) => {
      let requests = 0;
      socket.on("data", () => {
        requests += 1;
        seen.push(`request ${requests}`);
        if (requests === 1) socket.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        else if (cut === "reset") socket.resetAndDestroy();
        else socket.end();
      });
    });
    return { seen, receiver };
  }

  it.each(["reset", "end"] as const)("is answered by sending again at once (%s)", async (cut) => {
    const { seen, receiver } = cutAtSecondRequest(cut);
    const { url } = await receiver;
    const via = connector({ ...LOCAL, maxConnections: 1 });
    expect((await post(url, { via })).body).toBe("ok");
    expect((await post(url, { via })).body).toBe("ok");
    expect(seen).toEqual(["request 1", "request 2", "request 1"]);
  });

  it("but not when the answer had begun", async () => {
    let requests = 0;
    const receiver = await receiveRaw((socket) => {
      socket.on("data", () => {
        requests += 1;
        if (requests === 1) socket.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        else socket.write("HTTP/1.1 200 OK\r\ncontent-", () => setImmediate(() => socket.resetAndDestroy()));
      });
    });
    const via = connector({ ...LOCAL, maxConnections: 1 });
    await post(receiver.url, { via });
    expect(await codeOf(post(receiver.url, { via }))).toBe("reset");
    expect(requests).toBe(2);
  });
});

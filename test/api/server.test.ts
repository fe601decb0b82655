import { once } from "node:events";
import { createServer, request as httpRequest } from "node:http";
import { connect } from "node:net";
import { pino } from "pino";
import { afterEach, describe, expect, test } from "vitest";
import { readinessChecks } from "../../src/api/readiness.ts";
import { type ApiOptions, type ApiServer, createApiServer } from "../../src/api/server.ts";
import type { Bot } from "../../src/core/bot.ts";
import type { Cloud } from "../../src/core/cloud.ts";
import { syncPeople } from "../../src/core/people/sync.ts";
import { testDatabase } from "../support/database.ts";

const open: ApiServer[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((server) => server.close(0)));
});

async function start(
  options: Partial<ApiOptions> = {},
): Promise<{ url: string; port: number; server: ApiServer }> {
  const server = createApiServer({
    receivers: [],
    checks: [],
    log: pino({ level: "silent" }),
    version: "0.1.0",
    ...options,
  });
  open.push(server);
  return { ...(await server.listen({ host: "127.0.0.1", port: 0 })), server };
}

describe("addresses", () => {
  test("/healthz says that the process lives", async () => {
    const { url } = await start();

    const response = await fetch(`${url}/healthz`);

    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({ status: "ok", version: "0.1.0" });
    expect(response.headers.get("x-powered-by")).toBeNull();
  });

  test.each([
    ["GET", "/v2/nothing"],
    ["POST", "/healthz"],
    ["GET", "/slack/events/more"],
  ])("%s %s is a problem document", async (method, path) => {
    const { url } = await start();

    const response = await fetch(`${url}${path}?token=canary`, { method });

    expect(response.status).toBe(404);
    expect(response.headers.get("content-type")).toMatch(/^application\/problem\+json/);
    expect(await response.json()).toEqual({
      type: "about:blank",
      title: "Not Found",
      status: 404,
      detail: "There is nothing at this address.",
      instance: path,
    });
  });

  test("a fault of ours is told without its text, a broken address as the client's", async () => {
    const { url, port } = await start({
      receivers: [
        {
          path: "/slack/events",
          listener() {
            throw new Error("canary");
          },
        },
      ],
    });

    const fault = await fetch(`${url}/slack/events`, { method: "POST" });
    expect(fault.status).toBe(500);
    expect(await fault.text()).not.toContain("canary");

    const client = httpRequest({ port, path: "/%E0%A4%A" }).end();
    const [response] = await once(client, "response");
    response.resume();
    expect([400, 404]).toContain(response.statusCode);
  });
});

describe("receivers", () => {
  test("get the raw body and the whole address, whatever its type", async () => {
    const { url } = await start({
      receivers: [
        {
          path: "/slack/events",
          listener(request, response) {
            const chunks: Buffer[] = [];
            request.on("data", (chunk: Buffer) => chunks.push(chunk));
            request.on("end", () => response.end(`${request.url} ${Buffer.concat(chunks).toString()}`));
          },
        },
      ],
    });

    for (const type of ["application/json", "application/x-www-form-urlencoded"]) {
      const response = await fetch(`${url}/slack/events?a=1`, {
        method: "POST",
        body: '{ "a":1 }',
        headers: { "content-type": type },
      });
      expect(await response.text()).toBe('/slack/events?a=1 { "a":1 }');
    }
  });
});

describe("/readyz", () => {
  test("is ready as long as what is required is there", async () => {
    const checks: ApiOptions["checks"] = [
      { name: "database", required: true, check: () => Promise.resolve({ ok: true, detail: "answers" }) },
      { name: "queue", required: false, check: () => Promise.reject(new Error("redis://:canary@host")) },
    ];
    const ready = await start({ checks });
    const notReady = await start({ checks: [{ ...checks[1]!, required: true }] });

    const first = await fetch(`${ready.url}/readyz`);
    expect(first.status).toBe(200);
    expect(await first.json()).toEqual({
      status: "ready",
      checks: {
        database: { ok: true, required: true, detail: "answers" },
        queue: { ok: false, required: false, detail: "failed; the log has the details" },
      },
    });
    const second = await fetch(`${notReady.url}/readyz`);
    expect(second.status).toBe(503);
    expect(await second.text()).not.toContain("canary");
  });

  test("does not wait for a check that hangs", async () => {
    const { url } = await start({
      checks: [{ name: "slow", required: true, check: () => new Promise(() => {}) }],
    });

    const response = await fetch(`${url}/readyz`);

    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({ checks: { slow: { detail: "no answer within 2000 ms" } } });
  });

  test("looks at the database, the queue, clouds and bots", async () => {
    const database = await testDatabase();
    try {
      await database.transaction((tx) =>
        syncPeople(tx, {
          customers: [],
          plans: [],
          clouds: ["good", "bad", "new"].map((name) => ({ name, type: "openstack", maxConcurrent: 1 })),
        }),
      );
      await database.sql("UPDATE clouds SET last_ok_at = clock() - interval '5 seconds' WHERE name <> 'new'");
      await database.sql(
        `UPDATE clouds SET last_problem = '{"code":"unreachable","staffDetail":"canary"}' WHERE name = 'bad'`,
      );
      const clouds = ["good", "bad", "new"].map((name) => ({ name }) as Cloud);
      const { url } = await start({
        checks: readinessChecks({
          database,
          pingQueue: () => Promise.resolve(),
          clouds: { get: () => clouds[0]!, list: () => clouds },
          bots: [
            { platform: "slack", status: () => ({ ok: false, detail: "connecting" }) } as unknown as Bot,
          ],
        }),
      });

      const body = await fetch(`${url}/readyz`).then((response) => response.json());

      expect(body).toEqual({
        status: "ready",
        checks: {
          database: { ok: true, required: true, detail: "answers" },
          queue: { ok: true, required: false, detail: "answers" },
          "cloud:good": {
            ok: true,
            required: false,
            detail: expect.stringMatching(/^last answered \d+ s ago$/),
          },
          "cloud:bad": {
            ok: false,
            required: false,
            detail: expect.stringMatching(/^unreachable; last answered \d+ s ago$/),
          },
          "cloud:new": { ok: false, required: false, detail: "has not answered yet" },
          "bot:slack": { ok: false, required: false, detail: "connecting" },
        },
      });
    } finally {
      await database.close();
    }
  });
});

describe("listen and close", () => {
  test("a port in use is a sentence with what to do", async () => {
    const blocker = createServer().listen(0, "127.0.0.1");
    await once(blocker, "listening");
    const address = blocker.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const server = createApiServer({
      receivers: [],
      checks: [],
      log: pino({ level: "silent" }),
      version: "0",
    });

    await expect(server.listen({ host: "127.0.0.1", port })).rejects.toMatchObject({
      code: "configuration",
      message: `Port ${port} on 127.0.0.1 is in use by another program. Stop it, or set PORT to another one.`,
    });
    await expect(server.listen({ host: "203.0.113.77", port: 0 })).rejects.toMatchObject({
      message: expect.stringContaining("This machine has no address 203.0.113.77"),
    });
    blocker.close();
  });

  test("close ends idle and hanging connections, lets a running request finish, and may be called twice", async () => {
    let answer: (() => void) | undefined;
    const { server, url, port } = await start({
      receivers: [{ path: "/slow", listener: (_request, response) => (answer = () => response.end("done")) }],
    });
    const silent = connect(port, "127.0.0.1");
    await once(silent, "connect");
    const ended = once(silent, "close");
    const running = fetch(`${url}/slow`).then((response) => response.text());
    await expect.poll(() => answer !== undefined).toBe(true);

    const closing = server.close(1_000);
    answer?.();
    expect(await running).toBe("done");
    await closing;
    await ended;
    await server.close();
    await expect(fetch(`${url}/healthz`)).rejects.toThrow("fetch failed");
  });

  test("a request that never ends is cut after the grace", async () => {
    let arrived = false;
    const { server, url } = await start({
      receivers: [
        {
          path: "/never",
          listener() {
            arrived = true;
          },
        },
      ],
    });
    const answer = fetch(`${url}/never`).catch((error: unknown) => error);
    await expect.poll(() => arrived).toBe(true);

    await server.close(50);

    expect(await answer).toMatchObject({ message: "fetch failed" });
  });
});

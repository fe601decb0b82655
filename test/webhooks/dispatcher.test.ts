import type { ServerResponse } from "node:http";
import { Webhook } from "standardwebhooks";
import { afterAll, beforeEach, describe, expect, it, vi } from "vitest";
import { localWake } from "../../src/core/wake.ts";
import type { Database } from "../../src/database/client.ts";
import { attempt } from "../../src/webhooks/attempt.ts";
import { claim } from "../../src/webhooks/claim.ts";
import { fanOut } from "../../src/webhooks/fan-out.ts";
import { RETRY_DELAYS_MS } from "../../src/webhooks/retry.ts";
import { parseSecrets } from "../../src/webhooks/signature.ts";
import { type Received, receive, receiveRaw } from "../net/receiver.ts";
import { clean, eachBackend, moveClock } from "../support/database.ts";
import { addCustomer, addEvent, addServer, attempts, createWorld, deliveries, type World } from "./world.ts";

function signatureOf(request: Received | undefined): Record<string, string> {
  const headers: Received["headers"] = request?.headers ?? {};
  const names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
  return Object.fromEntries(names.map((name) => [name, String(headers[name])]));
}

/** Answers each request with the next status; the last one goes on. */
function statuses(...list: number[]) {
  return receive((_request, response) => {
    const status = list.length > 1 ? list.shift() : list[0];
    response.writeHead(status ?? 200).end(`status ${status}`);
  });
}

/** Leaves every request open until told. */
async function hanging() {
  const waiting: ServerResponse[] = [];
  const receiver = await receive((_request, response) => void waiting.push(response));
  return {
    receiver,
    waiting,
    answerAll: () => waiting.splice(0).forEach((response) => response.writeHead(200).end()),
  };
}

async function eventTypes(database: Database): Promise<string[]> {
  const rows = await database.sql<{ type: string }>("SELECT type FROM events ORDER BY occurred_at, id");
  return rows.map(({ type }) => type);
}

function claimOptions(owner: string, claimNumber = 1) {
  return { owner, claimNumber, leaseMs: 30_000, laneLimit: 32, loads: new Map<string, number>() };
}

function contextOf(world: World, secret: string) {
  return {
    connector: world.connector,
    log: world.log,
    random: () => 0.5,
    userAgent: "test",
    maxTimeoutMs: 10_000,
    keys: async () => parseSecrets(secret),
  };
}

eachBackend("dispatcher", (database) => {
  const world = createWorld(database);
  beforeEach(async () => {
    await clean(database());
    await moveClock(database(), 0);
    world.lines.length = 0;
    world.alerts.length = 0;
  });
  afterAll(() => world.close());

  describe("an event", () => {
    it("arrives signed, and is recorded", async () => {
      const receiver = await statuses(200);
      const secret = await world.endpoints({ url: receiver.url });
      const server = await addServer(database());
      const id = await addEvent(database(), { serverId: server.id, data: { reason: "wörld" } });
      expect(await world.dispatcher({ userAgent: "ratatosk/1" }).tick()).toEqual({
        events: 1,
        deliveries: 1,
        claimed: 1,
        delivered: 1,
        retried: 0,
        dead: 0,
        released: 0,
      });
      const [request] = receiver.requests;
      expect(request?.headers).toMatchObject({
        "webhook-id": id,
        "content-type": "application/json",
        "user-agent": "ratatosk/1",
      });
      const payload = new Webhook(secret).verify(request?.body ?? "", signatureOf(request));
      expect(payload).toMatchObject({
        id,
        type: "server.created",
        position: 1,
        sequence: 1,
        server: server.publicId,
        data: { reason: "wörld", internal: {} },
      });
      expect(await deliveries(database())).toMatchObject([
        { state: "delivered", attempts: 1, leased: false },
      ]);
      expect(await attempts(database())).toEqual([
        { n: 1, httpStatus: 200, outcome: "delivered", error: null, response: "status 200" },
      ]);
      expect(await world.dispatcher().tick()).toMatchObject({ claimed: 0 });
    });

    it("is tried again with the same id and body, a new timestamp and a new signature", async () => {
      const receiver = await statuses(500, 200);
      const secret = await world.endpoints({ url: receiver.url });
      await addEvent(database(), { data: '{"n": 9007199254740993, "price": 10.50}' });
      const dispatcher = world.dispatcher();
      expect(await dispatcher.tick()).toMatchObject({ claimed: 1, retried: 1, delivered: 0 });
      const [waiting] = await deliveries(database());
      expect(waiting).toMatchObject({ state: "pending", attempts: 1, leased: false });
      expect(waiting?.nextInMs).toBeGreaterThan(3_000);
      expect(waiting?.nextInMs).toBeLessThanOrEqual(5_000);
      expect(await dispatcher.tick()).toMatchObject({ claimed: 0 });
      await moveClock(database(), 6_000);
      expect(await dispatcher.tick()).toMatchObject({ claimed: 1, delivered: 1 });

      const [first, second] = receiver.requests;
      expect(second?.body.equals(first?.body ?? Buffer.alloc(0))).toBe(true);
      expect(first?.body.toString()).toContain('"n":9007199254740993,"price":10.50');
      const [before, after] = [signatureOf(first), signatureOf(second)];
      expect(after["webhook-id"]).toBe(before["webhook-id"]);
      const laterBySeconds = Number(after["webhook-timestamp"]) - Number(before["webhook-timestamp"]);
      expect(laterBySeconds).toBeGreaterThanOrEqual(6); // the database's clock, moved by 6 s
      expect(laterBySeconds).toBeLessThan(10);
      expect(after["webhook-signature"]).not.toBe(before["webhook-signature"]);
      for (const request of receiver.requests)
        expect(() => new Webhook(secret).verify(request.body, signatureOf(request))).not.toThrow();
      expect((await attempts(database())).map(({ n, httpStatus, error }) => [n, httpStatus, error])).toEqual([
        [1, 500, "HTTP 500"],
        [2, 200, null],
      ]);
    });

    it("is signed with the new and the old secret while it is being changed", async () => {
      const receiver = await statuses(200);
      const [next, old] = ["n", "o"].map((letter) => `whsec_${Buffer.alloc(32, letter).toString("base64")}`);
      await world.endpoints({ url: receiver.url, secret: `${next} ${old}` });
      await addEvent(database());
      await world.dispatcher().tick();
      const [request] = receiver.requests;
      for (const secret of [next, old])
        expect(() =>
          new Webhook(secret ?? "").verify(request?.body ?? "", signatureOf(request)),
        ).not.toThrow();
    });

    it("of a customer is shown to that customer without anything internal", async () => {
      const canary = "canary-7f3a";
      const [ada] = [await addCustomer(database(), "ada"), await addCustomer(database(), "bob")];
      const receiver = await statuses(200);
      const at = (name: string) => `${receiver.url}${name}`;
      await world.endpoints(
        { name: "ours", url: at("ours") },
        { name: "ada", url: at("ada"), customer: "ada" },
        { name: "bob", url: at("bob"), customer: "bob" },
      );
      await addEvent(database(), { customerId: ada, data: { ip: "192.0.2.7" }, staffData: { node: canary } });
      await addEvent(database(), { staffData: { node: canary } });
      await world.dispatcher().tick();
      const seen = (path: string) => receiver.requests.filter((request) => request.path === `/${path}`);
      expect(seen("ours").map(({ body }) => body.includes(canary))).toEqual([true, true]);
      expect(seen("ada").length).toBe(1);
      expect(JSON.stringify(seen("ada")[0]?.headers) + seen("ada")[0]?.body.toString()).not.toContain(canary);
      expect(JSON.parse(seen("ada")[0]?.body.toString() ?? "")).toMatchObject({
        customer: "ada",
        data: { ip: "192.0.2.7" },
      });
      expect(seen("bob")).toEqual([]);
    });

    it("comes in the order of the feed when the lane is one wide", async () => {
      const receiver = await statuses(200);
      await world.endpoints({ url: receiver.url });
      for (let n = 0; n < 40; n += 1) await addEvent(database());
      const dispatcher = world.dispatcher({ laneWidth: 1 });
      expect(await dispatcher.tick()).toMatchObject({ events: 40, delivered: 32 });
      await dispatcher.tick();
      const positions = receiver.requests.map(({ body }) => JSON.parse(body.toString()).position);
      expect(positions).toEqual(Array.from({ length: 40 }, (_, n) => n + 1));
    });
  });

  describe("an answer", () => {
    it("that never comes right ends in a dead delivery, an alert and a notice", async () => {
      const broken = await statuses(500);
      await world.endpoints({ name: "crm", url: broken.url });
      await addEvent(database(), { type: "server.deleted" });
      const dispatcher = world.dispatcher();
      let elapsedMs = 0;
      for (let n = 0; n < RETRY_DELAYS_MS.length; n += 1) {
        expect(await dispatcher.tick()).toMatchObject({ claimed: 1, retried: 1 });
        elapsedMs += (RETRY_DELAYS_MS[n] ?? 0) + 1_000;
        await moveClock(database(), elapsedMs);
      }
      expect(world.alerts).toEqual([]);
      expect(await dispatcher.tick()).toMatchObject({ claimed: 1, dead: 1 });
      expect(broken.requests.length).toBe(10);
      expect(new Set(broken.requests.map(({ headers }) => headers["webhook-id"])).size).toBe(1);
      expect(await deliveries(database())).toMatchObject([{ state: "dead", attempts: 10, nextInMs: null }]);
      expect(world.alerts).toEqual([
        "Webhook endpoint crm: 1 delivery given up; the last, server.deleted, failed 10 times (HTTP 500). Check the receiver.",
      ]);
      expect(world.lines.some((line) => line.includes('"alert":"endpoint"'))).toBe(true);
      expect(await eventTypes(database())).toEqual(["server.deleted", "webhook.delivery.dead"]);
    });

    it.each([400, 401, 403, 413])("%i is not repeated", async (status) => {
      const receiver = await statuses(status);
      await world.endpoints({ name: "crm", url: receiver.url });
      await addEvent(database());
      expect(await world.dispatcher().tick()).toMatchObject({ dead: 1, retried: 0 });
      expect(await attempts(database())).toMatchObject([{ outcome: "permanent", error: `HTTP ${status}` }]);
      expect(world.alerts[0]).toBe(
        `Webhook endpoint crm: 1 delivery given up; the last, server.created, refused for good (HTTP ${status}). Check the receiver.`,
      );
    });

    it("that refuses notices too makes no notices of notices; another endpoint hears of it", async () => {
      const refusing = await statuses(400);
      const listening = await statuses(200);
      const ada = await addCustomer(database(), "ada");
      const customers = await statuses(200);
      await world.endpoints(
        { name: "crm", url: refusing.url },
        { name: "ops", url: listening.url },
        { name: "ada", url: customers.url, customer: "ada" },
      );
      await addEvent(database(), { customerId: ada });
      const dispatcher = world.dispatcher();
      for (let n = 0; n < 4; n += 1) await dispatcher.tick();
      expect(await eventTypes(database())).toEqual(["server.created", "webhook.delivery.dead"]);
      const heard = listening.requests.map(({ body }) => JSON.parse(body.toString()));
      expect(heard.map(({ type }) => type)).toEqual(["server.created", "webhook.delivery.dead"]);
      expect(heard[1].data).toMatchObject({
        endpoint: "crm",
        event: heard[0].id,
        eventType: "server.created",
        attempts: 1,
        httpStatus: 400,
      });
      expect(customers.requests.length).toBe(1);
    });

    it("that gives many up alerts once, and counts", async () => {
      const receiver = await statuses(403);
      await world.endpoints({ name: "crm", url: receiver.url });
      for (let n = 0; n < 20; n += 1) await addEvent(database());
      const dispatcher = world.dispatcher({ laneWidth: 1 });
      await dispatcher.tick();
      expect(world.alerts.length).toBe(1);
      await moveClock(database(), 6 * 60_000);
      await addEvent(database());
      while ((await dispatcher.tick()).claimed > 0);
      // The first ones, and five minutes later all that came to nothing since.
      const told = world.alerts.map((text) => Number(/: (\d+) deliver/.exec(text)?.[1]));
      expect(told.length).toBe(2);
      expect((told[0] ?? 0) + (told[1] ?? 0)).toBeGreaterThanOrEqual(21);
      const [{ dead } = { dead: 0 }] = await database().sql<{ dead: number }>(
        "SELECT count(*)::int AS dead FROM deliveries WHERE state = 'dead'",
      );
      expect(dead).toBe(42); // 21 events and a notice of each
    });

    it("410 disables the endpoint; what waits is sent when a restart finds it configured", async () => {
      const receiver = await statuses(410, 200);
      const list = { name: "crm", url: receiver.url, secret: `whsec_${Buffer.alloc(32).toString("base64")}` };
      await world.endpoints(list);
      for (let n = 0; n < 3; n += 1) await addEvent(database());
      const dispatcher = world.dispatcher({ laneWidth: 1 });
      expect(await dispatcher.tick()).toMatchObject({ claimed: 3, dead: 1, released: 2 });
      expect(receiver.requests.length).toBe(1);
      expect(world.alerts).toEqual([
        expect.stringMatching(/^Webhook endpoint crm answered 410 Gone and is disabled/),
      ]);
      const reasons = await database().sql("SELECT disabled_reason IS NOT NULL AS off FROM endpoints");
      expect(reasons).toEqual([{ off: true }]);
      expect(await eventTypes(database())).toContain("webhook.endpoint.disabled");
      await addEvent(database());
      expect(await dispatcher.tick()).toMatchObject({ claimed: 0, deliveries: 0 });
      await world.endpoints(list);
      expect(await dispatcher.tick()).toMatchObject({ claimed: 2, delivered: 2 });
    });

    it("429 pauses the whole endpoint as long as it asks, and no other", async () => {
      const throttling = await receive((_request, response) => {
        if (throttling.requests.length === 1) response.writeHead(429, { "retry-after": "120" }).end();
        else response.end();
      });
      const other = await statuses(200);
      await world.endpoints({ name: "busy", url: throttling.url }, { name: "other", url: other.url });
      for (let n = 0; n < 3; n += 1) await addEvent(database());
      const dispatcher = world.dispatcher({ laneWidth: 1 });
      expect(await dispatcher.tick()).toMatchObject({ claimed: 6, delivered: 3, retried: 1, released: 2 });
      await addEvent(database());
      await moveClock(database(), 100_000);
      expect(await dispatcher.tick()).toMatchObject({ claimed: 1, delivered: 1 });
      expect(throttling.requests.length).toBe(1);
      await moveClock(database(), 125_000);
      expect(await dispatcher.tick()).toMatchObject({ claimed: 4, delivered: 4 });
      expect(other.requests.length).toBe(4);
    });

    it("with Retry-After is obeyed, never earlier than our own schedule", async () => {
      const receiver = await receive((request, response) => {
        const wait = request.path.slice(1);
        response.writeHead(500, { "retry-after": wait }).end();
      });
      await world.endpoints(
        { name: "a", url: `${receiver.url}3600` },
        { name: "b", url: `${receiver.url}1` },
      );
      await addEvent(database());
      await world.dispatcher().tick();
      const [a, b] = await deliveries(database());
      expect(a?.nextInMs).toBeGreaterThan(3_590_000);
      expect(b?.nextInMs).toBeGreaterThan(3_000);
      expect(b?.nextInMs).toBeLessThanOrEqual(5_000);
    });

    it("that redirects is a failure, and its target is never called", async () => {
      const target = await statuses(200);
      const receiver = await receive((_request, response) => {
        response.writeHead(307, { location: target.url }).end();
      });
      await world.endpoints({ url: receiver.url });
      await addEvent(database());
      expect(await world.dispatcher().tick()).toMatchObject({ retried: 1 });
      expect(target.connections).toBe(0);
    });

    it("of 200 with too long a body counts, and only its beginning is kept", async () => {
      const receiver = await receive((_request, response) => response.end("é\u0000".repeat(100_000)));
      await world.endpoints({ url: receiver.url });
      await addEvent(database());
      expect(await world.dispatcher().tick()).toMatchObject({ delivered: 1 });
      const [row] = await attempts(database());
      expect(row).toMatchObject({ httpStatus: 200, error: expect.stringMatching(/^too_large: /) });
      expect(row?.response).toMatch(/^é\ufffdé\ufffd/);
      expect(row?.response?.length).toBeLessThanOrEqual(2_048);
    });

    it("that is none is recorded with its reason", async () => {
      const closed = await statuses(200);
      await closed.close();
      const cut = await receiveRaw((socket) => socket.once("data", () => socket.resetAndDestroy()));
      await world.endpoints(
        { name: "connect", url: closed.url },
        { name: "refused_address", url: "https://10.0.0.1/" },
        { name: "reset", url: cut.url },
      );
      await addEvent(database());
      expect(await world.dispatcher().tick()).toMatchObject({ claimed: 3, retried: 3 });
      const rows = await database().sql<{ name: string; error: string }>(
        `SELECT n.name, a.error FROM attempts a JOIN deliveries d ON d.id = a.delivery_id
           JOIN endpoints n ON n.id = d.endpoint_id`,
      );
      expect(rows.length).toBe(3);
      for (const { name, error } of rows) expect(error.startsWith(`${name}: `)).toBe(true);
    });
  });

  describe("a crash", () => {
    it("after the claim: nothing happens until the lease is over, then it is delivered", async () => {
      const receiver = await statuses(200);
      await world.endpoints({ url: receiver.url });
      const id = await addEvent(database());
      await fanOut(database());
      expect((await claim(database(), claimOptions("dead"))).claimed.length).toBe(1);
      await moveClock(database(), 29_000);
      expect(await world.dispatcher().tick()).toMatchObject({ claimed: 0 });
      await moveClock(database(), 31_000);
      expect(await world.dispatcher().tick()).toMatchObject({ claimed: 1, delivered: 1 });
      expect(receiver.requests.map(({ headers }) => headers["webhook-id"])).toEqual([id]);
    });

    it("between the answer and its record: sent again under the same id, one attempt recorded", async () => {
      const receiver = await statuses(200);
      const secret = await world.endpoints({ url: receiver.url });
      const id = await addEvent(database());
      await fanOut(database());
      const [claimed] = (await claim(database(), claimOptions("dead"))).claimed;
      if (!claimed) throw new Error("nothing was claimed");
      expect(await attempt(claimed, contextOf(world, secret))).toMatchObject({ outcome: "delivered" });
      // Here the process is gone.
      expect(await world.dispatcher().tick()).toMatchObject({ claimed: 0 });
      await moveClock(database(), 31_000);
      expect(await world.dispatcher().tick()).toMatchObject({ delivered: 1 });
      expect(receiver.requests.map(({ headers }) => headers["webhook-id"])).toEqual([id, id]);
      expect((await attempts(database())).length).toBe(1);
    });

    it("of the database while recording: not marked delivered, told in the log, repeated after the lease", async () => {
      const receiver = await statuses(200);
      await world.endpoints({ url: receiver.url });
      await addEvent(database());
      let transactions = 0;
      const full: Database = {
        ...database(),
        transaction: (work, options) => {
          transactions += 1; // fan-out, claim, record
          return transactions > 2
            ? Promise.reject(new Error("disk full"))
            : database().transaction(work, options);
        },
      };
      expect(await world.dispatcher({ database: full }).tick()).toMatchObject({ claimed: 1, delivered: 0 });
      expect(await deliveries(database())).toMatchObject([{ state: "pending", attempts: 0, leased: true }]);
      expect(world.lines.some((line) => line.includes("disk full"))).toBe(true);
      await moveClock(database(), 31_000);
      expect(await world.dispatcher().tick()).toMatchObject({ delivered: 1 });
      expect(receiver.requests.length).toBe(2);
    });

    it("that was none: a dispatcher that wakes after its lease writes nothing", async () => {
      const { receiver, waiting, answerAll } = await hanging();
      await world.endpoints({ url: receiver.url });
      await addEvent(database());
      const late = world.dispatcher().tick();
      await vi.waitFor(() => expect(waiting.length).toBe(1));
      await moveClock(database(), 31_000);
      const other = world.dispatcher().tick();
      await vi.waitFor(() => expect(waiting.length).toBe(2));
      waiting.shift()?.writeHead(500).end();
      expect(await late).toMatchObject({ claimed: 1, delivered: 0, retried: 0 });
      expect(await attempts(database())).toEqual([]);
      expect(world.lines.some((line) => line.includes("took longer than their lease"))).toBe(true);
      answerAll();
      expect(await other).toMatchObject({ delivered: 1 });
      expect(await attempts(database())).toMatchObject([{ n: 1, outcome: "delivered" }]);
    });
  });

  describe("many", () => {
    it("two dispatchers never send the same, and together keep to the lane's width", async () => {
      const total = 120;
      let now = 0;
      let most = 0;
      const receiver = await receive((_request, response) => {
        now += 1;
        most = Math.max(most, now);
        setImmediate(() => {
          now -= 1;
          response.end();
        });
      });
      await world.endpoints({ url: receiver.url });
      const ids: string[] = [];
      for (let n = 0; n < total; n += 1) ids.push(await addEvent(database()));
      const [one, two] = [world.dispatcher({ laneLimit: 8 }), world.dispatcher({ laneLimit: 8 })];
      let delivered = 0;
      while (delivered < total) {
        const ticks = await Promise.all([one.tick(), two.tick()]);
        delivered += ticks.reduce((sum, tick) => sum + tick.delivered, 0);
        expect(ticks.some(({ claimed }) => claimed > 0)).toBe(true);
      }
      expect(receiver.requests.map(({ headers }) => String(headers["webhook-id"])).toSorted()).toEqual(
        ids.toSorted(),
      );
      expect(most).toBeLessThanOrEqual(4);
      expect(most).toBeGreaterThan(1);
    });

    it("claims of the same moment never overlap", async () => {
      await world.endpoints({ name: "a", url: "https://a.test/" }, { name: "b", url: "https://b.test/" });
      for (let n = 0; n < 30; n += 1) await addEvent(database());
      await fanOut(database());
      const claims = await Promise.all(
        ["p", "q", "r"].map((owner) => claim(database(), claimOptions(owner))),
      );
      const all = claims.flatMap(({ claimed }) => claimed);
      const ids = all.map(({ deliveryId }) => deliveryId);
      expect(new Set(ids).size).toBe(ids.length);
      expect(ids.length).toBeGreaterThan(0);
      // A lane is one dispatcher's at a time.
      const ownersByLane = new Map<string, Set<string>>();
      for (const { endpoint, lease } of all)
        ownersByLane.set(endpoint.id, (ownersByLane.get(endpoint.id) ?? new Set()).add(lease));
      for (const owners of ownersByLane.values()) expect(owners.size).toBe(1);
    });

    it("a hanging endpoint does not keep the others waiting", async () => {
      const { receiver: slow, waiting, answerAll } = await hanging();
      const healthy = await statuses(200);
      await world.endpoints({ name: "slow", url: slow.url }, { name: "healthy", url: healthy.url });
      for (let n = 0; n < 100; n += 1) await addEvent(database());
      const dispatcher = world.dispatcher();
      dispatcher.start();
      try {
        await vi.waitFor(() => expect(healthy.requests.length).toBe(100), { timeout: 10_000 });
        expect(slow.requests.length).toBe(4);
        expect(waiting.length).toBe(4);
      } finally {
        const stopped = dispatcher.stop();
        answerAll();
        await stopped;
      }
      expect(await deliveries(database())).not.toContainEqual(expect.objectContaining({ leased: true }));
    });

    it("what cannot be sent before its lease ends is given back untried", async () => {
      const { receiver } = await hanging();
      await world.endpoints({ url: receiver.url, timeoutMs: 500 });
      for (let n = 0; n < 10; n += 1) await addEvent(database());
      // 0.5 s for an attempt and 3 s to record it: after the first four have timed out the others would be too late.
      const done = await world.dispatcher({ leaseMs: 3_900 }).tick();
      expect(done).toMatchObject({ claimed: 10, retried: 4, released: 6 });
      expect((await attempts(database())).map(({ error }) => error?.split(":")[0])).toEqual([
        "timeout",
        "timeout",
        "timeout",
        "timeout",
      ]);
      expect((await deliveries(database())).filter(({ leased }) => leased)).toEqual([]);
    });
  });

  describe("start and stop", () => {
    it("a nudge wakes it, and deliveries that fill the lane follow one another without a sweep", async () => {
      const receiver = await statuses(200);
      await world.endpoints({ url: receiver.url });
      const wake = localWake();
      const dispatcher = world.dispatcher({ wake, sweepMs: 3_600_000, laneLimit: 5 });
      dispatcher.start();
      try {
        for (let n = 0; n < 50; n += 1) await addEvent(database());
        wake.nudge("events");
        await vi.waitFor(() => expect(receiver.requests.length).toBe(50), { timeout: 10_000 });
      } finally {
        await dispatcher.stop();
      }
      expect((await deliveries(database())).every(({ state }) => state === "delivered")).toBe(true);
      await addEvent(database());
      wake.nudge("events");
      expect(receiver.requests.length).toBe(50);
    });

    it("more endpoints than one claim comes to are served without a sweep", async () => {
      const receiver = await statuses(200);
      const total = 130;
      await world.endpoints(...Array.from({ length: total }, (_, n) => ({ url: `${receiver.url}${n}` })));
      await addEvent(database());
      const dispatcher = world.dispatcher({ sweepMs: 3_600_000 });
      dispatcher.start();
      try {
        await vi.waitFor(() => expect(receiver.requests.length).toBe(total), { timeout: 15_000 });
      } finally {
        await dispatcher.stop();
      }
      expect(new Set(receiver.requests.map(({ path }) => path)).size).toBe(total);
    });

    it("the sweep finds what no nudge told of", async () => {
      const receiver = await statuses(200);
      await world.endpoints({ url: receiver.url });
      const dispatcher = world.dispatcher({ sweepMs: 20 });
      dispatcher.start();
      try {
        await addEvent(database());
        await vi.waitFor(() => expect(receiver.requests.length).toBe(1), { timeout: 5_000 });
      } finally {
        await dispatcher.stop();
      }
    });

    it("stop waits for what is under way, gives the rest back, and not longer than told", async () => {
      const { receiver, waiting, answerAll } = await hanging();
      await world.endpoints({ url: receiver.url });
      for (let n = 0; n < 10; n += 1) await addEvent(database());
      const dispatcher = world.dispatcher();
      dispatcher.start();
      await vi.waitFor(() => expect(waiting.length).toBe(4));
      await dispatcher.stop(50);
      expect((await deliveries(database())).filter(({ leased }) => leased).length).toBe(4);
      const stopped = dispatcher.stop();
      answerAll();
      await stopped;
      const states = (await deliveries(database())).map(({ state }) => state);
      expect(states.filter((state) => state === "delivered").length).toBe(4);
      expect(receiver.requests.length).toBe(4);
    });

    it("survives a database that is away for a moment", async () => {
      const receiver = await statuses(200);
      await world.endpoints({ url: receiver.url });
      await addEvent(database());
      let failures = 2;
      const flaky: Database = {
        ...database(),
        sql: (text, values) =>
          failures-- > 0 ? Promise.reject(new Error("connection lost")) : database().sql(text, values),
      };
      const dispatcher = world.dispatcher({ database: flaky, sweepMs: 10 });
      dispatcher.start();
      try {
        await vi.waitFor(() => expect(receiver.requests.length).toBe(1), { timeout: 5_000 });
      } finally {
        await dispatcher.stop();
      }
      expect(world.lines.filter((line) => line.includes("connection lost")).length).toBe(2);
    });
  });

  it("keeps secrets and URLs out of the log, the attempts, the alerts and the events", async () => {
    const token = "T0K3N-in-the-url";
    const refusing = await statuses(403);
    const broken = await statuses(500);
    const secret = await world.endpoints(
      { name: "a", url: `${refusing.url}${token}` },
      { name: "b", url: `${broken.url}${token}` },
      { name: "c", url: `https://10.0.0.1/${token}` },
      { name: "d", url: `http://127.0.0.1:1/${token}` },
    );
    await addEvent(database());
    await world.dispatcher().tick();
    const rows = await database().sql("SELECT to_jsonb(a) AS row FROM attempts a");
    const events = await database().sql("SELECT to_jsonb(e) AS row FROM events e");
    expect(rows.length).toBe(4);
    const everything = [...world.lines, ...world.alerts, JSON.stringify([rows, events])].join("\n");
    expect(everything).not.toContain(token);
    expect(everything).not.toContain(secret.slice("whsec_".length));
  });

  it("never calls from inside a transaction", async () => {
    const receiver = await statuses(200);
    const call = database().transaction(() =>
      world.connector.post({ url: receiver.url, headers: {}, body: Buffer.from(""), timeoutMs: 1_000 }),
    );
    await expect(call).rejects.toThrow(/a webhook call was used inside a transaction/);
    expect(receiver.connections).toBe(0);
  });
});

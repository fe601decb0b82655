import { afterAll, beforeEach, expect, it } from "vitest";
import type { Database } from "../../src/database/client.ts";
import { fanOut } from "../../src/webhooks/fan-out.ts";
import { clean, eachBackend } from "../support/database.ts";
import { addCustomer, addEvent, addServer, createWorld, deliveries } from "./world.ts";

interface Placed {
  id: string;
  serverId: string | null;
  sequence: bigint | null;
  position: bigint | null;
}

function placed(database: Database): Promise<Placed[]> {
  return database.sql(
    `SELECT id, server_id AS "serverId", sequence, position FROM events ORDER BY position NULLS LAST`,
  );
}

/** Positions are 1, 2, 3, … and no server's event comes before its predecessor. */
function expectFeed(rows: readonly Placed[], count: number): void {
  expect(rows.map(({ position }) => position)).toEqual(
    Array.from({ length: count }, (_, n) => BigInt(n + 1)),
  );
  const last = new Map<string, bigint>();
  for (const { serverId, sequence } of rows) {
    if (serverId === null || sequence === null) continue;
    expect(sequence).toBe((last.get(serverId) ?? 0n) + 1n);
    last.set(serverId, sequence);
  }
}

eachBackend("fan-out", (database) => {
  const world = createWorld(database);
  const url = "https://example.com/";
  beforeEach(() => clean(database()));
  afterAll(() => world.close());

  it("gives each event one position, in order, once", async () => {
    const server = await addServer(database());
    const ids: string[] = [];
    const start = Date.now();
    // A millisecond each: what is of the same one, and of different servers, has no order.
    for (let n = 0; n < 5; n += 1) {
      const occurredAt = new Date(start + n);
      ids.push(await addEvent(database(), { serverId: n % 2 === 0 ? server.id : null, occurredAt }));
    }
    expect(await fanOut(database())).toEqual({ events: 5, deliveries: 0 });
    expect(await fanOut(database())).toEqual({ events: 0, deliveries: 0 });
    const rows = await placed(database());
    expect(rows.map(({ id }) => id)).toEqual(ids);
    expectFeed(rows, 5);
  });

  it("keeps a server's sequence when statement times are out of order, in one batch and across batches", async () => {
    const server = await addServer(database());
    const start = Date.now();
    // Each later event claims to be older than the one before.
    for (let n = 0; n < 12; n += 1) {
      await addEvent(database(), { serverId: server.id, occurredAt: new Date(start - n * 1_000) });
      await addEvent(database(), { occurredAt: new Date(start - n * 1_000) });
    }
    const sizes: number[] = [];
    for (;;) {
      const { events } = await fanOut(database(), 3);
      if (events === 0) break;
      sizes.push(events);
      const rows = (await placed(database())).filter(({ position }) => position !== null);
      expectFeed(rows, rows.length);
    }
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(24);
    expectFeed(await placed(database()), 24);
  });

  it("makes deliveries for matching endpoints only", async () => {
    const [ada, bob] = [await addCustomer(database(), "ada"), await addCustomer(database(), "bob")];
    await world.endpoints(
      { name: "all", url },
      { name: "servers", url, events: ["server.*"] },
      { name: "resizes", url, events: ["server.resize.*"] },
      { name: "exact", url, events: ["server.created", "sync.completed"] },
      { name: "prefix", url, events: ["serve.*"] },
      { name: "ada", url, customer: "ada" },
      { name: "bob-deletes", url, customer: "bob", events: ["server.deleted"] },
    );
    const events = {
      created: await addEvent(database(), { type: "server.created", customerId: ada }),
      resized: await addEvent(database(), { type: "server.resize.succeeded", customerId: bob }),
      deleted: await addEvent(database(), { type: "server.deleted", customerId: bob }),
      synced: await addEvent(database(), { type: "sync.completed" }),
      other: await addEvent(database(), { type: "serverx.created" }),
    };
    await fanOut(database());
    const rows = await deliveries(database());
    const forEvent = (id: string) => rows.filter((row) => row.eventId === id).map((row) => row.endpoint);
    expect(forEvent(events.created)).toEqual(["ada", "all", "exact", "servers"]);
    expect(forEvent(events.resized)).toEqual(["all", "resizes", "servers"]);
    expect(forEvent(events.deleted)).toEqual(["all", "bob-deletes", "servers"]);
    expect(forEvent(events.synced)).toEqual(["all", "exact"]);
    expect(forEvent(events.other)).toEqual(["all"]);
    expect(
      rows.every(({ state, attempts, leased }) => state === "pending" && attempts === 0 && !leased),
    ).toBe(true);
    const versions = await database().sql<{ version: string }>(
      "SELECT DISTINCT substring(id::text, 15, 1) || '/' || (substring(id::text, 20, 1) IN ('8','9','a','b')) AS version FROM deliveries",
    );
    expect(versions).toEqual([{ version: "7/true" }]);
  });

  it("makes none for a disabled endpoint, and none twice", async () => {
    await world.endpoints({ name: "on", url }, { name: "off", url });
    await database().sql("UPDATE endpoints SET disabled_at = clock() WHERE name = 'off'");
    await addEvent(database());
    expect(await fanOut(database())).toEqual({ events: 1, deliveries: 1 });
    expect((await deliveries(database())).map(({ endpoint }) => endpoint)).toEqual(["on"]);
  });

  it("never shows a reader of the feed a smaller position later, under concurrent writers and fan-outs", async () => {
    const servers = await Promise.all([1, 2, 3].map(() => addServer(database())));
    const perWriter = 25;
    const state = { writing: true };
    let seen = 0n;

    async function write(index: number): Promise<void> {
      for (let n = 0; n < perWriter; n += 1) {
        await database().transaction(async (tx) => {
          // Several events in one transaction, of servers in id order, as the engine does it.
          const both = [servers[index % 3], servers[(index + 1) % 3]].toSorted((a, b) =>
            (a?.id ?? "") < (b?.id ?? "") ? -1 : 1,
          );
          for (const server of both) await addEvent(tx, { serverId: server?.id ?? null });
          await addEvent(tx);
        });
      }
    }
    async function place(): Promise<void> {
      for (;;) {
        const wasWriting = state.writing;
        const { events } = await fanOut(database(), 7);
        if (events === 0 && !wasWriting) return;
      }
    }
    async function read(): Promise<void> {
      while (state.writing) {
        const rows = await database().sql<{ position: bigint }>(
          "SELECT position FROM events WHERE position > $1 ORDER BY position",
          [seen],
        );
        for (const { position } of rows) {
          // A hole here would be an event that this reader never sees.
          expect(position).toBe(seen + 1n);
          seen = position;
        }
      }
    }
    const writers = Promise.all([0, 1, 2, 3].map(write)).finally(() => {
      state.writing = false;
    });
    await Promise.all([writers, place(), place(), read()]);
    await fanOut(database());
    expectFeed(await placed(database()), 4 * perWriter * 3);
  });
});

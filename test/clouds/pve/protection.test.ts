/** Whoever protects a server against deletion or lifts that: it is told, once each time, by an event. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { runSync } from "../../../src/core/sync/run.ts";
import type { Database } from "../../../src/database/client.ts";
import { clean, testDatabase } from "../../support/database.ts";
import { silent } from "../../support/world.ts";
import { BUILD, createPveWorld, type PveWorld } from "./world.ts";

let database: Database;
let world: PveWorld;

beforeAll(async () => {
  database = await testDatabase();
});
beforeEach(async () => {
  await clean(database);
  world = await createPveWorld({ database });
  await world.run(world.sam, "server.build", BUILD);
});
afterEach(() => world.close());
afterAll(() => database.close());

async function told(): Promise<unknown[]> {
  const events = await world.events();
  return events.flatMap(({ type, data }) =>
    type === "server.protection.changed" ? [data["protected"]] : [],
  );
}

function order(command: string, options: Record<string, string> = {}) {
  return world.run(world.sam, command, { server: "web-1", ...options });
}

function inPve(protection: string | null): void {
  world.simulator.changeVm(world.made()[0]?.vmid ?? 0, { config: { protection } });
}

async function sync(): Promise<void> {
  await runSync({ database, cloud: world.cloud, resource: "servers", requester: "test", log: silent });
}

it("a protection that is set or lifted in PVE itself is told when a sync sees it", async () => {
  inPve("1");
  await sync();
  expect(await told()).toEqual([true]);
  await sync();
  inPve(null);
  await sync();
  expect(await told()).toEqual([true, false]);
});

it("one that a deletion is the first to see is told, too", async () => {
  inPve("1");
  expect(await world.run(world.rita, "server.delete", { server: "web-1" })).toMatchObject({
    state: "failed",
    problem: { code: "drifted" },
  });
  expect(await told()).toEqual([true]);
});

it("a rollback to a snapshot from before brings the old protection back, and that is told", async () => {
  await order("server.protect");
  expect(await order("snapshot.create", { name: "s1" })).toMatchObject({ problem: null });
  await order("server.protect", { on: "no" });
  expect(await told()).toEqual([true, false]);
  expect(await order("snapshot.rollback", { snapshot: "s1" })).toMatchObject({ problem: null });
  const [row] = await database.sql(`SELECT delete_protected AS "isProtected" FROM servers`);
  expect(row).toEqual({ isProtected: true });
  expect(await told()).toEqual([true, false, true]);
});

it("one that we set ourselves is told once, with the operation that did it", async () => {
  const set = await order("server.protect");
  const events = await database.sql<{ operationId: string }>(
    `SELECT operation_id AS "operationId" FROM events WHERE type = 'server.protection.changed'`,
  );
  expect(events).toEqual([{ operationId: set.id }]);
});

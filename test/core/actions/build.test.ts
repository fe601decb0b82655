/** The order of the team, on a cloud with flavors; on Proxmox VE: test/clouds/pve/road.test.ts. */
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Database } from "../../../src/database/client.ts";
import { testDatabase } from "../../support/database.ts";
import { ed25519Key } from "../../support/ssh-key.ts";
import { createWorld, type World } from "../../support/world.ts";

let database: Database;
let world: World;

beforeAll(async () => {
  database = await testDatabase();
  world = await createWorld({ database });
});
afterAll(async () => {
  await world.close();
  await database.close();
});

const order = {
  name: "web-1",
  customer: "ada",
  image: "debian-12",
  cpu: "1",
  memory: "2G",
  disk: "10G",
  network: "private",
};

it("builds with exactly the sizes that were given, by the same road as a plan", async () => {
  const { run, sam } = world;
  const operation = await run(sam, "server.build", order);
  expect(operation).toMatchObject({ state: "succeeded", problem: null });
  const rows = await database.sql(`SELECT name, plan_code, vcpus, memory_mib, disk_gib, state FROM servers`);
  expect(rows).toEqual([
    { name: "web-1", plan_code: null, vcpus: 1, memory_mib: 2048, disk_gib: 10, state: "active" },
  ]);
});

it.each([
  [{ cpu: "3" }, "unsupported", /There is no size with 3 vCPU.* It has: /u],
  [{ node: "n1" }, "unsupported", /^os1 takes no node: leave it out\.$/u],
  [{ key: ed25519Key() }, "unsupported", /^os1 takes no key/u],
  [{ sockets: "1" }, "unsupported", /^os1 takes no sockets/u],
  [{ storage: "fast" }, "unsupported", /^os1 takes no storage/u],
  [{ clone: "full" }, "unsupported", /^os1 takes no clone/u],
  [{ ip: "10.0.0.5/24" }, "unsupported", /^os1 takes no ip/u],
  [{ start: "no" }, "unsupported", /^os1 takes no start/u],
  [{ key: "not a key" }, "invalid_input", /is no public SSH key; paste the whole line/u],
  [{ cloud: "os2" }, "not_found", /No cloud "os2". Did you mean os1\?/u],
  [{ memory: "100M" }, "invalid_input", /^Memory must be at least 512 MiB\.$/u],
  [{ name: "web_1" }, "invalid_input", /only letters, digits and hyphens/u],
  [{ customer: "bob", disk: "0G" }, "invalid_input", /disk/u],
])("refuses %j with a sentence, before anything is entered", async (change, code, message) => {
  const { ask, sam } = world;
  const before = await database.sql(`SELECT count(*)::int AS n FROM operations`);
  await expect(ask(sam, "server.build", { ...order, name: "web-2", ...change })).rejects.toMatchObject({
    code,
    message: expect.stringMatching(message),
  });
  expect(await database.sql(`SELECT count(*)::int AS n FROM operations`)).toEqual(before);
});

it("takes a plan instead of sizes", async () => {
  const { run, sam } = world;
  const { cpu: _cpu, memory: _memory, disk: _disk, ...named } = order;
  const operation = await run(sam, "server.build", { ...named, name: "web-3", plan: "m" });
  expect(operation).toMatchObject({ state: "succeeded", problem: null });
  const rows = await database.sql(`SELECT plan_code, vcpus, memory_mib FROM servers WHERE name = 'web-3'`);
  expect(rows).toEqual([{ plan_code: "m", vcpus: 2, memory_mib: 4096 }]);
});

it("does not exist for customers", async () => {
  await expect(world.ask(world.ada, "server.build", { ...order, name: "web-2" })).rejects.toMatchObject({
    code: expect.stringMatching(/unknown_command|forbidden/u),
  });
});

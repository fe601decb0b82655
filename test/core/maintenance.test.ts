/** Announced work on a cloud or a node: who is told what, who is kept from changing, and where nothing new goes. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import type { Principal } from "../../src/core/access.ts";
import { renderCard } from "../../src/core/operations/card.ts";
import type { Answer } from "../../src/core/request.ts";
import { runSync } from "../../src/core/sync/run.ts";
import type { Database } from "../../src/database/client.ts";
import { BUILD, createPveWorld, type PveWorld } from "../clouds/pve/world.ts";
import { clean, testDatabase } from "../support/database.ts";
import { createWorld, silent } from "../support/world.ts";

let database: Database;
let world: PveWorld;

beforeAll(async () => {
  database = await testDatabase();
});
beforeEach(async () => {
  await clean(database);
  world = await createPveWorld({ database });
  await world.run(world.sam, "server.build", { ...BUILD, node: "n1" });
  await world.run(world.sam, "server.build", { ...BUILD, name: "web-2", node: "n2" });
});
afterEach(() => world.close());
afterAll(() => database.close());

const MESSAGE = "New disks, back at 18:00.";

function maintenance(options: Record<string, string> = {}): Promise<Answer> {
  return world.ask(world.sam, "cloud.maintenance", {
    cloud: "sim",
    state: "on",
    message: MESSAGE,
    ...options,
  });
}

function dryRun(who: Principal, action: string, options: Record<string, string>): Promise<Answer> {
  return world.entrance.dispatch({
    action,
    options,
    principal: who,
    source: "console",
    idempotencyKey: `dry:${action}`,
    origin: null,
    dryRun: true,
  });
}

function bannerOf(answer: Answer): string[] | undefined {
  return answer.kind === "form" ? undefined : answer.view.banner;
}

const show = (who: Principal, server: string) => world.ask(who, "server.show", { server });
const reboot = { server: "web-1", action: "reboot" };
const forStaff = expect.stringMatching(
  /^Maintenance of sim, node n1 since .* UTC: New disks, back at 18:00\.$/u,
);
const forCustomers = `Maintenance: ${MESSAGE}`;

it("everything that touches a node in maintenance says so: staff see which, customers what they are told", async () => {
  const before = await world.run(world.ada, "server.power", reboot);
  await maintenance({ node: "n1" });
  expect(bannerOf(await show(world.sam, "web-1"))).toEqual([forStaff]);
  expect(bannerOf(await show(world.ada, "web-1"))).toEqual([forCustomers]);
  expect(bannerOf(await world.ask(world.sam, "server.list"))).toEqual([forStaff]);
  expect(bannerOf(await world.ask(world.ada, "server.list"))).toEqual([forCustomers]);
  expect(bannerOf(await dryRun(world.sam, "server.power", reboot))).toEqual([forStaff]);
  const answer = await world.ask(world.sam, "server.power", reboot);
  expect(bannerOf(answer)).toEqual([forStaff]);
  if (answer.kind !== "operation") throw new Error("no operation");
  expect((await renderCard(database, answer.operationId, "staff")).view.banner).toEqual([forStaff]);
  expect((await renderCard(database, before.id, "customer")).view.banner).toEqual([forCustomers]);
  expect(bannerOf(await world.ask(world.sam, "ops.show", { operation: answer.publicId }))).toEqual([
    forStaff,
  ]);
  expect(bannerOf(await world.ask(world.sam, "cloud.list"))).toEqual([forStaff]);
});

it("what is not on that node has no banner and can be changed", async () => {
  await maintenance({ node: "n1" });
  expect(bannerOf(await show(world.ada, "web-2"))).toBeUndefined();
  expect(bannerOf(await world.ask(world.ada, "server.list", { query: "web-2" }))).toBeUndefined();
  const power = await world.run(world.ada, "server.power", { server: "web-2", action: "reboot" });
  expect(power).toMatchObject({ state: "succeeded" });
  expect((await renderCard(database, power.id, "staff")).view.banner).toBeUndefined();
});

it("a server that was moved in the cloud is on its new node from the next synchronisation on", async () => {
  const vm = world.simulator.state.vms.find(({ name }) => name === "web-1");
  world.simulator.changeVm(vm?.vmid ?? 0, { node: "n2" });
  const sync = {
    database,
    cloud: world.cloud,
    resource: "servers",
    requester: "system",
    log: silent,
  } as const;
  expect(await runSync(sync)).toMatchObject({ state: "completed", updated: 1 });
  await maintenance({ node: "n2" });
  expect(bannerOf(await show(world.ada, "web-1"))).toEqual([forCustomers]);
  await expect(world.ask(world.ada, "server.power", reboot)).rejects.toMatchObject({ code: "busy" });
  await maintenance({ node: "n2", state: "off" });
  await maintenance({ node: "n1" });
  expect(bannerOf(await show(world.ada, "web-1"))).toBeUndefined();
  expect(await runSync(sync)).toMatchObject({ state: "completed", updated: 0 });
});

it("a customer's change there is refused with the message, the team's goes through", async () => {
  await maintenance({ node: "n1" });
  const refusal = { code: "busy", message: expect.stringContaining(MESSAGE) };
  for (const [action, options] of [
    ["server.power", reboot],
    ["server.resize", { server: "web-1", plan: "m" }],
    ["server.protect", { server: "web-1" }],
    ["snapshot.create", { server: "web-1", name: "s1" }],
  ] as const) {
    await expect(world.ask(world.ada, action, options), action).rejects.toMatchObject(refusal);
    await expect(dryRun(world.ada, action, options), action).rejects.toMatchObject(refusal);
  }
  expect(await world.run(world.sam, "server.power", reboot)).toMatchObject({ state: "succeeded" });
});

it("a customer's confirmation comes too late when the maintenance has begun, and counts when it has ended", async () => {
  const asked = await world.ask(world.ada, "server.rebuild", { server: "web-1", image: "debian-12" });
  if (asked.kind !== "operation") throw new Error("no operation");
  expect((await world.operation(asked.operationId)).state).toBe("awaiting_confirmation");
  await maintenance({ node: "n1" });
  const confirm = () => world.ask(world.ada, "ops.confirm", { operation: asked.publicId });
  await expect(confirm()).rejects.toMatchObject({ code: "busy" });
  expect((await world.operation(asked.operationId)).state).toBe("awaiting_confirmation");
  await maintenance({ node: "n1", state: "off" });
  await confirm();
  expect(await world.settle(asked.operationId)).toMatchObject({ state: "succeeded" });
});

it("nothing new is placed on a node in maintenance, not even when it is asked for", async () => {
  await maintenance({ node: "n1" });
  for (const name of ["a", "b"]) {
    expect(await world.run(world.sam, "server.build", { ...BUILD, name })).toMatchObject({ problem: null });
    expect(world.made().find((vm) => vm.name === name)?.node).toBe("n2");
  }
  const there = await world.run(world.sam, "server.build", { ...BUILD, name: "c", node: "n1" });
  expect(there).toMatchObject({ state: "failed" });
  expect(there.problem?.staffDetail ?? there.problem?.message).toMatch(/maintenance/u);
  await maintenance({ node: "n2" });
  const nowhere = await world.run(world.sam, "server.build", { ...BUILD, name: "d" });
  expect(nowhere).toMatchObject({ state: "failed" });
  expect(
    world
      .made()
      .map((vm) => vm.name)
      .toSorted(),
  ).toEqual(["a", "b", "web-1", "web-2"]);
});

it("announced between the check and the copy, it still keeps the copy away", async () => {
  const answer = await world.ask(world.sam, "server.build", { ...BUILD, name: "a", node: "n2" });
  if (answer.kind !== "operation") throw new Error("no operation");
  // What was checked stays checked: the copy itself has to look again.
  await database.sql(
    `UPDATE operation_steps SET state = 'done' WHERE operation_id = $1 AND name = 'preflight.provision'`,
    [answer.operationId],
  );
  await maintenance({ node: "n2" });
  expect(await world.settle(answer.operationId)).toMatchObject({ state: "failed" });
  expect(world.made().map((vm) => vm.name)).not.toContain("a");
});

it("a whole cloud in maintenance: customers order nothing there, the team is told", async () => {
  await maintenance();
  const order = { name: "new-1", plan: "s", image: "debian-12" };
  await expect(world.ask(world.ada, "server.provision", order)).rejects.toMatchObject({
    code: "busy",
    message: expect.stringContaining(MESSAGE),
  });
  const told = await world.ask(world.sam, "server.provision", { ...order, customer: "ada" });
  expect(bannerOf(told)).toEqual([expect.stringMatching(/^Maintenance of sim since/u)]);
  for (const server of ["web-1", "web-2"]) {
    expect(bannerOf(await show(world.ada, server))).toEqual([forCustomers]);
  }
});

it("its end takes the banner from cards that had it, and events tell of both, to the team alone", async () => {
  const power = await world.run(world.sam, "server.power", reboot);
  await maintenance({ node: "n1" });
  const during = await world.run(world.sam, "server.power", reboot);
  const shown = (await renderCard(database, during.id, "staff")).version;
  await maintenance({ node: "n1", state: "off" });
  const after = await renderCard(database, during.id, "staff");
  expect(after.version).toBeGreaterThan(shown);
  expect(after.view.banner).toBeUndefined();
  // One that ended before is left alone.
  expect((await world.operation(power.id)).version).toBe(power.version);
  const rows = await database.sql(
    `SELECT type, customer_id AS "customerId", data, staff_data AS "staffData" FROM events
     WHERE type LIKE '%.maintenance.%' ORDER BY occurred_at`,
  );
  const staffData = { cloud: "sim", node: "n1", by: "Sam" };
  expect(rows).toEqual([
    { type: "node.maintenance.started", customerId: null, data: { message: MESSAGE }, staffData },
    { type: "node.maintenance.ended", customerId: null, data: { message: MESSAGE }, staffData },
  ]);
  expect(await world.run(world.ada, "server.power", reboot)).toMatchObject({ state: "succeeded" });
});

it("is announced once a place; another message replaces the first, and ending what is not on says what is", async () => {
  await maintenance({ node: "n1" });
  await expect(maintenance({ node: "N1" })).rejects.toMatchObject({ code: "nothing_to_change" });
  await maintenance({ node: "n1", message: "Later: 20:00." });
  expect(bannerOf(await show(world.ada, "web-1"))).toEqual(["Maintenance: Later: 20:00."]);
  await expect(maintenance({ node: "n2", state: "off" })).rejects.toMatchObject({
    code: "nothing_to_change",
    message: expect.stringMatching(/sim, node n2 is not in maintenance\. In maintenance: sim, node n1/u),
  });
  await maintenance({ message: "All of it." });
  expect(bannerOf(await show(world.ada, "web-1"))).toEqual([
    "Maintenance: All of it.",
    "Maintenance: Later: 20:00.",
  ]);
  const rows = await database.sql(
    `SELECT node FROM maintenances WHERE ended_at IS NULL ORDER BY node NULLS FIRST`,
  );
  expect(rows).toEqual([{ node: null }, { node: "n1" }]);
});

it("is announced once even when two say it at once", async () => {
  const all = await Promise.allSettled([1, 2, 3].map(() => maintenance({ node: "n1" })));
  const refused = all.flatMap((one) => (one.status === "rejected" ? [one.reason] : []));
  const late = expect.objectContaining({ code: "nothing_to_change" });
  expect(refused).toEqual([late, late]);
});

it("a name that nobody knows is said so", async () => {
  await expect(maintenance({ cloud: "smi" })).rejects.toMatchObject({
    code: "not_found",
    message: expect.stringContaining("Did you mean sim?"),
  });
  const typo = await maintenance({ node: "n7" });
  expect(typo).toMatchObject({
    view: { tone: "warning", text: expect.stringMatching(/No server of ours is known on that node/u) },
  });
  await expect(
    world.ask(world.ada, "cloud.maintenance", { cloud: "sim", state: "on" }),
  ).rejects.toMatchObject({
    code: "forbidden",
  });
});

it("cloud list shows each cloud with its nodes, its servers and what is being worked on", async () => {
  await maintenance({ node: "n3" });
  const answer = await world.ask(world.sam, "cloud.list");
  expect(answer).toMatchObject({
    view: {
      title: "1 cloud",
      tone: "warning",
      table: { rows: [["sim", "pve", expect.any(String), "2", "n1 n2 n3", "n3"]] },
    },
  });
});

it("a cloud without nodes takes none", async () => {
  await clean(database);
  const other = await createWorld({ database });
  try {
    const options = { cloud: "os1", node: "n1", state: "on" };
    await expect(other.ask(other.sam, "cloud.maintenance", options)).rejects.toMatchObject({
      code: "unsupported",
    });
    await other.ask(other.sam, "cloud.maintenance", { cloud: "os1", state: "on", message: MESSAGE });
    const order = { name: "new-1", plan: "s", image: "debian-12" };
    await expect(other.ask(other.ada, "server.provision", order)).rejects.toMatchObject({ code: "busy" });
  } finally {
    await other.close();
  }
});

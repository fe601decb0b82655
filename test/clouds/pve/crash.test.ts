/** Answers are lost and workers die, at each moment of each operation on PVE: nothing is done twice, and nothing is left. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Engine } from "../../../src/core/operations/engine.ts";
import { createWorker } from "../../../src/core/operations/worker.ts";
import type { Database } from "../../../src/database/client.ts";
import { clean, testDatabase } from "../../support/database.ts";
import { surviveDeaths } from "./deaths.ts";
import { createTime, finish, type Time } from "./time.ts";
import { BUILD, createPveWorld, type PveWorld } from "./world.ts";

let database: Database;
let world: PveWorld | undefined;
let time: Time;

beforeAll(async () => {
  database = await testDatabase();
});
afterEach(async () => {
  await world?.close();
  world = undefined;
});
afterAll(() => database.close());

async function open(engine: Partial<Engine> = {}): Promise<PveWorld> {
  await clean(database);
  time = await createTime(database);
  world = await createPveWorld({ database, engine, runtime: { now: time.now } });
  return world;
}

/** Asked, confirmed where that is asked for, and done. */
async function run(
  at: PveWorld,
  command: string,
  options: Record<string, string>,
): Promise<Awaited<ReturnType<PveWorld["operation"]>>> {
  const answer = await at.ask(at.rita, command, options);
  if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
  const { operationId } = answer;
  const first = await finish(at, time, { operationId });
  if (first.state !== "awaiting_confirmation") return first;
  await at.ask(at.rita, "ops.confirm", { operation: answer.publicId });
  return finish(at, time, { operationId });
}

async function ordered(at: PveWorld, name: string): Promise<string> {
  const answer = await at.ask(at.sam, "server.build", { ...BUILD, name });
  if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
  return answer.operationId;
}

describe("an answer lost after the work was begun (596)", () => {
  it.each([
    ["POST", "/clone$"],
    ["PUT", "/config$"],
    ["PUT", "/resize$"],
    ["POST", "/status/start$"],
  ])("build: %s %s", async (method, path) => {
    const at = await open();
    at.simulator.addFault({
      method,
      path,
      kind: "status_after",
      status: 596,
      reason: "Connection timed out",
    });
    const end = await run(at, "server.build", BUILD);
    expect(end).toMatchObject({ state: "succeeded", problem: null });
    expect(at.made()).toMatchObject([{ status: "running", guest: { boots: 1 }, config: { memory: "2048" } }]);
    expect(at.made()[0]?.disks["scsi0"]?.sizeBytes).toBe(10 * 2 ** 30);
    expect(at.simulator.state.tasks.filter((task) => task.type === "qmclone")).toHaveLength(1);
  });

  it.each([
    ["POST", "/status/stop$"],
    ["DELETE", "/qemu/\\d+\\?"],
  ])("delete: %s %s", async (method, path) => {
    const at = await open();
    await run(at, "server.build", BUILD);
    const stranger = at.simulator.addStranger({ name: "web-1" });
    at.simulator.addFault({ method, path, kind: "status_after", status: 596 });
    expect(await run(at, "server.delete", { server: "web-1" })).toMatchObject({
      problem: null,
      state: "succeeded",
    });
    expect(at.made()).toEqual([]);
    expect(at.simulator.state.vms.some((vm) => vm.vmid === stranger.vmid)).toBe(true);
  });

  it("on every write once, with locks of seconds in the tasks", async () => {
    const at = await open();
    for (const method of ["POST", "PUT", "DELETE"]) {
      at.simulator.addFault({ method, path: "/qemu/", kind: "status_after", status: 596, times: 2 });
    }
    const message = "can't lock file '/var/lock/qemu-server/lock-100000.conf' - got timeout";
    at.simulator.addTaskFault({ task: "qmstart", outcome: "fail", at: "start", message });
    const built = await at.ask(at.sam, "server.build", BUILD);
    if (built.kind !== "operation") throw new Error(JSON.stringify(built));
    expect(await finish(at, time, built)).toMatchObject({ state: "succeeded" });
    expect(at.made()).toHaveLength(1);
    expect(at.made()[0]?.guest.boots).toBe(1);
  });
});

describe("a stranger in our range", () => {
  it("duplicate newid: a number lost in the clone's task is replaced by the next one, and the order goes on", async () => {
    const at = await open();
    at.simulator.state.traps = { stealVmids: 2 };
    const end = await run(at, "server.build", BUILD);
    expect(end).toMatchObject({ problem: null, state: "succeeded" });
    expect(at.made()).toMatchObject([{ vmid: 100_002, status: "running", guest: { boots: 1 } }]);
    const strangers = at.simulator.state.vms.filter((vm) => vm.stranger);
    expect(strangers.map((vm) => vm.vmid)).toEqual([100_000, 100_001]);
    expect(strangers.every((vm) => !vm.description.includes(end.id) && vm.lock === undefined)).toBe(true);
    expect((await at.lines(end.id)).join("\n")).toMatch(/Somebody else took the number/u);
  });

  it("duplicate newid, and the worker that found it out died: the next one takes another number", async () => {
    const at = await open();
    at.simulator.state.traps = { stealVmids: 1 };
    const operationId = await ordered(at, "web-1");
    const first = createWorker({ ...at.engine, worker: "first" }, { concurrency: 4 });
    for (let round = 0; at.simulator.state.tasks.length === 0 && round < 50; round += 1) await first.tick();
    // What its last look wrote; its verdict is lost.
    await database.sql(`UPDATE vmid_reservations SET spoilt_at = clock()`);
    await time.later(16_000);
    expect(await finish(at, time, { operationId, worker: "second" })).toMatchObject({
      problem: null,
      state: "succeeded",
    });
    expect(at.made()).toMatchObject([{ vmid: 100_001, guest: { boots: 1 } }]);
    expect(at.simulator.state.vms.find((vm) => vm.vmid === 100_000)).toMatchObject({ stranger: true });
  });

  it("'already exists' of somebody else: PVE's early refusal is no success, and the next number is taken", async () => {
    const at = await open();
    const body = { data: null, message: "unable to create VM 100000: config file already exists\n" };
    at.simulator.addFault({ method: "POST", path: "/clone$", kind: "status", status: 500, body });
    const operationId = await ordered(at, "web-1");
    const first = createWorker({ ...at.engine, worker: "first" }, { concurrency: 4 });
    await first.tick();
    expect(at.simulator.state.faults).toMatchObject([{ left: 0 }]);
    const theirs = at.simulator.addStranger({ vmid: 100_000 });
    expect(await finish(at, time, { operationId, worker: "first" })).toMatchObject({
      problem: null,
      state: "succeeded",
    });
    expect(at.made()).toMatchObject([{ vmid: 100_001, guest: { boots: 1 } }]);
    expect(at.simulator.state.vms.find((vm) => vm.vmid === 100_000)).toEqual(theirs);
  });

  it("a range full of thieves ends the order, with nothing made and nothing of theirs touched", async () => {
    const at = await open();
    at.simulator.state.traps = { stealVmids: 1_000 };
    const end = await run(at, "server.build", BUILD);
    expect(end).toMatchObject({
      state: "failed",
      problem: { code: "cloud_conflict", message: expect.stringMatching(/Order it again\.$/u) },
    });
    expect(at.made()).toEqual([]);
    // Tried for as long as the engine's patience lasts, not for ever.
    const stolen = at.simulator.state.vms.filter((vm) => vm.stranger);
    expect(stolen.length).toBeLessThan(10);
    expect(stolen.every((vm) => vm.lock === undefined)).toBe(true);
  });
});

describe("a cloud that cannot be read after an answer was lost", () => {
  it.each([
    "is waited for past the patience, and then what was done is known",
    "is waited for past the patience, and then what was not done is asked for again",
  ])("%s", async (title) => {
    const at = await open({ patienceMs: 30_000 });
    await run(at, "server.build", BUILD);
    await run(at, "server.power", { server: "web-1", action: "kill" });
    const kind = title.includes("was done") ? "status_after" : "status";
    at.simulator.addFault({ method: "POST", path: "/status/start$", kind, status: 596 });
    const unread = time.now() + 5 * 60_000;
    const answer = await at.ask(at.rita, "server.power", { server: "web-1", action: "start" });
    if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
    const worker = createWorker({ ...at.engine, worker: "w" }, { concurrency: 4, now: time.now });
    for (let round = 0; !(await inDoubt(answer.operationId)) && round < 50; round += 1) await worker.tick();
    at.simulator.addFault({ method: "GET", path: "/config", kind: "status", status: 596, times: 0 });
    while (time.now() < unread) {
      await time.later(31_000);
      await worker.tick();
    }
    expect(await at.operation(answer.operationId)).toMatchObject({ state: "waiting", problem: null });
    at.simulator.clearFaults();
    expect(await finish(at, time, { ...answer, worker: "w" })).toMatchObject({ state: "succeeded" });
    expect(at.made()).toMatchObject([{ status: "running", guest: { boots: 2 } }]);
  });

  it("and stays unreadable until the step's deadline: a person is asked, nothing is claimed", async () => {
    const at = await open({ patienceMs: 30_000 });
    await run(at, "server.build", BUILD);
    at.simulator.addFault({ method: "POST", path: "/status/stop$", kind: "status_after", status: 596 });
    const answer = await at.ask(at.rita, "server.power", { server: "web-1", action: "kill" });
    if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
    const worker = createWorker({ ...at.engine, worker: "w" }, { concurrency: 4, now: time.now });
    for (let round = 0; !(await inDoubt(answer.operationId)) && round < 50; round += 1) await worker.tick();
    at.simulator.addFault({ method: "GET", path: "/config", kind: "status", status: 596, times: 0 });
    const begun = time.now();
    expect(await finish(at, time, { ...answer, worker: "w" })).toMatchObject({
      state: "needs_attention",
      problem: { code: "unknown_outcome" },
    });
    expect(time.now() - begun).toBeGreaterThan(9 * 60_000);
    at.simulator.clearFaults();
    await at.ask(at.rita, "ops.retry", { operation: answer.publicId });
    expect(await finish(at, time, { ...answer, worker: "w" })).toMatchObject({ state: "succeeded" });
    const rows = await database.sql(`SELECT state FROM servers WHERE name = 'web-1'`);
    expect(rows).toEqual([{ state: "stopped" }]);
  });
});

async function inDoubt(operationId: string): Promise<boolean> {
  const rows = await database.sql(`SELECT 1 FROM operation_steps WHERE operation_id = $1 AND in_doubt`, [
    operationId,
  ]);
  return rows.length > 0;
}

describe("a worker that dies", () => {
  it("at each moment of a build: another one ends it, with one VM an order", {
    timeout: 240_000,
  }, async () => {
    const at = await open();
    const { orders, moments } = await surviveDeaths(
      { ...at, time },
      {
        begin: (order) => ordered(at, `w-${order}`),
        after(_order, { id }, nth) {
          const own = at.made().filter((vm) => vm.description.includes(id));
          expect({ nth, own }).toMatchObject({ nth, own: [{ guest: { boots: 1 } }] });
        },
      },
    );
    expect(moments).toBeGreaterThan(15);
    expect(at.made()).toHaveLength(orders);
    const clones = at.simulator.state.tasks.filter((task) => task.type === "qmclone");
    expect(clones).toHaveLength(at.made().length);
  });

  it("during a delete: it is gone, and only it", async () => {
    const at = await open();
    await run(at, "server.build", { ...BUILD, name: "stays" });
    await run(at, "server.build", BUILD);
    const answer = await at.ask(at.rita, "server.delete", { server: "web-1" });
    if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
    await at.ask(at.rita, "ops.confirm", { operation: answer.publicId });
    let left = 4;
    const dying = {
      ...at.engine,
      worker: "first",
      reached() {
        left -= 1;
        if (left === 0) throw new Error("dies here");
      },
    };
    const first = createWorker(dying, { concurrency: 4 });
    for (let round = 0; round < 100; round += 1) {
      await first.tick();
      if (left <= 0) break;
      await first.watcher.tick();
    }
    expect(left).toBe(0);
    expect(await finish(at, time, { ...answer, worker: "second" })).toMatchObject({ state: "succeeded" });
    expect(at.made().map((vm) => vm.name)).toEqual(["stays"]);
  });
});

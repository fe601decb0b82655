/** Answers are lost and workers die, at each moment of each operation on PVE: nothing is done twice, and nothing is left. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Engine } from "../../../src/core/operations/engine.ts";
import type { OperationRow } from "../../../src/core/operations/rows.ts";
import { createWorker } from "../../../src/core/operations/worker.ts";
import type { Database } from "../../../src/database/client.ts";
import { clean, moveClock, testDatabase } from "../../support/database.ts";
import { BUILD, createPveWorld, type PveWorld } from "./world.ts";

let database: Database;
let world: PveWorld | undefined;

beforeAll(async () => {
  database = await testDatabase();
});
afterEach(async () => {
  await world?.close();
  world = undefined;
});
afterAll(() => database.close());

let offsetMs = 0;
/** The database's clock goes on; ours does not have to. */
async function later(ms: number): Promise<void> {
  offsetMs += ms;
  await moveClock(database, offsetMs);
}

async function open(engine: Partial<Engine> = {}): Promise<PveWorld> {
  await clean(database);
  offsetMs = 0;
  await later(0);
  world = await createPveWorld({ database, engine });
  return world;
}

const resting = new Set(["succeeded", "failed", "cancelled", "needs_attention"]);

/** One process alone; when nothing happens any more, time passes. */
async function finish(at: PveWorld, name: string, operationId: string): Promise<OperationRow> {
  const worker = createWorker({ ...at.engine, worker: name, reached: () => undefined }, { concurrency: 4 });
  for (let round = 0; round < 2_000; round += 1) {
    await worker.tick();
    const now = await at.operation(operationId);
    if (resting.has(now.state)) return now;
    await worker.watcher.tick();
    await new Promise((done) => setImmediate(done));
    if (round % 40 === 39) await later(20_000);
  }
  throw new Error(`it did not rest: ${JSON.stringify(await at.steps(operationId))}`);
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
    const end = await at.run(at.sam, "server.build", BUILD);
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
    await at.run(at.sam, "server.build", BUILD);
    const stranger = at.simulator.addStranger({ name: "web-1" });
    at.simulator.addFault({ method, path, kind: "status_after", status: 596 });
    expect(await at.run(at.rita, "server.delete", { server: "web-1" })).toMatchObject({ state: "succeeded" });
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
    expect(await finish(at, "first", built.operationId)).toMatchObject({ state: "succeeded" });
    expect(at.made()).toHaveLength(1);
    expect(at.made()[0]?.guest.boots).toBe(1);
  });
});

describe("a worker that dies", () => {
  it("at each moment of a build: another one ends it, with one VM an order", {
    timeout: 240_000,
  }, async () => {
    class Death extends Error {}
    let left = 0;
    const at = await open({
      reached() {
        left -= 1;
        if (left === 0) throw new Death();
      },
    });
    const ends: string[] = [];
    for (let nth = 1; nth < 60; nth += 1) {
      // The watch of the cloud was another process's.
      await later(20_000);
      const operationId = await ordered(at, `w-${nth}`);
      left = nth;
      const first = createWorker({ ...at.engine, worker: "first" }, { concurrency: 4 });
      for (let round = 0; round < 400; round += 1) {
        await first.tick();
        if (left <= 0) break;
        await first.watcher.tick();
        if (resting.has((await at.operation(operationId)).state)) break;
        await new Promise((done) => setImmediate(done));
      }
      const survived = left > 0;
      const end = survived ? await at.operation(operationId) : await finish(at, "second", operationId);
      ends.push(end.state);
      const own = at.made().filter((vm) => vm.description.includes(operationId));
      expect(own, `death ${nth}, ${JSON.stringify(end.problem)}`).toHaveLength(1);
      expect(own[0]?.guest.boots).toBe(1);
      if (survived) break;
    }
    expect(ends.length).toBeGreaterThan(15);
    expect(new Set(ends)).toEqual(new Set(["succeeded"]));
    const clones = at.simulator.state.tasks.filter((task) => task.type === "qmclone");
    expect(clones).toHaveLength(at.made().length);
  });

  it("during a delete: it is gone, and only it", async () => {
    const at = await open();
    await at.run(at.sam, "server.build", { ...BUILD, name: "stays" });
    await at.run(at.sam, "server.build", BUILD);
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
    expect(await finish(at, "second", answer.operationId)).toMatchObject({ state: "succeeded" });
    expect(at.made().map((vm) => vm.name)).toEqual(["stays"]);
  });
});

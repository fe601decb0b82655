/** A worker dies at each moment of a rebuild and of its undoing: another one ends it, with one system that runs. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Engine } from "../../../src/core/operations/engine.ts";
import type { OperationRow } from "../../../src/core/operations/rows.ts";
import { createWorker } from "../../../src/core/operations/worker.ts";
import type { Database } from "../../../src/database/client.ts";
import { testDatabase } from "../../support/database.ts";
import { stride } from "../../support/thorough.ts";
import {
  createScene,
  expectOne,
  fillUp,
  OLD,
  type Scene,
  type SceneOptions,
  TIGHT,
  UBUNTU,
} from "./rebuild-scene.ts";

let database: Database;
let opened: Scene | undefined;

beforeAll(async () => {
  database = await testDatabase();
});
afterEach(async () => {
  await opened?.close();
  opened = undefined;
});
afterAll(() => database.close());

async function open(options: Omit<SceneOptions, "database"> = {}): Promise<Scene> {
  opened = await createScene({ database, ...options });
  return opened;
}

describe("a worker that dies during a rebuild", () => {
  class Death extends Error {}
  const ended = new Set(["succeeded", "failed", "needs_attention"]);

  interface Case {
    options?: Omit<SceneOptions, "database">;
    order: Record<string, string>;
    /** Which moments; default 1, each. Most are the same ones in all roads. */
    every?: number;
    /** Before each rebuild. */
    prepare?(at: Scene): void;
    expectEnd(at: Scene, nth: string, end: OperationRow): Promise<void>;
  }

  /** Once for each moment, until none is left to die at; returns the last one. */
  async function dieEverywhere({
    options = {},
    order,
    every = 1,
    prepare,
    expectEnd,
  }: Case): Promise<number> {
    let left = 0;
    const engine: Partial<Engine> = {
      reached() {
        left -= 1;
        if (left === 0) throw new Death();
      },
    };
    const at = await open({ ...options, engine });
    let moments = 0;
    for (let nth = 1; nth < 120; nth += every * stride(4)) {
      await at.time.later(20_000);
      prepare?.(at);
      const operationId = await at.begin("server.rebuild", order);
      left = nth;
      const first = createWorker({ ...at.engine, worker: "first" }, { concurrency: 4, now: at.time.now });
      for (let round = 0; round < 400; round += 1) {
        await first.tick();
        if (left <= 0) break;
        await first.watcher.tick();
        if (ended.has((await at.operation(operationId)).state)) break;
        await new Promise((done) => setImmediate(done));
      }
      const survived = left > 0;
      left = 0;
      const end = await at.finish(operationId, `second-${nth}`);
      await expectEnd(at, `death ${nth}`, end);
      if (survived) break;
      moments = nth;
    }
    return moments;
  }

  /** The MAC address of the server that each of these begins with. */
  let net0: string | undefined;
  const sameServer: Case["expectEnd"] = (at, nth, end) => expectOne(at, nth, end, net0);
  const remember = (at: Scene) => {
    net0 ??= at.made()[0]?.config["net0"];
  };

  it("at each moment, beside the old system: another one ends it", { timeout: 240_000 }, async () => {
    net0 = undefined;
    const moments = await dieEverywhere({ order: UBUNTU, prepare: remember, expectEnd: sameServer });
    expect(moments).toBeGreaterThan(25);
  });

  it("at every second moment, in place: another one ends it", { timeout: 240_000 }, async () => {
    net0 = undefined;
    const moments = await dieEverywhere({
      options: TIGHT,
      order: { image: "debian-12", in_place: "yes" },
      every: 2,
      prepare(at) {
        remember(at);
        fillUp(at);
      },
      expectEnd: sameServer,
    });
    expect(moments).toBeGreaterThan(25);
  });

  it("at every third moment of one that is undone: the old system runs, alone", {
    timeout: 240_000,
  }, async () => {
    const moments = await dieEverywhere({
      order: UBUNTU,
      every: 3,
      prepare(at) {
        // Only the new one: the old one must start again.
        at.beforeStep("pve.start_new", () =>
          at.simulator.addTaskFault({
            task: "qmstart",
            vmid: at.made().find((vm) => vm.vmid !== OLD)?.vmid ?? 0,
            outcome: "fail",
            message: "QEMU exited with code 1",
            times: 0,
          }),
        );
      },
      async expectEnd(at, nth, end) {
        expect({ nth, state: end.state }).toEqual({ nth, state: "failed" });
        expect(at.made()).toMatchObject([{ vmid: OLD, status: "running" }]);
        expect(await at.server()).toMatchObject({ externalId: String(OLD), state: "active" });
        expect(at.simulator.state.macClashes).toEqual([]);
        expect(at.simulator.state.volumes.filter((volume) => volume.vmid > OLD)).toEqual([]);
      },
    });
    expect(moments).toBeGreaterThan(30);
  });
});

/** Snapshots when answers are lost, workers die, and PVE's own work is broken off: nothing twice, and nothing claimed. */
import { describe, expect, it } from "vitest";
import { runSync } from "../../../src/core/sync/run.ts";
import type { Fault } from "../../../src/sandbox/pve/index.ts";
import { useStage } from "../../support/stage.ts";
import { silent } from "../../support/world.ts";
import { surviveDeaths } from "./deaths.ts";
import { createScene, OLD, type Scene } from "./rebuild-scene.ts";

const stage = useStage();

async function open(): Promise<Scene> {
  return stage.keep(await createScene({ database: stage.database }));
}

function rows() {
  return stage.database.sql<{ name: string; description: string }>(`SELECT name, description FROM snapshots`);
}

function tasksOf(at: Scene, type: string): string[] {
  return at.simulator.state.tasks.filter((task) => task.type === type).map((task) => task.exitstatus ?? "");
}

async function sync(at: Scene): Promise<void> {
  await at.time.later(1_000);
  const { cloud } = at;
  const report = await runSync({
    database: stage.database,
    cloud,
    resource: "servers",
    requester: "test",
    log: silent,
  });
  expect(report).toMatchObject({ state: "completed", errors: [] });
}

describe("an answer that is lost on the way, at each write of a snapshot's life", { timeout: 60_000 }, () => {
  const WRITES = [
    ["POST", "/snapshot$"],
    ["POST", "/rollback$"],
    ["POST", "/status/start$"],
    ["DELETE", "/snapshot/s1$"],
  ] as const;

  /** How the three orders ended, which tasks that took, how often the guest booted, and how often each fault struck. */
  async function lifeUnder(fault: Pick<Fault, "kind" | "status">) {
    const at = await open();
    for (const [method, path] of WRITES) at.simulator.addFault({ method, path, ...fault });
    const created = await at.order("snapshot.create", { name: "s1" });
    const back = await at.order("snapshot.rollback", { snapshot: "s1" });
    const between = at.vm(OLD);
    const deleted = await at.order("snapshot.delete", { snapshot: "s1" });
    return {
      ends: [created, back, deleted].map(({ state }) => state),
      tasks: ["qmsnapshot", "qmrollback", "qmdelsnapshot"].map((type) => tasksOf(at, type)),
      between: [between?.status, between?.guest.boots, between?.snapshots],
      left: at.vm(OLD)?.snapshots,
      struck: at.simulator.state.requests.filter((request) => request.fault !== undefined).length,
    };
  }
  const FLAWLESS = {
    ends: ["succeeded", "succeeded", "succeeded"],
    tasks: [["OK"], ["OK"], ["OK"]],
    between: ["running", 2, ["s1"]],
    left: [],
    struck: WRITES.length,
  };

  it("596, and PVE did it all the same: nothing is done twice", async () => {
    expect(await lifeUnder({ kind: "status_after", status: 596 })).toEqual(FLAWLESS);
  });
  it("595, and PVE never saw it: it is asked again", async () => {
    expect(await lifeUnder({ kind: "status", status: 595 })).toEqual(FLAWLESS);
  });
  it("cut off after PVE had done it: nothing is done twice", async () => {
    expect(await lifeUnder({ kind: "drop_after" })).toEqual(FLAWLESS);
  });
  it("cut off before PVE saw it: it is asked again", async () => {
    expect(await lifeUnder({ kind: "drop" })).toEqual(FLAWLESS);
  });
});

describe("a worker that dies at each moment", { timeout: 120_000 }, () => {
  it("of a snapshot: each order has one, and one alone", async () => {
    const at = await open();
    const { orders, moments } = await surviveDeaths(at, {
      begin: (order) => at.begin("snapshot.create", { name: `s-${order}` }),
      after: (order) => expect(at.vm(OLD)?.snapshots).toHaveLength(order),
    });
    expect(moments).toBeGreaterThan(4);
    expect(tasksOf(at, "qmsnapshot").filter((exit) => exit === "OK")).toHaveLength(orders);
  });

  it("of a way back: it is gone back to once for each order, and runs afterwards", async () => {
    const at = await open();
    await at.order("snapshot.create", { name: "s1" });
    const { moments } = await surviveDeaths(at, {
      begin: () => at.begin("snapshot.rollback", { snapshot: "s1" }),
      after(order) {
        expect(tasksOf(at, "qmrollback")).toHaveLength(order);
        expect(at.vm(OLD)).toMatchObject({ status: "running", lock: undefined });
      },
    });
    expect(moments).toBeGreaterThan(6);
  });

  it("of a deletion: it is gone, and only it", async () => {
    const at = await open();
    await at.order("snapshot.create", { name: "stays" });
    const { moments } = await surviveDeaths(at, {
      async begin(order) {
        await at.order("snapshot.create", { name: `s-${order}` });
        return at.begin("snapshot.delete", { snapshot: `s-${order}` });
      },
      after: () => expect(at.vm(OLD)?.snapshots).toEqual(["stays"]),
    });
    expect(moments).toBeGreaterThan(4);
  });
});

describe("a lock", () => {
  const UNLOCK = new RegExp(`qm unlock ${OLD}`, "u");

  it("left by a snapshot that died is told with what to do; what it left can then be deleted", async () => {
    const at = await open();
    at.simulator.addTaskFault({ task: "qmsnapshot", outcome: "kill" });
    expect(await at.order("snapshot.create", { name: "s1" })).toMatchObject({
      state: "failed",
      problem: {
        code: "cloud_failed",
        message: expect.stringMatching(/broken off .*locked \(snapshot\).*Our operators must unlock it/u),
        staffDetail: expect.stringMatching(UNLOCK),
      },
    });
    // Nothing else is claimed to work meanwhile.
    expect(await at.order("snapshot.create", { name: "s2" })).toMatchObject({
      state: "failed",
      problem: { staffDetail: expect.stringMatching(UNLOCK) },
    });
    at.simulator.changeVm(OLD, { lock: null, config: { parent: "s1" } });
    await sync(at);
    expect(await rows()).toMatchObject([{ name: "s1", description: "Unfinished." }]);
    expect(await at.order("snapshot.rollback", { snapshot: "s1" })).toMatchObject({
      state: "failed",
      problem: { message: "The snapshot s1 was never finished, so nothing was changed. Delete it." },
    });
    expect(await at.order("snapshot.delete", { snapshot: "s1" })).toMatchObject({ state: "succeeded" });
    expect(await at.order("snapshot.create", { name: "s1" })).toMatchObject({ state: "succeeded" });
  });

  it("left by a way back that died says that the disk may be half of then and half of now", async () => {
    const at = await open();
    await at.order("snapshot.create", { name: "s1" });
    at.simulator.addTaskFault({ task: "qmrollback", outcome: "kill" });
    expect(await at.order("snapshot.rollback", { snapshot: "s1" })).toMatchObject({
      state: "failed",
      problem: {
        code: "cloud_failed",
        message: expect.stringMatching(/half of then and half of now/u),
        staffDetail: expect.stringMatching(UNLOCK),
      },
    });
    expect((await at.events()).map((event) => event.type)).not.toContain("snapshot.rolled_back");
    at.simulator.changeVm(OLD, { lock: null });
    await sync(at);
    expect(await at.order("snapshot.rollback", { snapshot: "s1" })).toMatchObject({ state: "succeeded" });
  });

  it("left by a deletion that died is told with what to do, and the deletion goes on afterwards", async () => {
    const at = await open();
    await at.order("snapshot.create", { name: "s1" });
    at.simulator.addTaskFault({ task: "qmdelsnapshot", outcome: "kill" });
    expect(await at.order("snapshot.delete", { snapshot: "s1" })).toMatchObject({
      state: "failed",
      problem: {
        message: expect.stringMatching(/locked \(snapshot-delete\)/u),
        staffDetail: expect.stringMatching(UNLOCK),
      },
    });
    expect(await rows()).toHaveLength(1);
    at.simulator.changeVm(OLD, { lock: null });
    expect(await at.order("snapshot.delete", { snapshot: "s1" })).toMatchObject({ state: "succeeded" });
  });

  it("that was there for a moment only, while the task ran, is asked past, too", async () => {
    const at = await open();
    const message = "VM is locked (backup)";
    for (const task of ["qmsnapshot", "qmrollback", "qmdelsnapshot"]) {
      at.simulator.addTaskFault({ task, outcome: "fail", at: "start", message });
    }
    expect(await at.order("snapshot.create", { name: "s1" })).toMatchObject({ state: "succeeded" });
    expect(await at.order("snapshot.rollback", { snapshot: "s1" })).toMatchObject({ state: "succeeded" });
    expect(await at.order("snapshot.delete", { snapshot: "s1" })).toMatchObject({ state: "succeeded" });
    for (const task of ["qmsnapshot", "qmrollback", "qmdelsnapshot"]) {
      expect(tasksOf(at, task), task).toEqual([message, "OK"]);
    }
  });

  it("of seconds, as PVE's clean-up holds it after a way back, is asked past", async () => {
    const at = await open();
    const message = `can't lock file '/var/lock/qemu-server/lock-${OLD}.conf' - got timeout`;
    for (const task of ["qmsnapshot", "qmrollback", "qmstart", "qmdelsnapshot"]) {
      at.simulator.addTaskFault({ task, outcome: "fail", at: "start", message, times: 3 });
    }
    expect(await at.order("snapshot.create", { name: "s1" })).toMatchObject({ state: "succeeded" });
    expect(await at.order("snapshot.rollback", { snapshot: "s1" })).toMatchObject({ state: "succeeded" });
    expect(await at.order("snapshot.delete", { snapshot: "s1" })).toMatchObject({ state: "succeeded" });
    expect(tasksOf(at, "qmstart").filter((exit) => exit === message)).toHaveLength(3);
  });
});

/** A rebuild that fails or is cancelled: before the switch nothing has happened, after it nothing is undone. */
import { describe, expect, it } from "vitest";
import { runSync } from "../../../src/core/sync/run.ts";
import { newId } from "../../../src/database/id.ts";
import { useStage } from "../../support/stage.ts";
import { silent } from "../../support/world.ts";
import { createScene, NEW, OLD, type Scene, type SceneOptions, UBUNTU } from "./rebuild-scene.ts";

const stage = useStage();

async function open(options: Omit<SceneOptions, "database"> = {}): Promise<Scene> {
  return stage.keep(await createScene({ database: stage.database, ...options }));
}

describe("a failure before the switch", () => {
  /** The old system is what it was, and nothing of the new one is left. */
  async function asBefore(at: Scene, uuid: string | undefined) {
    expect(at.made()).toMatchObject([{ vmid: OLD, uuid, status: "running" }]);
    expect(at.simulator.state.volumes.filter((volume) => volume.vmid === NEW)).toEqual([]);
    expect(at.simulator.state.macClashes).toEqual([]);
    expect(await at.server()).toMatchObject({ externalId: String(OLD), state: "active", image: "debian-12" });
    expect((await at.server()).data["smbiosUuid"]).toBe(uuid);
  }

  it("the copy fails: nothing of it is left, the old system ran on", async () => {
    const at = await open();
    const old = at.vm(OLD);
    at.simulator.addTaskFault({
      task: "qmclone",
      outcome: "fail",
      message: "clone failed: No space left on device",
    });
    const operation = await at.order("server.rebuild", UBUNTU);
    expect(operation).toMatchObject({ state: "failed", problem: { code: "capacity" } });
    await asBefore(at, old?.uuid);
    expect(at.vm(OLD)?.guest.boots).toBe(1);
    expect((await at.lines(operation.id)).join("\n")).toMatch(/web-1 has its old system, as before/u);
  });

  it("the settings are refused: the copy is removed, the old system ran on", async () => {
    const at = await open();
    const old = at.vm(OLD);
    at.simulator.addFault({
      method: "PUT",
      path: "/config$",
      kind: "status",
      status: 500,
      body: { data: null, message: "disk image does not exist\n" },
    });
    expect(await at.order("server.rebuild", UBUNTU)).toMatchObject({ state: "failed" });
    await asBefore(at, old?.uuid);
    expect(at.vm(OLD)?.guest.boots).toBe(1);
  });

  it("the disk does not grow: the copy is removed, the old system ran on", async () => {
    const at = await open();
    const old = at.vm(OLD);
    at.simulator.addTaskFault({ task: "resize", vmid: NEW, outcome: "fail", message: "qemu-img: failure" });
    expect(await at.order("server.rebuild", UBUNTU)).toMatchObject({ state: "failed" });
    await asBefore(at, old?.uuid);
    expect(at.vm(OLD)?.guest.boots).toBe(1);
  });

  it("the new system does not start: the old one runs again, and the two never ran together", async () => {
    const at = await open({ onboot: true });
    const old = at.vm(OLD);
    at.simulator.addTaskFault({
      task: "qmstart",
      vmid: NEW,
      outcome: "fail",
      message: "QEMU exited with code 1",
    });
    const operation = await at.order("server.rebuild", UBUNTU);
    expect(operation).toMatchObject({ state: "failed", problem: { code: "cloud_failed" } });
    await asBefore(at, old?.uuid);
    expect(at.vm(OLD)).toMatchObject({ guest: { boots: 2 }, config: { onboot: "1" } });
    expect((await at.steps(operation.id)).filter((step) => step.compensates !== null)).toMatchObject([
      { name: "pve.stop_new", state: "done" },
      { name: "pve.autostart_back", state: "done" },
      { name: "pve.revive", state: "done" },
      { name: "pve.discard", state: "done" },
    ]);
  });

  it("a server that was off stays off when its rebuild is undone", async () => {
    const at = await open();
    await at.order("server.power", { action: "kill" });
    at.simulator.addTaskFault({
      task: "qmstart",
      vmid: NEW,
      outcome: "fail",
      message: "QEMU exited with code 1",
    });
    expect(await at.order("server.rebuild", UBUNTU)).toMatchObject({ state: "failed" });
    expect(at.made()).toMatchObject([{ vmid: OLD, status: "stopped" }]);
    expect(await at.server()).toMatchObject({ state: "stopped" });
  });

  it("the old system is deleted by somebody meanwhile: the new one takes its place all the same", async () => {
    const at = await open();
    const net0 = at.vm(OLD)?.config["net0"];
    at.beforeStep("pve.retire_halt", () => at.simulator.removeVm(OLD));
    const operation = await at.order("server.rebuild", UBUNTU);
    expect(operation).toMatchObject({ state: "succeeded", problem: null });
    expect(at.made()).toMatchObject([{ vmid: NEW, status: "running", config: { net0 } }]);
    expect((await at.lines(operation.id)).join("\n")).toMatch(
      /Switch the old system off: the old system was gone from the cloud already/u,
    );
  });

  it("the old system is deleted by somebody, and the new one fails: the server is gone, and that is said", async () => {
    const at = await open();
    at.beforeStep("pve.start_new", () => {
      at.simulator.removeVm(OLD);
      at.simulator.addTaskFault({ task: "qmstart", outcome: "fail", message: "QEMU exited with code 1" });
    });
    const operation = await at.order("server.rebuild", UBUNTU);
    expect(operation.state).toBe("failed");
    expect(at.made()).toEqual([]);
    expect(await at.server()).toMatchObject({ externalId: String(OLD), state: "deleted" });
    expect((await at.lines(operation.id)).join("\n")).toMatch(/it was removed in the cloud meanwhile/u);
  });

  it("a guest that ignores the shutdown loses its power in the end", async () => {
    const at = await open({ simulator: { traps: { deafGuests: true } } });
    expect(await at.order("server.rebuild", UBUNTU)).toMatchObject({ state: "succeeded" });
    expect(at.made()).toMatchObject([{ vmid: NEW, status: "running" }]);
    expect(at.simulator.state.macClashes).toEqual([]);
  });

  it("somebody starts the old system meanwhile: the new one is not started beside it", async () => {
    const at = await open();
    const old = at.vm(OLD);
    at.beforeStep("pve.start_new", async () => {
      await at.asSomebody("POST", `/nodes/n1/qemu/${OLD}/status/start`);
      await expect.poll(() => at.vm(OLD)?.status).toBe("running");
    });
    const operation = await at.order("server.rebuild", UBUNTU);
    expect(operation).toMatchObject({ state: "failed", problem: { code: "cloud_conflict" } });
    await asBefore(at, old?.uuid);
  });

  it("cancelled at any step before the switch: what was made is removed, the old system runs", async () => {
    const at = await open();
    const old = at.vm(OLD);
    for (const step of [
      "pve.reserve",
      "pve.clone",
      "pve.configure",
      "pve.take_over",
      "pve.resize_disk",
      "pve.retire_halt",
      "pve.start_new",
      "pve.verify",
    ]) {
      const operationId = await at.begin("server.rebuild", UBUNTU);
      const { publicId } = await at.operation(operationId);
      at.beforeStep(step, () => at.ask(at.rita, "ops.cancel", { operation: publicId }));
      const ended = await at.finish(operationId);
      const words = JSON.stringify([step, ended.problem]);
      expect(ended.state, words).toBe("cancelled");
      expect(at.made()).toMatchObject([{ vmid: OLD, uuid: old?.uuid, status: "running" }]);
      expect(await at.server()).toMatchObject({ externalId: String(OLD), state: "active" });
    }
    expect(at.simulator.state.macClashes).toEqual([]);
    expect(at.simulator.state.volumes.filter((volume) => volume.vmid > OLD)).toEqual([]);
  });
});

describe("a cancel while the new system is starting", () => {
  it("waits for that start to end: off is not off while it is at work", async () => {
    const at = await open();
    const operationId = await at.begin("server.rebuild", UBUNTU);
    const { publicId } = await at.operation(operationId);
    at.beforeStep("pve.start_new", async () => {
      at.simulator.addTaskFault({ task: "qmstart", vmid: NEW, outcome: "hang", at: "start" });
      await at.ask(at.rita, "ops.cancel", { operation: publicId });
    });
    let released = 0;
    // Its first look has found the new system off, and its start at work.
    at.beforeVerify("pve.stop_new", () => {
      expect(at.vm(NEW)?.status).toBe("stopped");
      const start = at.simulator.state.tasks.find(({ type, id }) => type === "qmstart" && id === String(NEW));
      expect(start?.status).toBe("running");
      at.simulator.releaseTask(start?.upid ?? "");
      released += 1;
    });
    expect(await at.finish(operationId)).toMatchObject({ state: "cancelled" });
    expect(released).toBe(1);
    expect(at.simulator.state.macClashes).toEqual([]);
    expect(at.made()).toMatchObject([{ vmid: OLD, status: "running" }]);
  });
});

describe("a failure after the switch", () => {
  it("the old VM is locked: a person is told, unlocks it, retries, and it is gone", async () => {
    const at = await open();
    at.beforeStep("pve.retire", () => at.simulator.changeVm(OLD, { lock: "backup" }));
    const operation = await at.order("server.rebuild", UBUNTU);
    expect(operation).toMatchObject({ state: "needs_attention", problem: { code: "cloud_conflict" } });
    expect(operation.problem?.message).toMatch(
      /^Delete the old system did not work: .*The new system has taken the server's place\. Nothing is undone; a retry goes on from here\.$/u,
    );
    expect(operation.problem?.staffDetail).toMatch(/qm unlock 100000/u);
    expect(at.made().map((vm) => [vm.vmid, vm.status])).toEqual([
      [OLD, "stopped"],
      [NEW, "running"],
    ]);
    expect(await at.server()).toMatchObject({ externalId: String(NEW), state: "active" });
    at.simulator.changeVm(OLD, { lock: null });
    expect(await at.retry(operation)).toMatchObject({ state: "succeeded", problem: null });
    expect(at.made()).toMatchObject([{ vmid: NEW, status: "running", guest: { boots: 1 } }]);
    expect(at.simulator.state.macClashes).toEqual([]);
  });

  it("a deletion that fails in PVE: the server is the new one already, and a retry ends it", async () => {
    const at = await open();
    at.simulator.addTaskFault({ task: "qmdestroy", outcome: "fail", message: "lvremove: device busy" });
    const operation = await at.order("server.rebuild", UBUNTU);
    expect(operation).toMatchObject({ state: "needs_attention", problem: { code: "cloud_failed" } });
    expect(await at.server()).toMatchObject({ externalId: String(NEW), state: "active" });
    expect(await at.retry(operation)).toMatchObject({ state: "succeeded" });
    expect(at.made().map((vm) => vm.vmid)).toEqual([NEW]);
  });

  it("cannot be cancelled any more, and says why", async () => {
    const at = await open();
    const operationId = await at.begin("server.rebuild", UBUNTU);
    const { publicId } = await at.operation(operationId);
    let refusal: unknown;
    at.beforeStep("pve.retire", async () => {
      refusal = await at.ask(at.rita, "ops.cancel", { operation: publicId }).catch((error: unknown) => error);
    });
    expect(await at.finish(operationId)).toMatchObject({ state: "succeeded" });
    expect(refusal).toMatchObject({
      code: "wrong_state",
      message: expect.stringMatching(
        /^Too late to cancel .*: The new system has taken the server's place\.$/u,
      ),
    });
  });

  it("the old VM is gone already: that is all that was wanted", async () => {
    const at = await open();
    at.beforeStep("pve.retire", () => at.simulator.removeVm(OLD));
    const operation = await at.order("server.rebuild", UBUNTU);
    expect(operation).toMatchObject({ state: "succeeded", problem: null });
    expect((await at.lines(operation.id)).join("\n")).toMatch(
      /the old system was gone from the cloud already/u,
    );
  });

  it("a stranger has the old VM's number: it is not touched", async () => {
    const at = await open();
    at.beforeStep("pve.retire", () => {
      at.simulator.removeVm(OLD);
      at.simulator.addStranger({ vmid: OLD, name: "theirs", tags: "ratatosk" });
    });
    const operation = await at.order("server.rebuild", UBUNTU);
    expect(operation).toMatchObject({ state: "succeeded", problem: null });
    expect(at.vm(OLD)).toMatchObject({ name: "theirs", status: "running" });
    expect((await at.lines(operation.id)).join("\n")).toMatch(
      /VM 100000 on n1 is not the old system any more/u,
    );
  });

  it("half of the proof is not enough: with our marker and another uuid it is left to a person", async () => {
    const at = await open();
    at.beforeStep("pve.retire", () => at.simulator.changeVm(OLD, { config: { smbios1: `uuid=${newId()}` } }));
    const operation = await at.order("server.rebuild", UBUNTU);
    expect(operation).toMatchObject({ state: "needs_attention", problem: { code: "cloud_conflict" } });
    expect(operation.problem?.staffDetail).toMatch(/its SMBIOS uuid is .*, recorded is/u);
    expect(at.vm(OLD)).toBeDefined();
  });

  it("given up: the server is the new system, and a sync reports what is left of the old one", async () => {
    const at = await open();
    const sync = () =>
      runSync({
        database: stage.database,
        cloud: at.cloud,
        resource: "servers",
        requester: "test",
        log: silent,
      });
    const seen: unknown[] = [];
    at.beforeStep("pve.switch", async () => seen.push((await sync()).lateTwins));
    at.beforeStep("pve.retire", async () => {
      seen.push((await sync()).lateTwins);
      at.simulator.changeVm(OLD, { lock: "backup" });
    });
    const operation = await at.order("server.rebuild", UBUNTU);
    seen.push((await sync()).lateTwins);
    // The new one before the switch, the old one after it, and while a person is asked.
    expect(seen).toEqual([[], [], []]);
    await at.ask(at.rita, "ops.abandon", { operation: operation.publicId });
    expect(await at.operation(operation.id)).toMatchObject({ state: "failed" });
    expect((await at.lines(operation.id)).join("\n")).toMatch(
      /web-1 has its new system, but not everything of the old one/u,
    );
    expect(await at.server()).toMatchObject({
      externalId: String(NEW),
      state: "active",
      image: "ubuntu-24.04",
    });
    await at.time.later(1000);
    expect((await sync()).lateTwins).toMatchObject([{ externalId: String(OLD), name: "web-1" }]);
  });
});

describe("a rebuild whose outcome nobody knows", () => {
  /** The settings never arrived, and the cluster is away until their time is over. */
  async function lose(at: Scene) {
    at.beforeStep("pve.configure", () => {
      at.simulator.addFault({ method: "PUT", path: "/config$", kind: "status", status: 596 });
      at.simulator.addFault({ method: "GET", kind: "status", status: 595, times: 0 });
    });
    const lost = await at.order("server.rebuild", UBUNTU, at.ada);
    expect(lost).toMatchObject({ state: "needs_attention", problem: { code: "unknown_outcome" } });
    at.simulator.clearFaults();
    return lost;
  }

  it("is not taken for done because a person says so: what has no look of its own is made again", async () => {
    const at = await open();
    const net0 = at.vm(OLD)?.config["net0"];
    const lost = await lose(at);
    await at.ask(at.rita, "ops.adopt", { operation: lost.publicId });
    const end = await at.finish(lost.id);
    expect(end).toMatchObject({ state: "succeeded", problem: null });
    expect(at.made()).toMatchObject([{ vmid: NEW, config: { net0, memory: "2048", tags: "ratatosk" } }]);
  });

  it("does not go on for its customer while the node is in maintenance, but for the team", async () => {
    const at = await open();
    const lost = await lose(at);
    const node = at.vm(OLD)?.node ?? "";
    await at.ask(at.sam, "cloud.maintenance", { cloud: "sim", node, state: "on", message: "New disks." });
    await expect(at.ask(at.ada, "ops.retry", { operation: lost.publicId })).rejects.toMatchObject({
      code: "busy",
    });
    expect(await at.operation(lost.id)).toMatchObject({ state: "needs_attention" });
    expect(await at.retry(lost)).toMatchObject({ state: "succeeded", problem: null });
  });
});

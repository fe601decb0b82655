/** What was asked for, and what came before it was done: nothing is told as done that was not. */
import { describe, expect, it } from "vitest";
import { useStage } from "../../support/stage.ts";
import { createScene, NEW, OLD, type Scene, UBUNTU } from "./rebuild-scene.ts";

const stage = useStage();

async function open(): Promise<Scene> {
  return stage.keep(await createScene({ database: stage.database }));
}

describe("a deletion that waits for its confirmation", () => {
  it("across a rebuild deletes nothing, and says so: its number is another one by now", async () => {
    const at = await open();
    const asked = await at.ask(at.rita, "server.delete", { server: "web-1" });
    if (asked.kind !== "operation") throw new Error("no operation");
    expect(await at.order("server.rebuild", UBUNTU)).toMatchObject({ state: "succeeded" });
    await at.ask(at.rita, "ops.confirm", { operation: asked.publicId });
    expect(await at.finish(asked.operationId)).toMatchObject({
      state: "failed",
      problem: { code: "drifted" },
    });
    expect(at.made()).toMatchObject([{ vmid: NEW, status: "running" }]);
    expect(await at.server()).toMatchObject({ externalId: String(NEW), state: "active" });
    const told = await at.events();
    expect(told.some(({ type }) => type === "server.deleted")).toBe(false);
  });

  it("takes nothing from a rebuild that waits for a person, and neither does its confirmation", async () => {
    const at = await open();
    at.beforeStep("pve.retire", () => at.simulator.changeVm(OLD, { lock: "backup" }));
    const parked = await at.order("server.rebuild", UBUNTU);
    expect(parked).toMatchObject({ state: "needs_attention" });
    await expect(at.ask(at.rita, "server.delete", { server: "web-1" })).rejects.toMatchObject({
      code: "busy",
    });
    at.simulator.changeVm(OLD, { lock: null });
    expect(await at.retry(parked)).toMatchObject({ state: "succeeded" });
    expect(at.made()).toMatchObject([{ vmid: NEW }]);
  });
});

describe("a rebuild that is undone", () => {
  it("and meets a lock half-way starts the old system again when it is retried", async () => {
    const at = await open();
    at.simulator.addTaskFault({
      task: "qmstart",
      vmid: NEW,
      outcome: "fail",
      message: "start failed: QEMU exited with code 1",
      times: 0,
    });
    at.beforeStep("pve.revive", () => at.simulator.changeVm(OLD, { lock: "backup" }));
    const parked = await at.order("server.rebuild", UBUNTU);
    expect(parked).toMatchObject({ state: "needs_attention" });
    at.simulator.changeVm(OLD, { lock: null });
    expect(await at.retry(parked)).toMatchObject({ state: "failed" });
    expect(at.made()).toMatchObject([{ vmid: OLD, status: "running" }]);
    expect(await at.server()).toMatchObject({ externalId: String(OLD), state: "active" });
  });

  it("while the old system is being shut down waits for that, and starts it again", async () => {
    const at = await open();
    const operationId = await at.begin("server.rebuild", UBUNTU);
    const { publicId } = await at.operation(operationId);
    at.beforeStep("pve.retire_halt", async () => {
      for (const task of ["qmshutdown", "qmstop"])
        at.simulator.addTaskFault({ task, vmid: OLD, outcome: "hang", at: "start" });
      await at.ask(at.rita, "ops.cancel", { operation: publicId });
    });
    let released = 0;
    // Let go only when it has been looked at: running then, and off a moment later.
    at.beforeVerify("pve.revive", () => {
      const stop = at.simulator.state.tasks.find(
        ({ type, id }) => (type === "qmshutdown" || type === "qmstop") && id === String(OLD),
      );
      expect(at.vm(OLD)?.status).toBe("running");
      at.simulator.releaseTask(stop?.upid ?? "");
      released += 1;
    });
    expect(await at.finish(operationId)).toMatchObject({ state: "cancelled" });
    expect(released).toBe(1);
    expect(at.made()).toMatchObject([{ vmid: OLD, status: "running" }]);
  });
});

describe("a change whose second half cannot be done", () => {
  it("is not told as nothing: a password that the guest has taken is the one that is shown", async () => {
    const at = await open();
    at.simulator.addFault({ method: "PUT", path: "/config$", kind: "status", status: 595, times: 1 });
    const operationId = await at.begin("server.password");
    const end = await at.finish(operationId);
    expect(end).toMatchObject({ state: "succeeded" });
    const lines = await at.lines(operationId);
    expect(lines.join("\n")).not.toContain("Nothing was done");
  });
});

describe("a deletion that is cancelled", () => {
  it("after the server was switched off shows it as off", async () => {
    const at = await open();
    const operationId = await at.begin("server.delete", { now: "yes" });
    const { publicId } = await at.operation(operationId);
    at.beforeStep("pve.halt", () => at.ask(at.rita, "ops.cancel", { operation: publicId }));
    expect(await at.finish(operationId)).toMatchObject({ state: "cancelled" });
    expect(at.vm(OLD)?.status).toBe("stopped");
    expect(await at.server()).toMatchObject({ state: "stopped" });
  });
});

/** server.resize and server.restart on Proxmox VE: each part tells what came of it, and nothing counts before it does. */
import { describe, expect, it } from "vitest";
import type { Principal } from "../../../src/core/access.ts";
import { renderCard } from "../../../src/core/operations/card.ts";
import { createWorker } from "../../../src/core/operations/worker.ts";
import { useStage } from "../../support/stage.ts";
import { recordingLog } from "../recording-log.ts";
import { surviveDeaths } from "./deaths.ts";
import { openTimedWorld, type TimedWorld } from "./timed-world.ts";
import { BUILD, type PveWorldOptions } from "./world.ts";

const GIB = 2 ** 30;
const WEB = { server: "web-1" };
const stage = useStage();

/** With web-1 of Ada: 2 vCPU, 2 GiB, 10 GiB; it runs. */
async function open(options: Omit<PveWorldOptions, "database"> = {}): Promise<TimedWorld> {
  const world = stage.keep(await openTimedWorld({ database: stage.database, ...options }));
  await world.order("server.build", BUILD);
  world.changes();
  return world;
}

function diskOf({ vm }: TimedWorld): number {
  return (vm().disks["scsi0"]?.sizeBytes ?? 0) / GIB;
}

describe("limits, before any call to the cloud", () => {
  const cases: [Record<string, string>, string][] = [
    [{ cpu: "33" }, "CPU must be 1-32."],
    [{ cpu: "0" }, "CPU must be 1-32."],
    [{ memory: "511M" }, "Memory must be 512 MiB-1 TiB."],
    [{ memory: "1048577M" }, "Memory must be 512 MiB-1 TiB."],
    [{ disk: "10241G" }, "Disk must be 10 GiB-10 TiB."],
    [{ memory: "8" }, "memory:8 needs a unit; write memory:8G (or memory:8M)."],
    [
      { memory: "8 bits" },
      'memory:"8 bits" has the unknown unit "bits"; write M, G or T, for example memory:8G.',
    ],
    [{ disk: "1025M" }, "disk:1025M is not a whole number of GiB; the next one is disk:2G."],
    [{ cpu: "two" }, "cpu:two is not a number; write cpu:4."],
    [{ cpu: "1.5" }, "cpu:1.5 must be a whole number."],
  ];

  it("a customer's: each is one sentence that names the option", async () => {
    const { ask, ada, simulator } = await open();
    const before = simulator.state.requests.length;
    for (const [change, message] of cases) {
      await expect(ask(ada, "server.resize", { ...WEB, ...change })).rejects.toMatchObject({
        code: "invalid_input",
        message,
        facts: { option: Object.keys(change)[0] },
      });
    }
    await expect(ask(ada, "server.resize", { ...WEB, disk: "9G" })).rejects.toMatchObject({
      message: "Disk must be 10 GiB-10 TiB.",
    });
    await expect(ask(ada, "server.resize", { ...WEB, cpu: "33", memory: "1M" })).rejects.toMatchObject({
      facts: { errors: { cpu: "CPU must be 1-32.", memory: "Memory must be 512 MiB-1 TiB." } },
    });
    await expect(ask(ada, "server.resize", { ...WEB, sockets: "2" })).rejects.toMatchObject({
      message: expect.stringMatching(/has no option "sockets"/u),
    });
    expect(simulator.state.requests.length).toBe(before);
  });

  it("the team's are wider, a disk never shrinks, and the same again is nothing to change", async () => {
    const { ask, sam, order, simulator } = await open();
    const before = simulator.state.requests.length;
    await expect(ask(sam, "server.resize", { ...WEB, cpu: "129" })).rejects.toMatchObject({
      message: "CPU must be 1-128.",
    });
    await expect(ask(sam, "server.resize", { ...WEB, disk: "9G" })).rejects.toMatchObject({
      message: expect.stringMatching(
        /^A disk cannot shrink: web-1 \(srv-.*\) has 10 GiB and this would be 9 GiB\.$/u,
      ),
    });
    await expect(ask(sam, "server.resize", { ...WEB, cpu: "4", sockets: "3" })).rejects.toMatchObject({
      message: "4 vCPU do not divide by 3 sockets.",
    });
    await expect(
      ask(sam, "server.resize", { ...WEB, cpu: "2", memory: "2G", disk: "10G" }),
    ).rejects.toMatchObject({ code: "nothing_to_change" });
    expect(simulator.state.requests.length).toBe(before);
    expect(await order("server.resize", { ...WEB, cpu: "128" })).toMatchObject({ state: "succeeded" });
  });
});

describe("parts", () => {
  it("disk, CPU and memory, and the restart each say what came of them, and the row has what PVE has", async () => {
    const at = await open();
    const operation = await at.order("server.resize", {
      ...WEB,
      cpu: "4",
      memory: "4G",
      disk: "20G",
      sockets: "2",
    });
    expect(operation).toMatchObject({ state: "succeeded", problem: null });
    expect((await at.lines(operation.id)).slice(-4)).toEqual([
      "Grow the disk: the disk has 20 GiB now.",
      "Set CPU and memory: CPU and memory are stored; they count when the server has been stopped and started.",
      "Restart it into its new size: it has restarted, and its new size counts.",
      "It has 4 vCPU, 4 GiB, 20 GiB disk now.",
    ]);
    expect(at.vm()).toMatchObject({ pending: {}, config: { cores: "2", sockets: "2" }, guest: { boots: 2 } });
    expect(diskOf(at)).toBe(20);
    expect(await at.row()).toMatchObject({ state: "active", vcpus: 4, memoryMib: 4096, diskGib: 20 });
    expect(await at.offersOf(operation.id)).toEqual([]);
    expect(at.changes()).toEqual(["PUT V/resize", "PUT V/config", "POST V/status/reboot"]);
  });

  it("a disk alone grows while the guest runs, by its absolute size", async () => {
    const at = await open();
    const operation = await at.order("server.resize", { ...WEB, disk: "20G" });
    expect(operation).toMatchObject({ state: "succeeded", plan: { downtime: null } });
    expect(at.changes()).toEqual(["PUT V/resize"]);
    const sent = at.simulator.state.requests.filter(({ path }) => path.endsWith("/resize"));
    expect(sent.at(-1)?.params).toMatchObject({ disk: "scsi0", size: "20G" });
    expect(at.vm().guest.boots).toBe(1);
  });

  it("the recorded boot disk grows, although another disk stands before it by now", async () => {
    const at = await open();
    const disk = at.vm().config["scsi0"] ?? "";
    at.simulator.changeVm(100_000, {
      config: { virtio0: disk.replace("disk-0", "disk-9"), boot: "order=virtio0;scsi0" },
    });
    await at.order("server.resize", { ...WEB, disk: "20G" });
    const sent = at.simulator.state.requests.filter(({ path }) => path.endsWith("/resize"));
    expect(sent.at(-1)?.params["disk"]).toBe("scsi0");
  });

  it("a stopped server is not started: its size counts from its next start on", async () => {
    const at = await open();
    await at.order("server.power", { ...WEB, action: "stop" });
    const operation = await at.order("server.resize", { ...WEB, cpu: "4" });
    expect(operation).toMatchObject({ state: "succeeded", plan: { downtime: null } });
    expect((await at.lines(operation.id)).join("\n")).toMatch(
      /it is off; the new size counts from its next start on/u,
    );
    expect(at.vm().status).toBe("stopped");
    expect(await at.row()).toMatchObject({ state: "stopped", vcpus: 4 });
    expect(await at.offersOf(operation.id)).toEqual([]);
  });

  it("storage full: the disk stays as it is, CPU and memory are not touched, and that is said", async () => {
    const at = await open();
    const message = "command '/usr/bin/qemu-img resize' failed: No space left on device";
    at.simulator.addTaskFault({ task: "resize", outcome: "fail", message });
    const operation = await at.order("server.resize", { ...WEB, cpu: "4", disk: "20G" });
    expect(operation).toMatchObject({
      state: "failed",
      problem: { code: "capacity", staffDetail: expect.stringContaining(message) },
    });
    expect((await at.lines(operation.id)).join("\n")).toMatch(
      /The disk was not grown\. It has its old CPU and memory\./u,
    );
    expect(at.changes()).toEqual(["PUT V/resize"]);
    expect(await at.row()).toMatchObject({ vcpus: 2, memoryMib: 2048, diskGib: 10 });
  });

  it("a later part that fails: the end says which are done, and the row has what PVE has", async () => {
    const at = await open();
    at.simulator.addFault({
      method: "PUT",
      path: "/config$",
      kind: "status",
      status: 500,
      body: { data: null, message: "memory: hotplug problem\n" },
    });
    const operation = await at.order("server.resize", { ...WEB, cpu: "4", disk: "20G" });
    expect(operation).toMatchObject({ state: "failed", problem: { code: "cloud_failed" } });
    expect((await at.lines(operation.id)).join("\n")).toMatch(
      /The disk has 20 GiB now\. It has its old CPU and memory\./u,
    );
    expect(await at.row()).toMatchObject({ state: "active", vcpus: 2, memoryMib: 2048, diskGib: 20 });
    // And the rest is done by trying again.
    expect(await at.order("server.resize", { ...WEB, cpu: "4", disk: "20G" })).toMatchObject({
      state: "succeeded",
    });
    expect(await at.row()).toMatchObject({ vcpus: 4, diskGib: 20 });
  });
});

describe("a disk task that takes its time, or fails", () => {
  it("a disk task of 11 minutes is waited for without a lie, and then it is done", async () => {
    const { log, logged } = recordingLog();
    const at = await open({ runtime: { log } });
    at.simulator.addTaskFault({ task: "resize", outcome: "hang" });
    const operationId = await at.begin("server.resize", { ...WEB, disk: "40G" });
    const worker = createWorker({ ...at.engine, worker: "patient" }, { concurrency: 4, now: at.time.now });
    const details: (string | undefined)[] = [];
    for (let minute = 0; minute < 11; minute += 1) {
      await at.time.later(60_000);
      await worker.tick();
      await worker.watcher.tick();
      await worker.tick();
      expect(["running", "waiting"]).toContain((await at.operation(operationId)).state);
      expect(await at.row()).toMatchObject({ state: "resizing", diskGib: 10 });
      const { view } = await renderCard(stage.database, operationId, "customer");
      details.push(view.steps?.find(({ label }) => label === "Grow the disk")?.detail);
    }
    expect(details.at(-1)).toMatch(/10 min/u);
    expect(new Set(details).size).toBeGreaterThan(9);
    expect((await at.lines(operationId)).join("\n")).not.toMatch(/GiB now|Done|succeeded/u);
    expect((await at.events()).map(({ type }) => type)).not.toContain("server.resize.succeeded");
    // The call that began it was answered at once; nothing was held open.
    const took = [...logged().matchAll(/"tookMs":(\d+)/gu)].map((found) => Number(found[1]));
    expect(Math.max(...took)).toBeLessThan(30_000);
    expect(at.changes()).toEqual(["PUT V/resize"]);

    const task = at.simulator.state.tasks.find(
      ({ type, status }) => type === "resize" && status === "running",
    );
    at.simulator.releaseTask(task?.upid ?? "");
    expect(await at.rest(operationId)).toMatchObject({ state: "succeeded" });
    expect(await at.row()).toMatchObject({ state: "active", diskGib: 40 });
    expect(at.changes()).toEqual([]);
  });

  it("an exit status 'unable to resize' is a failure with its reason for staff, and the row is as it was", async () => {
    const at = await open();
    at.simulator.addTaskFault({ task: "resize", outcome: "fail", message: "unable to resize" });
    const operation = await at.order("server.resize", { ...WEB, disk: "40G" });
    expect(operation).toMatchObject({
      state: "failed",
      problem: {
        code: "cloud_failed",
        message: "The cloud tried to grow the disk and failed. Staff see its reason.",
        staffDetail: expect.stringContaining("unable to resize"),
      },
    });
    expect(await at.row()).toMatchObject({ state: "active", diskGib: 10, vcpus: 2 });
    const types = (await at.events()).map(({ type }) => type);
    expect(types).toContain("server.resize.failed");
    expect(types).not.toContain("server.resize.succeeded");
    expect((await at.lines(operation.id)).join("\n")).toMatch(/The disk was not grown\./u);
  });
});

describe("what waits for a stop and start", () => {
  it("pending changes shown as done: restart:later says what it still has, and offers the restart", async () => {
    const at = await open();
    const operation = await at.order("server.resize", { ...WEB, cpu: "4", memory: "4G", restart: "later" });
    expect(operation).toMatchObject({ state: "succeeded", plan: { downtime: null } });
    expect((await at.lines(operation.id)).at(-1)).toBe(
      "It has 2 vCPU, 2 GiB, 10 GiB disk until it is stopped and started; from then on 4 vCPU, 4 GiB, 10 GiB disk.",
    );
    expect(at.vm()).toMatchObject({ pending: { memory: "4096" }, guest: { boots: 1 } });
    expect(await at.row()).toMatchObject({ state: "active", vcpus: 2, memoryMib: 2048 });
    expect(at.changes()).toEqual(["PUT V/config"]);

    const restarted = await press(at, operation.id, at.sam);
    expect(restarted).toMatchObject({ action: "server.restart", state: "succeeded", problem: null });
    expect((await at.lines(restarted.id)).at(-1)).toBe(
      "It was stopped and started, and has 4 vCPU, 4 GiB, 10 GiB disk.",
    );
    expect(at.vm()).toMatchObject({ status: "running", pending: {}, guest: { boots: 2 } });
    expect(await at.row()).toMatchObject({ state: "active", vcpus: 4, memoryMib: 4096 });
    expect(at.changes()).toEqual(["POST V/status/shutdown", "POST V/status/start"]);
  });

  it("a guest that ignores the restart fails it, with what waits said and offered; the button cuts the power", async () => {
    const at = await open();
    at.simulator.state.traps = { deafGuests: true };
    const operation = await at.order("server.resize", { ...WEB, plan: "m" }, at.ada);
    expect(operation).toMatchObject({ state: "failed", problem: { code: "cloud_failed" } });
    const told = (await at.lines(operation.id)).join("\n");
    expect(told).toMatch(/are stored, but the guest did not restart, so they do not count yet/u);
    expect(told).toMatch(
      /The disk has 20 GiB now\. It runs with 2 vCPU and 2 GiB until it is stopped and started\./u,
    );
    expect(await at.row()).toMatchObject({
      state: "active",
      vcpus: 2,
      memoryMib: 2048,
      diskGib: 20,
      planCode: null,
    });
    const { view } = await renderCard(stage.database, operation.id, "customer");
    expect(view.buttons?.map(({ label }) => label)).toContain("Stop and start it now");

    const restarted = await press(at, operation.id, at.ada);
    expect(restarted).toMatchObject({ state: "succeeded", problem: null });
    // The plan that was sold counts from now on.
    expect(await at.row()).toMatchObject({ vcpus: 2, memoryMib: 4096, diskGib: 20, planCode: "m" });
  });

  it("a size that waits can be taken back", async () => {
    const at = await open();
    await at.order("server.resize", { ...WEB, cpu: "4", restart: "later" });
    const back = await at.order("server.resize", { ...WEB, cpu: "2" });
    expect(back).toMatchObject({ state: "succeeded", problem: null });
    expect(at.vm()).toMatchObject({ pending: {}, config: { cores: "2" }, guest: { boots: 1 } });
    await expect(at.ask(at.sam, "server.resize", { ...WEB, cpu: "2" })).rejects.toMatchObject({
      code: "nothing_to_change",
    });
  });

  it("a refusal that leaves a part stored is told as such, and the old size takes it back", async () => {
    const at = await open();
    at.simulator.addFault({
      method: "PUT",
      path: "/config$",
      kind: "status_after",
      status: 500,
      body: { data: null, message: "hotplug problem - memory: not enough slots\n" },
    });
    const operation = await at.order("server.resize", { ...WEB, memory: "4G" });
    expect(operation).toMatchObject({
      state: "failed",
      problem: { message: expect.stringMatching(/refused the new CPU and memory after it had stored them/u) },
    });
    expect((await at.lines(operation.id)).join("\n")).toMatch(
      /It runs with 2 vCPU and 2 GiB until it is stopped and started\./u,
    );
    expect(await at.row()).toMatchObject({ memoryMib: 2048 });
    expect(at.vm().pending).toEqual({ memory: "4096" });
    expect(await at.order("server.resize", { ...WEB, memory: "2G" })).toMatchObject({ state: "succeeded" });
    expect(at.vm()).toMatchObject({ pending: {}, guest: { boots: 1 } });
  });

  it("server.restart of a server that is off starts it", async () => {
    const at = await open();
    await at.order("server.power", { ...WEB, action: "kill" });
    at.changes();
    expect(await at.order("server.restart", WEB)).toMatchObject({ state: "succeeded" });
    expect(at.changes()).toEqual(["POST V/status/start"]);
  });

  it("a start that fails after the stop is told, and the row says that it is off", async () => {
    const at = await open();
    at.simulator.addTaskFault({
      task: "qmstart",
      outcome: "fail",
      message: "start failed: QEMU exited with code 1",
    });
    expect(await at.order("server.restart", WEB)).toMatchObject({ state: "failed" });
    expect(await at.row()).toMatchObject({ state: "stopped" });
    expect(at.vm().status).toBe("stopped");
  });
});

async function press(at: TimedWorld, operationId: string, by: Principal) {
  const [offered] = await at.offersOf(operationId);
  expect(offered?.action).toBe("server.restart");
  const answer = await at.entrance.press(offered?.token ?? "", by, "console");
  if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
  return at.rest(answer.operationId);
}

describe("answers that are lost, and what is busy for a moment", () => {
  it("resize +N twice: every write of a resize repeated after a lost answer leads to the size that was asked for", async () => {
    for (const [kind, status] of [
      ["status", 595],
      ["status", 596],
      ["status_after", 596],
      ["drop_after", 0],
    ] as const) {
      const at = await open();
      at.simulator.addFault({ method: "PUT", path: "/resize$", kind, status });
      at.simulator.addFault({ method: "PUT", path: "/config$", kind, status });
      at.simulator.addFault({ method: "POST", path: "/status/reboot$", kind, status });
      const operation = await at.order("server.resize", { ...WEB, cpu: "4", memory: "4G", disk: "20G" });
      expect(operation, `${kind} ${status}`).toMatchObject({ state: "succeeded", problem: null });
      // One restart, however often it was asked for.
      expect(at.vm()).toMatchObject({ pending: {}, guest: { boots: 2 }, config: { memory: "4096" } });
      expect(diskOf(at)).toBe(20);
      expect(at.simulator.state.tasks.filter(({ type }) => type === "qmreboot")).toHaveLength(1);
      await stage.clear();
    }
  });

  it("a lost answer to a restart that goes on still: it is found in the task list, and not asked for twice", async () => {
    const at = await open();
    at.simulator.addTaskFault({ task: "qmreboot", outcome: "hang", at: "start" });
    at.simulator.addFault({ method: "POST", path: "/status/reboot$", kind: "status_after", status: 596 });
    const operationId = await at.begin("server.resize", { ...WEB, cpu: "4" });
    const worker = createWorker({ ...at.engine, worker: "first" }, { concurrency: 4, now: at.time.now });
    for (let round = 0; round < 20; round += 1) {
      await worker.tick();
      await worker.watcher.tick();
      await at.time.later(5_000);
    }
    expect(at.vm().guest.boots).toBe(1);
    const reboots = () => at.simulator.state.tasks.filter(({ type }) => type === "qmreboot");
    for (const { upid } of reboots()) at.simulator.releaseTask(upid);
    expect(await at.rest(operationId, "first")).toMatchObject({ state: "succeeded", problem: null });
    expect(reboots()).toHaveLength(1);
    expect(at.vm()).toMatchObject({ pending: {}, guest: { boots: 2 } });
  });

  it("a restart whose answers are lost stops and starts once", async () => {
    for (const kind of ["status", "status_after"] as const) {
      const at = await open();
      at.simulator.addFault({ method: "POST", path: "/status/shutdown$", kind, status: 596 });
      at.simulator.addFault({ method: "POST", path: "/status/start$", kind, status: 596 });
      expect(await at.order("server.restart", WEB), kind).toMatchObject({
        state: "succeeded",
        problem: null,
      });
      expect(at.vm()).toMatchObject({ status: "running", guest: { boots: 2 } });
      await stage.clear();
    }
  });

  it("a checksum mismatch is somebody else's change at the same moment: it is asked again", async () => {
    const at = await open();
    at.simulator.addTaskFault({
      task: "resize",
      outcome: "fail",
      at: "start",
      message: "checksum mismatch (file change by other user?)",
    });
    at.simulator.addFault({
      method: "PUT",
      path: "/config$",
      kind: "status",
      status: 500,
      body: { data: null, message: "checksum mismatch (file change by other user?)\n" },
    });
    expect(await at.order("server.resize", { ...WEB, cpu: "4", disk: "20G" })).toMatchObject({
      state: "succeeded",
    });
    expect(await at.row()).toMatchObject({ vcpus: 4, diskGib: 20 });
  });

  it("a worker that dies at each moment of a resize: another one ends it, with one restart", {
    timeout: 60_000,
  }, async () => {
    const at = await open();
    const cpuOf = (nth: number) => (nth % 2 === 0 ? "2" : "4");
    const { moments } = await surviveDeaths(at, {
      begin: (nth) => at.begin("server.resize", { ...WEB, cpu: cpuOf(nth), disk: `${10 + nth}G` }),
      after(nth) {
        expect(at.vm(), `death ${nth}`).toMatchObject({
          pending: {},
          guest: { boots: 1 + nth },
          config: { cores: cpuOf(nth) },
        });
        expect(diskOf(at)).toBe(10 + nth);
      },
    });
    expect(moments).toBeGreaterThan(8);
  });

  it("a worker that dies at each moment of a restart: another one ends it, stopped and started once", {
    timeout: 60_000,
  }, async () => {
    const at = await open();
    const { moments } = await surviveDeaths(at, {
      begin: () => at.begin("server.restart", WEB),
      after(nth) {
        expect(at.vm(), `death ${nth}`).toMatchObject({ status: "running", guest: { boots: 1 + nth } });
      },
    });
    expect(moments).toBeGreaterThan(8);
  });
});

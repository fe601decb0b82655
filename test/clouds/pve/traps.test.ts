/** What goes wrong with PVE in practice (facts: docs/pve.md): each of them once, on the simulator. */
import { randomUUID } from "node:crypto";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { createPveCloud } from "../../../src/clouds/pve/cloud.ts";
import type { PveCloudOptions } from "../../../src/clouds/pve/options.ts";
import { ServiceError } from "../../../src/core/errors.ts";
import type { PlannedStep } from "../../../src/core/operations/step.ts";
import type { Database } from "../../../src/database/client.ts";
import type { PveSimulatorOptions } from "../../../src/sandbox/pve/index.ts";
import { clean, testDatabase } from "../../support/database.ts";
import { recordingLog } from "../recording-log.ts";
import {
  contextOf,
  createStepOf,
  definitionOf,
  type RunOptions,
  runAll,
  runStep,
  type StepRun,
} from "../run-step.ts";
import { caFileOf, type Opened, openSimulator, optionsOf } from "./open-simulator.ts";

let database: Database;
let opened: (Opened & { rows: NonNullable<RunOptions["rows"]> }) | undefined;

beforeAll(async () => {
  database = await testDatabase();
});
afterEach(async () => {
  await opened?.close();
  opened = undefined;
});
afterAll(() => database.close());

async function open(simulator: PveSimulatorOptions = {}, client: Partial<PveCloudOptions> = {}) {
  await clean(database);
  opened = { ...(await openSimulator(simulator, client, database)), rows: new Map() };
  return opened;
}

function at(): NonNullable<typeof opened> {
  if (opened === undefined) throw new Error("not open");
  return opened;
}

function options(operationId: string = randomUUID()): RunOptions {
  const { rows } = at();
  return { operationId, database, rows, secret: "Secret-of-the-test-1", everyMs: 5, limitMs: 10_000 };
}

async function build(operationId: string = randomUUID()) {
  const { cloud, order, simulator } = at();
  const runs = await runAll(cloud, cloud.provision(order), options(operationId));
  const vm = simulator.state.vms.find((one) => one.description.includes(operationId));
  if (vm === undefined) throw new Error("nothing was built");
  return { operationId, vm, externalId: String(vm.vmid), runs };
}

async function problemOf(work: Promise<unknown>): Promise<ServiceError> {
  try {
    await work;
  } catch (error) {
    if (error instanceof ServiceError) return error;
    throw error;
  }
  throw new Error("it was expected to fail");
}

/** Up to the step that makes the VM, which is left to the test. */
async function beforeClone(operationId: string): Promise<PlannedStep> {
  const { cloud, order } = at();
  const { before, create } = createStepOf(cloud, cloud.provision(order));
  await runAll(cloud, before, options(operationId));
  return create;
}

function discard(operationId: string): Promise<StepRun> {
  const step = { name: "pve.discard", label: "", input: { operationId } };
  return runStep(at().cloud, step, options(operationId));
}

function countOf(call: RegExp): number {
  const { counts } = at().simulator.state;
  return Object.entries(counts)
    .filter(([key]) => call.test(key))
    .reduce((sum, [, count]) => sum + count, 0);
}

describe("numbers", () => {
  it("VMID taken by a stranger between reservation and clone: another one is used, the stranger's VM is not touched", async () => {
    const { simulator, cloud } = await open();
    const operationId = randomUUID();
    const create = await beforeClone(operationId);
    const stranger = simulator.addStranger({ vmid: 100_000, name: "theirs" });
    const run = await runStep(cloud, create, options(operationId));
    expect(run.verdict).toMatchObject({ kind: "done", server: { externalId: "100001" } });
    expect(simulator.state.vms.find((vm) => vm.vmid === 100_000)).toEqual(stranger);
    const rows = await database.sql<{ vmid: number; spoilt: boolean }>(
      `SELECT vmid, spoilt_at IS NOT NULL AS spoilt FROM vmid_reservations ORDER BY vmid`,
    );
    expect(rows).toEqual([
      { vmid: 100_000, spoilt: true },
      { vmid: 100_001, spoilt: false },
    ]);
  });

  it("duplicate newid: PVE accepts both clones, ours loses in its task, and 'already exists' is no success", async () => {
    const { simulator, cloud } = await open();
    const operationId = randomUUID();
    const create = await beforeClone(operationId);
    simulator.state.traps = { stealVmids: 1 };
    const { verdict } = await runStep(cloud, create, options(operationId));
    expect(verdict).toMatchObject({ kind: "done", server: { externalId: "100001" } });
    const theirs = simulator.state.vms.find((vm) => vm.vmid === 100_000);
    expect(theirs).toMatchObject({ stranger: true });
    expect(simulator.state.tasks.filter((task) => task.type === "qmclone")).toMatchObject([
      { exitstatus: expect.stringMatching(/config file already exists/u) },
      { exitstatus: "OK" },
    ]);
    expect((await discard(operationId)).verdict).toMatchObject({ kind: "done", gone: true });
    expect(simulator.state.vms.find((vm) => vm.vmid === 100_000)).toEqual(theirs);
    expect(simulator.state.vms.some((vm) => vm.vmid === 100_001)).toBe(false);
  });

  it("strangers in our range are gone round", async () => {
    const { simulator } = await open();
    simulator.addStranger({ vmid: 100_000 });
    simulator.addStranger({ vmid: 100_001 });
    expect((await build()).vm.vmid).toBe(100_002);
  });

  it("a range that is used up is said so", async () => {
    await open({}, { vmidRange: [100_000, 100_000] });
    await build();
    expect(await problemOf(build())).toMatchObject({
      code: "capacity",
      staffDetail: expect.stringMatching(/vmidRange 100000-100000 has no free VMID/u),
    });
  });

  it("ten orders at once get ten numbers", async () => {
    const { simulator } = await open();
    await Promise.all(Array.from({ length: 10 }, () => build()));
    const made = simulator.state.vms.filter((vm) => vm.vmid >= 100_000);
    expect(new Set(made.map((vm) => vm.uuid)).size).toBe(10);
  });
});

describe("what is not ours", () => {
  it("somebody else's VM under our server's number is neither stopped nor deleted", async () => {
    const { simulator, cloud } = await open();
    const { externalId, vm } = await build();
    simulator.removeVm(vm.vmid);
    simulator.addStranger({ vmid: vm.vmid, name: "web-1", tags: "ratatosk" });
    const before = simulator.state.vms.find((one) => one.vmid === vm.vmid);
    for (const steps of [
      cloud.remove({ externalId }),
      cloud.power({ externalId, verb: "stop" }),
      cloud.power({ externalId, verb: "reset" }),
      cloud.password({ externalId, secretId: "secret" }),
      cloud.resize({
        externalId,
        before: at().order.size,
        after: { vcpus: 2, memoryMib: 2048, diskGib: 12 },
      }),
    ]) {
      expect(await problemOf(runAll(cloud, steps, options()))).toMatchObject({
        code: "cloud_conflict",
        facts: { foreign: true },
        staffDetail: expect.stringMatching(/does not carry our marker.*SMBIOS uuid/u),
      });
    }
    expect(simulator.state.vms.find((one) => one.vmid === vm.vmid)).toEqual(before);
  });

  it("a copy of our VM by somebody else, with our marker in it, is not taken for ours", async () => {
    const { simulator, cloud, rows } = await open();
    const { vm } = await build();
    const copy = simulator.addStranger({ vmid: 555, description: vm.description, tags: vm.tags });
    rows.set("555", { smbiosUuid: copy.uuid });
    expect(await problemOf(runAll(cloud, cloud.remove({ externalId: "555" }), options()))).toMatchObject({
      facts: { foreign: true },
      staffDetail: expect.stringMatching(/never reserved by us/u),
    });
    expect(simulator.state.vms.some((one) => one.vmid === 555)).toBe(true);
  });

  it("token without rights sees empty lists: nothing is read as deleted", async () => {
    const { simulator } = await open();
    const { externalId } = await build();
    const { log } = recordingLog();
    const { id, secret } = simulator.tokens.blind;
    const blind = createPveCloud(
      { ...optionsOf(simulator), credential: { kind: "token", tokenId: id, tokenSecret: secret } },
      { log, sleep: () => Promise.resolve() },
    );
    expect(await blind.listServers()).toEqual([]);
    expect((await problemOf(blind.inspect(externalId))).code).toBe("cloud_forbidden");
    expect((await problemOf(runAll(blind, blind.remove({ externalId }), options()))).code).toBe(
      "cloud_forbidden",
    );
    expect(await blind.check()).toContainEqual(
      expect.objectContaining({
        service: "privileges",
        ok: false,
        detail: expect.stringContaining("VM.Clone"),
      }),
    );
    await blind.close();
  });
});

describe("locks", () => {
  it("lock left by a killed task: said with what an operator must do, and the VM is left alone", async () => {
    const { simulator, cloud } = await open();
    const operationId = randomUUID();
    const create = await beforeClone(operationId);
    simulator.addTaskFault({ task: "qmclone", outcome: "kill" });
    const { verdict } = await runStep(cloud, create, options(operationId));
    expect(verdict.kind).toBe("failed");
    const undone = await problemOf(discard(operationId));
    expect(undone).toMatchObject({ code: "cloud_conflict", facts: { stuckLock: true } });
    expect(undone.message).toMatch(/locked in the cloud \(clone\) by work that was broken off/u);
    expect(undone.staffDetail).toMatch(/run: qm unlock 100000/u);
    expect(simulator.state.vms.find((vm) => vm.vmid === 100_000)?.lock).toBe("clone");
  });

  it("a stuck lock before a power verb: refused before PVE is asked", async () => {
    const { simulator, cloud } = await open();
    const { externalId, vm } = await build();
    simulator.changeVm(vm.vmid, { lock: "backup" });
    const refused = await problemOf(runAll(cloud, cloud.power({ externalId, verb: "reboot" }), options()));
    expect(refused).toMatchObject({ code: "cloud_conflict", facts: { stuckLock: true, lock: "backup" } });
    expect(await cloud.inspect(externalId)).toMatchObject({
      busy: false,
      fault: expect.stringMatching(/qm unlock/u),
    });
    expect(countOf(/status\/reboot/u)).toBe(0);
  });

  it.each(["qmstart", "qmstop", "qmdestroy", "resize"])(
    "transient lock in a %s task is asked past",
    async (task) => {
      const { simulator, cloud } = await open();
      const message = "can't lock file '/var/lock/qemu-server/lock-100000.conf' - got timeout";
      simulator.addTaskFault({ task, outcome: "fail", at: "start", message, times: 2 });
      const { externalId } = await build();
      await runAll(cloud, cloud.remove({ externalId }), options());
      expect(simulator.state.vms.filter((vm) => vm.vmid >= 100_000)).toEqual([]);
      expect(
        simulator.state.tasks.filter((one) => one.type === task && one.exitstatus === message),
      ).toHaveLength(2);
    },
  );
});

describe("deleting", () => {
  it("delete that meets a protected VM: refused before it is switched off", async () => {
    const { simulator, cloud } = await open();
    const { externalId, vm } = await build();
    simulator.changeVm(vm.vmid, { config: { protection: "1" } });
    const refused = await problemOf(runAll(cloud, cloud.remove({ externalId }), options()));
    expect(refused).toMatchObject({ code: "cloud_conflict", facts: { protected: true } });
    expect(refused.message).toMatch(/^The server is protected against deletion/u);
    expect(simulator.state.vms.find((one) => one.vmid === vm.vmid)?.status).toBe("running");
  });

  it("delete that meets a running VM: switched off first, then gone with its disks", async () => {
    const { simulator, cloud } = await open();
    const { externalId, vm } = await build();
    await runAll(cloud, cloud.remove({ externalId }), options());
    expect(simulator.state.tasks.map((task) => task.type).slice(-2)).toEqual(["qmstop", "qmdestroy"]);
    expect(simulator.state.volumes.filter((volume) => volume.vmid === vm.vmid)).toEqual([]);
  });
});

describe("building", () => {
  it("clone succeeded but config failed: it is never started, and removed", async () => {
    const { simulator } = await open();
    const operationId = randomUUID();
    simulator.addFault({
      method: "PUT",
      path: "/config$",
      kind: "status",
      status: 500,
      body: { data: null, message: "disk image does not exist\n" },
    });
    const failed = await problemOf(build(operationId));
    expect(failed.code).toBe("cloud_failed");
    expect(countOf(/status\/start/u)).toBe(0);
    expect((await discard(operationId)).verdict).toMatchObject({ kind: "done", gone: true });
    expect(simulator.state.vms.filter((vm) => vm.vmid >= 100_000)).toEqual([]);
  });

  it("task killed or failed in the copy: told as such, and PVE has removed it itself", async () => {
    const { simulator, cloud } = await open();
    const operationId = randomUUID();
    const create = await beforeClone(operationId);
    const message = "clone failed: copy failed: No space left on device";
    simulator.addTaskFault({ task: "qmclone", outcome: "fail", message });
    const { verdict } = await runStep(cloud, create, options(operationId));
    expect(verdict.kind === "failed" && verdict.error).toMatchObject({
      code: "capacity",
      staffDetail: expect.stringContaining(message),
    });
    expect((await discard(operationId)).verdict).toMatchObject({ kind: "done", gone: true });
    expect(simulator.state.vms.filter((vm) => vm.vmid >= 100_000)).toEqual([]);
  });

  it("WARNINGS is success, and staff hear of it", async () => {
    const { simulator } = await open();
    simulator.addTaskFault({ task: "qmstart", outcome: "warn", message: "iothread is only valid with …" });
    const { runs } = await build();
    const notes = runs.map(({ verdict }) => (verdict.kind === "done" ? verdict.staffNote : "")).join(" ");
    expect(notes).toMatch(/WARNINGS: 1/u);
  });

  it("pvestatd cache stale after create (list lags): a server is found and seen as it is all the same", async () => {
    const { cloud } = await open({ traps: { resourcesLagMs: 60_000 }, speed: 0.001 });
    const { externalId, operationId } = await build();
    expect(await cloud.findByMarker(operationId)).toMatchObject([
      { externalId, state: "active", name: "web-1" },
    ]);
    expect(await cloud.listServers()).toContainEqual(
      expect.objectContaining({ externalId, state: "active" }),
    );
  });

  it("task of another node: it is asked for where it runs, not where the VM will be", async () => {
    const { simulator, cloud, order } = await open();
    const operationId = randomUUID();
    // A linked clone on a shared storage may be made on another node than its template's.
    const steps = cloud.provision({ ...order, node: "n2" });
    await runAll(cloud, steps, options(operationId));
    const vm = simulator.state.vms.find((one) => one.description.includes(operationId));
    expect(vm?.node).toBe("n2");
    const clone = simulator.state.tasks.find((task) => task.type === "qmclone");
    const asked = simulator.state.requests.filter(({ path }) =>
      path.includes(encodeURIComponent(clone?.upid ?? "?")),
    );
    expect(asked.every(({ path }) => path.includes(`/nodes/${clone?.node}/tasks/`))).toBe(true);
    // It moves between the look and the call of one order: PVE begins a task where it is no more.
    await cloud.inspect(String(vm?.vmid), undefined, { before: operationId });
    simulator.changeVm(vm?.vmid ?? 0, { node: "n1" });
    const kill = cloud.power({ externalId: String(vm?.vmid), verb: "kill" });
    const [run] = await runAll(cloud, kill, options(operationId));
    expect(run?.verdict).toMatchObject({ kind: "done", server: { state: "stopped" } });
    expect(simulator.state.vms.find((one) => one.vmid === vm?.vmid)).toMatchObject({
      node: "n1",
      status: "stopped",
    });
  });

  it("log longer than 50 lines: a warning at its end reaches staff", async () => {
    const { simulator } = await open();
    const lines = Array.from({ length: 60 }, (_, nth) => `line ${nth}`);
    simulator.addTaskFault({
      task: "qmstart",
      outcome: "warn",
      message: [...lines, "the last word"].join("\nWARN: "),
    });
    const { runs } = await build();
    const notes = runs.map(({ verdict }) => (verdict.kind === "done" ? verdict.staffNote : "")).join(" ");
    expect(notes).toMatch(/line 0 .*line 59 .*the last word/u);
  });

  it("a node that is offline: its VMs are unknown, not gone; new ones go elsewhere", async () => {
    const { simulator, cloud, order } = await open();
    const { externalId } = await build();
    simulator.changeVm(Number(externalId), { node: "n2" });
    simulator.state.traps = { offlineNodes: ["n2"] };
    expect(await problemOf(cloud.inspect(externalId))).toMatchObject({
      code: "unreachable",
      retryable: true,
    });
    expect(await cloud.listServers()).toContainEqual(
      expect.objectContaining({ externalId, state: "unknown" }),
    );
    expect((await build()).vm.node).toBe("n1");
    const { signal } = new AbortController();
    expect(await problemOf(cloud.preflightProvision({ ...order, node: "n2" }, signal))).toMatchObject({
      code: "unreachable",
      staffDetail: expect.stringMatching(/n2 is offline/u),
    });
  });

  it("a full storage is told before anything is made", async () => {
    const { cloud, order } = await open({ storageBytes: 64 * 2 ** 30 });
    const { signal } = new AbortController();
    const big = { ...order, size: { ...order.size, diskGib: 500 } };
    expect((await problemOf(cloud.preflightProvision(big, signal))).code).toBe("capacity");
  });

  it("works with PVE 8.4, and with answers that say their reason in the reason phrase alone", async () => {
    const { simulator, cloud } = await open({ version: "8.4", traps: { errorStyle: "reason" } });
    const { externalId } = await build();
    await runAll(cloud, cloud.remove({ externalId }), options());
    expect((await problemOf(cloud.inspect(externalId))).code).toBe("cloud_not_found");
    expect(simulator.state.vms.filter((vm) => vm.vmid >= 100_000)).toEqual([]);
  });
});

describe("a running server", () => {
  it("reboot task ends before the VM is back: it is not told as done while it is off", async () => {
    const { simulator, cloud } = await open();
    const { externalId, vm } = await build();
    simulator.state.traps = { busyQmeventd: true };
    const [reboot] = cloud.power({ externalId, verb: "reboot" });
    if (reboot === undefined) throw new Error("no step");
    const step = definitionOf(cloud, reboot.name);
    const context = contextOf(cloud, reboot, options());
    const issued = await step.issue(context);
    if (issued.kind !== "wait") throw new Error(issued.kind);
    context.reference = issued.reference;
    const status = () => simulator.state.vms.find((one) => one.vmid === vm.vmid)?.status;
    const task = () => simulator.state.tasks.find(({ type }) => type === "qmreboot");
    await expect.poll(() => task()?.status, { interval: 1, timeout: 5_000 }).toBe("stopped");
    expect(task()?.exitstatus).toBe("OK");
    expect(status()).toBe("stopped");
    expect(await step.verify?.(context)).toMatchObject({ kind: "pending" });
    simulator.state.traps = {};
    await expect.poll(status, { timeout: 5_000 }).toBe("running");
    await expect.poll(async () => (await step.verify?.(context))?.kind, { timeout: 5_000 }).toBe("done");
    expect(simulator.state.vms.find((one) => one.vmid === vm.vmid)?.guest.boots).toBe(2);
  });

  it("node moved: it is found where it is now", async () => {
    const { simulator, cloud } = await open();
    const { externalId, vm } = await build();
    simulator.changeVm(vm.vmid, { node: vm.node === "n1" ? "n2" : "n1" });
    await runAll(cloud, cloud.power({ externalId, verb: "kill" }), options());
    expect(simulator.state.vms.find((one) => one.vmid === vm.vmid)?.status).toBe("stopped");
  });

  it("pending changes are not shown as done: a guest that does not restart is said so", async () => {
    const { simulator, cloud, order } = await open();
    const { externalId } = await build();
    simulator.state.traps = { deafGuests: true };
    const change = { externalId, before: order.size, after: { vcpus: 2, memoryMib: 2048, diskGib: 12 } };
    const failed = await problemOf(runAll(cloud, cloud.resize(change), options()));
    expect(failed.message).toMatch(/stored, but the guest did not restart.*Stop and start the server/u);
    // What runs is what counts; the disk has grown already.
    expect(await cloud.inspect(externalId)).toMatchObject({ vcpus: 1, memoryMib: 1024, diskGib: 12 });
    simulator.state.traps = {};
    await runAll(cloud, cloud.power({ externalId, verb: "stop" }), options());
    await runAll(cloud, cloud.power({ externalId, verb: "start" }), options());
    expect(await cloud.inspect(externalId)).toMatchObject({ vcpus: 2, memoryMib: 2048 });
  });

  it("password set only in cloud-init: said to be active after the next boot, and then it is", async () => {
    const { simulator, cloud } = await open();
    const { externalId, vm } = await build();
    simulator.changeVm(vm.vmid, { config: { agent: null } });
    const steps = cloud.password({ externalId, secretId: "secret" });
    const [run] = await runAll(cloud, steps, { ...options(), secret: "Another-password-2" });
    expect(run?.verdict).toMatchObject({ kind: "done", output: { passwordActive: "after_next_boot" } });
    expect(run?.notes.join(" ")).toMatch(/active at the next boot/u);
    const password = () => simulator.state.vms.find((one) => one.vmid === vm.vmid)?.guest.passwords["debian"];
    expect(password()).toBe("Secret-of-the-test-1");
    await runAll(cloud, cloud.power({ externalId, verb: "reboot" }), options());
    expect(password()).toBe("Another-password-2");
  });

  it("agent up late: it is waited for instead of leaving the password for the next boot", async () => {
    const { simulator, cloud } = await open();
    const { externalId, vm } = await build();
    const silent = { kind: "status" as const, status: 500, times: 3 };
    const body = { data: null, message: "QEMU guest agent is not running\n" };
    simulator.addFault({ ...silent, path: "/agent/(get-osinfo|ping)$", body });
    const steps = cloud.password({ externalId, secretId: "secret" });
    const [run] = await runAll(cloud, steps, { ...options(), secret: "Another-password-2" });
    expect(run?.verdict).toMatchObject({ output: { passwordActive: "now" } });
    expect(simulator.state.vms.find((one) => one.vmid === vm.vmid)?.guest.passwords["debian"]).toBe(
      "Another-password-2",
    );
  });

  it("shutdown that the guest ignores ends as what it is, and stop cuts the power in the end", async () => {
    const { simulator, cloud } = await open({ traps: { deafGuests: true } });
    const { externalId, vm } = await build();
    const ignored = await problemOf(runAll(cloud, cloud.power({ externalId, verb: "shutdown" }), options()));
    expect(ignored.message).toMatch(/did not react in time and is still running/u);
    await runAll(cloud, cloud.power({ externalId, verb: "stop" }), options());
    expect(simulator.state.vms.find((one) => one.vmid === vm.vmid)?.status).toBe("stopped");
  });

  it("resize twice is once: the size is absolute", async () => {
    const { simulator, cloud, order } = await open();
    const { externalId, vm } = await build();
    simulator.addFault({ method: "PUT", path: "/resize$", kind: "status_after", status: 596 });
    const change = { externalId, before: order.size, after: { ...order.size, diskGib: 20 } };
    await runAll(cloud, cloud.resize(change), options());
    expect(simulator.state.vms.find((one) => one.vmid === vm.vmid)?.disks["scsi0"]?.sizeBytes).toBe(
      20 * 2 ** 30,
    );
    expect(
      simulator.state.requests.find((request) => request.path.endsWith("/resize"))?.params,
    ).toMatchObject({
      size: "8G",
    });
  });

  it("double-submit after 596 on a reboot: the task list tells that it was done", async () => {
    const { simulator, cloud } = await open();
    const { externalId, vm } = await build();
    simulator.addFault({ method: "POST", path: "/status/reboot$", kind: "status_after", status: 596 });
    const [run] = await runAll(cloud, cloud.power({ externalId, verb: "reboot" }), options());
    expect(run).toMatchObject({ issued: 1, lost: { code: "unknown_outcome" } });
    expect(simulator.state.vms.find((one) => one.vmid === vm.vmid)?.guest.boots).toBe(2);
  });
});

describe("the connection", () => {
  it("trusts the cluster's CA, or the one certificate, and nothing else", async () => {
    const { simulator, cloud } = await open();
    const { log } = recordingLog();
    const { fingerprint: _fingerprint, ...plain } = optionsOf(simulator);
    expect((await cloud.check())[0]).toMatchObject({ ok: true });
    const trusting = createPveCloud({ ...plain, caFile: caFileOf(simulator) }, { log });
    expect((await trusting.check())[0]).toMatchObject({ ok: true });
    const before = simulator.state.requests.length;
    for (const wrong of [plain, { ...plain, fingerprint: "00:".repeat(31).concat("00") }]) {
      const distrusting = createPveCloud(wrong, { log });
      const problem = await problemOf(distrusting.listServers());
      expect(problem).toMatchObject({ code: "unreachable", retryable: false });
      expect(problem.message).toMatch(/certificate is not trusted/u);
      await distrusting.close();
    }
    expect(simulator.state.requests.length).toBe(before);
    await trusting.close();
  });

  it("3 s delay on 401: a wrong token is not asked for at every poll", async () => {
    const { simulator } = await open();
    let now = 0;
    const credential = { kind: "token", tokenId: simulator.tokenId, tokenSecret: randomUUID() } as const;
    const { log, logged } = recordingLog();
    const wrong = createPveCloud({ ...optionsOf(simulator), credential }, { log, now: () => now });
    for (let poll = 0; poll < 5; poll += 1) {
      expect((await problemOf(wrong.listServers())).code).toBe("unauthorized");
    }
    expect(countOf(/ 401$/u)).toBe(1);
    now += 31_000;
    expect((await problemOf(wrong.listServers())).code).toBe("unauthorized");
    expect(countOf(/ 401$/u)).toBe(2);
    expect(logged()).not.toContain(credential.tokenSecret);
    await wrong.close();
  });

  it("a ticket is taken once, renewed before it ends, and taken anew when PVE refuses it", async () => {
    const { simulator } = await open();
    let now = 0;
    const { log, logged } = recordingLog();
    const { username, password } = simulator.root;
    const cloud = createPveCloud(
      { ...optionsOf(simulator), credential: { kind: "password", username, password } },
      { log, now: () => now },
    );
    await Promise.all([cloud.listServers(), cloud.listServers(), cloud.listImages()]);
    expect(countOf(/access\/ticket 200/u)).toBe(1);
    now += 61 * 60_000;
    await cloud.listServers();
    expect(countOf(/access\/ticket 200/u)).toBe(2);
    simulator.expireTickets();
    await cloud.listServers();
    expect(countOf(/access\/ticket 200/u)).toBe(3);
    // A change needs the CSRF token as well.
    const { externalId, vm } = await build();
    await runAll(cloud, cloud.power({ externalId, verb: "kill" }), options());
    expect(simulator.state.vms.find((one) => one.vmid === vm.vmid)?.status).toBe("stopped");
    expect(logged()).not.toContain(password);
    await cloud.close();
  });

  it.each([
    [595, "unreachable"],
    [596, "timeout"],
    [599, "timeout"],
    [502, "unreachable"],
    [504, "timeout"],
  ] as const)("%i on a read is %s, on a write it is unknown", async (status, code) => {
    const { simulator, cloud } = await open();
    const { externalId } = await build();
    simulator.addFault({ method: "GET", path: "/resources", kind: "status", status, times: 0 });
    expect((await problemOf(cloud.listServers())).code).toBe(code);
    simulator.clearFaults();
    simulator.addFault({ method: "POST", path: "/status/stop$", kind: "status", status });
    const [planned] = cloud.power({ externalId, verb: "kill" });
    if (planned === undefined) throw new Error("no step");
    const context = contextOf(cloud, planned, options());
    const lost = await problemOf(definitionOf(cloud, planned.name).issue(context));
    expect(lost).toMatchObject({ code: "unknown_outcome", retryable: false });
    expect(countOf(/status\/stop/u)).toBe(1);
  });
});

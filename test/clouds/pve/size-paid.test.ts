/** Nobody has a size that billing has not heard of: orders taken back, resizes that fail, and the stop and start that follows. */
import { describe, expect, it } from "vitest";
import { ServiceError } from "../../../src/core/errors.ts";
import type { OperationRow } from "../../../src/core/operations/rows.ts";
import type { Issued, StepContext } from "../../../src/core/operations/step.ts";
import { createWorker } from "../../../src/core/operations/worker.ts";
import { runSync } from "../../../src/core/sync/run.ts";
import { useStage } from "../../support/stage.ts";
import { silent } from "../../support/world.ts";
import { createScene, GIB, OLD, type Scene } from "./rebuild-scene.ts";

const S = { plan: "s", vcpus: 1, memoryMib: 2048, diskGib: 10 };
const M = { plan: "m", vcpus: 2, memoryMib: 4096, diskGib: 20 };
const stage = useStage();

/** With web-1 of Ada as plan s; it runs. */
async function open(): Promise<Scene> {
  const at = stage.keep(await createScene({ database: stage.database, build: { cpu: "1" } }));
  await stage.database.sql(`UPDATE servers SET plan_code = 's'`);
  return at;
}

interface Row {
  plan: string | null;
  vcpus: number;
  memoryMib: number;
  diskGib: number;
  sizeWaits: boolean;
  planWaits: unknown;
}

async function row(): Promise<Row | undefined> {
  const [found] = await stage.database.sql<Row>(
    `SELECT plan_code AS plan, vcpus, memory_mib AS "memoryMib", disk_gib AS "diskGib", plan_waits AS "planWaits",
       COALESCE((provider_data->>'sizeWaits')::boolean, false) AS "sizeWaits" FROM servers`,
  );
  return found;
}

/** What billing hears of the size, in order: the type, and the server as it is told then. */
async function told(at: Scene): Promise<[string, object][]> {
  const heard = /^server\.(?:resize\.(?!started)|size\.)|^snapshot\.rolled_back$/u;
  return (await at.events())
    .filter(({ type }) => heard.test(type))
    .map(({ type, data }) => {
      const { plan, vcpus, memoryMib, diskGib } = data["server"] as Record<string, unknown>;
      return [type, { plan, vcpus, memoryMib, diskGib }];
    });
}

function hasOf(at: Scene) {
  const vm = at.vm(OLD);
  const { cores = "1", sockets = "1", memory } = vm?.config ?? {};
  return {
    vcpus: Number(cores) * Number(sockets),
    memoryMib: Number(memory),
    diskGib: (vm?.disks["scsi0"]?.sizeBytes ?? 0) / GIB,
  };
}

/** This step's call is done otherwise, from now on. */
function replaceIssue(
  { cloud }: Scene,
  name: string,
  wrap: (issue: () => Promise<Issued>) => Promise<Issued>,
) {
  Object.assign(cloud, {
    steps: cloud.steps.map((step) =>
      step.name === name
        ? { ...step, deadlineMs: 30_000, issue: (context: StepContext) => wrap(() => step.issue(context)) }
        : step,
    ),
  });
}

async function publicIdOf(operationId: string): Promise<string> {
  const [found] = await stage.database.sql<{ publicId: string }>(
    `SELECT public_id AS "publicId" FROM operations WHERE id = $1`,
    [operationId],
  );
  return found?.publicId ?? "";
}

async function sync({ cloud, time }: Scene): Promise<void> {
  await time.later(1_000);
  const { database } = stage;
  await runSync({ database, cloud, resource: "servers", requester: "test", log: silent });
}

async function powerCycle(at: Scene): Promise<void> {
  for (const action of ["kill", "start"]) {
    expect(await at.order("server.power", { action }, at.ada)).toMatchObject({ state: "succeeded" });
  }
}

/** Its guest ignores the restart, so the new size is stored and waits. */
async function failedResize(at: Scene, options: Record<string, string>): Promise<OperationRow> {
  at.simulator.state.traps = { deafGuests: true };
  const operation = await at.order("server.resize", options, at.ada);
  expect(operation).toMatchObject({ state: "failed", problem: { code: "cloud_failed" } });
  at.simulator.state.traps = {};
  return operation;
}

describe("an order is taken back", () => {
  it("not once the disk grows: the resize goes on to the size and the plan that were ordered", async () => {
    const at = await open();
    at.simulator.addTaskFault({ task: "resize", outcome: "hang" });
    const operationId = await at.begin("server.resize", { plan: "m" }, at.ada);
    const worker = createWorker({ ...at.engine, worker: "first" }, { concurrency: 4, now: at.time.now });
    await worker.tick();
    await worker.watcher.tick();
    const operation = await publicIdOf(operationId);
    await expect(at.ask(at.ada, "ops.cancel", { operation })).rejects.toMatchObject({
      code: "wrong_state",
      message: `Too late to cancel ${operation}: The disk is growing, and a disk never shrinks, so the resize goes on to its end.`,
    });
    const task = at.simulator.state.tasks.find(
      ({ type, status }) => type === "resize" && status === "running",
    );
    at.simulator.releaseTask(task?.upid ?? "");
    expect(await at.finish(operationId, "first")).toMatchObject({ state: "succeeded", problem: null });
    expect({ ...(await row()), ...hasOf(at) }).toMatchObject({ ...M, planWaits: null });
    expect((await told(at)).at(-1)).toEqual(["server.resize.succeeded", M]);
  });

  it("not once CPU and memory are stored, not even while they are", async () => {
    const at = await open();
    const refused: unknown[] = [];
    let operation = "";
    replaceIssue(at, "pve.set_size", async (issue) => {
      const cancel = () =>
        at.ask(at.ada, "ops.cancel", { operation }).catch((error: unknown) => refused.push(error));
      await cancel();
      const issued = await issue();
      await cancel();
      return issued;
    });
    const operationId = await at.begin("server.resize", { cpu: "8", memory: "16G" }, at.ada);
    operation = await publicIdOf(operationId);
    expect(await at.finish(operationId)).toMatchObject({ state: "succeeded", problem: null });
    const message = expect.stringMatching(
      /^Too late .* Ask for the size it had afterwards to take them back\.$/u,
    );
    expect(refused).toMatchObject([{ message }, { message }]);
    expect((await told(at)).at(-1)).toEqual([
      "server.resize.succeeded",
      { plan: "s", vcpus: 8, memoryMib: 16_384, diskGib: 10 },
    ]);
  });

  it("in time, nothing was changed and nothing waits", async () => {
    const at = await open();
    const operationId = await at.begin("server.resize", { plan: "m" }, at.ada);
    const operation = await publicIdOf(operationId);
    await at.ask(at.ada, "ops.cancel", { operation });
    await powerCycle(at);
    expect({ ...(await row()), ...hasOf(at) }).toMatchObject({ ...S, planWaits: null });
    expect(await told(at)).toEqual([["server.resize.cancelled", S]]);
  });
});

describe("a resize fails and its size waits", () => {
  const halfM = { ...S, diskGib: 20 };

  it("the plan counts with the size, when somebody stops and starts the server in another way", async () => {
    const at = await open();
    await failedResize(at, { plan: "m" });
    expect(await row()).toMatchObject({ ...halfM, sizeWaits: true, planWaits: { code: "m" } });
    expect(await told(at)).toEqual([
      ["server.size.changed", halfM],
      ["server.resize.failed", halfM],
    ]);
    await powerCycle(at);
    expect({ ...(await row()), ...hasOf(at) }).toMatchObject({ ...M, sizeWaits: false, planWaits: null });
    expect((await told(at)).slice(2)).toEqual([["server.size.changed", M]]);
    const changed = (await at.events()).findLast(({ type }) => type === "server.size.changed");
    expect(changed?.data).toMatchObject({ from: halfM, to: M });
    await expect(at.ask(at.ada, "server.resize", { server: "web-1", plan: "m" })).rejects.toMatchObject({
      code: "nothing_to_change",
    });
  });

  it("the plan counts with the size, when a synchronisation finds it", async () => {
    const at = await open();
    await failedResize(at, { plan: "m" });
    await at.asSomebody("POST", `/nodes/n1/qemu/${OLD}/status/reboot`);
    await expect.poll(() => at.vm(OLD)).toMatchObject({ status: "running", config: { memory: "4096" } });
    await sync(at);
    expect(await row()).toMatchObject({ ...M, sizeWaits: false, planWaits: null });
    expect((await told(at)).at(-1)).toEqual(["server.size.changed", M]);
  });

  it("by the button, the same", async () => {
    const at = await open();
    await failedResize(at, { plan: "m" });
    expect(await at.order("server.restart", {}, at.ada)).toMatchObject({ state: "succeeded" });
    expect({ ...(await row()), ...hasOf(at) }).toMatchObject({ ...M, sizeWaits: false, planWaits: null });
    expect((await told(at)).at(-1)).toEqual(["server.size.changed", M]);
  });

  it("a refusal that left it stored is no gift either", async () => {
    const at = await open();
    at.simulator.addFault({
      method: "PUT",
      path: "/config$",
      kind: "status_after",
      status: 500,
      body: { data: null, message: "hotplug problem - memory: not enough slots\n" },
    });
    expect(await at.order("server.resize", { plan: "m" }, at.ada)).toMatchObject({ state: "failed" });
    await powerCycle(at);
    expect({ ...(await row()), ...hasOf(at) }).toMatchObject(M);
    expect((await told(at)).at(-1)).toEqual(["server.size.changed", M]);
  });

  it("nor is one for lack of memory, which says so only after it has stored the size", async () => {
    const at = await open();
    at.simulator.addFault({
      method: "PUT",
      path: "/config$",
      kind: "status_after",
      status: 400,
      body: { data: null, message: "hotplug problem - memory: Cannot allocate memory\n" },
    });
    expect(await at.order("server.resize", { plan: "m" }, at.ada)).toMatchObject({
      state: "failed",
      problem: { code: "capacity" },
    });
    await powerCycle(at);
    expect({ ...(await row()), ...hasOf(at) }).toMatchObject(M);
    expect((await told(at)).at(-1)).toEqual(["server.size.changed", M]);
  });

  it("a start that worked is no failure because nobody may look at what waits", async () => {
    const at = await open();
    await at.order("server.resize", { plan: "m", restart: "later" });
    await at.order("server.power", { action: "kill" });
    await at.database.sql(`UPDATE servers SET provider_data = provider_data || '{"sizeWaits": true}'`);
    at.simulator.addFault({ method: "GET", path: "/pending$", kind: "status", status: 403, times: 0 });
    expect(await at.order("server.power", { action: "start" }, at.ada)).toMatchObject({
      state: "succeeded",
      problem: null,
    });
    expect(at.vm(OLD)).toMatchObject({ status: "running" });
  });

  it("a resize that the team gives up, whose outcome nobody knows, is told when it shows", async () => {
    const at = await open();
    replaceIssue(at, "pve.set_size", async (issue) => {
      await issue();
      throw new ServiceError("unknown_outcome", "The answer was lost.");
    });
    const operation = await at.order("server.resize", { plan: "m" }, at.ada);
    expect(operation).toMatchObject({ state: "needs_attention" });
    await at.ask(at.rita, "ops.abandon", { operation: operation.publicId });
    expect((await told(at)).at(-1)).toEqual(["server.resize.failed", halfM]);
    await powerCycle(at);
    expect({ ...(await row()), ...hasOf(at) }).toMatchObject({ ...M, planWaits: null });
    expect((await told(at)).at(-1)).toEqual(["server.size.changed", M]);
  });

  it("a resize that was stored, and that nobody could look at afterwards, is no failure that gives the size away", async () => {
    for (const refused of [false, true]) {
      const at = await open();
      replaceIssue(at, "pve.set_size", (issue) => issue());
      at.simulator.addFault({ method: "GET", path: "/pending$", kind: "status", status: 500, times: 0 });
      if (refused) {
        const body = { data: null, message: "hotplug problem - memory: not enough slots\n" };
        at.simulator.addFault({ method: "PUT", path: "/config$", kind: "status_after", status: 500, body });
      }
      const operation = await at.order("server.resize", { plan: "m" }, at.ada);
      expect(operation, `refused: ${refused}`).toMatchObject({ state: "needs_attention" });
      at.simulator.clearFaults();
      await at.ask(at.rita, "ops.abandon", { operation: operation.publicId });
      await powerCycle(at);
      expect({ ...(await row()), ...hasOf(at) }, `refused: ${refused}`).toMatchObject(M);
      expect((await told(at)).at(-1)).toEqual(["server.size.changed", M]);
      await stage.clear();
    }
  });

  it("sizes without a plan are told when they count", async () => {
    const at = await open();
    await failedResize(at, { cpu: "8", memory: "16G" });
    expect(await told(at)).toEqual([["server.resize.failed", S]]);
    await powerCycle(at);
    const large = { plan: "s", vcpus: 8, memoryMib: 16_384, diskGib: 10 };
    expect({ ...(await row()), ...hasOf(at) }).toMatchObject({ ...large, sizeWaits: false });
    expect((await told(at)).slice(1)).toEqual([["server.size.changed", large]]);
  });

  it("taken back, neither size nor plan comes with a stop and start", async () => {
    const at = await open();
    await failedResize(at, { plan: "m" });
    expect(await at.order("server.resize", { cpu: "1", memory: "2G" }, at.ada)).toMatchObject({
      state: "succeeded",
    });
    expect(await row()).toMatchObject({ ...halfM, sizeWaits: false, planWaits: null });
    await powerCycle(at);
    expect({ ...(await row()), ...hasOf(at) }).toMatchObject(halfM);
    expect((await told(at)).at(-1)).toEqual(["server.resize.succeeded", halfM]);
  });

  it("another size asked for in its place has its own plan only", async () => {
    const at = await open();
    await failedResize(at, { plan: "m" });
    expect(await at.order("server.resize", { cpu: "4", memory: "8G" }, at.ada)).toMatchObject({
      state: "succeeded",
    });
    const other = { plan: "s", vcpus: 4, memoryMib: 8192, diskGib: 20 };
    expect({ ...(await row()), ...hasOf(at) }).toMatchObject({ ...other, planWaits: null });
    expect((await told(at)).at(-1)).toEqual(["server.resize.succeeded", other]);
  });
});

it("a build tells of no change of its size", async () => {
  const at = await open();
  expect((await at.events()).map(({ type }) => type)).not.toContain("server.size.changed");
});

describe("a way back to a snapshot", () => {
  const large = { cpu: "8", memory: "16G" };

  it("brings a customer no larger size than the server has, and says what to do", async () => {
    const at = await open();
    await at.order("server.resize", large, at.ada);
    await at.order("snapshot.create", { name: "large" }, at.ada);
    await at.order("server.resize", { plan: "m" }, at.ada);
    at.changes();
    expect(await at.order("snapshot.rollback", { snapshot: "large" }, at.ada)).toMatchObject({
      state: "failed",
      problem: {
        code: "cloud_conflict",
        message:
          "With the snapshot large the server would have 8 vCPU and 16 GiB again, more than now, so nothing was changed. Resize it to at least that first, then go back.",
      },
    });
    expect(at.changes()).toEqual([]);
    expect({ ...(await row()), ...hasOf(at) }).toMatchObject(M);
    await at.order("server.resize", large, at.ada);
    expect(await at.order("snapshot.rollback", { snapshot: "large" }, at.ada)).toMatchObject({
      state: "succeeded",
    });
  });

  it("tells billing the size that the team brings back with it", async () => {
    const at = await open();
    await at.order("server.resize", { cpu: "8", memory: "16G" });
    await at.order("snapshot.create", { name: "large" });
    await at.order("server.resize", { plan: "m" });
    expect(await at.order("snapshot.rollback", { snapshot: "large" })).toMatchObject({ state: "succeeded" });
    const size = { plan: "m", vcpus: 8, memoryMib: 16_384, diskGib: 10 };
    expect({ ...(await row()), ...hasOf(at) }).toMatchObject(size);
    expect((await told(at)).slice(-2)).toEqual([
      ["server.size.changed", size],
      ["snapshot.rolled_back", size],
    ]);
  });

  it("drops a size that waited, and its plan with it", async () => {
    const at = await open();
    await at.order("snapshot.create", { name: "before" }, at.ada);
    await failedResize(at, { plan: "m" });
    expect(await at.order("snapshot.rollback", { snapshot: "before" }, at.ada)).toMatchObject({
      state: "succeeded",
    });
    expect({ ...(await row()), ...hasOf(at) }).toMatchObject({ ...S, sizeWaits: false, planWaits: null });
    expect((await told(at)).at(-1)).toEqual(["snapshot.rolled_back", S]);
  });

  it("leaves the limits that the team has set since, on a server that is off and with its memory", async () => {
    for (const memory of ["no", "yes"]) {
      const at = await open();
      const net0 = at.vm(OLD)?.config["net0"] ?? "";
      at.simulator.changeVm(OLD, { config: { cpuunits: "50" } });
      await at.order("snapshot.create", { name: "free", memory }, at.ada);
      at.simulator.changeVm(OLD, {
        config: { cpulimit: "0.5", cpuunits: null, net0: `${net0},rate=2` },
      });
      at.changes();
      at.beforeStep("pve.power_back", () =>
        expect(at.vm(OLD)).toMatchObject({ config: { cpulimit: "0.5" }, pending: {} }),
      );
      const done = await at.order("snapshot.rollback", { snapshot: "free" }, at.ada);
      expect(done, memory).toMatchObject({ state: "succeeded", problem: null });
      const { config, pending } = at.vm(OLD) ?? {};
      expect(config, memory).toMatchObject({ cpulimit: "0.5", net0: `${net0},rate=2` });
      expect(config, memory).not.toHaveProperty("cpuunits");
      expect(pending, memory).toEqual({});
      expect(at.changes().filter((call) => call.startsWith("PUT"))).toHaveLength(1);
      await stage.clear();
    }
  });

  it("leaves the limits also when the answer to setting them is lost", async () => {
    for (const kind of ["status", "status_after"] as const) {
      const at = await open();
      await at.order("snapshot.create", { name: "free" }, at.ada);
      at.simulator.changeVm(OLD, { config: { cpulimit: "0.5" } });
      at.simulator.addFault({ method: "PUT", path: "/config$", kind, status: 596 });
      expect(await at.order("snapshot.rollback", { snapshot: "free" }, at.ada), kind).toMatchObject({
        state: "succeeded",
      });
      expect(at.vm(OLD), kind).toMatchObject({ status: "running", config: { cpulimit: "0.5" }, pending: {} });
      await stage.clear();
    }
  });

  it("asks a person when the limits cannot be put back, and never starts it without them; a retry goes on", async () => {
    const at = await open();
    await at.order("snapshot.create", { name: "free" }, at.ada);
    at.simulator.changeVm(OLD, { config: { cpulimit: "0.5" } });
    at.beforeStep("pve.keep_limits", () => at.simulator.changeVm(OLD, { lock: "backup" }));
    const stuck = await at.order("snapshot.rollback", { snapshot: "free" }, at.ada);
    expect(stuck).toMatchObject({ state: "needs_attention" });
    expect(at.vm(OLD)).toMatchObject({ status: "stopped" });
    at.simulator.changeVm(OLD, { lock: null });
    expect(await at.retry(stuck)).toMatchObject({ state: "succeeded", problem: null });
    expect(at.vm(OLD)).toMatchObject({ status: "running", config: { cpulimit: "0.5" } });
  });
});

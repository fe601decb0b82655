/** Snapshots on the whole road: taken, gone back to, deleted; what PVE does to them, and what others do. */
import { describe, expect, it } from "vitest";
import { ServiceError } from "../../../src/core/errors.ts";
import { runSync } from "../../../src/core/sync/run.ts";
import { useStage } from "../../support/stage.ts";
import { silent } from "../../support/world.ts";
import { build, createScene, GIB, OLD, type Scene, type SceneOptions } from "./rebuild-scene.ts";

const stage = useStage();

async function open(options: Omit<SceneOptions, "database"> = {}): Promise<Scene> {
  return stage.keep(await createScene({ database: stage.database, ...options }));
}

const V = `/nodes/n1/qemu/${OLD}`;

interface Row {
  name: string;
  description: string;
  memory: boolean;
  takenAt: Date | null;
}

function rows(): Promise<Row[]> {
  return stage.database.sql<Row>(
    `SELECT name, description, with_memory AS memory, taken_at AS "takenAt" FROM snapshots ORDER BY taken_at, name`,
  );
}

function tasksOf(at: Scene, type: string): string[] {
  return at.simulator.state.tasks.filter((task) => task.type === type).map((task) => task.exitstatus ?? "");
}

/** Past us, to its end. */
async function takenBySomebody(at: Scene, name: string, more = ""): Promise<void> {
  await at.asSomebody("POST", `${V}/snapshot`, `snapname=${name}${more}`);
  await expect.poll(() => at.vm(OLD)).toMatchObject({ lock: undefined, config: { parent: name } });
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

async function shown(at: Scene, command: string, options: Record<string, string>, by = at.sam) {
  const answer = await at.ask(by, command, options);
  if (answer.kind !== "view") throw new Error(JSON.stringify(answer));
  return answer.view;
}

describe("a snapshot", () => {
  it("is taken, listed with its age, and deleted, and our rows follow PVE", async () => {
    const at = await open();
    const created = await at.order("snapshot.create", { name: "before-upgrade", description: "5+5 %2B ü" });
    expect(created).toMatchObject({ state: "succeeded", problem: null });
    expect(at.changes()).toEqual(["POST /nodes/{node}/qemu/{vmid}/snapshot"]);
    expect(await rows()).toMatchObject([
      { name: "before-upgrade", description: "5+5 %2B ü", memory: false, takenAt: expect.any(Date) },
    ]);
    const view = await shown(at, "snapshot.list", { server: "web-1" });
    expect(view.table?.rows[0]).toEqual(["before-upgrade", expect.any(String), "no", "5+5 %2B ü"]);
    expect(view.footer).toMatch(/^As of \d{4}-\d\d-\d\d \d\d:\d\d UTC\.$/u);
    const deleted = await at.order("snapshot.delete", { server: "web-1", snapshot: "before-upgrade" });
    expect(deleted).toMatchObject({ state: "succeeded", problem: null });
    expect(await rows()).toEqual([]);
    expect(at.vm(OLD)).toMatchObject({ snapshots: [], status: "running", guest: { boots: 1 } });
    const types = (await at.events()).map((event) => event.type);
    expect(types).toEqual(
      expect.arrayContaining([
        "snapshot.create.succeeded",
        "snapshot.created",
        "snapshot.delete.succeeded",
        "snapshot.deleted",
      ]),
    );
  });

  it("brings size, settings and power of its time back, and the server stays provably ours", async () => {
    const at = await open();
    await at.order("snapshot.create", { name: "small" });
    await at.order("server.resize", { plan: "m" });
    const before = at.vm(OLD);
    expect(before?.disks["scsi0"]?.sizeBytes).toBe(20 * GIB);
    at.changes();
    const asked = await at.ask(at.sam, "snapshot.rollback", { server: "web-1", snapshot: "small" });
    if (asked.kind !== "operation") throw new Error(JSON.stringify(asked));
    const { plan } = await at.operation(asked.operationId);
    expect(plan.irreversible[0]).toMatch(/^Everything that changed on web-1 since \d{4}-.* UTC is lost/u);
    expect(plan.notes[0]).toMatch(/switched off hard, taken back, and started again/u);
    await at.ask(at.rita, "ops.confirm", { operation: asked.publicId });
    const done = await at.finish(asked.operationId);
    expect(done).toMatchObject({ state: "succeeded", problem: null });
    expect(at.changes()).toEqual([
      "POST /nodes/{node}/qemu/{vmid}/snapshot/{snapname}/rollback",
      "POST /nodes/{node}/qemu/{vmid}/status/start",
    ]);
    expect(at.vm(OLD)).toMatchObject({
      status: "running",
      lock: undefined,
      uuid: before?.uuid,
      description: before?.description,
      config: { memory: "2048", parent: "small" },
    });
    const [row] = await stage.database.sql(
      `SELECT state, memory_mib AS "memoryMib", disk_gib AS "diskGib" FROM servers WHERE name = 'web-1'`,
    );
    expect(row).toEqual({ state: "active", memoryMib: 2048, diskGib: 10 });
    expect((await at.events()).map((event) => event.type)).toEqual(
      expect.arrayContaining(["snapshot.rollback.succeeded", "snapshot.rolled_back"]),
    );
    expect((await at.lines(done.id)).at(-1)).toBe(
      "The server is as it was in small. It has 2 vCPU, 2 GiB, 10 GiB disk again, not 2 vCPU, 4 GiB, 20 GiB disk.",
    );
    // It is ours still: everything else works on it.
    expect(await at.order("server.power", { action: "reboot" })).toMatchObject({ state: "succeeded" });
  });

  it("without memory leaves a server off that was off", async () => {
    const at = await open();
    await at.order("snapshot.create", { name: "s1" });
    await at.order("server.power", { action: "kill" });
    at.changes();
    expect(await at.order("snapshot.rollback", { snapshot: "s1" })).toMatchObject({ state: "succeeded" });
    expect(at.changes()).toEqual(["POST /nodes/{node}/qemu/{vmid}/snapshot/{snapname}/rollback"]);
    expect(at.vm(OLD)?.status).toBe("stopped");
    expect(await at.server()).toMatchObject({ state: "stopped" });
  });

  it("with memory runs on from there, whatever the power was before", async () => {
    const at = await open();
    expect(await at.order("snapshot.create", { name: "warm", memory: "yes" })).toMatchObject({
      state: "succeeded",
    });
    expect(await rows()).toMatchObject([{ name: "warm", memory: true }]);
    await at.order("server.power", { action: "kill" });
    at.changes();
    expect(await at.order("snapshot.rollback", { snapshot: "warm" })).toMatchObject({
      state: "succeeded",
      problem: null,
    });
    expect(at.changes()).toEqual(["POST /nodes/{node}/qemu/{vmid}/snapshot/{snapname}/rollback"]);
    expect(at.vm(OLD)).toMatchObject({ status: "running", guest: { boots: 1 } });
    expect(await at.server()).toMatchObject({ state: "active" });
    await at.order("server.power", { action: "kill" });
    await expect(at.ask(at.sam, "snapshot.create", { server: "web-1", memory: "yes" })).rejects.toMatchObject(
      {
        code: "wrong_state",
        message: expect.stringMatching(/is off, so there is no memory to keep/u),
      },
    );
  });

  it("has a name that PVE takes, made from the time where none is given", async () => {
    const at = await open();
    for (const name of ["1st", "a", "x".repeat(41), "a b", "a.b", "Current", "pending", "ü1"]) {
      await expect(at.ask(at.sam, "snapshot.create", { server: "web-1", name }), name).rejects.toMatchObject({
        code: "invalid_input",
        facts: { option: "name" },
      });
    }
    const description = "two\nlines";
    await expect(at.ask(at.sam, "snapshot.create", { server: "web-1", description })).rejects.toMatchObject({
      code: "invalid_input",
    });
    await at.order("snapshot.create");
    await at.order("snapshot.create");
    const [first, second] = (await rows()).map(({ name }) => name);
    expect(first).toMatch(/^snap-\d{8}-\d{4}$/u);
    expect(second).toMatch(/^snap-\d{8}-\d{4}(?:-2)?$/u);
    await expect(
      at.ask(at.sam, "snapshot.create", { server: "web-1", name: first ?? "" }),
    ).rejects.toMatchObject({ code: "conflict" });
    await expect(
      at.ask(at.sam, "snapshot.rollback", { server: "web-1", snapshot: "snap" }),
    ).rejects.toMatchObject({ code: "not_found", facts: { option: "snapshot" } });
  });

  it("is not tried on a storage that has none, and that is said before anything is done", async () => {
    const at = await open({ client: { storage: "local" } });
    for (const volume of at.simulator.state.volumes) if (volume.vmid === OLD) volume.format = "raw";
    expect(await at.order("snapshot.create", { name: "s1" })).toMatchObject({
      state: "failed",
      problem: {
        code: "unsupported",
        message: "The storage of this server's disk cannot take snapshots, so none was taken.",
      },
    });
    expect(at.changes()).toEqual([]);
  });

  it("that is not the newest is not gone back to where the storage cannot, and that is said", async () => {
    const at = await open();
    await at.order("snapshot.create", { name: "s1" });
    const message = "can't rollback, 's1' is not most recent snapshot on 'tank/vm-100000-disk-0'";
    at.simulator.addTaskFault({ task: "qmrollback", outcome: "fail", at: "start", message });
    expect(await at.order("snapshot.rollback", { snapshot: "s1" })).toMatchObject({
      state: "failed",
      problem: { code: "cloud_conflict", message: expect.stringMatching(/Delete the newer ones first\.$/u) },
    });
    expect(at.vm(OLD)?.status).toBe("running");
  });
});

it("a server that billing has suspended is neither taken back to a snapshot nor started into a rescue", async () => {
  const at = await open({ client: { rescueIso: "local:iso/rescue.iso" } });
  await at.order("snapshot.create", { name: "s1" });
  await stage.database.sql(`UPDATE servers SET suspended_at = clock()`);
  for (const [command, options] of [
    ["snapshot.rollback", { snapshot: "s1" }],
    ["server.rescue", {}],
  ] as const) {
    await expect(at.ask(at.sam, command, { server: "web-1", ...options }), command).rejects.toMatchObject({
      code: "wrong_state",
      message: expect.stringMatching(/is suspended by billing/u),
    });
  }
});

describe("somebody else's snapshot", () => {
  it("of the same name is neither taken for ours nor touched, whenever it came", async () => {
    const at = await open();
    at.beforeStep("pve.snapshot", () => takenBySomebody(at, "nightly", "&description=theirs"));
    for (const when of ["between check and call", "before"]) {
      at.changes();
      const end = await at.order("snapshot.create", { name: "nightly" });
      expect(end, when).toMatchObject({
        state: "failed",
        problem: { code: "cloud_conflict", message: expect.stringMatching(/Choose another name\.$/u) },
      });
      expect(at.changes().length, when).toBe(when === "before" ? 0 : 1);
    }
    expect(tasksOf(at, "qmsnapshot")).toEqual(["OK"]);
    await sync(at);
    // What somebody wrote in PVE was not written for customers.
    expect(await rows()).toMatchObject([{ name: "nightly", description: "" }]);
  });

  it("of that name, taken at another time than the one that was meant, is neither gone back to nor deleted", async () => {
    const at = await open();
    await at.order("snapshot.create", { name: "s1" });
    await stage.database.sql(`UPDATE snapshots SET taken_at = taken_at - interval '1 hour'`);
    at.changes();
    for (const command of ["snapshot.rollback", "snapshot.delete"]) {
      expect(await at.order(command, { snapshot: "s1" }), command).toMatchObject({
        state: "failed",
        problem: { code: "drifted", message: expect.stringMatching(/taken at another time/u) },
      });
    }
    expect(at.changes()).toEqual([]);
    expect(at.vm(OLD)?.snapshots).toEqual(["s1"]);
  });

  it("is found by a synchronisation, and forgotten when it is gone, with few calls more", async () => {
    const at = await open();
    const lists = () => at.simulator.state.counts["GET /nodes/{node}/qemu/{vmid}/snapshot 200"] ?? 0;
    await sync(at);
    expect(lists()).toBe(0);
    await takenBySomebody(at, "theirs");
    await sync(at);
    expect(await rows()).toMatchObject([{ name: "theirs" }]);
    expect(lists()).toBe(1);
    const ageOf = async () => (await shown(at, "snapshot.list", { server: "web-1" })).footer ?? "";
    const first = await ageOf();
    await at.time.later(10 * 60_000);
    expect(await ageOf()).toBe(first);
    await sync(at);
    expect((await ageOf()) > first).toBe(true);
    expect(lists()).toBe(2);
    await at.asSomebody("DELETE", `${V}/snapshot/theirs`);
    await expect.poll(() => at.vm(OLD)?.snapshots).toEqual([]);
    await sync(at);
    expect(await rows()).toEqual([]);
    expect(lists()).toBe(3);
    await sync(at);
    expect(lists()).toBe(3);
  });

  it("that is gone is said to be gone, and its deletion is done already", async () => {
    const at = await open();
    await at.order("snapshot.create", { name: "s1" });
    await at.asSomebody("DELETE", `${V}/snapshot/s1`);
    await expect.poll(() => at.vm(OLD)?.snapshots).toEqual([]);
    expect(await at.order("snapshot.rollback", { snapshot: "s1" })).toMatchObject({
      state: "failed",
      problem: { code: "drifted", message: "The snapshot s1 is no longer there. Nothing was changed." },
    });
    expect(at.vm(OLD)?.guest.boots).toBe(1);
    expect(await at.order("snapshot.delete", { snapshot: "s1" })).toMatchObject({ state: "succeeded" });
    expect(await rows()).toEqual([]);
  });
});

it("a snapshot asked for twice is taken once", async () => {
  const at = await open();
  const ask = (key: string) => at.ask(at.sam, "snapshot.create", { server: "web-1", name: "s1" }, key);
  const [first, again] = [await ask("one"), await ask("one")];
  if (first.kind !== "operation") throw new Error(JSON.stringify(first));
  expect(again).toMatchObject({ operationId: first.operationId });
  await expect(ask("two")).rejects.toMatchObject({ code: "busy" });
  expect(await at.finish(first.operationId)).toMatchObject({ state: "succeeded" });
  await expect(ask("three")).rejects.toMatchObject({ code: "conflict" });
  expect(tasksOf(at, "qmsnapshot")).toEqual(["OK"]);
});

it("a way back whose start fails says both: it is done, and the server is off", async () => {
  const at = await open();
  await at.order("snapshot.create", { name: "s1" });
  at.simulator.addTaskFault({ task: "qmstart", outcome: "fail", message: "QEMU exited with code 1" });
  const end = await at.order("snapshot.rollback", { snapshot: "s1" });
  expect(end).toMatchObject({ state: "failed", problem: { code: "cloud_failed" } });
  expect((await at.lines(end.id)).join("\n")).toMatch(/The server is as it was in s1 all the same\./u);
  expect((await at.events()).map((event) => event.type)).toContain("snapshot.rolled_back");
  expect(await at.server()).toMatchObject({ state: "stopped" });
});

it("a snapshot with another SMBIOS uuid is not gone back to: the server would not be provably ours any more", async () => {
  const at = await open();
  const uuid = at.vm(OLD)?.uuid ?? "";
  at.simulator.changeVm(OLD, { config: { smbios1: "uuid=11111111-2222-3333-4444-555555555555" } });
  await takenBySomebody(at, "odd");
  at.simulator.changeVm(OLD, { config: { smbios1: `uuid=${uuid}` } });
  await sync(at);
  at.changes();
  expect(await at.order("snapshot.rollback", { snapshot: "odd" })).toMatchObject({
    state: "failed",
    problem: { code: "cloud_conflict", staffDetail: expect.stringMatching(/SMBIOS uuid is .* in odd 1111/u) },
  });
  expect(at.changes()).toEqual([]);
});

it("customers work on their own snapshots, and learn of no others", async () => {
  const at = await open();
  await at.order("snapshot.create", { name: "adas-own" }, at.ada);
  const { entrance, ada, bob, sam } = at;
  const find = (principal: typeof ada | typeof sam, options: Record<string, string> = {}) =>
    entrance.lookup({ kind: "snapshot", text: "", limit: 10, options }, principal);
  expect((await find(ada)).map(({ value }) => value)).toEqual(["adas-own"]);
  expect((await find(ada, { server: "web-1" })).map(({ value }) => value)).toEqual(["adas-own"]);
  expect(await find(ada, { server: "other" })).toEqual([]);
  expect(await find(bob)).toEqual([]);
  // A list takes each name once, whichever servers have it.
  await build(at, "web-2");
  await at.order("snapshot.create", { server: "web-2", name: "adas-own" }, at.ada);
  expect(await find(ada)).toEqual([{ value: "adas-own", label: "adas-own, of several servers" }]);
  expect(await find(ada, { server: "web-2" })).toMatchObject([
    { value: "adas-own", label: expect.stringMatching(/^adas-own of web-2, .* UTC$/u) },
  ]);
  const refused = async (server: string) => {
    const error: unknown = await at.ask(bob, "snapshot.list", { server }).catch((reason: unknown) => reason);
    return error instanceof ServiceError ? error.message : "not refused";
  };
  expect(await refused("web-1")).toBe((await refused("web-9")).replace("web-9", "web-1"));
  expect(await refused("web-1")).toMatch(/^No server "web-1" in your account/u);
  const view = JSON.stringify(await shown(at, "snapshot.list", { server: "web-1" }, ada));
  expect(view).not.toMatch(/n1|100000|local|op:/u);
  expect(await at.order("snapshot.rollback", { snapshot: "adas-own" }, ada)).toMatchObject({
    state: "succeeded",
  });
});

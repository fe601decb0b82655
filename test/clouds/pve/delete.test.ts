/** The end of a VM on PVE: its protection, what stands in the way of a deletion, its backups, and what strangers keep. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Principal } from "../../../src/core/access.ts";
import { runSync } from "../../../src/core/sync/run.ts";
import type { Database } from "../../../src/database/client.ts";
import { clean, moveClock, testDatabase } from "../../support/database.ts";
import { silent } from "../../support/world.ts";
import { createTime, finish } from "./time.ts";
import { BUILD, createPveWorld, type PveWorld, type PveWorldOptions } from "./world.ts";

const HOUR_MS = 3_600_000;
let database: Database;
let world: PveWorld | undefined;

beforeAll(async () => {
  database = await testDatabase();
});
afterEach(async () => {
  await moveClock(database, 0);
  await world?.close();
  world = undefined;
});
afterAll(() => database.close());

async function open(options: Omit<PveWorldOptions, "database"> = {}): Promise<PveWorld> {
  await clean(database);
  world = await createPveWorld({ database, ...options });
  return world;
}

/** With one server of Ada's, which runs. */
async function openWithServer(options: Omit<PveWorldOptions, "database"> = {}) {
  const opened = await open(options);
  expect(await opened.run(opened.sam, "server.build", BUILD)).toMatchObject({ problem: null });
  const [vm] = opened.made();
  if (vm === undefined) throw new Error("nothing was built");
  return { ...opened, vm };
}

/** PVE names a backup by the second, and the reservation is some milliseconds old. */
const SOON_MS = 2_000;

function backupsOf({ simulator }: PveWorld, vmid: number): string[] {
  return simulator.state.volumes
    .filter((volume) => volume.content === "backup" && volume.vmid === vmid)
    .map(({ volid }) => volid)
    .toSorted();
}

function calls({ simulator }: PveWorld, method: string, path: RegExp): number {
  return simulator.state.requests.filter((one) => one.method === method && path.test(one.path)).length;
}

/** With lost answers on the way: the pauses before we ask again are not waited for. */
async function runInTime(opened: PveWorld, who: Principal, command: string, options: Record<string, string>) {
  const time = await createTime(database);
  const answer = await opened.ask(who, command, options);
  if (answer.kind !== "operation") throw new Error(`${command} answered ${JSON.stringify(answer)}`);
  const first = await finish(opened, time, { operationId: answer.operationId });
  if (first.state !== "awaiting_confirmation") return first;
  await opened.ask(opened.rita, "ops.confirm", { operation: answer.publicId });
  return finish(opened, time, { operationId: answer.operationId });
}

async function rowOf(name = "web-1") {
  const rows = await database.sql<{ state: string; isProtected: boolean; gone: boolean }>(
    `SELECT state, delete_protected AS "isProtected", deleted_at IS NOT NULL AS gone FROM servers WHERE name = $1`,
    [name],
  );
  return rows[0];
}

describe("protection", () => {
  it("is PVE's own: a protected server is refused for deletion until it is lifted", async () => {
    const { run, ask, sam, rita, ada, made, events } = await openWithServer();
    const set = await run(ada, "server.protect", { server: "web-1" });
    expect(set).toMatchObject({ state: "succeeded", problem: null });
    expect(made()[0]?.config["protection"]).toBe("1");
    expect(await rowOf()).toMatchObject({ isProtected: true });
    await expect(ask(rita, "server.delete", { server: "web-1" })).rejects.toMatchObject({
      code: "wrong_state",
      message: expect.stringMatching(/protected against deletion.*\/server protect srv-\w+ on:no/u),
    });
    await expect(ask(sam, "server.protect", { server: "web-1" })).rejects.toMatchObject({
      code: "nothing_to_change",
    });
    expect(await run(sam, "server.protect", { server: "web-1", on: "no" })).toMatchObject({ problem: null });
    expect(made()[0]?.config["protection"]).toBe("0");
    expect(await run(rita, "server.delete", { server: "web-1" })).toMatchObject({ problem: null });
    expect(made()).toEqual([]);
    const changes = (await events()).filter(({ type }) => type === "server.protection.changed");
    expect(changes.map(({ data }) => data["protected"])).toEqual([true, false]);
  });

  it("that was set in PVE is seen by a sync, and by a deletion that comes before it", async () => {
    const opened = await openWithServer();
    const { run, ask, rita, simulator, vm, made, cloud } = opened;
    simulator.changeVm(vm.vmid, { config: { protection: "1" } });
    const refused = await run(rita, "server.delete", { server: "web-1" });
    expect(refused).toMatchObject({ state: "failed", problem: { code: "drifted" } });
    expect(refused.problem?.message).toMatch(/protected against deletion.*Nothing was changed/u);
    // It was not even switched off, and its row has learnt it.
    expect(made()[0]).toMatchObject({ status: "running" });
    expect(await rowOf()).toMatchObject({ state: "active", isProtected: true });
    simulator.changeVm(vm.vmid, { config: { protection: null } });
    await runSync({ database, cloud, resource: "servers", requester: "test", log: silent });
    expect(await rowOf()).toMatchObject({ isProtected: false });
    simulator.changeVm(vm.vmid, { config: { protection: "1" } });
    await runSync({ database, cloud, resource: "servers", requester: "test", log: silent });
    await expect(ask(rita, "server.delete", { server: "web-1" })).rejects.toMatchObject({
      code: "wrong_state",
    });
  });

  it("whose answer is lost is set once more and never told before PVE shows it", async () => {
    const opened = await openWithServer();
    const { sam, simulator, made } = opened;
    simulator.addFault({ method: "PUT", path: "/config$", kind: "status_after", status: 596 });
    expect(await runInTime(opened, sam, "server.protect", { server: "web-1" })).toMatchObject({
      problem: null,
    });
    expect(made()[0]?.config["protection"]).toBe("1");
    simulator.addFault({ method: "PUT", path: "/config$", kind: "status", status: 596 });
    expect(await runInTime(opened, sam, "server.protect", { server: "web-1", on: "no" })).toMatchObject({
      problem: null,
    });
    expect(made()[0]?.config["protection"]).toBe("0");
  });
});

describe("a deletion", () => {
  it("says what goes and what stays, and asks PVE to forget it in HA, replication and backup jobs", async () => {
    const opened = await openWithServer();
    const { run, rita, entrance, simulator, vm, made } = opened;
    simulator.changeVm(vm.vmid, { config: { tags: "ratatosk;sim-ha" } });
    simulator.addBackup({ vmid: vm.vmid });
    const dry = await entrance.dispatch({
      action: "server.delete",
      options: { server: "web-1" },
      principal: rita,
      source: "console",
      idempotencyKey: "dry",
      origin: null,
      dryRun: true,
    });
    const told = JSON.stringify(dry);
    expect(told).toMatch(/everything on its disk are gone for good/u);
    expect(told).toMatch(/snapshots and its entries in backup jobs, replication and HA go, too/u);
    expect(told).toMatch(/Backups of it in the cloud's storages stay/u);
    expect(await run(rita, "server.delete", { server: "web-1" })).toMatchObject({ problem: null });
    expect(made()).toEqual([]);
    expect(backupsOf(opened, vm.vmid)).toHaveLength(1);
    const destroyed = simulator.state.requests.find(({ method }) => method === "DELETE");
    expect(destroyed?.params).toMatchObject({ purge: "1", "destroy-unreferenced-disks": "1" });
  });

  it("whose answer is lost deletes once, and 595 on the way does nothing twice", async () => {
    const opened = await openWithServer();
    const { rita, simulator, vm, made } = opened;
    simulator.addFault({ method: "POST", path: "/status/stop$", kind: "status_after", status: 596 });
    simulator.addFault({ method: "DELETE", path: "/qemu/", kind: "status", status: 595 });
    simulator.addFault({ method: "DELETE", path: "/qemu/", kind: "status_after", status: 596 });
    expect(await runInTime(opened, rita, "server.delete", { server: "web-1" })).toMatchObject({
      problem: null,
    });
    expect(made()).toEqual([]);
    expect(
      simulator.state.tasks.filter((task) => task.type === "qmdestroy" && task.id === String(vm.vmid)),
    ).toHaveLength(1);
    expect(await rowOf()).toMatchObject({ state: "deleted", gone: true });
  });

  it("of a VM that became a template with linked clones fails inside the task, and says that others need its disk", async () => {
    const opened = await openWithServer();
    const { run, rita, simulator, made } = opened;
    simulator.addTaskFault({
      task: "qmdestroy",
      outcome: "fail",
      at: "start",
      message: "base volume 'local:100000/base-100000-disk-0.qcow2' is still in use by linked cloned",
    });
    const failed = await run(rita, "server.delete", { server: "web-1" });
    expect(failed).toMatchObject({ state: "failed", problem: { code: "cloud_conflict" } });
    expect(failed.problem?.message).toMatch(/Other servers are built on this one's disk/u);
    expect(made()).toHaveLength(1);
    expect(await rowOf()).toMatchObject({ state: "stopped", gone: false });
  });

  it("of a VM whose configuration is gone already ends well, and its row with it", async () => {
    const { run, rita, simulator, vm } = await openWithServer();
    simulator.removeVm(vm.vmid);
    expect(await run(rita, "server.delete", { server: "web-1" })).toMatchObject({ problem: null });
    expect(await rowOf()).toMatchObject({ state: "deleted", gone: true });
  });

  it("of a VM that PVE is backing up waits for nobody: it is refused with what holds it", async () => {
    const { run, rita, simulator, vm, made } = await openWithServer();
    simulator.changeVm(vm.vmid, { lock: "backup" });
    const failed = await run(rita, "server.delete", { server: "web-1" });
    expect(failed).toMatchObject({ state: "failed", problem: { code: "cloud_conflict" } });
    expect(failed.problem?.message).toMatch(/locked in the cloud \(backup\)/u);
    expect(made()[0]).toMatchObject({ status: "running" });
  });
});

describe("purge_backups", () => {
  it("deletes the server's backups on every node and storage, one task each, then the server", async () => {
    const opened = await openWithServer();
    const { run, rita, simulator, vm, made, lines } = opened;
    const soon = Date.now() + SOON_MS;
    simulator.addBackup({ vmid: vm.vmid, takenAt: soon });
    simulator.addBackup({ vmid: vm.vmid, takenAt: soon, storage: "local", node: "n1" });
    simulator.addBackup({ vmid: vm.vmid, takenAt: soon, storage: "local", node: "n2" });
    const other = simulator.addBackup({ vmid: 9000, takenAt: soon });
    const deleted = await run(rita, "server.delete", { server: "web-1", purge_backups: "yes" });
    expect(deleted).toMatchObject({ state: "succeeded", problem: null });
    expect(made()).toEqual([]);
    expect(backupsOf(opened, vm.vmid)).toEqual([]);
    expect(backupsOf(opened, 9000)).toEqual([other]);
    const types = simulator.state.tasks.map((task) => task.type);
    expect(types.filter((type) => type === "imgdel")).toHaveLength(3);
    expect(types.lastIndexOf("imgdel")).toBeLessThan(types.indexOf("qmdestroy"));
    expect((await lines(deleted.id)).join("\n")).toMatch(
      /one is gone, 2 are left[\s\S]*one is gone, one is left/u,
    );
  });

  it("leaves protected backups and those from before the number was ours, and names them to staff", async () => {
    const opened = await openWithServer();
    const { run, rita, simulator, vm, made } = opened;
    const soon = Date.now() + SOON_MS;
    simulator.addBackup({ vmid: vm.vmid, takenAt: soon });
    const kept = simulator.addBackup({ vmid: vm.vmid, takenAt: soon + 1000, protected: true });
    const strangers = simulator.addBackup({ vmid: vm.vmid, takenAt: Date.now() - HOUR_MS });
    const deleted = await run(rita, "server.delete", { server: "web-1", purge_backups: "yes" });
    expect(deleted).toMatchObject({ state: "succeeded", problem: null });
    expect(made()).toEqual([]);
    expect(backupsOf(opened, vm.vmid)).toEqual([kept, strangers].toSorted());
    const told = await database.sql<{ audience: string; text: string }>(
      `SELECT audience, text FROM operation_log WHERE operation_id = $1 ORDER BY seq`,
      [deleted.id],
    );
    const forStaff = told.filter(({ audience }) => audience === "staff").map(({ text }) => text);
    expect(forStaff.join("\n")).toContain(`${kept} on n1 (protected)`);
    expect(forStaff.join("\n")).toContain(
      `${strangers} on n1 (not taken while the number was this server's)`,
    );
    const forAll = told.filter(({ audience }) => audience !== "staff").map(({ text }) => text);
    expect(forAll.join("\n")).toMatch(/done, but 2 stay/u);
    expect(forAll.join("\n")).not.toMatch(/vzdump/u);
  });

  it("finds what was taken before a rebuild, under the number that the server had then", async () => {
    const opened = await openWithServer();
    const { run, rita, simulator, vm, made } = opened;
    await database.sql(`UPDATE vmid_reservations SET created_at = created_at - interval '1 hour'`);
    simulator.addBackup({ vmid: vm.vmid, takenAt: Date.now() - HOUR_MS / 2 });
    const strangers = simulator.addBackup({ vmid: vm.vmid, takenAt: Date.now() - 2 * HOUR_MS });
    const rebuilt = await run(rita, "server.rebuild", { server: "web-1", image: "debian-12" });
    expect(rebuilt).toMatchObject({ state: "succeeded", problem: null });
    const [now] = made();
    expect(now?.vmid).not.toBe(vm.vmid);
    simulator.addBackup({ vmid: now?.vmid ?? 0, takenAt: Date.now() + SOON_MS });
    const later = simulator.addBackup({ vmid: vm.vmid, takenAt: Date.now() + HOUR_MS });
    const deleted = await run(rita, "server.delete", { server: "web-1", purge_backups: "yes" });
    expect(deleted).toMatchObject({ state: "succeeded", problem: null });
    expect(backupsOf(opened, now?.vmid ?? 0)).toEqual([]);
    // The number was not the server's before it was built, nor after it was rebuilt.
    expect(backupsOf(opened, vm.vmid)).toEqual([strangers, later].toSorted());
  });

  it("that fails stops the deletion and says that the server is off and still there", async () => {
    const opened = await openWithServer();
    const { run, rita, simulator, vm, made } = opened;
    simulator.addBackup({ vmid: vm.vmid, takenAt: Date.now() + SOON_MS });
    simulator.addTaskFault({
      task: "imgdel",
      outcome: "fail",
      message: "unlink '/mnt/pve/backups/x' failed",
    });
    const failed = await run(rita, "server.delete", { server: "web-1", purge_backups: "yes" });
    expect(failed).toMatchObject({ state: "failed", problem: { code: "cloud_failed" } });
    expect(failed.problem?.message).toMatch(/switched off and not deleted/u);
    expect(failed.problem?.message).not.toMatch(/mnt/u);
    expect(made()).toHaveLength(1);
    expect(await rowOf()).toMatchObject({ state: "stopped", gone: false });
    expect(await run(rita, "server.delete", { server: "web-1", purge_backups: "yes" })).toMatchObject({
      problem: null,
    });
    expect(backupsOf(opened, vm.vmid)).toEqual([]);
  });

  it("with lost answers asks for what is left only, and deletes each backup once", async () => {
    const opened = await openWithServer();
    const { rita, simulator, vm } = opened;
    const soon = Date.now() + SOON_MS;
    for (const index of [0, 1, 2]) simulator.addBackup({ vmid: vm.vmid, takenAt: soon + index * 1000 });
    simulator.addFault({ method: "DELETE", path: "/content/", kind: "status_after", status: 596 });
    simulator.addFault({ method: "DELETE", path: "/content/", kind: "drop_after" });
    simulator.addFault({ method: "DELETE", path: "/content/", kind: "status", status: 595 });
    expect(
      await runInTime(opened, rita, "server.delete", { server: "web-1", purge_backups: "yes" }),
    ).toMatchObject({
      problem: null,
    });
    expect(backupsOf(opened, vm.vmid)).toEqual([]);
    const removed = simulator.state.tasks
      .filter((task) => task.type === "imgdel")
      .flatMap(({ log }) => log)
      .filter((line) => line.includes("does not exist"));
    expect(removed).toEqual([]);
  });

  it("does not take a list that PVE shortens for a credential without rights for all there is", async () => {
    const opened = await openWithServer();
    opened.simulator.addBackup({ vmid: opened.vm.vmid, takenAt: Date.now() + SOON_MS });
    opened.simulator.addFault({
      path: "/access/permissions",
      kind: "status",
      status: 200,
      body: { data: { "/": {}, "/vms": { "VM.Audit": 1 }, "/storage": { "Datastore.AllocateSpace": 1 } } },
    });
    const failed = await opened.run(opened.rita, "server.delete", { server: "web-1", purge_backups: "yes" });
    expect(failed).toMatchObject({ state: "failed", problem: { code: "cloud_forbidden" } });
    expect(failed.problem?.staffDetail).toMatch(/lacks VM\.Backup on \/vms\/100000/u);
    expect(opened.made()).toHaveLength(1);
    expect(calls(opened, "DELETE", /\/(?:content|qemu)\//u)).toBe(0);
  });
});

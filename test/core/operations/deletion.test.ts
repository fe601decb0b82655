/** A deletion that can be taken back: its time, who asks for it then, and everything that may happen until then. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Principal } from "../../../src/core/access.ts";
import { renderCard } from "../../../src/core/operations/card.ts";
import type { OperationRow } from "../../../src/core/operations/rows.ts";
import { deleteDue } from "../../../src/core/servers/deletion.ts";
import type { Database } from "../../../src/database/client.ts";
import { BUILD, createPveWorld, type PveWorld } from "../../clouds/pve/world.ts";
import { clean, moveClock, testDatabase } from "../../support/database.ts";
import { createWorld, policies, type World } from "../../support/world.ts";

const HOUR_MS = 3_600_000;
const GRACE_MS = 72 * HOUR_MS;
const graceful = { ...policies, deleteGraceMs: GRACE_MS };
const operations = { platform: "slack", workspace: "T1", channel: "C1" } as const;

let database: Database;

beforeAll(async () => {
  database = await testDatabase();
});
beforeEach(() => clean(database));
afterEach(() => moveClock(database, 0));
afterAll(() => database.close());

interface Row {
  publicId: string;
  state: string;
  deleteAt: Date | null;
  isProtected: boolean;
  gone: boolean;
}

async function row(): Promise<Row> {
  const rows = await database.sql<Row>(
    `SELECT public_id AS "publicId", state, delete_at AS "deleteAt", delete_protected AS "isProtected",
       deleted_at IS NOT NULL AS gone FROM servers WHERE name = 'web-1'`,
  );
  if (rows[0] === undefined) throw new Error("no server");
  return rows[0];
}

function minuteOf(time: Date | null): string {
  return `${time?.toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

describe("with a grace period, on Proxmox VE", () => {
  let world: PveWorld;

  beforeEach(async () => {
    world = await createPveWorld({
      database,
      engine: { policies: { ...graceful, operationChannels: [operations] } },
    });
    await world.run(world.sam, "server.build", BUILD);
  });
  afterEach(() => world.close());

  const vm = () => world.made()[0];
  const del = (options: Record<string, string> = {}) =>
    world.run(world.rita, "server.delete", { server: "web-1", ...options });

  /** The operations that the schedule has asked for, run to their end. */
  async function lookAfter(ms: number): Promise<OperationRow[]> {
    await moveClock(database, ms);
    await deleteDue(world.engine);
    const rows = await database.sql<{ id: string }>(
      `SELECT id FROM operations WHERE requester_kind = 'system' ORDER BY created_at`,
    );
    return Promise.all(rows.map(({ id }) => world.settle(id)));
  }

  it("a deletion switches the server off, keeps it, and says until when and how to get it back", async () => {
    const scheduled = await del();
    expect(scheduled).toMatchObject({ state: "succeeded", problem: null });
    expect(vm()).toMatchObject({ status: "stopped" });
    const { deleteAt, state, gone, publicId } = await row();
    expect(deleteAt?.getTime()).toBeGreaterThan(Date.now() + GRACE_MS - 60_000);
    expect({ state, gone }).toEqual({ state: "stopped", gone: false });
    expect((await world.lines(scheduled.id)).at(-1)).toBe(
      `It is switched off and will be deleted at ${minuteOf(deleteAt)}; /server undelete ${publicId} brings it back.`,
    );
    const types = (await world.events()).map(({ type }) => type);
    expect(types).toContain("server.delete.scheduled");
    for (const lie of ["server.deleted", "server.delete.succeeded"]) expect(types).not.toContain(lie);
    const states = (await world.events()).flatMap(({ type, data }) =>
      type === "server.state.changed" ? [data["to"]] : [],
    );
    expect(states).not.toContain("deleting");
    expect((await world.events()).at(-1)?.data).toMatchObject({ deleteAt: deleteAt?.toISOString() });
    const { view } = await renderCard(database, scheduled.id, "staff");
    expect(view.title).toBe("Delete web-1 of Ada in 72 h");
    expect(view.buttons?.map(({ label }) => label)).toEqual(["Bring it back"]);
  });

  it("lists and shows say that it is leaving, to its customer too", async () => {
    await del();
    const at = minuteOf((await row()).deleteAt);
    for (const [who, way] of [
      [world.sam, "/server undelete brings it back"],
      [world.ada, "our team can bring it back"],
    ] as const) {
      const list = JSON.stringify(await world.ask(who, "server.list"));
      expect(list).toContain(`stopped, deleting at ${at}`);
      const shown = JSON.stringify(await world.ask(who, "server.show", { server: "web-1" }));
      expect(shown).toContain(`at ${at}; ${way}`);
    }
  });

  it("until then nothing else is done with it: every other change is refused with the same sentence", async () => {
    await del();
    const others: [string, Record<string, string>][] = [
      ["server.power", { action: "start" }],
      ["server.resize", { plan: "m" }],
      ["server.password", {}],
      ["server.rebuild", { image: "debian-12" }],
      ["snapshot.create", { snapshot: "s1", name: "s1" }],
      ["server.rescue", {}],
    ];
    for (const [action, options] of others) {
      const known = world.engine.registry.find(action)?.options.map(({ name }) => name) ?? [];
      const given = Object.entries({ server: "web-1", ...options }).filter(([name]) => known.includes(name));
      await expect(world.ask(world.ada, action, Object.fromEntries(given)), action).rejects.toMatchObject({
        code: "wrong_state",
        message: expect.stringMatching(/is going to be deleted at .* UTC.*\/server undelete srv-/u),
      });
    }
    await expect(world.ask(world.rita, "server.delete", { server: "web-1" })).rejects.toMatchObject({
      code: "nothing_to_change",
      message: expect.stringMatching(/already.*\/server undelete .*now:yes/u),
    });
    expect(vm()).toMatchObject({ status: "stopped" });
  });

  it("undelete brings it back and starts it, because it ran before", async () => {
    await del();
    const back = await world.run(world.sam, "server.undelete", { server: "web-1" });
    expect(back).toMatchObject({ state: "succeeded", problem: null });
    expect(vm()).toMatchObject({ status: "running" });
    expect(await row()).toMatchObject({ state: "active", deleteAt: null, gone: false });
    expect((await world.lines(back.id)).at(-1)).toBe("It is no longer going to be deleted. It runs.");
    expect((await world.events()).find(({ type }) => type === "server.undeleted")?.data).toMatchObject({
      started: true,
    });
    expect(await lookAfter(GRACE_MS + HOUR_MS)).toEqual([]);
    expect(vm()).toMatchObject({ status: "running" });
    await expect(world.ask(world.sam, "server.undelete", { server: "web-1" })).rejects.toMatchObject({
      code: "nothing_to_change",
    });
  });

  it("undelete of one that was off says so and leaves it off", async () => {
    await world.run(world.ada, "server.power", { server: "web-1", action: "stop" });
    await del();
    const back = await world.run(world.sam, "server.undelete", { server: "web-1" });
    expect((await world.lines(back.id)).at(-1)).toBe(
      "It is no longer going to be deleted. It is stopped as before.",
    );
    expect(vm()).toMatchObject({ status: "stopped" });
  });

  it("the card's button brings it back", async () => {
    const scheduled = await del();
    const { view } = await renderCard(database, scheduled.id, "staff");
    const answer = await world.entrance.press(view.buttons?.[0]?.token ?? "", world.sam, "console");
    expect(answer).toMatchObject({ kind: "operation" });
    if (answer.kind === "operation") await world.settle(answer.operationId);
    expect(await row()).toMatchObject({ state: "active", deleteAt: null });
  });

  it("undelete keeps it even when the start fails, and says that", async () => {
    await del();
    world.simulator.addTaskFault({ task: "qmstart", outcome: "fail", message: "QEMU exited with code 1" });
    const back = await world.run(world.sam, "server.undelete", { server: "web-1" });
    expect(back.state).toBe("failed");
    expect((await world.lines(back.id)).join("\n")).toMatch(
      /It is no longer going to be deleted\. But it was not started/u,
    );
    expect(await lookAfter(GRACE_MS + HOUR_MS)).toEqual([]);
    expect(vm()).toBeDefined();
  });

  it("when its time has come it is deleted, once, by an operation of the system whose card goes to operations", async () => {
    await del({ purge_backups: "yes" });
    world.simulator.addBackup({ vmid: vm()?.vmid ?? 0, takenAt: Date.now() + 2_000 });
    expect(await lookAfter(GRACE_MS - HOUR_MS)).toEqual([]);
    expect(vm()).toBeDefined();
    const done = await lookAfter(GRACE_MS + HOUR_MS);
    expect(done).toMatchObject([{ state: "succeeded", requesterKind: "system", source: "system" }]);
    expect(vm()).toBeUndefined();
    expect(await row()).toMatchObject({ state: "deleted", gone: true, deleteAt: null });
    expect((await world.events()).filter(({ type }) => type === "server.deleted")).toHaveLength(1);
    // What was asked for with it is done with it.
    expect(world.simulator.state.volumes.filter(({ content }) => content === "backup")).toEqual([]);
    const cards = await database.sql(
      `SELECT platform, workspace, channel FROM cards WHERE operation_id = $1`,
      [done[0]?.id],
    );
    expect(cards).toEqual([operations]);
    expect(await lookAfter(GRACE_MS + 2 * HOUR_MS)).toHaveLength(1);
  });

  it("the schedule may look twice at once or die in between: one operation comes of it", async () => {
    await del();
    await moveClock(database, GRACE_MS + HOUR_MS);
    await Promise.all([deleteDue(world.engine), deleteDue(world.engine), deleteDue(world.engine)]);
    await deleteDue(world.engine);
    const [asked, ...others] = await lookAfter(GRACE_MS + HOUR_MS);
    expect(asked).toMatchObject({ state: "succeeded" });
    expect(others).toEqual([]);
  });

  it("a deletion that fails when it is due is not tried again on the same day, and a person may ask for it at once", async () => {
    await del();
    world.simulator.addTaskFault({ task: "qmdestroy", outcome: "fail", message: "lvremove failed" });
    expect(await lookAfter(GRACE_MS + HOUR_MS)).toMatchObject([{ state: "failed" }]);
    expect(await lookAfter(GRACE_MS + 2 * HOUR_MS)).toHaveLength(1);
    const { deleteAt, gone } = await row();
    expect(deleteAt).not.toBeNull();
    expect(gone).toBe(false);
    // Its time has come: asked for again it is done, and it could still be brought back.
    expect(await del()).toMatchObject({ state: "succeeded", problem: null });
    expect(vm()).toBeUndefined();
  });

  it("one that is being worked on when its time comes is asked for again later", async () => {
    await del();
    const { publicId } = await row();
    await database.sql(
      `UPDATE operations SET state = 'needs_attention' WHERE action = 'server.delete' AND server_id = (SELECT id FROM servers WHERE public_id = $1)`,
      [publicId],
    );
    // A deletion takes over from what waits for a person; any other work has to end first.
    await database.sql(
      `UPDATE operations SET state = 'running', next_run_at = NULL WHERE state = 'needs_attention'`,
    );
    expect(await lookAfter(GRACE_MS + HOUR_MS)).toEqual([]);
    await database.sql(`UPDATE operations SET state = 'succeeded' WHERE state = 'running'`);
    expect(await lookAfter(GRACE_MS + HOUR_MS)).toMatchObject([{ state: "succeeded" }]);
  });

  /** What has become of it when its time had come, and an hour later. */
  async function whenDue() {
    const [due] = await lookAfter(GRACE_MS + HOUR_MS);
    const undeleted = (await world.events()).find(({ type }) => type === "server.undeleted");
    const later = await lookAfter(GRACE_MS + 2 * HOUR_MS);
    return { due, vm: vm(), row: await row(), undeleted, asked: later.length };
  }
  const kept = {
    due: {
      state: "failed",
      problem: {
        code: "wrong_state",
        message: expect.stringMatching(/protected .* so it is kept, switched off/u),
      },
    },
    vm: { status: "stopped" },
    row: { deleteAt: null, isProtected: true, gone: false },
    undeleted: { data: { reason: "protected" } },
    asked: 1,
  };

  it("protected meanwhile, it is kept when its time comes, and says so", async () => {
    await del();
    // What our team has decided is not the customer's to stop.
    await expect(world.ask(world.ada, "server.protect", { server: "web-1" })).rejects.toMatchObject({
      code: "wrong_state",
    });
    await expect(world.ask(world.ada, "server.undelete", { server: "web-1" })).rejects.toMatchObject({
      code: "forbidden",
    });
    const answer = await world.ask(world.sam, "server.protect", { server: "web-1" });
    expect(answer).toMatchObject({ view: { text: expect.stringMatching(/that is not done then/u) } });
    if (answer.kind === "operation") await world.settle(answer.operationId);
    expect(await whenDue()).toMatchObject(kept);
  });

  it("protected in PVE meanwhile, it is kept as well", async () => {
    await del();
    world.simulator.changeVm(vm()?.vmid ?? 0, { config: { protection: "1" } });
    expect(await whenDue()).toMatchObject(kept);
  });

  it("now:yes deletes at once, also one that was scheduled", async () => {
    await del();
    expect(await del({ now: "yes" })).toMatchObject({ state: "succeeded", problem: null });
    expect(vm()).toBeUndefined();
    expect(await row()).toMatchObject({ state: "deleted", gone: true, deleteAt: null });
    expect(await lookAfter(GRACE_MS + HOUR_MS)).toEqual([]);
  });

  it("one that the cloud lost is deleted at once: there is nothing to bring back", async () => {
    world.simulator.removeVm(vm()?.vmid ?? 0);
    await database.sql(`UPDATE servers SET state = 'missing', missing_since = clock()`);
    expect(await del()).toMatchObject({ state: "succeeded", problem: null });
    expect(await row()).toMatchObject({ gone: true, deleteAt: null });
  });

  it("a stop that fails leaves it as it was, and nothing is scheduled", async () => {
    world.simulator.addTaskFault({ task: "qmshutdown", outcome: "fail", message: "stop failed" });
    const failed = await del();
    expect(failed.state).toBe("failed");
    expect((await world.lines(failed.id)).join("\n")).toMatch(/It is not going to be deleted/u);
    expect(await row()).toMatchObject({ state: "active", deleteAt: null });
    expect((await world.events()).map(({ type }) => type)).not.toContain("server.delete.scheduled");
  });
});

describe("on a cloud without a protection and backups of its own", () => {
  let world: World;

  beforeEach(async () => {
    world = await createWorld({ database });
    const order = { name: "web-1", customer: "ada", plan: "s", image: "debian-12" };
    await world.run(world.sam, "server.provision", order);
  });
  afterEach(() => world.close());

  const ask = (who: Principal, action: string, options: Record<string, string> = {}) =>
    world.ask(who, action, { server: "web-1", ...options });

  it("our own mark protects it, and lifting it says what that means", async () => {
    expect(await world.run(world.ada, "server.protect", { server: "web-1" })).toMatchObject({
      problem: null,
    });
    expect(await row()).toMatchObject({ isProtected: true });
    await expect(ask(world.rita, "server.delete")).rejects.toMatchObject({ code: "wrong_state" });
    const lifting = await ask(world.ada, "server.protect", { on: "no" });
    expect(lifting).toMatchObject({ view: { text: expect.stringMatching(/its disk is lost then/u) } });
    if (lifting.kind === "operation") await world.settle(lifting.operationId);
    expect(await world.run(world.rita, "server.delete", { server: "web-1" })).toMatchObject({
      problem: null,
    });
    expect(await row()).toMatchObject({ gone: true });
  });

  it("purge_backups is refused when it is planned", async () => {
    await expect(ask(world.rita, "server.delete", { purge_backups: "yes" })).rejects.toMatchObject({
      code: "unsupported",
      message: expect.stringMatching(/leave purge_backups out/u),
    });
  });

  it("with a grace period it is kept there as well, and gone when its time has come", async () => {
    world.engine.policies = graceful;
    expect(await world.run(world.rita, "server.delete", { server: "web-1" })).toMatchObject({
      problem: null,
    });
    expect(await row()).toMatchObject({ state: "stopped", gone: false });
    await moveClock(database, GRACE_MS + HOUR_MS);
    await deleteDue(world.engine);
    const [due] = await database.sql<{ id: string }>(
      `SELECT id FROM operations WHERE requester_kind = 'system'`,
    );
    expect(await world.settle(due?.id ?? "")).toMatchObject({ state: "succeeded" });
    expect(await row()).toMatchObject({ state: "deleted", gone: true });
  });

  it("without a grace period a deletion is for good, and says what survives it", async () => {
    const answer = await ask(world.rita, "server.delete");
    expect(answer).toMatchObject({
      view: { text: expect.stringMatching(/volumes that were attached to it/u) },
    });
    if (answer.kind !== "operation") throw new Error("no operation");
    const { view } = await renderCard(database, answer.operationId, "staff");
    expect(view.text).toMatch(/gone for good.*volumes that were attached to it.*until somebody confirms/u);
    await world.ask(world.rita, "ops.confirm", { operation: answer.publicId });
    expect(await world.settle(answer.operationId)).toMatchObject({ state: "succeeded" });
    expect((await world.events()).map(({ type }) => type)).toContain("server.deleted");
  });
});

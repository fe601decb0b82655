/** A deletion that can be taken back says only what is so: off is off, and one that did not work is tried again and told. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Cloud, ServerState } from "../../../src/core/cloud.ts";
import { serverStates } from "../../../src/core/cloud.ts";
import type { OperationRow } from "../../../src/core/operations/rows.ts";
import { deleteDue } from "../../../src/core/servers/deletion.ts";
import { runSync } from "../../../src/core/sync/run.ts";
import type { Database } from "../../../src/database/client.ts";
import { BUILD, createPveWorld, type PveWorld } from "../../clouds/pve/world.ts";
import { clean, moveClock, testDatabase } from "../../support/database.ts";
import { createWorld, policies, silent } from "../../support/world.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const GRACE_MS = 72 * HOUR_MS;
const alerts = { platform: "slack", workspace: "T1", channel: "C-alerts" } as const;
const kept = { ...policies, deleteGraceMs: GRACE_MS, alertChannels: [alerts] };

let database: Database;
beforeAll(async () => {
  database = await testDatabase();
});
beforeEach(() => clean(database));
afterEach(() => moveClock(database, 0));
afterAll(() => database.close());

async function setState(state: ServerState): Promise<void> {
  await database.sql(`UPDATE servers SET state = $1 WHERE name = 'web-1'`, [state]);
}

async function row() {
  const rows = await database.sql<{ publicId: string; state: ServerState; deleteAt: Date | null }>(
    `SELECT public_id AS "publicId", state, delete_at AS "deleteAt" FROM servers WHERE name = 'web-1'`,
  );
  if (rows[0] === undefined) throw new Error("no server");
  return rows[0];
}

describe("of a VM on Proxmox VE", () => {
  let world: PveWorld;
  beforeEach(async () => {
    world = await createPveWorld({ database, engine: { policies: kept } });
    await world.run(world.sam, "server.build", BUILD);
  });
  afterEach(() => world.close());

  const vm = () => world.made()[0];
  const del = () => world.run(world.rita, "server.delete", { server: "web-1" });
  const undelete = () => world.run(world.sam, "server.undelete", { server: "web-1" });
  const told = async (id: string) => (await world.lines(id)).join("\n");
  const shown = async () => JSON.stringify(await world.ask(world.sam, "server.show", { server: "web-1" }));

  it("a paused server is switched off before anybody is told so, and not started when it comes back", async () => {
    world.simulator.changeVm(vm()?.vmid ?? 0, { paused: true });
    await runSync({ database, cloud: world.cloud, resource: "servers", requester: "test", log: silent });
    expect(await row()).toMatchObject({ state: "paused" });
    const scheduled = await del();
    expect(scheduled).toMatchObject({ state: "succeeded", problem: null });
    expect(vm()).toMatchObject({ status: "stopped" });
    expect(await told(scheduled.id)).toMatch(/It is switched off and will be deleted at/u);
    expect(await undelete()).toMatchObject({ problem: null });
    expect(vm()).toMatchObject({ status: "stopped" });
  });

  it("one that is paused past us is not taken for off: the deletion says what it is and changes nothing", async () => {
    world.simulator.changeVm(vm()?.vmid ?? 0, { paused: true });
    const refused = await del();
    expect(refused).toMatchObject({ state: "failed", problem: { code: "drifted" } });
    expect(refused.problem?.message).toMatch(/is paused in the cloud.*Nothing was changed/u);
    expect(await row()).toMatchObject({ state: "paused", deleteAt: null });
    // Asked for again, it is known how.
    expect(await del()).toMatchObject({ state: "succeeded", problem: null });
    expect(vm()).toMatchObject({ status: "stopped" });
  });

  it("one that is suspended to disk is off: its memory is kept, and it comes back as it was", async () => {
    await world.run(world.ada, "server.power", { server: "web-1", action: "suspend" });
    expect(await del()).toMatchObject({ state: "succeeded", problem: null });
    expect(vm()?.config["lock"]).toBe("suspended");
    const back = await undelete();
    expect(await told(back.id)).toMatch(/It is suspended as before/u);
    expect(await row()).toMatchObject({ state: "suspended", deleteAt: null });
  });

  it("every state has its way to be off, or is refused with what to do", async () => {
    const ways: Partial<Record<ServerState, string>> = {};
    for (const state of serverStates.filter((one) => one !== "deleted" && one !== "missing")) {
      await setState(state);
      let way: string;
      try {
        const answer = await world.ask(world.rita, "server.delete", { server: "web-1" });
        if (answer.kind !== "operation") throw new Error("no operation");
        const steps = await world.steps(answer.operationId);
        way = steps.map(({ name, input: { verb } }) => (typeof verb === "string" ? verb : name)).join(" ");
        await world.ask(world.rita, "ops.cancel", { operation: answer.publicId });
      } catch (error) {
        way = error instanceof Error ? error.message.replace(/^\S+ \(srv-\w+\) /u, "") : "";
      }
      ways[state] = way;
    }
    const refused = (state: string) =>
      `is ${state}, so it cannot be switched off and kept. Wait until that is over, or delete it at once, for good, with now:yes.`;
    expect(ways).toEqual({
      pending: refused("pending"),
      building: refused("building"),
      active: "preflight.server stop delete.schedule",
      stopped: "preflight.server delete.schedule",
      paused: "preflight.server kill delete.schedule",
      suspended: "preflight.server delete.schedule",
      resizing: refused("resizing"),
      verify_resize: refused("verify resize"),
      rebuilding: refused("rebuilding"),
      rescue: "preflight.server stop delete.schedule",
      error: "preflight.server stop delete.schedule",
      deleting: refused("deleting"),
      unknown: refused("unknown"),
    });
  });

  it("undelete leaves off what its customer has switched off before the deletion was confirmed", async () => {
    const asked = await world.ask(world.rita, "server.delete", { server: "web-1" });
    if (asked.kind !== "operation") throw new Error("no operation");
    await world.run(world.ada, "server.power", { server: "web-1", action: "stop" });
    await world.ask(world.rita, "ops.confirm", { operation: asked.publicId });
    expect(await world.settle(asked.operationId)).toMatchObject({ state: "succeeded" });
    const back = await undelete();
    expect(await told(back.id)).toMatch(/It is no longer going to be deleted\. It is stopped as before\./u);
    expect(vm()).toMatchObject({ status: "stopped" });
  });

  it("an order with its name is told that it is leaving, until when, and how to get it back", async () => {
    await del();
    const { publicId, deleteAt } = await row();
    const until = deleteAt?.toISOString().slice(0, 16).replace("T", " ");
    // The very same order, and one that only has the name.
    for (const order of [BUILD, { ...BUILD, cpu: "1" }]) {
      await expect(world.ask(world.sam, "server.build", order)).rejects.toMatchObject({
        code: "conflict",
        message: `Ada's server web-1 (${publicId}) is to be deleted at ${until} UTC, and keeps its name until then. Our team can bring it back (/server undelete ${publicId}) or delete it at once; or choose another name.`,
      });
    }
  });

  /** The operations that the schedule has asked for by then, run to their end. */
  async function look(ms: number): Promise<OperationRow[]> {
    await moveClock(database, ms);
    await deleteDue(world.engine);
    const rows = await database.sql<{ id: string }>(
      `SELECT id FROM operations WHERE requester_kind = 'system' ORDER BY created_at`,
    );
    return Promise.all(rows.map(({ id }) => world.settle(id)));
  }

  async function alerted(): Promise<string[]> {
    const rows = await database.sql<{ id: string }>(
      `SELECT operation_id AS id FROM cards WHERE channel = $1 AND audience = 'staff' AND NOT announced ORDER BY created_at`,
      [alerts.channel],
    );
    return rows.map(({ id }) => id);
  }

  it("one that cannot be deleted when it is due is tried again every day, and each time the staff hear of it", async () => {
    await del();
    const fails = () =>
      world.simulator.addTaskFault({ task: "qmdestroy", outcome: "fail", message: "dataset is busy" });
    fails();
    const [first] = await look(GRACE_MS + HOUR_MS);
    expect(first).toMatchObject({ state: "failed" });
    expect(await told(first?.id ?? "")).toMatch(
      /tried again within a day, and every day until it is gone; \/server undelete srv-\w+ keeps it\./u,
    );
    expect(await alerted()).toEqual([first?.id]);
    expect(await shown()).toMatch(/due for deletion since .* UTC.*tried every day until it is gone/u);
    await expect(
      world.ask(world.ada, "server.power", { server: "web-1", action: "start" }),
    ).rejects.toMatchObject({
      message: expect.stringMatching(/was to be deleted at .* UTC and still is.*\/server undelete srv-/u),
    });
    // Once a day.
    expect(await look(GRACE_MS + 20 * HOUR_MS)).toHaveLength(1);
    fails();
    const second = await look(GRACE_MS + DAY_MS + HOUR_MS);
    expect(second).toMatchObject([{ state: "failed" }, { state: "failed" }]);
    expect(await alerted()).toEqual(second.map(({ id }) => id));
    expect(vm()).toBeDefined();
    // Days on which nobody looked are not made up for.
    const third = await look(GRACE_MS + 5 * DAY_MS + HOUR_MS);
    expect(third.map(({ state }) => state)).toEqual(["failed", "failed", "succeeded"]);
    expect(await alerted()).toHaveLength(2);
    expect(vm()).toBeUndefined();
    expect(await look(GRACE_MS + 7 * DAY_MS)).toHaveLength(3);
  });

  it("one whose deletion somebody cancels when it is due says what becomes of it, and can be brought back or is deleted the next day", async () => {
    await del();
    await moveClock(database, GRACE_MS + HOUR_MS);
    await deleteDue(world.engine);
    const [due] = await database.sql<{ id: string; publicId: string }>(
      `SELECT id, public_id AS "publicId" FROM operations WHERE requester_kind = 'system'`,
    );
    await world.ask(world.rita, "ops.cancel", { operation: due?.publicId ?? "" });
    const cancelled = await world.settle(due?.id ?? "");
    expect(cancelled).toMatchObject({ state: "cancelled" });
    expect(await told(cancelled.id)).toMatch(/tried again within a day.*\/server undelete srv-\w+ keeps it/u);
    expect(await alerted()).toEqual([cancelled.id]);
    const offers = await database.sql<{ action: string }>(
      `SELECT action FROM capabilities WHERE operation_id = $1 AND offered_in = 'ended_badly' ORDER BY action`,
      [cancelled.id],
    );
    expect(offers.map(({ action }) => action)).toEqual(["ops.retry", "server.undelete"]);
    // Brought back it is a server like any other.
    expect(await undelete()).toMatchObject({ state: "succeeded", problem: null });
    expect(await row()).toMatchObject({ state: "active", deleteAt: null });
    expect(await look(GRACE_MS + 2 * DAY_MS)).toHaveLength(1);
    expect(await shown()).not.toMatch(/deletion/u);
    // Deleted once more, it is due at another time, and cancelled then, it is gone the day after.
    await del();
    const due2 = 2 * DAY_MS + 2 * GRACE_MS;
    await moveClock(database, due2 + HOUR_MS);
    await deleteDue(world.engine);
    const [again] = await database.sql<{ publicId: string }>(
      `SELECT public_id AS "publicId" FROM operations WHERE requester_kind = 'system' AND state = 'queued'`,
    );
    await world.ask(world.rita, "ops.cancel", { operation: again?.publicId ?? "" });
    const ends = await look(due2 + DAY_MS + HOUR_MS);
    expect(ends.map(({ state }) => state)).toEqual(["cancelled", "cancelled", "succeeded"]);
    expect(vm()).toBeUndefined();
  });
});

describe("of a server on OpenStack", () => {
  it("the time of its deletion is set only when the cloud itself says that it is off", async () => {
    let said: ServerState | null = null;
    const world = await createWorld({
      database,
      engine: { policies: kept },
      cloud: (real) => ({
        // What is asked before anything is done names the operation.
        inspect: (async (externalId, signal, options) => {
          const server = await real.inspect(externalId, signal, options);
          return said === null || options !== undefined ? server : { ...server, state: said };
        }) satisfies Cloud["inspect"],
      }),
    });
    try {
      const order = { name: "web-1", customer: "ada", plan: "s", image: "debian-12" };
      await world.run(world.sam, "server.provision", order);
      await world.run(world.sam, "server.power", { server: "web-1", action: "stop" });
      const set: ServerState[] = [];
      for (const state of serverStates) {
        said = state;
        const { state: end } = await world.run(world.rita, "server.delete", { server: "web-1" });
        if ((await row()).deleteAt !== null) set.push(state);
        expect({ state, end }).toEqual({ state, end: set.includes(state) ? "succeeded" : "failed" });
        await database.sql(`UPDATE servers SET state = 'stopped', delete_at = NULL`);
      }
      expect(set).toEqual(["stopped", "suspended"]);
    } finally {
      await world.close();
    }
  });

  it("a paused one is refused, because nobody can cut its power there, with what to do", async () => {
    const world = await createWorld({ database, engine: { policies: kept } });
    try {
      const order = { name: "web-1", customer: "ada", plan: "s", image: "debian-12" };
      await world.run(world.sam, "server.provision", order);
      await setState("paused");
      await expect(world.ask(world.rita, "server.delete", { server: "web-1" })).rejects.toMatchObject({
        code: "wrong_state",
        message: expect.stringMatching(
          /is paused, so it cannot be switched off and kept\. Reset it first \(\/server power srv-\w+ action:reset\), or delete it at once, for good, with now:yes\./u,
        ),
      });
    } finally {
      await world.close();
    }
  });
});

/** A difficult cloud: the right code, nothing half-recorded, nothing left behind. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { OperationRow } from "../../../src/core/operations/rows.ts";
import type { Database } from "../../../src/database/client.ts";
import { testDatabase } from "../../support/database.ts";
import type { WorldOptions } from "../../support/world.ts";
import { createScene, nothingLeft, order, type Scene } from "./scene.ts";

describe("with a cloud in trouble", () => {
  let database: Database | undefined;
  let at: Scene;

  beforeAll(async () => {
    database = await testDatabase();
  });
  afterEach(() => at.close());
  afterAll(() => database?.close());

  async function open(options: Omit<WorldOptions, "database"> = {}): Promise<void> {
    if (database === undefined) throw new Error("no database");
    at = await createScene({ database, ...options });
  }

  async function outcome(action: string, options: Record<string, string>): Promise<OperationRow> {
    const answer = await at.ask(at.sam, action, options);
    if (answer.kind !== "operation") throw new Error(`${action}: ${JSON.stringify(answer)}`);
    return at.finish("one", answer.operationId);
  }

  async function expectNothing(): Promise<void> {
    expect(at.live()).toEqual([]);
    expect(
      await at.database.sql(`SELECT state, external_id AS id, deleted_at IS NOT NULL AS gone FROM servers`),
    ).toEqual([{ state: "deleted", id: null, gone: true }]);
    expect(await at.database.sql(`SELECT 1 FROM secrets`)).toEqual([]);
    expect(await at.leftovers()).toEqual(nothingLeft);
  }

  it("that cannot be reached tries again for a while and then fails", async () => {
    await open();
    at.simulator.addFault({ kind: "drop", times: 0 });
    const ended = await outcome("server.provision", { ...order, name: "web-1" });
    expect(ended).toMatchObject({ state: "failed", problem: { code: "unreachable" } });
    const [check] = await at.steps(ended.id);
    expect(check?.attempt).toBeGreaterThan(3);
    await expectNothing();
  });

  it("that comes back in time goes on as if nothing had been", async () => {
    await open();
    at.simulator.addFault({ kind: "drop", times: 9 });
    expect(await outcome("server.provision", { ...order, name: "web-1" })).toMatchObject({
      state: "succeeded",
    });
    expect(at.live()).toHaveLength(1);
  });

  it("whose Keystone hangs fails as a timeout", { timeout: 40_000 }, async () => {
    await open({ client: { timeoutMs: 300 } });
    at.simulator.state.traps = { keystone: "hang" };
    expect(await outcome("server.provision", { ...order, name: "web-1" })).toMatchObject({
      state: "failed",
      problem: { code: "timeout" },
    });
    await expectNothing();
  });

  it.each([
    [
      "refuses our credential",
      "unauthorized",
      "web-1",
      (): unknown => at.simulator.addFault({ path: "/compute/", kind: "status", status: 401, times: 0 }),
    ],
    [
      "has no quota left",
      "cloud_quota",
      "web-1",
      (): unknown => (at.simulator.state.quota = { ...at.simulator.state.quota, instances: 0 }),
    ],
    ["refuses the create for its quota", "cloud_quota", "sim-quota", (): unknown => undefined],
    ["has no host with room", "capacity", "sim-no-host", (): unknown => undefined],
  ])("that %s fails as %s", async (_what, code, name, trouble) => {
    await open();
    trouble();
    const ended = await outcome("server.provision", { ...order, name });
    expect(ended).toMatchObject({ state: "failed", problem: { code } });
    expect(at.live()).toEqual([]);
    expect(await at.database.sql(`SELECT 1 FROM servers WHERE deleted_at IS NULL`)).toEqual([]);
    expect(await at.database.sql(`SELECT 1 FROM secrets`)).toEqual([]);
    expect(await at.leftovers()).toEqual(nothingLeft);
  });

  it.each([
    ["fails a resize half-way", { name: "web-1", metadata: "osr_fail=resize" }, "error"],
    ["gives up a resize silently", { name: "sim-silent-resize-1" }, "active"],
  ])("that %s is never told as a success, and the size stays", async (_what, { name, ...extra }, state) => {
    await open();
    await at.order(name, extra);
    const ended = await outcome("server.resize", { server: name, plan: "m" });
    expect(ended).toMatchObject({ state: "failed", problem: { code: "cloud_failed" } });
    expect(
      await at.database.sql(
        `SELECT state, plan_code AS plan, vcpus, memory_mib AS memory, disk_gib AS disk FROM servers`,
      ),
    ).toEqual([{ state, plan: "s", vcpus: 1, memory: 2048, disk: 10 }]);
    const told = (await at.events()).map((event) => event.type);
    expect(told).toContain("server.resize.failed");
    expect(told).not.toContain("server.resize.succeeded");
    expect(await at.leftovers()).toEqual(nothingLeft);
  });

  it("whose answers to reboots are lost restarts the server once", async () => {
    await open();
    await at.order("web-1");
    at.simulator.addFault({ method: "POST", path: "/action$", kind: "drop_after" });
    expect(await outcome("server.power", { server: "web-1", action: "reboot" })).toMatchObject({
      state: "succeeded",
    });
    expect(at.simulator.state.servers[0]?.actions.filter((row) => row.action === "reboot")).toHaveLength(1);
  });
});

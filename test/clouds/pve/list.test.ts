/** The list of all VMs: one of which nothing can be told costs no other, and is not taken for gone or for anything else. */
import { describe, expect, it } from "vitest";
import { runSync } from "../../../src/core/sync/run.ts";
import { useStage } from "../../support/stage.ts";
import { silent } from "../../support/world.ts";
import { openTimedWorld, type TimedWorld } from "./timed-world.ts";
import { BUILD } from "./world.ts";

const stage = useStage();

/** With web-1 and web-2, which run as the VMs 100000 and 100001 on the node n1. */
async function open(): Promise<TimedWorld> {
  const world = stage.keep(await openTimedWorld({ database: stage.database }));
  await world.order("server.build", { ...BUILD, node: "n1" });
  await world.order("server.build", { ...BUILD, name: "web-2", node: "n1" });
  return world;
}

function sync({ cloud, database }: TimedWorld) {
  return runSync({ database, cloud, resource: "servers", requester: "system", log: silent });
}

async function rowsOf() {
  const rows = await stage.database.sql<{ name: string; state: string; protected: boolean }>(
    `SELECT name, state, delete_protected AS protected FROM servers ORDER BY name`,
  );
  return rows;
}

async function health() {
  const [row] = await stage.database.sql<{ code: string | null }>(
    `SELECT last_problem ->> 'code' AS code FROM clouds WHERE name = 'sim'`,
  );
  return row?.code;
}

describe("one VM of which nothing can be told", () => {
  it("is unknown, its row stays as it was, staff read why, and the others are brought in line", async () => {
    const at = await open();
    const config = "/qemu/100000/config";
    const status = "/qemu/100000/status/current$";
    const failures = [
      { path: config, status: 500, body: { data: null, message: "unable to parse config\n" } },
      { path: config, status: 595, body: "" },
      { path: config, status: 403, body: { data: null } },
      { path: config, status: 200, body: { data: "no" } },
      { path: status, status: 500, body: { data: null, message: "got timeout\n" } },
      { path: status, status: 200, body: { data: [] } },
    ];
    let isProtected = false;
    for (const failure of failures) {
      isProtected = !isProtected;
      for (const vmid of [100_000, 100_001])
        at.simulator.changeVm(vmid, { config: { protection: isProtected ? "1" : "0" } });
      at.simulator.addFault({ ...failure, kind: "status", times: 0 });
      const report = await sync(at);
      expect(report, JSON.stringify(failure)).toMatchObject({
        state: "partial",
        missing: 0,
        errors: [expect.stringMatching(/^What the server 100000 is could not be told: sim: GET /u)],
      });
      expect(await rowsOf(), JSON.stringify(failure)).toEqual([
        { name: "web-1", state: "active", protected: !isProtected },
        { name: "web-2", state: "active", protected: isProtected },
      ]);
      expect(await health()).toBeNull();
      at.simulator.clearFaults();
      expect(await sync(at)).toMatchObject({ state: "completed", updated: 1 });
    }
  });

  it("and another one on its node make no list of unknowns: no list is believed when none can be told", async () => {
    const at = await open();
    at.simulator.addFault({ path: "/qemu/\\d+/status/current$", kind: "status", status: 596, times: 0 });
    expect(await sync(at)).toMatchObject({ state: "failed", seen: 0 });
    expect(await health()).toBe("timeout");
  });

  it("is no excuse for a refused credential or a connection that breaks: then there is no list", async () => {
    const at = await open();
    at.simulator.addFault({ path: "/qemu/100000/config", kind: "drop", times: 0 });
    expect(await sync(at)).toMatchObject({ state: "failed", seen: 0 });
    expect(await health()).toBe("unreachable");
    at.simulator.clearFaults();
    at.simulator.addFault({ path: "/qemu/100000/config", kind: "status", status: 401, times: 0 });
    expect(await sync(at)).toMatchObject({ state: "failed", seen: 0 });
    expect(await health()).toBe("unauthorized");
    expect((await rowsOf()).map(({ state }) => state)).toEqual(["active", "active"]);
  });

  it("is asked for in vain, and so are few others of its node: the rest of it is not waited for", async () => {
    const at = await open();
    for (let vmid = 100_100; vmid < 100_140; vmid += 1)
      at.simulator.addStranger({ vmid, node: "n2", name: `theirs-${vmid}` });
    const path = "/qemu/1001\\d\\d/status/current$";
    at.simulator.addFault({ path, kind: "status", status: 596, times: 0 });
    const report = await sync(at);
    expect(report).toMatchObject({ state: "partial", seen: expect.any(Number) });
    expect(report.errors).toHaveLength(40);
    expect(report.errors.at(-1)).toMatch(/node n2 has not answered for others either/u);
    const asked = at.simulator.state.requests.filter(({ path: one }) => /\/1001\d\d\/status/u.test(one));
    // As many as are asked at a time.
    expect(asked.length).toBeLessThanOrEqual(8);
    expect((await rowsOf()).map(({ state }) => state)).toEqual(["active", "active"]);
  });
});

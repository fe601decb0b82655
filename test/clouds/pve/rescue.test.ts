/** Rescue on the whole road: into it and out of it, from wherever it was broken off, with PVE itself saying what is so. */
import { describe, expect, it } from "vitest";
import { runSync } from "../../../src/core/sync/run.ts";
import type { Fault } from "../../../src/sandbox/pve/index.ts";
import { useStage } from "../../support/stage.ts";
import { silent } from "../../support/world.ts";
import { surviveDeaths } from "./deaths.ts";
import { createScene, OLD, type Scene } from "./rebuild-scene.ts";

const stage = useStage();

const ISO = "local:iso/rescue.iso";
const PUT = "PUT /nodes/{node}/qemu/{vmid}/config";
const STOP = "POST /nodes/{node}/qemu/{vmid}/status/shutdown";
const START = "POST /nodes/{node}/qemu/{vmid}/status/start";

/** On n1, where rescue.iso is the seed's. */
async function open(client: { rescueIso?: string } = { rescueIso: ISO }): Promise<Scene> {
  return stage.keep(await createScene({ database: stage.database, client }));
}

/** What a rescue may not leave behind. */
function traceOf(at: Scene) {
  const vm = at.vm(OLD);
  const { config = {}, description, tags, pending } = vm ?? {};
  const drives = Object.keys(config).filter((key) => /^(?:ide|sata)\d/u.test(key));
  return { boot: config["boot"], drives, description, tags, pending };
}

async function putConfig(at: Scene, body: string): Promise<void> {
  await at.asSomebody("PUT", `/nodes/n1/qemu/${OLD}/config`, body);
}

describe("a rescue", () => {
  it("boots from the media after a real stop and start, says so in PVE itself, and is left without a trace", async () => {
    const at = await open();
    const before = traceOf(at);
    expect(await at.order("server.rescue")).toMatchObject({ state: "succeeded", problem: null });
    // Our line, the media, the boot order: PVE takes the settings of one call in any order.
    expect(at.changes()).toEqual([PUT, PUT, PUT, STOP, START]);
    expect(at.vm(OLD)).toMatchObject({
      status: "running",
      pending: {},
      tags: "ratatosk;ratatosk-rescue",
      config: { boot: "order=ide0;scsi0", ide0: expect.stringContaining(`${ISO},media=cdrom`) },
      // It boots another system: the server's own did not come up.
      guest: { boots: 1 },
    });
    expect(at.vm(OLD)?.config["ide2"]).toMatch(/cloudinit/u);
    expect(at.vm(OLD)?.description.split("\n")).toContain("rescue:ide0 held= boot=order=scsi0");
    expect(await at.server()).toMatchObject({ state: "rescue" });
    expect(await at.order("server.unrescue")).toMatchObject({ state: "succeeded", problem: null });
    expect(at.changes()).toEqual([PUT, STOP, START, PUT]);
    expect(traceOf(at)).toEqual(before);
    expect(at.vm(OLD)).toMatchObject({ status: "running", guest: { boots: 2 } });
    expect(await at.server()).toMatchObject({ state: "active" });
    expect((await at.events()).map((event) => event.type)).toEqual(
      expect.arrayContaining(["server.rescue.succeeded", "server.unrescue.succeeded"]),
    );
  });

  it("is found by a synchronisation of a database that knows nothing of it, and can be left from there", async () => {
    const at = await open();
    const before = traceOf(at);
    await at.order("server.rescue");
    await stage.database.sql(`UPDATE servers SET state = 'active'`);
    await at.time.later(1_000);
    await runSync({
      database: stage.database,
      cloud: at.cloud,
      resource: "servers",
      requester: "test",
      log: silent,
    });
    expect(await at.server()).toMatchObject({ state: "rescue" });
    expect(await at.order("server.unrescue")).toMatchObject({ state: "succeeded" });
    expect(traceOf(at)).toEqual(before);
  });

  it("allows the power verbs, and nothing that changes the server's own system", async () => {
    const at = await open();
    await at.order("server.rescue");
    for (const [command, options] of [
      ["server.resize", { plan: "m" }],
      ["server.password", {}],
      ["snapshot.create", { name: "s1" }],
      ["server.rescue", {}],
      ["server.power", { action: "suspend" }],
    ] as const) {
      await expect(at.ask(at.sam, command, { server: "web-1", ...options }), command).rejects.toMatchObject({
        code: "wrong_state",
        message: expect.stringMatching(/is in rescue, so it cannot be/u),
      });
    }
    for (const action of ["reset", "reboot", "kill", "start"]) {
      expect(await at.order("server.power", { action }), action).toMatchObject({
        state: "succeeded",
        problem: null,
      });
    }
    expect(await at.server()).toMatchObject({ state: "rescue" });
    await at.order("server.power", { action: "kill" });
    expect(await at.order("server.unrescue")).toMatchObject({ state: "succeeded" });
    expect(at.vm(OLD)).toMatchObject({ status: "running", config: { boot: "order=scsi0" } });
  });

  it("of a server that is off starts it, and one in rescue can be deleted", async () => {
    const at = await open();
    await at.order("server.power", { action: "kill" });
    at.changes();
    expect(await at.order("server.rescue")).toMatchObject({ state: "succeeded" });
    expect(at.changes()).toEqual([PUT, PUT, PUT, START]);
    expect(await at.server()).toMatchObject({ state: "rescue" });
    expect(await at.order("server.delete")).toMatchObject({ state: "succeeded" });
    expect(at.vm(OLD)).toBeUndefined();
  });

  it("that was not begun is not left, and a server that was switched off otherwise stays off", async () => {
    const at = await open();
    await at.order("server.power", { action: "kill" });
    at.changes();
    expect(await at.order("server.unrescue")).toMatchObject({
      state: "failed",
      problem: { message: "The server does not boot from rescue media, so nothing was changed." },
    });
    expect(at.changes()).toEqual([]);
    expect(at.vm(OLD)?.status).toBe("stopped");
  });
});

describe("the media of a rescue", () => {
  it("are the setting rescueIso: without it staff are told which setting, customers that there is none yet", async () => {
    const at = await open({});
    await expect(at.ask(at.sam, "server.rescue", { server: "web-1" })).rejects.toMatchObject({
      code: "unsupported",
      staffDetail: expect.stringMatching(/Set clouds\.sim\.rescueIso in ratatosk\.yaml/u),
    });
    await expect(at.ask(at.ada, "server.rescue", { server: "web-1" })).rejects.toMatchObject({
      code: "unsupported",
      staffDetail: undefined,
    });
    await expect(at.ask(at.ada, "server.rescue", { server: "web-1", iso: ISO })).rejects.toMatchObject({
      code: "invalid_input",
    });
    expect(await at.order("server.rescue", { iso: ISO })).toMatchObject({ state: "succeeded" });
  });

  it("are written as an ISO image of a storage, and nothing can be smuggled in behind it", async () => {
    const at = await open();
    for (const iso of [
      "rescue.iso",
      "/etc/passwd",
      `${ISO},size=1G`,
      "local:iso/../x.iso",
      "local:vm-1-disk-0",
    ]) {
      await expect(at.ask(at.sam, "server.rescue", { server: "web-1", iso }), iso).rejects.toMatchObject({
        code: "invalid_input",
        facts: { option: "iso" },
      });
    }
  });

  it("that are not on the server's node are said to be missing, before anything is changed", async () => {
    const at = await open({ rescueIso: "local:iso/other.iso" });
    expect(await at.order("server.rescue")).toMatchObject({
      state: "failed",
      problem: {
        code: "cloud_invalid",
        message: expect.stringMatching(/not on the server's node, so nothing was changed/u),
        staffDetail: expect.stringMatching(/node n1 has no local:iso\/other\.iso/u),
      },
    });
    expect(await at.order("server.rescue", { iso: "nowhere:iso/x.iso" })).toMatchObject({
      state: "failed",
      problem: { code: "cloud_invalid" },
    });
    expect(at.changes()).toEqual([]);
    expect(await at.server()).toMatchObject({ state: "active" });
  });
});

describe("drives and boot order", () => {
  it("of all kinds come back as they were: a free slot is taken, never the cloud-init drive's", async () => {
    const at = await open();
    await putConfig(at, `ide0=${encodeURIComponent(`${ISO},media=cdrom`)}`);
    await putConfig(at, `boot=${encodeURIComponent("order=scsi0;net0;ide2")}`);
    await at.order("server.power", { action: "stop" });
    const before = traceOf(at);
    await at.order("server.rescue");
    expect(at.vm(OLD)?.config["boot"]).toBe("order=ide1;scsi0;net0;ide2");
    expect(at.vm(OLD)?.config["ide0"]).toContain("rescue.iso");
    await at.order("server.unrescue");
    expect(traceOf(at)).toEqual(before);
  });

  it("of a server without a boot order come back as none", async () => {
    const at = await open();
    at.simulator.changeVm(OLD, { config: { boot: null } });
    const before = traceOf(at);
    await at.order("server.rescue");
    expect(at.vm(OLD)?.config["boot"]).toBe("order=ide0;scsi0");
    expect(await at.order("server.unrescue")).toMatchObject({ state: "succeeded", problem: null });
    expect(traceOf(at)).toEqual(before);
  });

  it("of a protected server: PVE lets no drive be removed, so an empty one stays and serves the next rescue", async () => {
    const at = await open();
    await putConfig(at, "protection=1");
    for (const round of [1, 2]) {
      expect(await at.order("server.rescue"), String(round)).toMatchObject({ state: "succeeded" });
      expect(at.vm(OLD)?.config["ide0"]).toContain("rescue.iso");
      expect(await at.order("server.unrescue"), String(round)).toMatchObject({ state: "succeeded" });
      expect(at.vm(OLD)?.config).toMatchObject({ ide0: "none,media=cdrom", boot: "order=scsi0" });
      expect(traceOf(at).drives).toEqual(["ide2", "ide0"]);
    }
  });

  it("are told to be a rescue's even when somebody has removed our tag, and come back", async () => {
    const at = await open();
    const before = traceOf(at);
    await at.order("server.rescue");
    at.simulator.changeVm(OLD, { config: { tags: "ratatosk" } });
    expect(await at.cloud.inspect(String(OLD))).toMatchObject({ state: "rescue" });
    expect(await at.order("server.unrescue")).toMatchObject({ state: "succeeded", problem: null });
    expect(traceOf(at)).toEqual(before);
  });

  it("come back even when somebody has removed our line from the description", async () => {
    const at = await open();
    await at.order("server.rescue");
    const description = at.vm(OLD)?.description.replace(/\nrescue:.*/u, "") ?? "";
    at.simulator.changeVm(OLD, { config: { description } });
    expect(await at.order("server.unrescue")).toMatchObject({ state: "succeeded", problem: null });
    expect(traceOf(at)).toMatchObject({ boot: "order=scsi0", drives: ["ide2"], tags: "ratatosk" });
  });
});

it("a line that going back to a snapshot has made untrue is not believed by the next rescue", async () => {
  const at = await open();
  await at.order("snapshot.create", { name: "s1" });
  await at.order("server.rescue");
  await at.order("server.power", { action: "kill" });
  await at.order("snapshot.rollback", { snapshot: "s1" });
  expect(at.vm(OLD)).toMatchObject({
    description: expect.stringContaining("rescue:ide0"),
    tags: "ratatosk",
    config: { boot: "order=scsi0" },
  });
  expect(await at.order("server.unrescue")).toMatchObject({ state: "failed" });
  await putConfig(at, `boot=${encodeURIComponent("order=scsi0;net0")}`);
  expect(await at.order("server.rescue")).toMatchObject({ state: "succeeded" });
  expect(await at.order("server.unrescue")).toMatchObject({ state: "succeeded" });
  expect(traceOf(at)).toMatchObject({ boot: "order=scsi0;net0", drives: ["ide2"], tags: "ratatosk" });
  expect(at.vm(OLD)?.description).not.toContain("rescue:");
});

it("a rebuild of a server that was switched off in a rescue leaves the rescue behind", async () => {
  const at = await open();
  await at.order("server.rescue");
  await at.order("server.power", { action: "kill" });
  expect(await at.order("server.rebuild", { image: "debian-12" })).toMatchObject({ state: "succeeded" });
  const { externalId, state } = await at.server();
  expect(state).toBe("active");
  const vm = at.vm(Number(externalId));
  expect(vm).toMatchObject({ tags: "ratatosk", config: { boot: "order=scsi0" } });
  expect(vm?.description).not.toContain("rescue:");
});

it("a start that fails in the rescue says how to go back, and going back works", async () => {
  const at = await open();
  const before = traceOf(at);
  at.simulator.addTaskFault({ task: "qmstart", outcome: "fail", message: "QEMU exited with code 1" });
  const end = await at.order("server.rescue");
  expect(end).toMatchObject({ state: "failed", problem: { code: "cloud_failed" } });
  expect((await at.lines(end.id)).join("\n")).toMatch(/\/server unrescue takes that back/u);
  expect(await at.server()).toMatchObject({ state: "stopped" });
  expect(await at.order("server.unrescue")).toMatchObject({ state: "succeeded" });
  expect(traceOf(at)).toEqual(before);
  expect(await at.server()).toMatchObject({ state: "active" });
});

describe("an answer that is lost on the way, at each write of a rescue", { timeout: 60_000 }, () => {
  /** How it ended, and what there is then. */
  async function rescueUnder(fault: Pick<Fault, "kind" | "status">) {
    const at = await open();
    const before = traceOf(at);
    const WRITES = [
      ["PUT", "/config$"],
      ["POST", "/status/shutdown$"],
      ["POST", "/status/start$"],
    ] as const;
    for (const [method, path] of WRITES) at.simulator.addFault({ method, path, ...fault });
    at.simulator.addFault({ method: "PUT", path: "/config$", ...fault, times: 2 });
    const entered = await at.order("server.rescue");
    const { state } = await at.server();
    // One each of what leaving writes: to unset, to stop, to start, and to clear.
    for (const [method, path] of WRITES) at.simulator.addFault({ method, path, ...fault });
    at.simulator.addFault({ method: "PUT", path: "/config$", ...fault });
    const left = await at.order("server.unrescue");
    const clean = JSON.stringify(traceOf(at)) === JSON.stringify(before);
    const struck = at.simulator.state.requests.filter((request) => request.fault !== undefined).length;
    return { ends: [entered.state, left.state], state, clean, struck, boots: at.vm(OLD)?.guest.boots };
  }
  const FLAWLESS = { ends: ["succeeded", "succeeded"], state: "rescue", clean: true, struck: 9, boots: 2 };

  it("596, and PVE did it all the same: the rescue ends right", async () => {
    expect(await rescueUnder({ kind: "status_after", status: 596 })).toEqual(FLAWLESS);
  });
  it("595, and PVE never saw it: the rescue ends right", async () => {
    expect(await rescueUnder({ kind: "status", status: 595 })).toEqual(FLAWLESS);
  });
  it("cut off after PVE had done it: the rescue ends right", async () => {
    expect(await rescueUnder({ kind: "drop_after" })).toEqual(FLAWLESS);
  });
});

describe("a worker that dies at each moment of a rescue", { timeout: 120_000 }, () => {
  /** As if it had been so all the time. */
  async function put(at: Scene, config: Record<string, string>, state: string): Promise<void> {
    const there = at.vm(OLD)?.config ?? {};
    const gone = Object.keys(there).filter((key) => config[key] === undefined);
    const nothing = Object.fromEntries(gone.map((key) => [key, null]));
    at.simulator.changeVm(OLD, { config: { ...config, ...nothing } });
    await stage.database.sql(`UPDATE servers SET state = $1`, [state]);
  }

  /** Its settings outside and inside of a rescue, as the real ones leave them. */
  async function bothSides() {
    const at = await open();
    const outside = at.vm(OLD)?.config ?? {};
    await at.order("server.rescue");
    return { at, outside, inside: at.vm(OLD)?.config ?? {} };
  }

  it("on the way in: another one ends it, with the same settings", async () => {
    const { at, outside, inside } = await bothSides();
    const { moments } = await surviveDeaths(at, {
      async begin() {
        await put(at, outside, "active");
        return at.begin("server.rescue");
      },
      async after() {
        expect(await at.server()).toMatchObject({ state: "rescue" });
        expect(at.vm(OLD)).toMatchObject({ status: "running", config: inside, pending: {} });
      },
    });
    expect(moments).toBeGreaterThan(6);
  });

  it("on the way out: another one ends it, without a trace", async () => {
    const { at, outside, inside } = await bothSides();
    const { moments } = await surviveDeaths(at, {
      async begin() {
        await put(at, inside, "rescue");
        return at.begin("server.unrescue");
      },
      async after() {
        expect(await at.server()).toMatchObject({ state: "active" });
        expect(at.vm(OLD)?.config).toEqual(outside);
        expect(at.vm(OLD)).toMatchObject({ status: "running", pending: {} });
      },
    });
    expect(moments).toBeGreaterThan(6);
  });
});

it("the finished card of a rescue offers the way back", async () => {
  const at = await open();
  const { id } = await at.order("server.rescue");
  const [button] = await stage.database.sql<{ token: string }>(
    `SELECT token FROM capabilities WHERE operation_id = $1 AND action = 'server.unrescue'`,
    [id],
  );
  const answer = await at.entrance.press(button?.token ?? "", at.sam, "console");
  if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
  expect(await at.finish(answer.operationId)).toMatchObject({ state: "succeeded" });
  expect(await at.server()).toMatchObject({ state: "active" });
});

/** Traffic on the whole road: PVE's own counters, our months, /server usage. */
import { describe, expect, it } from "vitest";
import type { Principal } from "../../../src/core/access.ts";
import { runSync } from "../../../src/core/sync/run.ts";
import { type Counted, countTraffic } from "../../../src/core/traffic/count.ts";
import type { View } from "../../../src/core/view.ts";
import { useStage } from "../../support/stage.ts";
import { silent } from "../../support/world.ts";
import { openSimulator } from "./open-simulator.ts";
import { createScene, GIB, NEW, OLD, type Scene } from "./rebuild-scene.ts";

const stage = useStage();
const MINUTE_MS = 60_000;
const still = { inBytesPerS: 0, outBytesPerS: 0 };

/** With web-1 running since fifty seconds, with these counters, and known to be ours. */
async function open(counters: { inBytes: number; outBytes: number }): Promise<Scene> {
  const scene = stage.keep(await createScene({ database: stage.database }));
  await scene.time.later(MINUTE_MS);
  scene.simulator.changeVm(OLD, { traffic: { ...still, ...counters, uptimeS: 50 } });
  await sync(scene);
  return scene;
}

async function sync({ database, cloud, time }: Scene): Promise<void> {
  await time.later(1_000);
  await runSync({ database, cloud, resource: "servers", requester: "test", log: silent });
}

function look({ database, cloud, engine }: Scene): Promise<Counted> {
  return countTraffic({ database, cloud, wake: engine.wake, log: silent, everyMs: 0 });
}

async function usage(scene: Scene, by: Principal): Promise<View> {
  const answer = await scene.ask(by, "server.usage", { server: "web-1" });
  if (answer.kind !== "view") throw new Error(JSON.stringify(answer));
  return answer.view;
}

async function fields(scene: Scene, by: Principal = scene.sam): Promise<Record<string, string>> {
  const { fields: shown = [] } = await usage(scene, by);
  return Object.fromEntries(shown.map(({ label, value }) => [label, value]));
}

describe("traffic on Proxmox VE", () => {
  it("is what PVE's counters say, by one call for the whole cluster, and /server usage shows it", async () => {
    const scene = await open({ inBytes: 3 * GIB, outBytes: 1.5 * GIB });
    const { requests } = scene.simulator.state;
    const before = requests.length;
    expect(await look(scene)).toEqual({ outcome: "counted", servers: 1, told: 0 });
    expect(requests.slice(before).map(({ method, path }) => `${method} ${path}`)).toEqual([
      "GET /api2/json/cluster/resources?type=vm",
    ]);
    expect(await fields(scene)).toMatchObject({
      In: "3.00 GiB",
      Out: "1.50 GiB",
      Total: "4.50 GiB",
      Allowance: "unlimited",
    });
    await scene.time.later(MINUTE_MS);
    scene.simulator.changeVm(OLD, { traffic: { inBytes: 4 * GIB, uptimeS: 111 } });
    await look(scene);
    expect(await fields(scene)).toMatchObject({ In: "4.00 GiB", Total: "5.50 GiB" });
  });

  it("is shown to its customer without anything of the cluster, and to nobody else", async () => {
    const scene = await open({ inBytes: GIB, outBytes: GIB });
    await look(scene);
    const view = JSON.stringify(await usage(scene, scene.ada));
    expect(view).toContain("2.00 GiB");
    expect(view).not.toMatch(/100000|"sim"|\bn1\b|vmbr|ratatosk/u);
    await expect(scene.ask(scene.bob, "server.usage", { server: "web-1" })).rejects.toMatchObject({
      code: "not_found",
    });
    await expect(
      scene.ask(scene.ada, "server.bandwidth", { server: "web-1", allowance: "0" }),
    ).rejects.toMatchObject({ code: "forbidden" });
  });

  it("goes on through a stop, a start, a rollback and a rebuild, each a new life from nothing", async () => {
    const scene = await open({ inBytes: 5 * GIB, outBytes: 0 });
    await look(scene);
    await scene.order("server.power", { action: "kill" });
    await scene.time.later(MINUTE_MS);
    await look(scene);
    expect(await scene.cloud.traffic?.()).toContainEqual({
      externalId: String(OLD),
      uptimeS: 0,
      inBytes: 0n,
      outBytes: 0n,
    });
    await scene.order("server.power", { action: "start" });
    await lifeOf(scene, OLD, 2);
    await scene.order("snapshot.create", { name: "before" });
    await scene.order("snapshot.rollback", { snapshot: "before" });
    await lifeOf(scene, OLD, 0.25);
    await scene.order("server.rebuild", { image: "debian-12" });
    await lifeOf(scene, NEW, 1);
    expect(await fields(scene)).toMatchObject({ In: "8.25 GiB", Out: "0.00 GiB" });
    const months = await scene.database.sql(`SELECT month FROM traffic_months`);
    expect(months).toHaveLength(1);
  });

  it("of a stranger's VM under our number is not the server's, although it looks just the same", async () => {
    const scene = await open({ inBytes: GIB, outBytes: 0 });
    await look(scene);
    // As of a server without a guest agent.
    await scene.database.sql(`UPDATE servers SET addresses = '{}'`);
    const { config = {} } = scene.vm(OLD) ?? {};
    scene.simulator.removeVm(OLD);
    scene.simulator.addStranger({ vmid: OLD, name: "web-1" });
    const smbios1 = "uuid=11111111-2222-4333-8444-555555555555";
    scene.simulator.changeVm(OLD, {
      config: { ...config, smbios1 },
      traffic: { ...still, inBytes: 700 * GIB, outBytes: 0, uptimeS: 20 },
    });
    await scene.time.later(2 * MINUTE_MS);
    await look(scene);
    expect(await fields(scene)).toMatchObject({ In: "1.00 GiB" });
    await sync(scene);
    expect(await scene.server()).toMatchObject({ state: "missing" });
    await scene.time.later(10 * MINUTE_MS);
    await look(scene);
    expect(await fields(scene)).toMatchObject({ In: "1.00 GiB" });
    expect((await usage(scene, scene.sam)).text).toMatch(
      /nothing could be counted: the cloud had no figures/u,
    );
  });

  it("while the cloud is away is said not to be counted, and is counted when it is back", async () => {
    const scene = await open({ inBytes: GIB, outBytes: 0 });
    await look(scene);
    scene.simulator.addFault({ path: "/cluster/resources", kind: "status", status: 595, times: 0 });
    await scene.time.later(10 * MINUTE_MS);
    expect(await look(scene)).toEqual({ outcome: "failed" });
    const away = await usage(scene, scene.ada);
    expect(away.tone).toBe("warning");
    expect(away.text).toMatch(
      /nothing could be counted: the cloud did not answer\. If the server keeps running/u,
    );
    scene.simulator.clearFaults();
    scene.simulator.changeVm(OLD, { traffic: { inBytes: 9 * GIB, uptimeS: 650 } });
    await look(scene);
    expect(await fields(scene)).toMatchObject({ In: "9.00 GiB" });
    expect((await usage(scene, scene.ada)).text).toBeUndefined();
  });

  it("that was lost because the server restarted while the cloud was away is told with its time", async () => {
    const scene = await open({ inBytes: GIB, outBytes: 0 });
    await look(scene);
    scene.simulator.addFault({ path: "/cluster/resources", kind: "status", status: 595, times: 0 });
    await scene.time.later(30 * MINUTE_MS);
    await look(scene);
    scene.simulator.clearFaults();
    scene.simulator.changeVm(OLD, { traffic: { inBytes: 2 * GIB, uptimeS: 600 } });
    await sync(scene);
    await look(scene);
    expect(await fields(scene)).toMatchObject({ In: "3.00 GiB" });
    expect((await usage(scene, scene.sam)).text).toMatch(
      /^Not counted from \S+ \S+ UTC to \S+ \S+ UTC: the cloud did not answer, and the server was switched off or started anew in that time\.$/u,
    );
  });

  it("has an allowance that staff set, and passing it is an event", async () => {
    const scene = await open({ inBytes: 90 * GIB, outBytes: 0 });
    await scene.ask(scene.sam, "server.bandwidth", { server: "web-1", allowance: "100" });
    expect(await look(scene)).toMatchObject({ told: 2 });
    expect(await fields(scene)).toMatchObject({
      Allowance: "100 GiB a month, in and out together; 90.0 % of it used",
    });
    const types = (await scene.events()).map(({ type }) => type).filter((type) => type.includes("bandwidth"));
    expect(types).toEqual([
      "server.bandwidth.changed",
      "server.bandwidth.threshold",
      "server.bandwidth.threshold",
    ]);
    for (const [allowance, answer] of [
      ["100", "nothing_to_change"],
      ["-1", "invalid_input"],
      ["1.5", "invalid_input"],
    ] as const) {
      await expect(
        scene.ask(scene.sam, "server.bandwidth", { server: "web-1", allowance }),
      ).rejects.toMatchObject({ code: answer });
    }
    await scene.ask(scene.sam, "server.bandwidth", { server: "web-1", allowance: "0" });
    expect(await fields(scene)).toMatchObject({ Allowance: "unlimited" });
    await scene.database.sql(`UPDATE plans SET bandwidth_gib = 500`);
    await scene.database.sql(`UPDATE servers SET plan_code = 's'`);
    await scene.ask(scene.sam, "server.bandwidth", { server: "web-1" });
    expect(await fields(scene)).toMatchObject({
      Allowance: "500 GiB a month, in and out together; 18.0 % of it used",
    });
  });
});

it("PVE's list of counters leaves out templates, what is unknown, and VMs that have only just been started", async () => {
  const { cloud, simulator } = stage.keep(
    await openSimulator({ traps: { offlineNodes: ["n2"] } }, {}, stage.database),
  );
  const [runs, fresh] = [simulator.addStranger(), simulator.addStranger()];
  const off = simulator.addStranger({ running: false });
  simulator.addStranger({ node: "n2" });
  simulator.changeVm(runs.vmid, { traffic: { ...still, inBytes: 7, outBytes: 8, uptimeS: 1000 } });
  const samples = (await cloud.traffic?.()) ?? [];
  expect(samples.filter(({ externalId }) => externalId !== String(fresh.vmid))).toEqual([
    { externalId: String(runs.vmid), uptimeS: expect.closeTo(1000, -1) as number, inBytes: 7n, outBytes: 8n },
    { externalId: String(off.vmid), uptimeS: 0, inBytes: 0n, outBytes: 0n },
  ]);
  expect(
    samples.filter(({ externalId, uptimeS }) => externalId === String(fresh.vmid) && uptimeS < 1),
  ).toEqual([]);
});

/** The server's new life has received so much when it is looked at. */
async function lifeOf(scene: Scene, vmid: number, gib: number): Promise<void> {
  scene.simulator.changeVm(vmid, { traffic: { ...still, inBytes: gib * GIB, outBytes: 0, uptimeS: 2 } });
  await sync(scene);
  await look(scene);
}

/** Fixed addresses of servers that are there: given, taken back, and never to two of them. */
import { describe, expect, it } from "vitest";
import { renderCard } from "../../../src/core/operations/card.ts";
import { runSync } from "../../../src/core/sync/run.ts";
import { useStage } from "../../support/stage.ts";
import { silent } from "../../support/world.ts";
import { surviveDeaths } from "./deaths.ts";
import { openTimedWorld, type TimedWorld } from "./timed-world.ts";
import { BUILD } from "./world.ts";

const WEB = { server: "web-1" };
const IP = { ip: "192.0.2.10/24", gateway: "192.0.2.1" };
const ASSIGN = { ...WEB, ...IP };
const stage = useStage();

/** With web-1 of Ada, which runs. */
async function open(build: Record<string, string> = {}): Promise<TimedWorld> {
  const world = stage.keep(await openTimedWorld({ database: stage.database }));
  await world.order("server.build", { ...BUILD, ...build });
  world.changes();
  return world;
}

async function sync(at: TimedWorld): Promise<void> {
  await at.time.later(1_000);
  await runSync({
    database: stage.database,
    cloud: at.cloud,
    resource: "servers",
    requester: "test",
    log: silent,
  });
}

async function shown(at: TimedWorld): Promise<Record<string, string>> {
  const answer = await at.ask(at.ada, "server.show", WEB);
  if (answer.kind !== "view") throw new Error(JSON.stringify(answer));
  return Object.fromEntries((answer.view.fields ?? []).map(({ label, value }) => [label, value]));
}

describe("an address", () => {
  it("is set at once, is the guest's from its next boot on, and is shown so until then", async () => {
    const at = await open();
    const [dhcp = ""] = (await at.row()).addresses;
    const operation = await at.order("ip.assign", ASSIGN);
    expect(operation).toMatchObject({ state: "succeeded", problem: null });
    expect(at.changes()).toEqual(["PUT V/config", "PUT V/cloudinit"]);
    expect(at.vm().config["ipconfig0"]).toBe("ip=192.0.2.10/24,gw=192.0.2.1");
    expect((await at.lines(operation.id)).at(-1)).toBe(
      "It has the address 192.0.2.10/24 from its next boot on, if the guest's cloud-init takes it then; not before.",
    );
    const { view } = await renderCard(stage.database, operation.id, "customer");
    expect(view.fields).toContainEqual({ label: "Address", value: `${dhcp} → 192.0.2.10/24` });
    await sync(at);
    expect(await shown(at)).toMatchObject({ Addresses: dhcp, "From its next boot on": "192.0.2.10" });
    const [offered] = await at.offersOf(operation.id);
    expect(offered?.action).toBe("server.restart");
    const answer = await at.entrance.press(offered?.token ?? "", at.sam, "console");
    if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
    await at.rest(answer.operationId);
    const fields = await shown(at);
    expect(fields).toMatchObject({ Addresses: "192.0.2.10" });
    expect(fields).not.toHaveProperty("From its next boot on");
    const events = await at.events();
    expect(events.filter(({ type }) => type === "server.ip.assigned").map(({ data }) => data)).toEqual([
      expect.objectContaining({ address: "192.0.2.10/24", gateway: "192.0.2.1" }),
    ]);
  });

  it("of one version keeps that of the other, and each is released by itself or both together", async () => {
    const at = await open();
    const V6 = { ...WEB, ip: "2001:DB8:0::10/64", gateway: "fe80::1" };
    const said: [string, Record<string, string>, string][] = [
      ["ip.assign", V6, "ip=dhcp,ip6=2001:db8::10/64,gw6=fe80::1"],
      ["ip.assign", ASSIGN, "ip=192.0.2.10/24,gw=192.0.2.1,ip6=2001:db8::10/64,gw6=fe80::1"],
      ["ip.assign", { ...WEB, ip: "192.0.2.11/24" }, "ip=192.0.2.11/24,ip6=2001:db8::10/64,gw6=fe80::1"],
      ["ip.release", { ...WEB, version: "4" }, "ip=dhcp,ip6=2001:db8::10/64,gw6=fe80::1"],
      ["ip.release", { ...WEB, version: "6" }, "ip=dhcp"],
      ["ip.assign", ASSIGN, "ip=192.0.2.10/24,gw=192.0.2.1"],
      ["ip.assign", V6, "ip=192.0.2.10/24,gw=192.0.2.1,ip6=2001:db8::10/64,gw6=fe80::1"],
      ["ip.release", WEB, "ip=dhcp"],
    ];
    for (const [command, options, config] of said) {
      expect(await at.order(command, options), config).toMatchObject({ state: "succeeded", problem: null });
      expect(at.vm().config["ipconfig0"]).toBe(config);
    }
    expect(await claims()).toEqual([]);
    const released = (await at.events()).filter(({ type }) => type === "server.ip.released");
    expect(released.map(({ data }) => data["versions"])).toEqual([[4], [6], [4, 6]]);
    // Asked for twice before the guest has it, it is told once.
    for (const _ of [1, 2]) await at.order("ip.assign", ASSIGN);
    const assigned = (await at.events()).filter(({ type }) => type === "server.ip.assigned");
    expect(assigned).toHaveLength(6);
  });

  it("of a server that is off counts from its next start, and nothing is offered", async () => {
    const at = await open();
    await at.order("server.power", { ...WEB, action: "kill" });
    const operation = await at.order("ip.assign", ASSIGN);
    expect((await at.lines(operation.id)).at(-1)).toMatch(
      /from its next start on, if the guest's cloud-init/u,
    );
    expect(await at.offersOf(operation.id)).toEqual([]);
    await at.order("server.power", { ...WEB, action: "start" });
    await sync(at);
    expect((await at.row()).addresses).toEqual(["192.0.2.10"]);
    expect(at.vm().guest.addresses["0"]).toContain("192.0.2.10");
  });

  it("that it has already is told as that, and a release of none as none", async () => {
    const at = await open({ ip: "192.0.2.10/24", gateway: "192.0.2.1" });
    const same = await at.order("ip.assign", ASSIGN);
    expect((await at.lines(same.id)).at(-1)).toBe("It has the address 192.0.2.10/24 already.");
    await at.order("ip.release", WEB);
    at.changes();
    const none = await at.order("ip.release", WEB);
    expect((await at.lines(none.id)).at(-1)).toBe("It had no fixed address, so nothing was changed.");
    expect(at.changes()).toEqual([]);
    const told = (await at.events()).map(({ type }) => type).filter((type) => type.startsWith("server.ip."));
    expect(told).toEqual(["server.ip.released"]);
  });

  it("without a guest agent is shown as what the guest was started with, until it is started anew", async () => {
    const at = await open({ ip: "192.0.2.10/24", gateway: "192.0.2.1" });
    at.simulator.changeVm(100_000, { config: { agent: null } });
    await at.order("ip.assign", { ...WEB, ip: "192.0.2.11/24" });
    await at.order("ip.assign", { ...WEB, ip: "192.0.2.12/24" });
    await sync(at);
    expect(await shown(at)).toMatchObject({
      Addresses: "192.0.2.10",
      "From its next boot on": "192.0.2.12",
    });
    await at.order("server.restart", WEB);
    await sync(at);
    expect(await shown(at)).toMatchObject({ Addresses: "192.0.2.12" });
    await at.order("ip.release", WEB);
    await sync(at);
    expect(await shown(at)).toMatchObject({ Addresses: "192.0.2.12", "From its next boot on": "DHCP" });
  });

  it("stays through a rebuild, whose guest has it from its first boot", async () => {
    const at = await open();
    await at.order("ip.assign", ASSIGN);
    await at.ask(at.rita, "server.rebuild", { ...WEB, image: "debian-12" }).then(async (answer) => {
      if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
      await at.ask(at.rita, "ops.confirm", { operation: answer.publicId });
      expect(await at.rest(answer.operationId)).toMatchObject({ state: "succeeded" });
    });
    await sync(at);
    expect(at.vm().description).not.toContain("address:");
    expect(await shown(at)).toMatchObject({ Addresses: "192.0.2.10" });
    await expect(at.ask(at.sam, "server.build", { ...BUILD, name: "web-2", ...IP })).rejects.toMatchObject({
      code: "conflict",
    });
  });
});

describe("two servers", () => {
  /** With web-2 of Bob beside web-1. */
  async function openBoth(second: Record<string, string> = {}): Promise<TimedWorld> {
    const at = await open();
    await at.order("server.build", { ...BUILD, name: "web-2", customer: "bob", ...second });
    at.changes();
    return at;
  }
  const OTHER = { server: "web-2" };
  const owned =
    /^192\.0\.2\.10 belongs to web-2 \(srv-[a-z0-9]+\) of Bob\. Choose another address, or release it there/u;

  it("never have one address: whoever has it is named, from the moment it is asked for", async () => {
    const at = await openBoth();
    const begun = await at.begin("ip.assign", { ...OTHER, ...IP });
    for (const [command, options] of [
      ["ip.assign", ASSIGN],
      ["server.build", { ...BUILD, name: "web-3", ...IP }],
    ] as const) {
      await expect(at.ask(at.sam, command, options), command).rejects.toMatchObject({
        code: "conflict",
        message: expect.stringMatching(owned),
        facts: { option: "ip" },
      });
    }
    await at.rest(begun);
    await expect(at.ask(at.sam, "ip.assign", ASSIGN)).rejects.toMatchObject({ code: "conflict" });
    // The guest has it still when it is released, until it has booted.
    await at.order("server.restart", OTHER);
    await sync(at);
    await at.order("ip.release", OTHER);
    await sync(at);
    await expect(at.ask(at.sam, "ip.assign", ASSIGN)).rejects.toMatchObject({
      code: "conflict",
      message: expect.stringMatching(owned),
    });
    await at.order("server.restart", OTHER);
    await sync(at);
    expect(await at.order("ip.assign", ASSIGN)).toMatchObject({ state: "succeeded", problem: null });
    expect(await claims()).toEqual([{ address: "192.0.2.10", server: "web-1", held: true }]);
  });

  it("that are given one at the same moment: one of them gets it, the other is refused", async () => {
    const at = await openBoth();
    const asked = await Promise.allSettled([
      at.ask(at.sam, "ip.assign", ASSIGN),
      at.ask(at.rita, "ip.assign", { ...OTHER, ...IP }),
      at.ask(at.sam, "server.build", { ...BUILD, name: "web-3", ...IP }),
    ]);
    const told = asked.map((one) => (one.status === "fulfilled" ? "entered" : String(one.reason.code)));
    expect(told.toSorted()).toEqual(["conflict", "conflict", "entered"]);
  });

  it("are told apart by PVE itself where our rows do not know: what was set past us is refused", async () => {
    const at = await openBoth();
    at.simulator.changeVm(100_001, { config: { ipconfig0: "ip6=2001:DB8::00:10/64" } });
    const V6 = { ip: "2001:db8::10/64" };
    const refused = {
      state: "failed",
      problem: {
        code: "cloud_invalid",
        message: expect.stringMatching(
          /^Another server has this address in the cloud already, so nothing was changed/u,
        ),
        staffDetail: expect.stringMatching(/^sim: VM 100001 \(web-2\) on n1 has 2001:db8::10/u),
      },
    };
    expect(await at.order("ip.assign", { ...WEB, ...V6 })).toMatchObject(refused);
    expect(await at.order("server.build", { ...BUILD, name: "web-3", ...V6 })).toMatchObject(refused);
    expect(at.changes()).toEqual([]);
    // What was refused holds nothing.
    at.simulator.changeVm(100_001, { config: { ipconfig0: "ip=dhcp" } });
    expect(await at.order("ip.assign", { ...OTHER, ...V6 })).toMatchObject({ state: "succeeded" });
  });

  it("one of which is deleted: its address is free at once", async () => {
    const at = await openBoth(IP);
    await expect(at.ask(at.sam, "ip.assign", ASSIGN)).rejects.toMatchObject({
      message: expect.stringMatching(owned),
    });
    const answer = await at.ask(at.rita, "server.delete", OTHER);
    if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
    await at.ask(at.rita, "ops.confirm", { operation: answer.publicId });
    expect(await at.rest(answer.operationId)).toMatchObject({ state: "succeeded" });
    expect(await at.order("ip.assign", ASSIGN)).toMatchObject({ state: "succeeded", problem: null });
  });

  it("and a build with an address that fails: it holds none", async () => {
    const at = await open();
    const message = "start failed: QEMU exited with code 1";
    at.simulator.addTaskFault({ vmid: 100_001, task: "qmstart", outcome: "fail", message, times: 0 });
    const failed = await at.order("server.build", { ...BUILD, name: "web-2", ...IP });
    expect(failed).toMatchObject({ state: "failed" });
    expect(await at.order("ip.assign", ASSIGN)).toMatchObject({ state: "succeeded", problem: null });
  });
});

/** Which address is whose, by our rows. */
async function claims(): Promise<{ address: string; server: string; held: boolean }[]> {
  return stage.database.sql(
    `SELECT a.address, s.name AS server, a.held_at IS NOT NULL AS held
     FROM address_claims a JOIN servers s ON s.id = a.server_id WHERE s.deleted_at IS NULL ORDER BY a.address`,
  );
}

it("a server without a cloud-init drive or card is refused, and so are a locked one and a stranger's", async () => {
  const at = await open();
  const { ide2 = "", net0 = "" } = at.vm().config;
  at.simulator.changeVm(100_000, { config: { ide2: null } });
  expect(await at.order("ip.assign", ASSIGN)).toMatchObject({
    state: "failed",
    problem: {
      code: "unsupported",
      message: expect.stringMatching(/it has no cloud-init drive\. Set it inside/u),
    },
  });
  at.simulator.changeVm(100_000, { config: { ide2, net0: null } });
  expect(await at.order("ip.release", WEB)).toMatchObject({
    state: "failed",
    problem: {
      code: "unsupported",
      message: expect.stringMatching(/it has no network card\. Set it inside/u),
    },
  });
  at.simulator.changeVm(100_000, { config: { net0 }, lock: "backup" });
  expect(await at.order("ip.assign", ASSIGN)).toMatchObject({
    state: "failed",
    problem: { staffDetail: expect.stringMatching(/qm unlock 100000/u) },
  });
  at.simulator.removeVm(100_000);
  const stranger = at.simulator.addStranger({ vmid: 100_000, name: "web-1", tags: "ratatosk" });
  await stage.database.sql(`UPDATE servers SET state = 'active', missing_since = NULL`);
  expect(await at.order("ip.assign", ASSIGN)).toMatchObject({
    state: "failed",
    problem: { code: "cloud_conflict" },
  });
  expect(at.changes()).toEqual([]);
  expect(at.simulator.state.vms.find(({ vmid }) => vmid === 100_000)).toEqual(stranger);
});

it("addresses are staff's to give, and what is no address is refused before PVE is asked", async () => {
  const at = await open();
  const before = at.simulator.state.requests.length;
  await expect(at.ask(at.ada, "ip.assign", ASSIGN)).rejects.toMatchObject({ code: "forbidden" });
  await expect(at.ask(at.ada, "ip.release", WEB)).rejects.toMatchObject({ code: "forbidden" });
  for (const wrong of [{ ip: "192.0.2.10" }, { ip: "192.0.2.0/24" }, { ...IP, gateway: "198.51.100.1" }]) {
    await expect(at.ask(at.sam, "ip.assign", { ...WEB, ...wrong })).rejects.toMatchObject({
      code: "invalid_input",
    });
  }
  expect(at.simulator.state.requests.length).toBe(before);
});

it("each write of an address lost once: it is set as asked for, and told once", {
  timeout: 60_000,
}, async () => {
  const at = await open();
  const KINDS = [
    ["status", 595],
    ["status", 596],
    ["status_after", 596],
    ["drop_after", 0],
  ] as const;
  for (const [kind, status] of KINDS) {
    for (const [command, options, config] of [
      ["ip.assign", ASSIGN, "ip=192.0.2.10/24,gw=192.0.2.1"],
      ["ip.release", WEB, "ip=dhcp"],
    ] as const) {
      for (const path of ["/config$", "/cloudinit$"]) {
        at.simulator.addFault({ method: "PUT", path, kind, status });
      }
      const told = `${command} ${kind} ${status}`;
      expect(await at.order(command, options), told).toMatchObject({ state: "succeeded", problem: null });
      expect(at.vm().config["ipconfig0"], told).toBe(config);
    }
  }
  const told = (await at.events()).map(({ type }) => type).filter((type) => type.startsWith("server.ip."));
  expect(told).toEqual(KINDS.flatMap(() => ["server.ip.assigned", "server.ip.released"]));
  const struck = at.simulator.state.requests.filter((request) => request.fault !== undefined);
  expect(struck).toHaveLength(16);
});

it("a cloud-init drive that cannot be made anew: the address is stored, and counts from a stop and start", async () => {
  const at = await open();
  const body = { data: null, message: "unable to generate the image\n" };
  at.simulator.addFault({ method: "PUT", path: "/cloudinit$", kind: "status", status: 500, body });
  const operation = await at.order("ip.assign", ASSIGN);
  expect(operation).toMatchObject({ state: "succeeded", problem: null });
  expect((await at.lines(operation.id)).at(-1)).toMatch(/from its next stop and start on, if the guest/u);
  expect(await at.offersOf(operation.id)).toMatchObject([{ action: "server.restart" }]);
});

it("a worker that dies at each moment of an address: it is as asked for, and held by its server alone", {
  timeout: 120_000,
}, async () => {
  const at = await open();
  const { moments } = await surviveDeaths(at, {
    begin: (nth) => at.begin("ip.assign", { ...WEB, ip: `192.0.2.${nth + 10}/24` }),
    async after(nth) {
      const address = `192.0.2.${nth + 10}`;
      expect(at.vm().config["ipconfig0"]).toBe(`ip=${address}/24`);
      expect(await claims()).toEqual([{ address, server: "web-1", held: true }]);
    },
  });
  expect(moments).toBeGreaterThan(5);
});

/** Whoever is root in a guest decides what its agent answers: none of it may cost another server, or tell of this one. */
import { describe, expect, it } from "vitest";
import { createWorker } from "../../../src/core/operations/worker.ts";
import { runSync } from "../../../src/core/sync/run.ts";
import { useStage } from "../../support/stage.ts";
import { silent } from "../../support/world.ts";
import { recordingLog } from "../recording-log.ts";
import { createScene, NEW, UBUNTU } from "./rebuild-scene.ts";
import { openTimedWorld, type TimedWorld } from "./timed-world.ts";
import { BUILD, type PveWorldOptions } from "./world.ts";

const WEB = { server: "web-1" };
const VMID = 100_000;
const stage = useStage();

/** With web-1 of Ada, which runs as VM 100000. */
async function open(options: Omit<PveWorldOptions, "database"> = {}): Promise<TimedWorld> {
  const world = stage.keep(await openTimedWorld({ database: stage.database, ...options }));
  await world.order("server.build", BUILD);
  return world;
}

interface Said {
  status: number;
  body: unknown;
}

function refusal(message: string): Said {
  return { status: 500, body: { data: null, message } };
}

function told(result: unknown): Said {
  return { status: 200, body: { data: { result } } };
}

/** On the VM's own card. */
function addresses(mac: string, said: unknown): Said {
  return told([{ name: "eth0", "hardware-address": mac, "ip-addresses": said }]);
}

const by = (address: unknown) => ({ "ip-address": address, "ip-address-type": "ipv4", prefix: 24 });

/** None of them is what an agent answers. */
const NONSENSE: Readonly<Record<string, Said>> = {
  disabled: refusal(
    "Agent error: The command guest-network-get-interfaces has been disabled for this instance\n",
  ),
  gone: refusal(`Agent error: VM ${VMID} does not exist\n`),
  stopped: refusal(`Agent error: VM ${VMID} is not running\n`),
  locked: refusal("Agent error: VM is locked (backup)\n"),
  full: refusal("Agent error: No space left on device\n"),
  // PVE itself quotes what it cannot read.
  quoted: refusal(
    `VM ${VMID} qga command 'guest-network-get-interfaces' failed - malformed JSON string, at character offset 0 (before "VM ${VMID} does not exist")\n`,
  ),
  "another shape": addresses("", "no"),
  "cards of another shape": told([null, 7]),
  "no list": told("no"),
  nothing: { status: 200, body: { data: null } },
  "no JSON": { status: 200, body: "no" },
  late: { status: 596, body: "" },
  "a gateway": { status: 502, body: "<html>" },
};

function macOf({ made }: TimedWorld, vmid = VMID): string {
  const net0 = made().find((vm) => vm.vmid === vmid)?.config["net0"] ?? "";
  return /=((?:[0-9A-F]{2}:){5}[0-9A-F]{2})/u.exec(net0)?.[1] ?? "none";
}

function says(
  { simulator }: Pick<TimedWorld, "simulator">,
  { status, body }: Said,
  { call = "network-get-interfaces", times = 0, vmid = VMID } = {},
): void {
  simulator.addFault({ path: `/qemu/${vmid}/agent/${call}$`, kind: "status", status, body, times });
}

/** As if its guest had been up for so long. */
function upFor({ simulator }: Pick<TimedWorld, "simulator">, seconds: number, vmid = VMID): void {
  simulator.changeVm(vmid, { traffic: { uptimeS: seconds } });
}

function sync({ cloud, database }: TimedWorld) {
  return runSync({ database, cloud, resource: "servers", requester: "system", log: silent });
}

async function rowOf(name: string) {
  const [row] = await stage.database.sql<{ state: string; addresses: string[]; protected: boolean }>(
    `SELECT state, addresses, delete_protected AS protected FROM servers WHERE name = $1`,
    [name],
  );
  return row;
}

describe("one guest's agent", () => {
  it("stops no synchronisation, whatever it answers: the others' rows follow, its own says that it runs", async () => {
    const at = await open();
    await at.order("server.build", { ...BUILD, name: "web-2", customer: "bob" });
    let isProtected = false;
    for (const [what, said] of Object.entries(NONSENSE)) {
      says(at, said);
      isProtected = !isProtected;
      at.simulator.changeVm(VMID + 1, { config: { protection: isProtected ? "1" : "0" } });
      const report = await sync(at);
      expect(report, what).toMatchObject({ state: "completed", errors: [] });
      expect(await rowOf("web-2"), what).toMatchObject({ protected: isProtected });
      expect(await rowOf("web-1"), what).toMatchObject({ state: "active", addresses: [] });
      at.simulator.clearFaults();
    }
    await sync(at);
    expect((await rowOf("web-1"))?.addresses).toEqual([expect.stringMatching(/^10\./u)]);
  });

  it("makes no start fail and no row say that the server is missing, whatever it answers", async () => {
    const at = await open();
    for (const [what, said] of Object.entries(NONSENSE)) {
      await at.order("server.power", { ...WEB, action: "kill" });
      says(at, said);
      const operation = await at.order("server.power", { ...WEB, action: "start" });
      expect(operation, what).toMatchObject({ state: "succeeded", problem: null });
      expect(await rowOf("web-1"), what).toMatchObject({ state: "active" });
      at.simulator.clearFaults();
    }
  });

  it("proves nothing by an answer that is none: PVE itself is asked whether the server runs", async () => {
    const at = await open();
    await at.order("server.power", { ...WEB, action: "kill" });
    says(at, refusal("Agent error: guest-network-get-interfaces is not known here\n"));
    // It has gone off again by itself when its agent is asked.
    at.simulator.onRequest({ path: "/agent/network-get-interfaces$" }, () =>
      at.simulator.changeVm(VMID, { running: false }),
    );
    const operationId = await at.begin("server.power", { ...WEB, action: "start" });
    const worker = createWorker(at.engine, { concurrency: 1, now: at.time.now });
    await expect
      .poll(
        async () => {
          await worker.tick();
          await worker.watcher.tick();
          await at.time.later(1_000);
          return JSON.stringify(
            await at.database.sql(`SELECT condition FROM waits WHERE operation_id = $1`, [operationId]),
          );
        },
        { timeout: 10_000, interval: 5 },
      )
      .toMatch(/it is stopped still/u);
    expect(await at.operation(operationId)).toMatchObject({ problem: null, finishedAt: null });
  });

  it("gives a server no address that is none, of another card, or more of them than anybody needs", async () => {
    const at = await open();
    const others = told([
      { name: "docker0", "hardware-address": "02:42:00:00:00:01", "ip-addresses": [by("172.17.0.1")] },
    ]);
    says(at, others);
    await sync(at);
    expect(await rowOf("web-1")).toMatchObject({ addresses: [] });
    at.simulator.clearFaults();

    const unusable = [
      "10.0.0.5\u0000",
      "1".repeat(102_000),
      "10.1",
      "0x7f000001",
      "010.0.0.1",
      "fe80::1%eth0",
      "2001:db8::1%1",
      "127.0.0.1",
      "0.0.0.0",
      "169.254.0.1",
      "224.0.0.1",
      "::1",
      "::ffff:10.0.0.9",
      "10.0.0.5, 10.0.0.6",
    ];
    const many = Array.from({ length: 60 }, (_, index) => `10.1.0.${index}`);
    says(at, addresses(macOf(at), [...unusable, "10.0.0.5", "2001:DB8::0005", "10.0.0.5", ...many].map(by)));
    expect(await sync(at)).toMatchObject({ state: "completed" });
    expect(await rowOf("web-1")).toMatchObject({
      addresses: ["10.0.0.5", "2001:db8::5", ...many.slice(0, 30)],
    });
    await at.order("server.power", { ...WEB, action: "kill" });
    expect(await at.order("server.power", { ...WEB, action: "start" })).toMatchObject({ state: "succeeded" });
    expect((await rowOf("web-1"))?.addresses).toHaveLength(32);
  });

  it("that never answers is not waited for as long as PVE itself is", async () => {
    const at = await open({ client: { timeoutMs: 2_000 } });
    at.simulator.addFault({ path: `/qemu/${VMID}/agent/`, kind: "hang" });
    expect(await sync(at)).toMatchObject({ state: "completed" });
    expect(await rowOf("web-1")).toMatchObject({ state: "active", addresses: [] });
  });

  it("is told of in the log once, not each time that it is asked", async () => {
    const { log, logged } = recordingLog();
    const at = await open({ runtime: { log } });
    says(at, NONSENSE["gone"] ?? refusal(""));
    for (let time = 0; time < 3; time += 1) await sync(at);
    const lines = logged()
      .split("\n")
      .filter((line) => line.includes("what a guest's agent answers is not used"));
    expect(lines.filter((line) => line.includes('"level":40'))).toHaveLength(1);
    expect(lines.filter((line) => line.includes('"level":20'))).toHaveLength(2);
  });
});

describe("a server whose agent answers nonsense", () => {
  it("is built all the same, without an address", async () => {
    for (const what of ["disabled", "gone", "another shape", "late"]) {
      const at = stage.keep(await openTimedWorld({ database: stage.database }));
      says(at, NONSENSE[what] ?? refusal(""));
      at.simulator.onRequest({ path: "/agent/network-get-interfaces$" }, () => upFor(at, 400));
      const operation = await at.order("server.build", BUILD);
      expect(operation, what).toMatchObject({ state: "succeeded", problem: null });
      expect(await rowOf("web-1"), what).toMatchObject({ state: "active", addresses: [] });
      await stage.clear();
    }
  });

  it("is rebuilt all the same, and the new system stays", async () => {
    const at = stage.keep(await createScene({ database: stage.database }));
    says(at, NONSENSE["gone"] ?? refusal(""), { vmid: NEW });
    at.simulator.onRequest({ path: `/qemu/${NEW}/agent/network-get-interfaces$` }, () => upFor(at, 400, NEW));
    expect(await at.order("server.rebuild", UBUNTU)).toMatchObject({ state: "succeeded", problem: null });
    expect(at.made().map((vm) => vm.vmid)).toEqual([NEW]);
  });

  it("gets a password for its next boot when it does not say which system it is", async () => {
    const at = await open();
    for (const said of [told({ id: { not: "text" } }), ...Object.values(NONSENSE)]) {
      says(at, said, { call: "get-osinfo" });
      upFor(at, 400);
      const operation = await at.order("server.password", WEB);
      expect(operation, JSON.stringify(said)).toMatchObject({
        state: "succeeded",
        output: { passwordActive: "after_next_boot" },
      });
      at.simulator.clearFaults();
    }
  });

  it("is waited for while it is young, also when it answers a ping and nothing else", async () => {
    const at = await open();
    says(at, NONSENSE["disabled"] ?? refusal(""), { call: "get-osinfo", times: 12 });
    const operation = await at.order("server.password", WEB);
    expect(operation).toMatchObject({ state: "succeeded", output: { passwordActive: "now" } });
    const asked = at.simulator.state.requests.filter(({ path }) => path.includes("/agent/get-osinfo"));
    expect(asked.length).toBeGreaterThan(12);
  });

  it("and has its words in a task's warnings is started all the same: they can be stored", async () => {
    const at = await open();
    await at.order("server.power", { ...WEB, action: "kill" });
    const message = `WARN: it says \u0000\ud800${"x".repeat(5_000)}`;
    at.simulator.addTaskFault({ task: "qmstart", outcome: "warn", message });
    const operation = await at.order("server.power", { ...WEB, action: "start" });
    expect(operation).toMatchObject({ state: "succeeded", problem: null });
    const lines = (await at.lines(operation.id)).join("\n");
    expect(lines).toMatch(/WARN: it says \uFFFD\uFFFDx/u);
    expect(lines.length).toBeLessThan(1_000);
  });

  it("is not told to be missing when it refuses a password, and its words can be stored", async () => {
    const at = await open();
    says(at, refusal(`Agent error: VM ${VMID} does not exist \u0000\ud800\n`), { call: "set-user-password" });
    const operation = await at.order("server.password", WEB);
    expect(operation).toMatchObject({
      state: "failed",
      problem: {
        code: "cloud_failed",
        message: expect.stringMatching(/guest refused this/u),
        staffDetail: expect.stringMatching(/does not exist \uFFFD\uFFFD/u),
      },
    });
    expect(await rowOf("web-1")).toMatchObject({ state: "active" });
  });
});

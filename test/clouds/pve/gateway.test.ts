/**
 * The gateway before PVE's daemon loses answers: every write that our actions make is put under fire, and the life of a
 * server goes as it goes without. A write that a step makes newly is found by itself; a step that no life comes to fails here.
 */

// What is expected depends on the order and on how it ended.
// oxlint-disable vitest/no-conditional-expect
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import type { Engine } from "../../../src/core/operations/engine.ts";
import type { OperationRow } from "../../../src/core/operations/rows.ts";
import type { Database } from "../../../src/database/client.ts";
import type { Fault, PveSimulatorOptions } from "../../../src/sandbox/pve/index.ts";
import { clean, testDatabase } from "../../support/database.ts";
import { isThorough } from "../../support/thorough.ts";
import { createTime, finish, type Time } from "./time.ts";
import { BUILD, createPveWorld, type PveWorld, type PveWorldOptions } from "./world.ts";

const KEY = `ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI${"B".repeat(42)}A ada@example.com`;

type Order = readonly [command: string, options: Record<string, string>, failing?: { vmid: number }];

const power = (action: string): Order => ["server.power", { server: "web-1", action }];

/** Each life has a world of its own. */
const LIVES: Record<string, readonly Order[]> = {
  "built, sized and switched": [
    ["server.build", BUILD],
    ["server.resize", { server: "web-1", cpu: "4", memory: "4G", disk: "20G" }],
    ["server.resize", { server: "web-1", cpu: "2", memory: "4G", disk: "20G", restart: "later" }],
    ["server.restart", { server: "web-1" }],
    ...["reboot", "reset", "suspend", "resume", "shutdown", "start", "stop", "start", "kill", "reset"].map(
      power,
    ),
    ["server.delete", { server: "web-1", now: "yes" }],
  ],
  "keyed, protected and deleted with its backups": [
    ["server.build", { ...BUILD, start: "no" }],
    ["server.password", { server: "web-1" }],
    ["server.keys", { server: "web-1", keys: KEY }],
    power("start"),
    ["server.password", { server: "web-1" }],
    ["server.protect", { server: "web-1" }],
    ["server.protect", { server: "web-1", on: "no" }],
    ["iso.mount", { server: "web-1", iso: "help-disk", boot: "yes" }],
    ["server.restart", { server: "web-1" }],
    ["iso.unmount", { server: "web-1" }],
    ["ip.assign", { server: "web-1", ip: "192.0.2.10/24", gateway: "192.0.2.1" }],
    ["ip.release", { server: "web-1" }],
    ["server.rescue", { server: "web-1" }],
    ["server.unrescue", { server: "web-1" }],
    ["(backup)", {}],
    ["server.delete", { server: "web-1", now: "yes", purge_backups: "yes" }],
  ],
  "snapshotted and rebuilt": [
    ["server.build", BUILD],
    ["snapshot.create", { server: "web-1", name: "first", memory: "yes" }],
    ["snapshot.create", { server: "web-1", name: "second" }],
    ["snapshot.rollback", { server: "web-1", snapshot: "first" }],
    ["snapshot.delete", { server: "web-1", snapshot: "second" }],
    ["snapshot.delete", { server: "web-1", snapshot: "first" }],
    ["(starts with its node)", {}],
    ["server.rebuild", { server: "web-1", image: "debian-12" }],
    ["server.reinstall", { server: "web-1" }],
  ],
  "that does not start, and is undone": [
    ["server.build", BUILD, { vmid: 100_000 }],
    ["server.build", BUILD],
    ["(starts with its node)", {}],
    ["server.rebuild", { server: "web-1", image: "debian-12" }, { vmid: 100_002 }],
  ],
};

/** What somebody does past us. */
const ASIDES: Readonly<Record<string, (at: PveWorld) => void>> = {
  "(backup)": backUp,
  "(starts with its node)": (at) => {
    for (const { vmid } of at.made()) at.simulator.changeVm(vmid, { config: { onboot: "1" } });
  },
};

/** What may not happen twice. Others are absolute: asked for again, PVE does nothing. */
const ONCE = new Set([
  "qmclone",
  "qmdestroy",
  "qmstart",
  "qmreboot",
  "qmreset",
  "qmsnapshot",
  "qmrollback",
  "qmdelsnapshot",
]);

interface Write {
  method: string;
  path: string;
  times: number;
}

interface Chapter {
  writes: Write[];
  truth: unknown;
}

let database: Database;
let world: PveWorld | undefined;
let time: Time;
const seen = new Set<string>();
const undisturbed = new Map<string, Chapter[]>();

beforeAll(async () => {
  database = await testDatabase();
  for (const name of Object.keys(LIVES)) undisturbed.set(name, await live(name, () => undefined));
}, 120_000);
afterEach(async () => {
  await world?.close();
  world = undefined;
});
afterAll(() => database.close());

async function open(
  engine: Partial<Engine> = {},
  more: Pick<PveWorldOptions, "cloud" | "client" | "simulator"> = {},
): Promise<PveWorld> {
  await clean(database);
  time = await createTime(database);
  world = await createPveWorld({
    database,
    engine,
    runtime: { now: time.now },
    ...more,
    client: {
      rescueIso: "local:iso/rescue.iso",
      isos: { "help-disk": "local:iso/rescue.iso" },
      ...more.client,
    },
  });
  return world;
}

async function run(at: PveWorld, [command, options]: Order): Promise<OperationRow> {
  const answer = await at.ask(at.rita, command, { ...options });
  if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
  // What is in doubt is looked for until its call can no longer arrive; some looks less change nothing.
  const how = { ...answer, leastMoveMs: 45_000 };
  const first = await finish(at, time, how);
  if (first.state !== "awaiting_confirmation") return first;
  await at.ask(at.rita, "ops.confirm", { operation: answer.publicId });
  return finish(at, time, how);
}

/** Calls that change something in PVE: not a look at the guest agent, which is a POST. */
function writesSince(at: PveWorld, from: number): Write[] {
  const writes = new Map<string, Write>();
  for (const { method, template } of at.simulator.state.requests.slice(from)) {
    if (method === "GET" || template === undefined || template.endsWith("/agent/ping")) continue;
    const path = `^/api2/json${template.replaceAll(/\{\w+\}/gu, "[^/?]+")}(\\?|$)`;
    const write = writes.get(`${method} ${path}`) ?? { method, path, times: 0 };
    write.times += 1;
    writes.set(`${method} ${path}`, write);
  }
  return [...writes.values()];
}

/** The cluster and our rows, in what a person could tell apart. */
async function truthOf(at: PveWorld): Promise<unknown> {
  const rows = await database.sql(
    `SELECT name, state, external_id, vcpus, memory_mib, disk_gib, image_name, delete_protected, has_agent,
       deleted_at IS NOT NULL AS gone FROM servers ORDER BY name, external_id`,
  );
  const snapshots = await database.sql(`SELECT name FROM snapshots ORDER BY name`);
  const done = at.simulator.state.tasks
    .filter(({ type, exitstatus }) => ONCE.has(type) && /^(?:OK|WARNINGS)/u.test(exitstatus ?? ""))
    .map(({ type }) => type)
    .toSorted();
  const vms = at.made().map(({ vmid, status, lock, config, pending, snapshots: kept, disks, guest }) => ({
    vmid,
    status,
    lock,
    config: Object.fromEntries(
      Object.entries(config).filter(
        ([key]) => !/^(?:smbios1|vmgenid|meta|cipassword|description|digest|net\d+|parent)$/u.test(key),
      ),
    ),
    pending,
    snapshots: kept,
    disks: Object.values(disks).map(({ sizeBytes }) => sizeBytes),
    boots: guest.boots,
    users: Object.keys(guest.passwords),
    sshKeys: guest.sshKeys,
  }));
  const backups = at.simulator.state.volumes.filter(({ content }) => content === "backup").length;
  return { rows, snapshots, done, vms, backups };
}

/** Somebody's nightly job; PVE names it by the second. */
function backUp(at: PveWorld): void {
  const [vm] = at.made();
  if (vm === undefined) throw new Error("no VM");
  at.simulator.addBackup({ vmid: vm.vmid, takenAt: Date.now() + 2_000 });
}

async function live(
  name: string,
  onOrder: (at: PveWorld, nth: number) => void,
  simulator: PveSimulatorOptions = {},
): Promise<Chapter[]> {
  const at = await open({}, { simulator });
  const chapters: Chapter[] = [];
  for (const [nth, order] of (LIVES[name] ?? []).entries()) {
    const aside = ASIDES[order[0]];
    if (aside !== undefined) {
      aside(at);
      chapters.push({ writes: [], truth: null });
      continue;
    }
    const from = at.simulator.state.requests.length;
    onOrder(at, nth);
    const [, , failing] = order;
    const message = "start failed: QEMU exited with code 1";
    if (failing !== undefined)
      at.simulator.addTaskFault({ ...failing, task: "qmstart", outcome: "fail", message, times: 0 });
    const end = await run(at, order);
    const steps = await at.steps(end.id);
    const words = JSON.stringify([order, end.problem, steps.at(-1)]);
    expect(end.state, words).toBe(failing === undefined ? "succeeded" : "failed");
    for (const step of steps) seen.add(step.name);
    expect(at.simulator.state.faults.filter((fault) => "left" in fault && Number(fault.left) > 0)).toEqual(
      [],
    );
    at.simulator.clearFaults();
    chapters.push({ writes: writesSince(at, from), truth: await truthOf(at) });
  }
  await at.close();
  world = undefined;
  return chapters;
}

/** All of them, or the nth alone. */
function livesOf(nth: number): string[] {
  return Object.keys(LIVES).filter((_, index) => isThorough || index === nth);
}

/** After each order of these lives, when each of its writes goes wrong once. */
async function truthsUnder(
  fault: Pick<Fault, "kind" | "status" | "reason">,
  lives = Object.keys(LIVES),
): Promise<unknown> {
  const truths: unknown[] = [];
  for (const name of lives) {
    const expected = undisturbed.get(name) ?? [];
    const chapters = await live(name, (at, nth) => {
      for (const { method, path } of expected[nth]?.writes ?? [])
        at.simulator.addFault({ ...fault, method, path });
    });
    truths.push(...chapters.map(({ truth }, nth) => [name, LIVES[name]?.[nth], truth]));
  }
  return truths;
}

function truthsWithout(lives = Object.keys(LIVES)): unknown {
  const kept = [...undisturbed].filter(([name]) => lives.includes(name));
  return kept.flatMap(([name, chapters]) =>
    chapters.map(({ truth }, nth) => [name, LIVES[name]?.[nth], truth]),
  );
}

describe("every write that our actions make, once", () => {
  it("every step of the PVE cloud is under fire", async () => {
    const at = await open();
    const steps = at.cloud.steps.map((step) => step.name);
    expect(steps.filter((name) => !seen.has(name))).toEqual([]);
    const writes = [...undisturbed.values()].flat().flatMap((chapter) => chapter.writes);
    expect(new Set(writes.map(({ method, path }) => `${method} ${path}`)).size).toBeGreaterThan(15);
  });

  it("double-submit after 596: what was done is not done again", { timeout: 90_000 }, async () => {
    expect(await truthsUnder({ kind: "status_after", status: 596, reason: "Connection timed out" })).toEqual(
      truthsWithout(),
    );
  });

  it("596 of what was not done: it is asked for again, and done once", { timeout: 90_000 }, async () => {
    const lives = livesOf(2);
    const fault = { kind: "status", status: 596, reason: "Connection timed out" } as const;
    expect(await truthsUnder(fault, lives)).toEqual(truthsWithout(lives));
  });

  it("595 of what never reached the daemon: it is asked for again, and done once", {
    timeout: 90_000,
  }, async () => {
    const lives = livesOf(1);
    const fault = { kind: "status", status: 595, reason: "Connection refused" } as const;
    expect(await truthsUnder(fault, lives)).toEqual(truthsWithout(lives));
  });

  it("a connection that is cut after sending: what was done is not done again", {
    timeout: 90_000,
  }, async () => {
    const lives = livesOf(3);
    expect(await truthsUnder({ kind: "drop_after" }, lives)).toEqual(truthsWithout(lives));
  });
});

it("the same lives on PVE 8.4, whose refusals are in the reason phrase alone, end the same", {
  timeout: 90_000,
}, async () => {
  const truths: unknown[] = [];
  const lives = livesOf(0);
  for (const name of lives) {
    const chapters = await live(name, () => undefined, { version: "8.4", traps: { errorStyle: "reason" } });
    truths.push(...chapters.map(({ truth }, nth) => [name, LIVES[name]?.[nth], truth]));
  }
  expect(truths).toEqual(truthsWithout(lives));
});

it("596 of what a frozen daemon does later: it is found when it comes, and not done twice", async () => {
  // The daemon wakes up a second after we gave up; "not there" proves nothing for an hour.
  const at = await open({}, { client: { timeoutMs: 1_500 }, cloud: { settleMs: 3_600_000 } });
  const late = { method: "POST", kind: "delay", delayMs: 2_500 } as const;
  at.simulator.addFault({ ...late, path: "/clone$" });
  at.simulator.addFault({ ...late, path: "/status/reboot$" });
  at.simulator.addFault({ ...late, path: "/snapshot$" });
  for (const [command, options] of [
    ["server.build", BUILD],
    power("reboot"),
    ["snapshot.create", { server: "web-1", name: "first" }],
  ] as const) {
    const answer = await at.ask(at.rita, command, options);
    if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
    // A look now and then, until it comes.
    const end = await finish(at, time, { ...answer, pauseMs: 40 });
    expect(end, command).toMatchObject({ problem: null, state: "succeeded" });
  }
  expect(at.simulator.state.faults.map((fault) => "left" in fault && fault.left)).toEqual([0, 0, 0]);
  expect(await truthOf(at)).toMatchObject({
    done: ["qmclone", "qmreboot", "qmsnapshot", "qmstart"],
    vms: [{ boots: 2, snapshots: ["first"] }],
  });
});

it("counter-proof: without a look after a lost answer the campaign finds a twin", async () => {
  const at = await open({ withoutProbe: true });
  await run(at, ["server.build", BUILD]);
  at.simulator.addFault({ method: "POST", path: "/status/reboot$", kind: "status_after", status: 596 });
  await run(at, power("reboot"));
  expect(await truthOf(at)).toMatchObject({
    done: ["qmclone", "qmreboot", "qmreboot", "qmstart"],
    vms: [{ boots: 3 }],
  });
});

/** https://en.wikipedia.org/wiki/Linear_congruential_generator, the numbers of Numerical Recipes. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

const ENDS = new Set(["succeeded", "failed", "needs_attention"]);

describe("random faults on all calls", () => {
  it("end every order within its time, with no double effect and no false success", {
    timeout: 90_000,
  }, async () => {
    const at = await open();
    const { simulator } = at;
    const random = vi.spyOn(Math, "random").mockImplementation(randomFrom(20_261_121));
    const ends: string[] = [];
    try {
      for (let nth = 0; nth < 8; nth += 1) {
        const server = `web-${nth}`;
        const disturb = () => {
          const always = { times: 0, probability: 0.04 };
          for (const status of [595, 596, 599]) simulator.addFault({ ...always, kind: "status", status });
          for (const method of ["POST", "PUT", "DELETE"]) {
            simulator.addFault({ ...always, method, kind: "status_after", status: 596 });
            simulator.addFault({ ...always, method, kind: "drop_after" });
          }
          simulator.addFault({ ...always, kind: "drop" });
        };
        for (const [command, options] of [
          ["server.build", { ...BUILD, name: server }],
          ["server.power", { server, action: "reboot" }],
          ["server.resize", { server, cpu: "4", memory: "4G", disk: "20G" }],
          ["server.power", { server, action: "kill" }],
          ["server.delete", { server, now: "yes" }],
        ] as const) {
          const before = at.made().find((vm) => vm.name === server);
          const tasks = simulator.state.tasks.length;
          disturb();
          const end = await run(at, [command, options]);
          simulator.clearFaults();
          ends.push(end.state);
          expect(ENDS.has(end.state), `${command}: ${end.state}`).toBe(true);
          // What it asked for may be running still where it gave up.
          await expect
            .poll(() => simulator.state.tasks.every((task) => task.status === "stopped"))
            .toBe(true);
          const done = simulator.state.tasks.slice(tasks).filter(({ exitstatus }) => exitstatus === "OK");
          for (const type of ["qmclone", "qmreboot", "qmdestroy", "qmstart"])
            expect(done.filter((task) => task.type === type).length, `${command}: ${type}`).toBeLessThan(2);
          const after = at.made().filter((vm) => vm.name === server || vm.description.includes(end.id));
          expect(after.length).toBeLessThan(2);
          if (end.state === "succeeded") expectGoal(command, options, { before, after: after[0] });
          if (end.state !== "succeeded") {
            expect(end.problem?.message.length).toBeGreaterThan(10);
            break;
          }
        }
      }
    } finally {
      random.mockRestore();
    }
    // Most of it gets through; what does not is told.
    expect(ends.filter((state) => state === "succeeded").length).toBeGreaterThan(ends.length * 0.7);
  });
});

type Vm = ReturnType<PveWorld["made"]>[number];

function expectGoal(
  command: string,
  options: Record<string, string>,
  { before, after }: { before: Vm | undefined; after: Vm | undefined },
): void {
  const what = JSON.stringify([command, options]);
  if (command === "server.delete") expect(after, what).toBeUndefined();
  else if (options["action"] === "kill") expect(after?.status, what).toBe("stopped");
  else if (options["action"] === "reboot")
    expect(after?.guest.boots, what).toBe((before?.guest.boots ?? 0) + 1);
  else {
    const { memory = "", disk = "" } = options;
    expect(after, what).toMatchObject({ status: "running", pending: {} });
    expect(after?.config["memory"], what).toBe(String(Number.parseInt(memory, 10) * 1024));
    expect(after?.disks["scsi0"]?.sizeBytes, what).toBe(Number.parseInt(disk, 10) * 2 ** 30);
  }
}

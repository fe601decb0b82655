/** Locks: those of seconds are asked past, for a minute at least; those that a dead task has left are told with what to do. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { OperationRow } from "../../../src/core/operations/rows.ts";
import type { Database } from "../../../src/database/client.ts";
import { clean, testDatabase } from "../../support/database.ts";
import { createTime, finish, type Time } from "./time.ts";
import { BUILD, createPveWorld, type PveWorld } from "./world.ts";

let database: Database;
let world: PveWorld | undefined;
let time: Time;

beforeAll(async () => {
  database = await testDatabase();
});
afterEach(async () => {
  await world?.close();
  world = undefined;
});
afterAll(() => database.close());

async function open(): Promise<PveWorld> {
  await clean(database);
  time = await createTime(database);
  world = await createPveWorld({ database, runtime: { now: time.now }, engine: { patienceMs: 2 * 60_000 } });
  return world;
}

async function run(at: PveWorld, command: string, options: Record<string, string>): Promise<OperationRow> {
  const answer = await at.ask(at.rita, command, options);
  if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
  const first = await finish(at, time, answer);
  if (first.state !== "awaiting_confirmation") return first;
  await at.ask(at.rita, "ops.confirm", { operation: answer.publicId });
  return finish(at, time, answer);
}

/** PVE's words for "somebody else holds it just now". */
const TRANSIENT = [
  "can't lock file '/var/lock/qemu-server/lock-100000.conf' - got timeout",
  "cfs-lock 'storage-local' error: got lock request timeout",
  "error with cfs lock 'storage-local': got lock request timeout",
  "got no worker upid - start worker failed",
  "Failed to obtain guest migration lock - replication running?",
];
/** Tries after 2, 6, 14, 30, 60 and 90 s: the one that is let in comes after more than a minute. */
const REFUSALS = 6;

async function slowSteps(operationId: string): Promise<string[]> {
  const rows = await database.sql<{ name: string }>(
    `SELECT name FROM operation_steps WHERE operation_id = $1 AND finished_at - started_at >= interval '60 seconds' ORDER BY seq`,
    [operationId],
  );
  return rows.map(({ name }) => name);
}

/** Each write that our actions make, and its task. */
const LIFE = [
  {
    command: "server.build",
    options: { ...BUILD } as Record<string, string>,
    calls: ["POST /clone$", "PUT /config$", "PUT /resize$", "POST /status/start$"],
    tasks: ["qmclone", "resize", "qmstart"],
  },
  {
    command: "server.resize",
    options: { server: "web-1", cpu: "4", memory: "4G", disk: "20G" },
    calls: ["PUT /config$", "PUT /resize$", "POST /status/reboot$"],
    tasks: ["resize", "qmreboot"],
  },
  ...(
    [
      ["reset", "reset", "qmreset"],
      ["reboot", "reboot", "qmreboot"],
      ["suspend", "suspend", "qmsuspend"],
      ["resume", "resume", "qmresume"],
      ["shutdown", "shutdown", "qmshutdown"],
      ["start", "start", "qmstart"],
      ["stop", "shutdown", "qmshutdown"],
      ["start", "start", "qmstart"],
      ["kill", "stop", "qmstop"],
      ["start", "start", "qmstart"],
    ] as const
  ).map(([action, call, task]) => ({
    command: "server.power",
    options: { server: "web-1", action } as Record<string, string>,
    calls: [`POST /status/${call}$`],
    tasks: [task],
  })),
  {
    command: "server.delete",
    options: { server: "web-1" },
    calls: ["POST /status/stop$", "DELETE /qemu/\\d+\\?"],
    tasks: ["qmstop", "qmdestroy"],
  },
];

describe("locks of seconds", () => {
  it("a transient lock in the answer of any write is asked past for more than a minute", {
    timeout: 60_000,
  }, async () => {
    const at = await open();
    const tried = new Set<string>();
    for (const [nth, { command, options, ...all }] of LIFE.entries()) {
      const calls = all.calls.filter((call) => !tried.has(call));
      for (const call of calls) {
        tried.add(call);
        const [method = "", path = ""] = call.split(" ");
        const message = TRANSIENT[nth % TRANSIENT.length];
        const body = { data: null, message: `${message}\n` };
        at.simulator.addFault({ method, path, kind: "status", status: 500, body, times: REFUSALS });
      }
      const ended = await run(at, command, options);
      expect(ended, `${command} ${JSON.stringify(options)}`).toMatchObject({
        problem: null,
        state: "succeeded",
      });
      expect((await slowSteps(ended.id)).length).toBe(calls.length);
      at.simulator.clearFaults();
    }
    expect(at.made()).toEqual([]);
  });

  it("a transient lock inside the task of any write is asked past for more than a minute", {
    timeout: 60_000,
  }, async () => {
    const at = await open();
    const tried = new Set<string>();
    for (const [nth, { command, options, ...all }] of LIFE.entries()) {
      const tasks = all.tasks.filter((task) => !tried.has(task));
      const message = TRANSIENT[nth % TRANSIENT.length] ?? "";
      for (const task of tasks) {
        tried.add(task);
        at.simulator.addTaskFault({
          task: `^${task}$`,
          outcome: "fail",
          at: "start",
          message,
          times: REFUSALS,
        });
      }
      const ended = await run(at, command, options);
      expect(ended, `${command} ${JSON.stringify(options)}`).toMatchObject({
        problem: null,
        state: "succeeded",
      });
      expect((await slowSteps(ended.id)).length).toBe(tasks.length);
      at.simulator.clearFaults();
    }
    expect(at.made()).toEqual([]);
  });

  it("a lock that never goes ends the operation with one sentence, and the server stays as it was", async () => {
    const at = await open();
    await run(at, "server.build", BUILD);
    const body = { data: null, message: `${TRANSIENT[0]}\n` };
    at.simulator.addFault({ method: "POST", path: "/status/", kind: "status", status: 500, body, times: 0 });
    const ended = await run(at, "server.power", { server: "web-1", action: "stop" });
    expect(ended).toMatchObject({
      state: "failed",
      problem: { code: "cloud_conflict", message: "The cloud is busy with this server for a moment." },
    });
    const rows = await database.sql(`SELECT state FROM servers WHERE name = 'web-1'`);
    expect(rows).toEqual([{ state: "active" }]);
    expect(at.made()).toMatchObject([{ status: "running" }]);
  });
});

/** All that PVE knows, with what an operator has to do after `qm unlock`, and what the server counts as under it. */
const STUCK = [
  ["backup", /last backup is not complete/u],
  ["migrate", /on which node its disks are/u],
  ["rollback", /roll back again/u],
  ["snapshot", /qm delsnapshot 100000 NAME --force/u],
  ["snapshot-delete", /qm delsnapshot 100000 NAME --force/u],
  ["suspending", /memory was not saved/u],
  ["clone", /unfinished: then delete it with qm destroy 100000 --purge/u, "building"],
  ["create", /unfinished: then delete it with qm destroy 100000 --purge/u, "building"],
  ["destroyed", /then end it with qm destroy 100000 --purge/u, "deleting"],
] as const;

describe("locks that a dead task has left", () => {
  it("every lock kind is named with what an operator must do, and nothing is written to the VM", async () => {
    const at = await open();
    await run(at, "server.build", BUILD);
    const writes = () => at.simulator.state.requests.filter(({ method }) => method !== "GET").length;
    for (const [lock, advice, state] of STUCK) {
      at.simulator.changeVm(100_000, { lock });
      const before = writes();
      const ended = await run(at, "server.power", { server: "web-1", action: "kill" });
      const message =
        state === undefined
          ? `^The server is locked in the cloud \\(${lock}\\) by work that was broken off, so nothing was changed. Our operators must unlock it.$`
          : `^The server is ${state} in the cloud, .* Nothing was changed\\.$`;
      const staffDetail = expect.stringMatching(/no task of PVE is at work on it.* run: qm unlock 100000/u);
      expect(ended, lock).toMatchObject({ state: "failed", problem: { staffDetail } });
      expect(ended.problem?.message, lock).toMatch(new RegExp(message, "u"));
      expect(ended.problem?.staffDetail, lock).toMatch(advice);
      expect(writes(), lock).toBe(before);
      at.simulator.changeVm(100_000, { lock: null });
      // As a sync would see it.
      await database.sql(`UPDATE servers SET state = 'active'`);
    }
    expect(await run(at, "server.power", { server: "web-1", action: "kill" })).toMatchObject({
      state: "succeeded",
    });
  });

  it("suspended is no broken lock: what PVE refuses for it is told as that, and it may be deleted", async () => {
    const at = await open();
    await run(at, "server.build", BUILD);
    await run(at, "server.power", { server: "web-1", action: "suspend" });
    expect(at.made()[0]?.lock).toBe("suspended");
    expect(await at.cloud.inspect("100000")).toMatchObject({ state: "suspended", busy: false });
    await expect(run(at, "server.resize", { server: "web-1", memory: "4G" })).rejects.toMatchObject({
      code: "wrong_state",
      message: expect.stringMatching(/is suspended, so it cannot be resized now/u),
    });
    // Somebody suspends it between our look and our call.
    await database.sql(`UPDATE servers SET state = 'active'`);
    at.simulator.addFault({
      method: "PUT",
      path: "/resize$",
      kind: "status",
      status: 500,
      body: { data: null, message: "VM is locked (suspended)\n" },
    });
    at.simulator.changeVm(100_000, { lock: null });
    expect(
      await run(at, "server.resize", { server: "web-1", cpu: "2", memory: "2G", disk: "20G" }),
    ).toMatchObject({
      state: "failed",
      problem: {
        code: "cloud_conflict",
        message: "The server is suspended with its memory saved, so nothing was changed. Resume it first.",
      },
    });
    at.simulator.changeVm(100_000, { lock: "suspended" });
    expect(await run(at, "server.delete", { server: "web-1" })).toMatchObject({ state: "succeeded" });
    expect(at.made()).toEqual([]);
  });

  it("what is left of a broken-off deletion is told as that, with how to end it", async () => {
    const at = await open();
    await run(at, "server.build", BUILD);
    // PVE has emptied the configuration to the lock, and its worker was killed.
    const config = at.made()[0]?.config ?? {};
    const emptied = Object.fromEntries(Object.keys(config).map((key) => [key, null]));
    at.simulator.changeVm(100_000, { config: emptied, lock: "destroyed" });
    const ended = await run(at, "server.delete", { server: "web-1" });
    expect(ended).toMatchObject({
      state: "failed",
      problem: {
        message: expect.stringMatching(/locked in the cloud \(destroyed\) by work that was broken off/u),
        staffDetail: expect.stringMatching(/then end it with qm destroy 100000 --purge/u),
      },
    });
  });
});

/** Bad input and bad luck: refused or ended with one clear sentence, and our row has what PVE has afterwards. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { OperationRow } from "../../../src/core/operations/rows.ts";
import { runSync } from "../../../src/core/sync/run.ts";
import type { Database } from "../../../src/database/client.ts";
import { clean, testDatabase } from "../../support/database.ts";
import { silent } from "../../support/world.ts";
import { createTime, finish, type Time } from "./time.ts";
import { BUILD, createPveWorld, type PveWorld, type PveWorldOptions } from "./world.ts";

const GIB = 2 ** 30;
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

async function open(options: Omit<PveWorldOptions, "database"> = {}): Promise<PveWorld> {
  await clean(database);
  time = await createTime(database);
  world = await createPveWorld({ database, runtime: { now: time.now }, ...options });
  return world;
}

async function openWithServer(options: Omit<PveWorldOptions, "database"> = {}): Promise<PveWorld> {
  const at = await open(options);
  expect(await run(at, "server.build", BUILD)).toMatchObject({ problem: null });
  return at;
}

async function run(at: PveWorld, command: string, options: Record<string, string>): Promise<OperationRow> {
  const answer = await at.ask(at.rita, command, options);
  if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
  const first = await finish(at, time, answer);
  if (first.state !== "awaiting_confirmation") return first;
  await at.ask(at.rita, "ops.confirm", { operation: answer.publicId });
  return finish(at, time, answer);
}

async function row() {
  const rows = await database.sql<Record<string, unknown>>(
    `SELECT state, vcpus, memory_mib AS "memoryMib", disk_gib AS "diskGib", addresses FROM servers WHERE name = 'web-1'`,
  );
  return rows[0];
}

/** One sentence or two, in our words: nothing of PVE's. */
const SENTENCE = /^[A-Z"'`a-z][^\n]{10,260}[.?]$/u;

function expectSentence(message: string | undefined): void {
  expect(message).toMatch(SENTENCE);
  expect(message).not.toMatch(/UPID|qemu|\/nodes|100000|\bn1\b|stack|undefined/u);
}

describe("refused at the entrance, before PVE is asked", () => {
  it("sizes with wrong units are refused with one sentence that names the option", async () => {
    const at = await openWithServer();
    const before = at.simulator.state.requests.length;
    for (const [option, value] of [
      ["memory", "2X"],
      ["memory", "2 GBB"],
      ["memory", "-2G"],
      ["memory", "two"],
      ["memory", "0G"],
      ["disk", "10 parsecs"],
      ["disk", "1e99G"],
      ["disk", "+10G"],
      ["disk", ""],
      ["cpu", "2G"],
      ["cpu", "1.5"],
      ["cpu", "0"],
    ] as const) {
      const asked = at.ask(at.sam, "server.build", { ...BUILD, name: "web-2", [option]: value });
      const error = await asked.then(
        () => null,
        (reason: unknown) => reason as Error & { code: string },
      );
      expect(error, `${option}:${value}`).toMatchObject({ code: "invalid_input" });
      expectSentence(error?.message);
      expect(error?.message.toLowerCase(), `${option}:${value}`).toContain(option);
    }
    expect(at.simulator.state.requests.length).toBe(before);
  });

  it("names that are not DNS names are refused with one sentence", async () => {
    const at = await open();
    for (const name of [
      "web_1",
      "-web",
      "web-",
      "web 1",
      "wéb",
      "web..1",
      "w".repeat(64),
      "web;reboot",
      "1.2.3.4.",
    ]) {
      const asked = at.ask(at.sam, "server.build", { ...BUILD, name });
      const error = await asked.then(
        () => null,
        (reason: unknown) => reason as Error & { code: string },
      );
      expect(error, name).toMatchObject({ code: "invalid_input" });
      expectSentence(error?.message);
    }
    expect(at.simulator.state.requests.some(({ method }) => method !== "GET")).toBe(false);
  });

  it("bad keys are refused with one sentence, and no part of a private key is repeated", async () => {
    const at = await openWithServer();
    const before = at.simulator.state.requests.length;
    for (const keys of [
      "not a key",
      "ssh-rsa",
      "ssh-ed25519 AAAA",
      "-----BEGIN OPENSSH PRIVATE KEY----- b3BlbnNzaC1rZXktdjEAAAAA -----END OPENSSH PRIVATE KEY-----",
      "ssh-ed25519 !!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
    ]) {
      const asked = at.ask(at.sam, "server.keys", { server: "web-1", keys });
      const error = await asked.then(
        () => null,
        (reason: unknown) => reason as Error & { code: string },
      );
      expect(error, keys).toMatchObject({ code: "invalid_input" });
      expect(error?.message).toMatch(/key/iu);
      expect(error?.message).not.toContain("b3BlbnNzaC1rZXktdjE");
    }
    expect(at.simulator.state.requests.length).toBe(before);
  });
});

describe("what PVE has by now is not what we knew", () => {
  it("missing VMID: one sentence, nothing is made or changed, and the row says that it is missing", async () => {
    const at = await openWithServer();
    at.simulator.removeVm(100_000);
    const writes = at.simulator.state.requests.filter(({ method }) => method !== "GET").length;
    const ended = await run(at, "server.power", { server: "web-1", action: "reboot" });
    expect(ended).toMatchObject({
      state: "failed",
      problem: { message: "The cloud no longer has this server. Nothing was changed." },
    });
    expect(at.simulator.state.requests.filter(({ method }) => method !== "GET").length).toBe(writes);
    expect(await row()).toMatchObject({ state: "missing" });
  });

  it("foreign VMID: not touched, one sentence, and nothing of the stranger's reaches the row", async () => {
    const at = await openWithServer();
    const before = await row();
    at.simulator.removeVm(100_000);
    const stranger = at.simulator.addStranger({ vmid: 100_000, name: "theirs", running: true });
    at.simulator.changeVm(100_000, { config: { ipconfig0: "ip=203.0.113.7/24", cores: "8" } });
    const theirs = at.simulator.state.vms.find(({ vmid }) => vmid === 100_000);
    for (const [command, options] of [
      ["server.power", { server: "web-1", action: "reboot" }],
      ["server.password", { server: "web-1" }],
    ] as const) {
      await database.sql(`UPDATE servers SET state = 'active', missing_since = NULL WHERE name = 'web-1'`);
      const ended = await run(at, command, options);
      expect(ended, command).toMatchObject({ state: "failed", problem: { code: "cloud_conflict" } });
      expectSentence(ended.problem?.message);
      expect(ended.problem?.message).toMatch(/not provably this server, so it was not touched/u);
      expect(await row()).toEqual({ ...before, state: "missing" });
    }
    // Nor does a synchronisation believe it.
    await database.sql(`UPDATE servers SET state = 'active', missing_since = NULL WHERE name = 'web-1'`);
    await time.later(60_000);
    await runSync({ database, cloud: at.cloud, resource: "servers", requester: "test", log: silent });
    expect(await row()).toEqual({ ...before, state: "missing" });
    expect(at.simulator.state.vms.find(({ vmid }) => vmid === 100_000)).toEqual(theirs);
    expect(stranger.vmid).toBe(100_000);
    const kept = await database.sql(`SELECT output::text || plan::text AS text FROM operations`);
    const told = await database.sql(`SELECT data::text || staff_data::text AS text FROM events`);
    const said = JSON.stringify([kept, told]);
    expect(said).not.toContain("203.0.113.7");
  });

  it("locked VM: one sentence, and the row has the power state that PVE has", async () => {
    const at = await openWithServer();
    // A backup begins between our look and our call, and the guest has shut itself down by the end.
    const body = { data: null, message: "VM is locked (backup)\n" };
    const reset = { method: "POST", path: "/status/reset$" };
    at.simulator.addFault({ ...reset, kind: "status", status: 500, body });
    at.simulator.onRequest(reset, () => void at.simulator.changeVm(100_000, { running: false }));
    const ended = await run(at, "server.power", { server: "web-1", action: "reset" });
    expect(ended).toMatchObject({ state: "failed", problem: { code: "cloud_conflict" } });
    expectSentence(ended.problem?.message);
    expect(await row()).toMatchObject({ state: "stopped" });
  });

  it("protected VM: neither switched off nor deleted, and the row learns of the protection", async () => {
    const at = await openWithServer();
    at.simulator.changeVm(100_000, { config: { protection: "1" } });
    const ended = await run(at, "server.delete", { server: "web-1", now: "yes" });
    expect(ended).toMatchObject({ state: "failed" });
    expectSentence(ended.problem?.message);
    expect(ended.problem?.message).toMatch(/protected against deletion/u);
    const rows = await database.sql(`SELECT state, delete_protected AS "isProtected" FROM servers`);
    expect(rows).toEqual([{ state: "active", isProtected: true }]);
    expect(at.made()).toMatchObject([{ status: "running" }]);
  });
});

describe("work that PVE begins and does not end well", () => {
  it("storage full in the middle of a growing disk: one sentence, and the row has the old size", async () => {
    const at = await openWithServer();
    const message = "unable to resize: qemu-img: No space left on device";
    at.simulator.addTaskFault({ task: "^resize$", outcome: "fail", message });
    const ended = await run(at, "server.resize", { server: "web-1", cpu: "2", memory: "2G", disk: "40G" });
    expect(ended).toMatchObject({ state: "failed", problem: { code: "capacity" } });
    expectSentence(ended.problem?.message);
    expect(ended.problem?.staffDetail).toContain("No space left");
    const grown = at.made()[0]?.disks["scsi0"]?.sizeBytes ?? 0;
    expect(await row()).toMatchObject({ state: "active", diskGib: grown / GIB });
  });

  it("node offline: asked for as long as patience lasts, one sentence, and no state is invented", async () => {
    const at = await openWithServer();
    const node = at.made()[0]?.node ?? "";
    at.simulator.state.traps = { offlineNodes: [node] };
    const ended = await run(at, "server.power", { server: "web-1", action: "reboot" });
    expect(ended).toMatchObject({
      state: "failed",
      problem: { code: "unreachable", staffDetail: expect.stringMatching(/is offline|No route to host/u) },
    });
    expectSentence(ended.problem?.message);
    expect(await row()).toMatchObject({ state: "active" });
    at.simulator.state.traps = {};
    expect(await run(at, "server.power", { server: "web-1", action: "reboot" })).toMatchObject({
      problem: null,
    });
  });

  it("task killed: told as killed, and the row has the state in which it left the server", async () => {
    const at = await openWithServer();
    await run(at, "server.power", { server: "web-1", action: "kill" });
    expect(await row()).toMatchObject({ state: "stopped" });
    at.simulator.addTaskFault({ task: "^qmstart$", outcome: "kill", at: "start" });
    const ended = await run(at, "server.power", { server: "web-1", action: "start" });
    expect(ended).toMatchObject({
      state: "failed",
      problem: {
        code: "cloud_failed",
        message: expect.stringMatching(/killed in the cloud before it was finished/u),
      },
    });
    expectSentence(ended.problem?.message);
    expect(at.made()).toMatchObject([{ status: "stopped" }]);
    expect(await row()).toMatchObject({ state: "stopped" });
  });

  it("a server that somebody switched off while our order failed is shown as off", async () => {
    const at = await openWithServer();
    const message = "unable to resize: something else";
    at.simulator.addTaskFault({ task: "^resize$", outcome: "fail", message });
    // In the middle of it somebody pulls the plug.
    at.simulator.onTask("resize", () => void at.simulator.changeVm(100_000, { running: false }));
    const answer = await at.ask(at.sam, "server.resize", {
      server: "web-1",
      disk: "40G",
      cpu: "2",
      memory: "2G",
    });
    if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
    expect(await finish(at, time, answer)).toMatchObject({ state: "failed" });
    expect(at.made()).toMatchObject([{ status: "stopped" }]);
    expect(await row()).toMatchObject({ state: "stopped", diskGib: 10 });
  });
});

/** Who we are to PVE, when it does not believe us: no slow polls, no twin logins, and work that goes on by itself. */
import { randomUUID } from "node:crypto";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { createHttpClient } from "../../../src/clouds/http.ts";
import { createClient } from "../../../src/clouds/pve/client.ts";
import { createPveCloud } from "../../../src/clouds/pve/cloud.ts";
import type { PveCredential } from "../../../src/clouds/pve/options.ts";
import type { Cloud } from "../../../src/core/cloud.ts";
import { ServiceError } from "../../../src/core/errors.ts";
import type { Database } from "../../../src/database/client.ts";
import { type PveSimulator, startPveSimulator } from "../../../src/sandbox/pve/index.ts";
import { clean, testDatabase } from "../../support/database.ts";
import { silent } from "../../support/world.ts";
import { optionsOf } from "./open-simulator.ts";
import { createTime, finish, type Time } from "./time.ts";
import { BUILD, createPveWorld, type PveWorld } from "./world.ts";

let simulator: PveSimulator;
const clouds: Cloud[] = [];
let now = 0;

beforeAll(async () => {
  simulator = await startPveSimulator({ speed: 0 });
});
afterEach(async () => {
  simulator.clearFaults();
  await Promise.all(clouds.splice(0).map((cloud) => cloud.close()));
});
afterAll(() => simulator.close());

function connect(credential: PveCredential): Cloud {
  const options = { ...optionsOf(simulator), credential };
  const runtime = { log: silent, now: () => now, sleep: () => Promise.resolve() };
  const cloud = createPveCloud(options, runtime);
  clouds.push(cloud);
  return cloud;
}

function token(): PveCredential {
  const { tokenId, tokenSecret } = simulator;
  return { kind: "token", tokenId, tokenSecret };
}

function root(): PveCredential {
  return { kind: "password", ...simulator.root };
}

/** PVE takes no credential any more. Returns what ends it. */
function revoke(): () => void {
  simulator.addFault({ kind: "status", status: 401, reason: "Authentication failed!", times: 0 });
  return () => simulator.clearFaults();
}

function sent(call = /./u): number {
  return simulator.state.requests.filter(({ method, path }) => call.test(`${method} ${path}`)).length;
}

async function problemOf(work: Promise<unknown>): Promise<ServiceError> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof ServiceError) return error;
  throw new Error("it was expected to fail", { cause: error });
}

const SENTENCE =
  "The cloud does not accept our credential, so nothing was done. The operators must check it in the configuration.";

describe("a credential that PVE refuses", () => {
  it("3 s delay on 401: after one refusal every call fails at once with the same sentence, for 30 s, then 60 s, up to 5 min", async () => {
    const cloud = connect(token());
    revoke();
    const before = sent();
    for (const pauseS of [30, 60, 120, 240, 300, 300]) {
      // The trial, and what is asked in its pause.
      for (const _ of [1, 2, 3]) {
        expect(await problemOf(cloud.listServers())).toMatchObject({
          code: "unauthorized",
          message: SENTENCE,
        });
      }
      now += pauseS * 1000 - 1;
      expect((await problemOf(cloud.listServers())).staffDetail).toMatch(/not asked again for 1 s/u);
      now += 1;
    }
    expect(sent() - before).toBe(6);
  });

  it("one call at a time tries whether it holds again, and its success lets all others through", async () => {
    const cloud = connect(token());
    const restore = revoke();
    await problemOf(cloud.listServers());
    restore();
    now += 30_000;
    const before = sent();
    // As slow as PVE is: the others do not queue behind the trial.
    simulator.addFault({ kind: "delay", delayMs: 50 });
    const both = await Promise.allSettled([cloud.listServers(), cloud.listImages()]);
    expect(both.map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
    expect(both[1]).toMatchObject({
      reason: { code: "unauthorized", message: SENTENCE, staffDetail: expect.stringMatching(/just now/u) },
    });
    expect(sent() - before).toBeGreaterThan(0);
    await Promise.all([cloud.listServers(), cloud.listImages(), cloud.listNetworks()]);
  });

  it("a trial whose answer is lost does not keep the circuit open for ever", async () => {
    const cloud = connect(token());
    const restore = revoke();
    await problemOf(cloud.listServers());
    restore();
    now += 30_000;
    simulator.addFault({ kind: "drop", times: 3 });
    expect((await problemOf(cloud.listServers())).code).toBe("unreachable");
    expect(await cloud.listServers()).toBeInstanceOf(Array);
  });

  it("the connection test always asks PVE itself, and closes the circuit when it is let in", async () => {
    const cloud = connect(token());
    const restore = revoke();
    await problemOf(cloud.listServers());
    const before = sent(/version/u);
    expect((await cloud.check())[0]).toMatchObject({ ok: false, detail: expect.stringContaining("401") });
    expect((await cloud.check())[0]).toMatchObject({ ok: false });
    expect(sent(/version/u) - before).toBe(2);
    restore();
    expect((await problemOf(cloud.listServers())).code).toBe("unauthorized");
    expect((await cloud.check()).every(({ ok }) => ok)).toBe(true);
    await cloud.listServers();
  });

  it("a wrong password is asked for once, and a right one is taken after the pause", async () => {
    const wrong = connect({ kind: "password", username: "root@pam", password: randomUUID() });
    const before = sent(/access\/ticket/u);
    await Promise.all([1, 2, 3, 4].map(() => problemOf(wrong.listServers())));
    for (const _ of [1, 2, 3]) expect((await problemOf(wrong.listServers())).message).toBe(SENTENCE);
    expect(sent(/access\/ticket/u) - before).toBe(1);
    expect(sent(/resources/u)).toBeGreaterThan(0);
  });
});

describe("a ticket", () => {
  it("one renewal serves all callers, at the hour, before its two hours are over", async () => {
    const cloud = connect(root());
    await cloud.listServers();
    const before = sent(/POST .*access\/ticket/u);
    now += 60 * 60_000 - 1;
    await cloud.listServers();
    expect(sent(/POST .*access\/ticket/u) - before).toBe(0);
    now += 1;
    await Promise.all(Array.from({ length: 12 }, () => cloud.listServers()));
    expect(sent(/POST .*access\/ticket/u) - before).toBe(1);
  });

  it("refused as 9.2 does it ('Authentication failed!'): one login serves all callers, and each call is answered", async () => {
    const cloud = connect(root());
    await cloud.listServers();
    const before = sent(/POST .*access\/ticket/u);
    simulator.expireTickets();
    const lists = await Promise.all(Array.from({ length: 8 }, () => cloud.listServers()));
    expect(lists).toHaveLength(8);
    // The old ticket is tried as the password first, which PVE refuses.
    expect(sent(/POST .*access\/ticket/u) - before).toBeLessThanOrEqual(2);
  });

  it("refused for its CSRF token: a new one is taken, and the change is made once", async () => {
    const options = { ...optionsOf(simulator), credential: root() };
    const pinned = { cloud: "sim", fingerprint: simulator.fingerprint, verifyTls: true };
    const http = createHttpClient({ ...pinned, connectTimeoutMs: 5_000, timeoutMs: 5_000, log: silent });
    const client = createClient(options, http, { log: silent, now: () => now });
    const { vmid, node } = simulator.addStranger({ running: false });
    const path = `/nodes/${node}/qemu/${vmid}/status/start`;
    simulator.addFault({
      method: "POST",
      path: "/status/start$",
      kind: "status",
      status: 401,
      reason: "Permission denied - invalid csrf token",
    });
    expect(await client.begin({ method: "POST", path })).toMatchObject({ type: "qmstart" });
    expect(sent(/status\/start/u)).toBe(2);
    expect(
      simulator.state.tasks.filter(({ type, id }) => type === "qmstart" && id === String(vmid)),
    ).toHaveLength(1);
    await client.close();
  });
});

describe("a credential that is revoked in the middle of an order", () => {
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

  async function orderAt(path: string) {
    await clean(database);
    time = await createTime(database);
    world = await createPveWorld({ database, runtime: { now: time.now } });
    const at = world;
    const answer = await at.ask(at.sam, "server.build", BUILD);
    if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
    // That call is not let in, and neither is anything in the circuit's pause.
    at.simulator.addFault({ path, kind: "status", status: 401, reason: "Authentication failed!" });
    return { at, answer };
  }

  it("revoked at any call of a build, and restored: it goes on by itself", async () => {
    for (const path of ["/nextid", "/clone$", "/tasks\\?", "/config$", "/status/start$"]) {
      const { at, answer } = await orderAt(path);
      expect(await finish(at, time, answer), path).toMatchObject({ problem: null, state: "succeeded" });
      expect(
        at.simulator.state.requests.some(({ status }) => status === 401),
        path,
      ).toBe(true);
      expect(at.made()).toMatchObject([{ status: "running", guest: { boots: 1 } }]);
      await at.close();
      world = undefined;
    }
  });

  it("revoked for good before anything was made: it fails with the sentence, and nothing is there", async () => {
    const { at, answer } = await orderAt("/none");
    at.simulator.addFault({ kind: "status", status: 401, reason: "Authentication failed!", times: 0 });
    expect(await finish(at, time, answer)).toMatchObject({
      state: "failed",
      problem: { code: "unauthorized", message: SENTENCE },
    });
    expect(at.made()).toEqual([]);
  });

  it("revoked for good after the copy was begun: nothing is claimed, a person is asked, and a retry finishes it", async () => {
    const { at, answer } = await orderAt("/none");
    // The answer with the copy's task is the last one for a long time.
    at.simulator.onTask("qmclone", () => {
      at.simulator.addFault({ kind: "status", status: 401, reason: "Authentication failed!", times: 0 });
    });
    const end = await finish(at, time, { ...answer, longestMoveMs: 30 * 60_000 });
    expect(end).toMatchObject({ state: "needs_attention", problem: { code: "unknown_outcome" } });
    expect(end.problem?.message).toMatch(/it is unknown whether this was done/u);
    expect(at.made()).toMatchObject([{ status: "stopped" }]);
    at.simulator.clearFaults();
    await time.later(6 * 60_000);
    await at.ask(at.rita, "ops.retry", { operation: answer.publicId });
    expect(await finish(at, time, answer)).toMatchObject({ problem: null, state: "succeeded" });
    expect(at.made()).toMatchObject([{ status: "running", guest: { boots: 1 } }]);
    expect(at.simulator.state.tasks.filter((task) => task.type === "qmclone")).toHaveLength(1);
  });
});

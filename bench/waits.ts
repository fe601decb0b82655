/** Thousands of operations that wait for the cloud: what they cost while nothing happens, and how soon an end is seen. */
import { setTimeout as delay } from "node:timers/promises";
import { createOpenStackCloud } from "../src/clouds/openstack/cloud.ts";
import type { Cloud } from "../src/core/cloud.ts";
import { createWorker } from "../src/core/operations/worker.ts";
import { runSync } from "../src/core/sync/run.ts";
import type { Database } from "../src/database/client.ts";
import { newId } from "../src/database/id.ts";
import { createJobs } from "../src/jobs/jobs.ts";
import type { OpenStackCredentials } from "../src/sandbox/openstack/index.ts";
import { type Child, startChild } from "./child.ts";
import { cpuMeter, figure, heading, median, ms, note, percentile, ratio } from "./report.ts";
import { type Backend, backends, engineOn, furnish, log, sam } from "./stage.ts";
import { insertWaiting } from "./waiting-rows.ts";
import type { Build, Question } from "./waits-simulator.ts";

type Simulator = Child<OpenStackCredentials & { authUrl: string }>;

interface Size {
  few: number;
  many: number;
  /** How long nothing happens while we count. */
  quietSeconds: number;
  /** Nova lists what changed within the watch's overlap (30 s): until it has passed, new servers are still listed. */
  settleSeconds: number;
  endsPerSecond: number;
  endingSeconds: number;
}

const full: Size = {
  few: 100,
  many: 10_000,
  quietSeconds: 30,
  settleSeconds: 45,
  endsPerSecond: 10,
  endingSeconds: 30,
};
const shortened: Size = {
  few: 10,
  many: 200,
  quietSeconds: 4,
  settleSeconds: 1,
  endsPerSecond: 2,
  endingSeconds: 4,
};
/** Longer than any run. */
const neverSeconds = 86_400;
const headStartSeconds = 10;
const concurrency = 16;
const lateAtMostMs = 3_000;
const httpAtMost = 2;

export async function benchWaits({ short }: { short: boolean }): Promise<void> {
  const size = short ? shortened : full;
  for (const backend of backends()) {
    heading(`waits: ${size.many} operations waiting for builds, ${backend.name}`);
    const room = size.many + size.endsPerSecond * size.endingSeconds + 100;
    const simulator: Simulator = await startChild("waits-simulator.ts", { room });
    const opened = await backend.open();
    try {
      await measure({ backend, simulator, database: opened.database }, size);
    } finally {
      await opened.close();
      await simulator.stop();
    }
  }
}

interface Scene {
  backend: Backend;
  simulator: Simulator;
  database: Database;
}

async function measure({ backend, simulator, database }: Scene, size: Size): Promise<void> {
  const cloud = cloudOf(simulator);
  await furnish(database, cloud, { slots: 1, servers: 0 });
  for (const resource of ["flavors", "images", "networks"] as const) {
    await runSync({ database, cloud, resource, requester: "bench", log });
  }
  const jobs = await createJobs({ database, redisUrl: backend.redisUrl, log });
  const { engine, entrance } = engineOn(database, cloud, jobs.wake);
  const answer = await entrance.dispatch({
    action: "server.provision",
    options: { name: "template", customer: "ada", plan: "s", image: "debian-12" },
    principal: sam,
    source: "console",
    idempotencyKey: "bench:template",
    origin: null,
  });
  if (answer.kind !== "operation") throw new Error(`the order was answered ${JSON.stringify(answer)}`);
  const worker = createWorker(engine, { concurrency });

  async function addWaiting(batches: { count: number; inSeconds: number }[]): Promise<Build[]> {
    const builds = await ask<Build[]>(simulator, { kind: "build", batches });
    await insertWaiting(database, answer.kind === "operation" ? answer.operationId : newId(), builds);
    return builds;
  }

  try {
    await addWaiting([{ count: size.few, inSeconds: neverSeconds }]);
    worker.start();
    await delay(3_000);
    const few = await quiet(simulator, size);
    await addWaiting([{ count: size.many - size.few, inSeconds: neverSeconds }]);
    await delay(size.settleSeconds * 1000);
    const many = await quiet(simulator, size);
    for (const [count, { httpPerMinute, cpu }] of [
      [size.few, few],
      [size.many, many],
    ] as const) {
      const embedded =
        backend.redisUrl === undefined && database.mode === "embedded" ? ", database included" : "";
      figure(`${count} waiting, nothing ends: HTTP calls`, `${httpPerMinute.toFixed(0)} a minute`);
      figure(
        `${count} waiting, nothing ends: processor`,
        `${(cpu * 100).toFixed(1)} % of one core${embedded}`,
      );
    }
    ratio(
      `HTTP calls at ${size.many} and at ${size.few} waiting`,
      { ours: many.httpPerMinute, baseline: few.httpPerMinute },
      httpAtMost,
    );
    ratio(`processor at ${size.many} and at ${size.few} waiting`, { ours: many.cpu, baseline: few.cpu });
    await ending(database, size, addWaiting);
  } finally {
    await worker.stop();
    await jobs.close();
    await cloud.close();
  }
}

async function quiet(simulator: Simulator, { quietSeconds }: Size) {
  const before = await requests(simulator);
  const cpu = cpuMeter();
  await delay(quietSeconds * 1000);
  const { share } = cpu();
  const made = (await requests(simulator)) - before;
  return { httpPerMinute: (made * 60) / quietSeconds, cpu: share };
}

/** Some of the many end, one after the other, while the others wait on. */
async function ending(
  database: Database,
  { endsPerSecond, endingSeconds }: Size,
  addWaiting: (batches: { count: number; inSeconds: number }[]) => Promise<Build[]>,
): Promise<void> {
  const batches = Array.from({ length: endingSeconds }, (_, second) => ({
    count: endsPerSecond,
    inSeconds: headStartSeconds + second,
  }));
  const builds = await addWaiting(batches);
  const endsAtMs = new Map(builds.map((build) => [build.serverId, build.endsAtMs]));
  const last = Math.max(...endsAtMs.values());
  const cpu = cpuMeter();
  await delay(last - Date.now() + 2 * lateAtMostMs);
  const rows = await database.sql<{ serverId: string; seenAt: Date | null; doneAt: Date | null }>(
    `SELECT s.reference->>'serverId' AS "serverId", s.finished_at AS "doneAt",
       (SELECT min(w.resolved_at) FROM waits w WHERE w.operation_id = s.operation_id AND w.step_seq = s.seq) AS "seenAt"
     FROM operation_steps s WHERE s.reference->>'serverId' = ANY($1::text[])`,
    [[...endsAtMs.keys()]],
  );
  const late = (pick: (row: (typeof rows)[number]) => Date | null) =>
    rows.flatMap((row) => {
      const at = pick(row);
      return at === null ? [] : [at.getTime() - (endsAtMs.get(row.serverId) ?? 0)];
    });
  const [seen, done] = [late(({ seenAt }) => seenAt), late(({ doneAt }) => doneAt)];
  figure(`${endsPerSecond}/s end: processor`, `${(cpu().share * 100).toFixed(1)} % of one core`);
  if (done.length < builds.length) {
    note(
      `MISSED: ${builds.length - done.length} of ${builds.length} were not through by the end of the measurement.`,
    );
  }
  if (seen.length === 0 || done.length === 0) return;
  figure(`${seen.length} ended: late until seen`, spread(seen));
  const aim = percentile(done, 0.99) < lateAtMostMs ? "reached" : "MISSED";
  figure(`${done.length} ended: late until verified and stored`, `${spread(done)}, aim p99 < 3 s: ${aim}`);
}

function spread(values: readonly number[]): string {
  return `p50 ${ms(median(values))}, p99 ${ms(percentile(values, 0.99))}`;
}

async function requests(simulator: Simulator): Promise<number> {
  return (await ask<{ requests: number }>(simulator, { kind: "requests" })).requests;
}

function ask<Answer>(simulator: Simulator, question: Question): Promise<Answer> {
  return simulator.ask<Answer>(question);
}

function cloudOf({ ready }: Simulator): Cloud {
  const { region, authUrl, applicationCredentialId, applicationCredentialSecret } = ready;
  return createOpenStackCloud(
    { name: "os1", region, auth: { authUrl, applicationCredentialId, applicationCredentialSecret } },
    { log },
  );
}

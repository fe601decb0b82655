/** A thousand operations at a time on a PVE cluster of ten nodes: HTTP calls for each, against a poll of every task. */
import { setTimeout as delay } from "node:timers/promises";
import { createPveCloud } from "../src/clouds/pve/cloud.ts";
import type { Cloud } from "../src/core/cloud.ts";
import { createWorker } from "../src/core/operations/worker.ts";
import type { Entrance } from "../src/core/request.ts";
import { runSync } from "../src/core/sync/run.ts";
import type { Database } from "../src/database/client.ts";
import { newId } from "../src/database/id.ts";
import { createJobs } from "../src/jobs/jobs.ts";
import { type Child, startChild } from "./child.ts";
import { type PveAccess, pollEach, type Write } from "./pve-polling.ts";
import type { BenchVm, Counts, Question } from "./pve-simulator.ts";
import { figure, heading, note, ratio } from "./report.ts";
import { type Backend, backends, engineOn, furnish, log } from "./stage.ts";

type Simulator = Child<PveAccess>;

interface Size {
  /** As many of each kind. */
  each: number;
  taskMs: [least: number, most: number];
}

const full: Size = { each: 200, taskMs: [5_000, 60_000] };
const shortened: Size = { each: 8, taskMs: [500, 3_000] };

const kinds = ["provision", "resize", "start", "stop", "delete"] as const;
type Kind = (typeof kinds)[number];

const nodes = Array.from({ length: 10 }, (_, n) => `n${n + 1}`);
const concurrency = 16;
const askers = 8;
const callsAtMost = 0.1;
/** The client's list of the cluster is from before the servers were written in, which happens to nobody else. */
const listForgottenMs = 3_500;
const patienceMs = 20 * 60_000;
/** Of the simulator, for what a task itself takes; `taskMs` comes on top, whatever the speed. */
const speed = 0.1;
const gib = 2 ** 30;
/** The engine's half of the servers, and the baseline's. */
const firstVmid = { ours: 100_000, baseline: 300_000 };
const rita = { kind: "staff", id: "rita", name: "Rita", role: "admin" } as const;

/** The figures are about the cloud's API, so one database is enough: a server when there is one. */
export async function benchPve({ short }: { short: boolean }): Promise<void> {
  const size = short ? shortened : full;
  const backend = backends().at(-1);
  if (backend === undefined) throw new Error("there is always a backend");
  const [least, most] = size.taskMs;
  heading(`pve: ${size.each * kinds.length} operations at a time on ${nodes.length} nodes, ${backend.name}`);
  note(`${size.each} each of ${kinds.join(", ")}; every task takes ${least / 1000} to ${most / 1000} s`);
  const options = { nodes, speed, seed: 7, storageBytes: size.each * 100 * gib };
  const simulator: Simulator = await startChild("pve-simulator.ts", options);
  const opened = await backend.open();
  try {
    await measure({ backend, simulator, database: opened.database }, size);
  } finally {
    await opened.close();
    await simulator.stop();
  }
}

interface Scene {
  backend: Backend;
  simulator: Simulator;
  database: Database;
}

async function measure({ backend, simulator, database }: Scene, size: Size): Promise<void> {
  const operations = size.each * kinds.length;
  const { url, tokenId, tokenSecret, fingerprint } = simulator.ready;
  const cloud = createPveCloud(
    {
      name: "pve1",
      url,
      fingerprint,
      credential: { kind: "token", tokenId, tokenSecret },
      vmidRange: [firstVmid.ours, firstVmid.baseline - 1],
    },
    { log },
  );
  await furnish(database, cloud, { slots: operations, servers: 0, network: "vmbr0" });
  for (const resource of ["images", "networks"] as const) {
    await runSync({ database, cloud, resource, requester: "bench", log });
  }
  await addServers({ simulator, database }, size);
  await ask(simulator, { kind: "tasks take", milliseconds: size.taskMs });
  await delay(listForgottenMs);

  const ours = await counted(simulator, () => runOurs({ backend, simulator, database }, cloud, size));
  await cloud.close();
  const baseline = await counted(simulator, () => pollEach(simulator.ready, writesOf(size)));
  const each = (calls: number) => (calls / operations).toFixed(2);
  for (const [who, { calls, seconds }] of [
    ["ours", ours],
    ["a poll of each task every second", baseline],
  ] as const) {
    const parts = Object.entries(calls).map(([what, times]) => `${what} ${each(times)}`);
    figure(`${who}: calls for an operation`, `${each(sum(calls))}, in ${seconds.toFixed(0)} s`);
    note(`  ${parts.join(", ")}`);
  }
  const waiting = (calls: Counts) => calls["task lists"] + calls["status of one task"];
  ratio("calls that only wait for tasks", { ours: waiting(ours.calls), baseline: waiting(baseline.calls) });
  ratio("calls for an operation", { ours: sum(ours.calls), baseline: sum(baseline.calls) }, callsAtMost);
}

async function counted(simulator: Simulator, work: () => Promise<void>) {
  const before = await ask<Counts>(simulator, { kind: "counts" });
  const began = performance.now();
  await work();
  const seconds = (performance.now() - began) / 1000;
  const after = await ask<Counts>(simulator, { kind: "counts" });
  const calls = { ...after };
  for (const kind of Object.keys(calls) as (keyof Counts)[]) calls[kind] -= before[kind];
  return { calls, seconds };
}

const sum = (counts: Counts): number => Object.values(counts).reduce((all, count) => all + count, 0);

/** All are entered as fast as they can be, and run until the last one has ended. */
async function runOurs({ backend, database }: Scene, cloud: Cloud, { each }: Size): Promise<void> {
  const jobs = await createJobs({ database, redisUrl: backend.redisUrl, log });
  const { engine, entrance } = engineOn(database, cloud, jobs.wake);
  const worker = createWorker(engine, { concurrency });
  worker.start();
  try {
    const left = Array.from({ length: each }, (_, n) => kinds.map((kind) => ({ kind, n }))).flat();
    const enterSome = async () => {
      for (let one = left.pop(); one !== undefined; one = left.pop()) await enter(entrance, one);
    };
    await Promise.all(Array.from({ length: askers }, enterSome));
    await untilEnded(database);
  } finally {
    await worker.stop();
    await jobs.close();
  }
}

async function enter(entrance: Entrance, { kind, n }: { kind: Kind; n: number }): Promise<void> {
  const server = nameOf(kind, n);
  const asked: Record<Kind, { action: string; options: Record<string, string> }> = {
    provision: {
      action: "server.provision",
      options: { name: server, customer: "ada", plan: "s", image: "debian-12" },
    },
    resize: { action: "server.resize", options: { server, cpu: "2", memory: "1G", disk: "10G" } },
    start: { action: "server.power", options: { server, action: "start" } },
    stop: { action: "server.power", options: { server, action: "stop" } },
    delete: { action: "server.delete", options: { server } },
  };
  const request = { principal: rita, source: "console", origin: null } as const;
  const answer = await entrance.dispatch({
    ...request,
    ...asked[kind],
    idempotencyKey: `bench:${server}`,
  });
  if (answer.kind !== "operation") throw new Error(`${server} was answered ${JSON.stringify(answer)}`);
  if (kind !== "delete") return;
  await entrance.dispatch({
    ...request,
    action: "ops.confirm",
    options: { operation: answer.publicId },
    idempotencyKey: `bench:${server}:confirmed`,
  });
}

async function untilEnded(database: Database): Promise<void> {
  const end = performance.now() + patienceMs;
  for (;;) {
    const rows = await database.sql<{ open: number; problem: unknown }>(
      `SELECT count(*) FILTER (WHERE state <> 'succeeded')::int AS open,
         (array_agg(problem) FILTER (WHERE state IN ('failed', 'needs_attention')))[1] AS problem FROM operations`,
    );
    const [row] = rows;
    if (row?.problem !== null) throw new Error(`an operation failed: ${JSON.stringify(row?.problem)}`);
    if (row.open === 0) return;
    if (performance.now() > end) throw new Error(`${row.open} operations did not end`);
    await delay(500);
  }
}

const nameOf = (kind: Kind, n: number): string => `${kind}-${n}`;
const nodeOf = (n: number): string => nodes[n % nodes.length] ?? "n1";

/** The servers that are there before: rows, reservations and VMs, half of them the engine's, half of them the baseline's. */
async function addServers({ simulator, database }: Omit<Scene, "backend">, { each }: Size): Promise<void> {
  const there = kinds.filter((kind) => kind !== "provision");
  const servers = there.flatMap((kind, part) =>
    Array.from({ length: each }, (_, n) => ({
      kind,
      at: part * each + n,
      node: nodeOf(n),
      name: nameOf(kind, n),
      running: kind !== "start",
      operationId: newId(),
    })),
  );
  const vms = servers.flatMap(({ at, operationId, node, name, running }): BenchVm[] => [
    { vmid: firstVmid.ours + at, node, name, running, description: `op:${operationId}.1` },
    { vmid: firstVmid.baseline + at, node, name: `other-${name}`, running, description: "" },
  ]);
  const uuids = await ask<Record<string, string>>(simulator, { kind: "add", vms });
  const rows = servers.map(({ at, name, node, running, operationId }) => {
    const vmid = firstVmid.ours + at;
    return { vmid, uuid: uuids[vmid], name, node, running, operationId };
  });
  await database.sql(
    `INSERT INTO servers (id, public_id, customer_id, cloud_id, external_id, name, state, vcpus, memory_mib, disk_gib, addresses,
       synced_at, provider_data)
     SELECT gen_random_uuid(), 'srv-' || lpad(r.vmid::text, 8, '0'), cu.id, c.id, r.vmid::text, r.name,
       CASE WHEN r.running THEN 'active' ELSE 'stopped' END, 1, 512, 4, '{}', clock(),
       jsonb_build_object('node', r.node, 'smbiosUuid', r.uuid, 'bootDisk', 'scsi0')
     FROM jsonb_to_recordset($1::jsonb) AS r(vmid int, name text, node text, running bool, uuid text), clouds c, customers cu`,
    [JSON.stringify(rows)],
  );
  await database.sql(
    `INSERT INTO vmid_reservations (cloud_id, vmid, operation_id)
     SELECT c.id, r.vmid, r."operationId" FROM jsonb_to_recordset($1::jsonb) AS r(vmid int, "operationId" uuid), clouds c`,
    [JSON.stringify(rows)],
  );
  await database.sql("ANALYZE");
}

/** What the engine writes for the same operations, on the baseline's servers. */
function writesOf({ each }: Size): Write[][] {
  return kinds.flatMap((kind, part) =>
    Array.from({ length: each }, (_, n) => {
      const node = nodeOf(n);
      const base = `/nodes/${node}/qemu`;
      // Provisions come first in the list of kinds, and have no server yet.
      const vmid = firstVmid.baseline + (part === 0 ? kinds.length * each + n : (part - 1) * each + n);
      return writesFor(kind, { base, vmid, template: 9_000 + 100 * nodes.indexOf(node) });
    }),
  );
}

function writesFor(
  kind: Kind,
  { base, vmid, template }: { base: string; vmid: number; template: number },
): Write[] {
  const vm = `${base}/${vmid}`;
  const size = { cores: "1", sockets: "1", memory: "2048" };
  const network = { net0: "virtio,bridge=vmbr0", ipconfig0: "ip=dhcp", ciuser: "debian" };
  const grow: Write = { method: "PUT", path: `${vm}/resize`, parameters: { disk: "scsi0", size: "10G" } };
  switch (kind) {
    case "provision":
      return [
        {
          method: "POST",
          path: `${base}/${template}/clone`,
          parameters: { newid: String(vmid), name: `bench-${vmid}`, full: "1" },
        },
        { method: "PUT", path: `${vm}/config`, parameters: { ...size, ...network } },
        grow,
        { method: "POST", path: `${vm}/status/start` },
      ];
    case "resize":
      return [
        { method: "PUT", path: `${vm}/config`, parameters: { cores: "2", sockets: "1", memory: "1024" } },
        grow,
        { method: "POST", path: `${vm}/status/reboot`, parameters: { timeout: "60" } },
      ];
    case "start":
      return [{ method: "POST", path: `${vm}/status/start` }];
    case "stop":
      return [
        { method: "POST", path: `${vm}/status/shutdown`, parameters: { timeout: "60", forceStop: "1" } },
      ];
    case "delete":
      return [
        { method: "POST", path: `${vm}/status/stop` },
        {
          method: "DELETE",
          path: vm,
          parameters: { purge: "1", "destroy-unreferenced-disks": "1" },
        },
      ];
  }
}

function ask<Result>(simulator: Simulator, question: Question): Promise<Result> {
  return simulator.ask<Result>(question);
}

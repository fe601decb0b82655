/**
 * A customer of a PVE cluster never reads where their server is: no node, VMID, storage, bridge, task or
 * name of the cloud, whether things go well or the cluster's own words say it all.
 */
import { afterAll, beforeAll, expect, it } from "vitest";
import { ServiceError } from "../../src/core/errors.ts";
import { readLines, renderCard } from "../../src/core/operations/card.ts";
import type { Answer } from "../../src/core/request.ts";
import type { Database } from "../../src/database/client.ts";
import { newId } from "../../src/database/id.ts";
import { claim } from "../../src/webhooks/claim.ts";
import { fanOut } from "../../src/webhooks/fan-out.ts";
import { findFormat } from "../../src/webhooks/formats/index.ts";
import { createPveWorld, type PveWorld } from "../clouds/pve/world.ts";
import { testDatabase } from "../support/database.ts";
import { optionsOf, type Sample, samples } from "./actions/samples.ts";
import { textOf } from "./isolation-facts.ts";
import { lookupKinds } from "./isolation-sweep.ts";

const RANGE = [733_100, 733_199] as const;
const NODES = ["zqnode-a", "zqnode-b"];
/** In the cluster's own words: everything that must not come through. */
const CANARY = "zqcanary: unable to write zqstore:733100/vm-733100-disk-0.raw on zqnode-a";

const INTERNAL: readonly (readonly [string, RegExp])[] = [
  ["a node", /zqnode/i],
  ["a VMID", /\b7331\d\d\b/],
  ["the cluster's words", /zqcanary|zqstore/i],
  ["a storage", /\blocal(?:-lvm)?:|\blocal-lvm\b|\bshared:|\bbackups:/],
  ["a disk", /\b(?:scsi|ide|virtio|sata|efidisk)\d\b/],
  ["a bridge", /\bvmbr\d/],
  // Not as a part of a random id.
  ["a template", /(?<![\w-])9[01]0[0-2](?![\w-])/],
  ["a task", /UPID|\bqm(?:start|clone|config|snapshot|rollback|destroy|stop|reboot)\b/],
  ["a marker", /\bop[:=][0-9a-f]{8}-/],
  ["a MAC address", /\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b/i],
  ["the cloud's name", /\bsim\b/],
  ["staff's detail", /"staffDetail":"/],
];

/** Of what the samples have done already. */
const others: readonly Sample[] = [
  { action: "server.provision", options: { name: "web-9", plan: "s", image: "debian-12" } },
  { action: "server.resize", options: { server: "web-1", memory: "6G" } },
];

/** To be done at last. */
const neededByNext = new Set(["snapshot.create", "server.rescue", "server.unrescue"]);

let database: Database;
let world: PveWorld;
const leaks: string[] = [];
let banners = 0;

beforeAll(async () => {
  database = await testDatabase();
  world = await createPveWorld({
    database,
    simulator: { nodes: NODES },
    client: {
      vmidRange: RANGE,
      rescueIso: "local:iso/rescue.iso",
      isos: { "help-disk": "local:iso/rescue.iso" },
    },
    engine: { patienceMs: 100 },
  });
  await database.sql(
    `INSERT INTO endpoints (id, name, url, event_types, customer_id, secret_id)
     VALUES ($1, 'of-ada', 'https://zq.example/', ARRAY['*'], $2, $1)`,
    [newId(), world.ada.customerId],
  );
  // Staff's own thing, which a customer's samples need to be there.
  await world.run(world.sam, "server.build", {
    name: "web-2",
    customer: "ada",
    plan: "s",
    image: "debian-12",
  });
}, 60_000);
afterAll(async () => {
  await world?.close();
  await database?.close();
});

function look(where: string, given: unknown): void {
  const text = textOf(given);
  for (const [what, pattern] of INTERNAL) {
    const found = pattern.exec(text);
    if (found !== null) leaks.push(`${where} tells ${what} (${found[0]}): ${text.slice(0, 300)}`);
  }
}

/** Asks as Ada, follows what came of it to its end, and looks at all that she gets to see. */
async function follow(sample: Sample): Promise<Answer | ServiceError> {
  const { ada, rita } = world;
  const where = `/${sample.action.replaceAll(".", " ")}`;
  let answer: Answer;
  try {
    answer = await world.ask(ada, sample.action, await optionsOf(sample, { world, who: ada }));
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    look(where, error);
    return error;
  }
  look(where, answer.kind === "operation" ? answer.view : answer);
  if (answer.kind === "operation") {
    await lookAtOperation(where, answer.operationId);
    if ((await world.settle(answer.operationId)).state === "awaiting_confirmation") {
      await world.ask(ada, "ops.confirm", { operation: answer.publicId });
    }
    await world.settle(answer.operationId);
    await lookAtOperation(where, answer.operationId);
    if ((await world.operation(answer.operationId)).state === "needs_attention") {
      await world.ask(rita, "ops.abandon", { operation: answer.publicId });
    }
  }
  const going = await database.sql<{ id: string }>(
    `SELECT id FROM operations WHERE state = ANY(ARRAY['queued', 'running', 'waiting', 'compensating'])`,
  );
  for (const { id } of going) await world.settle(id);
  return answer;
}

async function lookAtOperation(where: string, id: string): Promise<void> {
  look(`the card of ${where}`, (await renderCard(database, id, "customer")).view);
  look(`the thread of ${where}`, await readLines(database, id, 0, "customer"));
  const { publicId } = await world.operation(id);
  for (const [action, options] of [
    ["ops.show", { operation: publicId }],
    ["ops.list", {}],
    ["server.list", {}],
  ] as const) {
    look(`${action} after ${where}`, await world.ask(world.ada, action, options));
  }
}

async function webhooks(): Promise<number> {
  while ((await fanOut(database)).events > 0);
  const { claimed } = await claim(database, {
    owner: `sweep-${newId()}`,
    claimNumber: 1,
    leaseMs: 60_000,
    laneLimit: 10_000,
    loads: new Map(),
  });
  for (const { endpoint, event } of claimed) {
    look(
      `webhook ${event.type}`,
      findFormat(endpoint.format)?.render(event, { audience: endpoint.audience }),
    );
  }
  return claimed.length;
}

it("a customer reads nothing of the cluster in anything that they can ask for", {
  timeout: 120_000,
}, async () => {
  let operations = 0;
  for (const sample of samples) {
    const answer = await follow(sample);
    if (!(answer instanceof ServiceError) && answer.kind === "operation") operations += 1;
    await free();
  }
  await duringMaintenance();
  for (const action of world.engine.registry.list()) {
    look(
      `help ${action.name}`,
      await world.ask(world.ada, "help", { topic: action.name }).catch(serviceError),
    );
    look(`form ${action.name}`, await world.entrance.form(action.name, {}, world.ada).catch(serviceError));
  }
  for (const kind of lookupKinds) {
    look(`lookup ${kind}`, await world.entrance.lookup({ kind, text: "", limit: 100 }, world.ada));
  }
  expect(await webhooks()).toBeGreaterThan(operations);
  expect(leaks).toEqual([]);
  expect(operations).toBeGreaterThan(8);
  expect(banners).toBeGreaterThan(4);
  // What is looked for is there to be found.
  const rows = await database.sql(`SELECT provider_data FROM servers`);
  expect(JSON.stringify(rows)).toMatch(/zqnode/);
});

it("a customer reads nothing of what the cluster itself says when it refuses or fails", {
  timeout: 120_000,
}, async () => {
  await heal();
  const changing = samples
    .filter(({ action }) => {
      const { kind, audience } = world.engine.registry.get(action);
      return kind === "operation" && audience.includes("customer");
    })
    .map((sample) => others.find(({ action }) => action === sample.action) ?? sample);
  for (const sample of changing) {
    world.simulator.addTaskFault({ outcome: "fail", times: 0, message: CANARY });
    await follow(sample);
    await heal();
    for (const method of ["POST", "PUT", "DELETE"]) {
      const body = { message: `${CANARY}\n`, data: null };
      world.simulator.addFault({ method, path: "/nodes/", kind: "status", status: 500, times: 0, body });
    }
    await follow(sample);
    await heal();
    if (neededByNext.has(sample.action)) await follow(sample);
  }
  await webhooks();
  expect(leaks).toEqual([]);
  const told = await database.sql<{ id: string }>(
    `SELECT DISTINCT ON (action) id FROM operations WHERE problem ->> 'staffDetail' LIKE '%zqcanary%' ORDER BY action`,
  );
  // Staff were told, so that there was something to leak, and to be noticed.
  expect(told.length).toBeGreaterThan(8);
  for (const { id } of told) look("staff's card", (await renderCard(database, id, "staff")).view);
  expect(leaks.splice(0).filter((leak) => leak.includes("the cluster's words"))).toHaveLength(told.length);
});

/** The banner of a node's or the whole cloud's maintenance, and what is refused because of it. */
async function duringMaintenance(): Promise<void> {
  const cloud = world.cloud.name;
  for (const node of [...NODES, undefined]) {
    const where = node === undefined ? { cloud } : { cloud, node };
    await world.ask(world.rita, "cloud.maintenance", { ...where, state: "on" });
    for (const [action, options] of [
      ["server.list", {}],
      ["server.show", { server: "web-1" }],
      ["server.power", { server: "web-1", action: "reboot" }],
      ["server.provision", { name: "web-8", plan: "s", image: "debian-12" }],
    ] as const) {
      const answer = await follow({ action, options });
      banners += textOf(answer).includes("aintenance") ? 1 : 0;
    }
    await database.sql(`UPDATE maintenances SET ended_at = clock() WHERE ended_at IS NULL`);
  }
}

/** The cluster is well again, and `web-1` free and running. */
async function heal(): Promise<void> {
  await free();
  await world.run(world.rita, "sync.run", { type: "servers" });
  const [row] = await database.sql<{ state: string }>(`SELECT state FROM servers WHERE name = 'web-1'`);
  if (row?.state === "stopped") {
    await world.run(world.rita, "server.power", { server: "web-1", action: "start" });
  }
}

/** Nothing is in the way of the next request. */
async function free(): Promise<void> {
  world.simulator.clearFaults();
  // As the operators' `qm unlock` after a task that was broken off.
  for (const { vmid } of world.made()) world.simulator.changeVm(vmid, { lock: null });
  await database.sql(`UPDATE maintenances SET ended_at = clock() WHERE ended_at IS NULL`);
  const stuck = await database.sql<{ publicId: string }>(
    `SELECT public_id AS "publicId" FROM operations WHERE state = 'needs_attention'`,
  );
  for (const { publicId } of stuck) await world.ask(world.rita, "ops.abandon", { operation: publicId });
}

function serviceError(error: unknown): ServiceError {
  if (error instanceof ServiceError) return error;
  throw error;
}

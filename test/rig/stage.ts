/** Before the first worker: catalogue, customers, strangers, the receiver's endpoint, and what the orders are. */
import type { Entrance } from "../../src/core/request.ts";
import { runSync } from "../../src/core/sync/run.ts";
import { newId } from "../../src/database/id.ts";
import { syncEndpoints } from "../../src/webhooks/endpoints.ts";
import { askPve, askSimulator, type CloudAddress, vmidRange } from "./address.ts";
import { type Built, longestHoldMs } from "./build.ts";
import { orderKey, snapshotName } from "./life.ts";

const customers = ["ada", "bob", "cleo", "dora", "emil"];
const slots = 100;

export interface Order {
  index: number;
  cloud: CloudAddress["name"];
  kind: CloudAddress["kind"];
  meantToFail: boolean;
  operationId: string;
}

export type PlannedOrder = Omit<Order, "operationId">;

export async function furnish(
  { database, engine }: Built,
  { clouds, receiver }: { clouds: readonly CloudAddress[]; receiver: { url: string; secret: string } },
): Promise<void> {
  for (const ref of customers) {
    await database.sql(`INSERT INTO customers (id, ref, name) VALUES ($1, $2, initcap($2))`, [newId(), ref]);
  }
  for (const { name, kind } of clouds) {
    const cloudId = newId();
    await database.sql(`INSERT INTO clouds (id, name, provider) VALUES ($1, $2, $3)`, [cloudId, name, kind]);
    await database.sql(`INSERT INTO slots (cloud_id, n) SELECT $1, n FROM generate_series(1, $2::int) n`, [
      cloudId,
      slots,
    ]);
    const target = kind === "openstack" ? { flavor: "m1.small", network: "private" } : { network: "vmbr0" };
    await database.sql(
      `INSERT INTO plans (id, code, name, vcpus, memory_mib, disk_gib, targets) VALUES ($1, $2, 'Small', 1, 2048, 10, $3::jsonb)`,
      [newId(), `small-${kind}`, { [name]: target }],
    );
    const cloud = engine.clouds.get(name);
    const resources = [...(cloud.usesFlavors ? (["flavors"] as const) : []), "images", "networks"] as const;
    for (const resource of resources) {
      await runSync({ database, cloud, resource, requester: "rig", log: engine.log });
    }
  }
  await syncEndpoints(database, engine.secrets, [
    { name: "billing", ...receiver, events: ["*"], format: "standard", timeoutMs: 3_000 },
  ]);
}

/** Every so manieth order of each cloud is one whose build fails in it: what it leaves behind must be nothing. */
export function planOrders(
  clouds: readonly CloudAddress[],
  { from, count, failingEvery }: { from: number; count: number; failingEvery: number },
): PlannedOrder[] {
  return Array.from({ length: count }, (_, offset) => {
    const index = from + offset;
    const cloud = clouds[index % clouds.length];
    if (cloud === undefined) throw new Error("the rig has no cloud");
    const turn = Math.floor(index / clouds.length);
    return {
      index,
      cloud: cloud.name,
      kind: cloud.kind,
      meantToFail: turn % failingEvery === failingEvery - 1,
    };
  });
}

/** The simulators' words for a build that goes wrong: Nova's in the server's metadata, PVE's in the VM's name. */
const pveFailures = ["sim-fail-clone", "sim-fail-start", "sim-fail-config"];

export async function enterOrder(
  entrance: Entrance,
  { index, kind, meantToFail }: PlannedOrder,
): Promise<{ operationId: string; existing: boolean }> {
  const word = pveFailures[Math.floor(index / 2) % pveFailures.length];
  const fails = meantToFail && kind === "openstack" ? { metadata: "osr_fail=spawn" } : {};
  const answer = await entrance.dispatch({
    action: "server.provision",
    options: {
      name: meantToFail && kind === "pve" ? `${word}-${index}` : `web-${index}`,
      customer: customers[index % customers.length] ?? "ada",
      plan: `small-${kind}`,
      image: "debian-12",
      ...fails,
    },
    principal: { kind: "staff", id: "sam", name: "Sam", role: "operator" },
    source: "console",
    idempotencyKey: orderKey(index),
    origin: null,
  });
  if (answer.kind !== "operation") throw new Error(`order ${index}: ${JSON.stringify(answer)}`);
  return { operationId: answer.operationId, existing: answer.existing };
}

/** Some writes lose their answer, some never arrive, some are held back and carried out later. */
export async function armFaults(cloud: CloudAddress, probability: number): Promise<void> {
  const body = cloud.kind === "openstack" ? openstackFaults(probability) : pveFaults(probability);
  await askSimulator(cloud, { method: "POST", path: "faults", body });
}

function held(what: { method?: string; path: string }) {
  return [0.2, 0.5, 1].map((part) => {
    const delayMs = part * longestHoldMs;
    const fault = { times: 0, id: `held ${delayMs} ms`, kind: "delay", delayMs, probability: 0.06 };
    return Object.assign(fault, what);
  });
}

function openstackFaults(probability: number): object[] {
  const creates = { method: "POST", path: "/servers(/[^/]+/action)?$" };
  const deletes = { method: "DELETE", path: "/servers/" };
  return [
    { ...creates, times: 0, id: "lost answer", kind: "drop_after", probability },
    { ...deletes, times: 0, id: "lost answer of a delete", kind: "drop_after", probability },
    { ...creates, times: 0, id: "never arrived", kind: "drop", probability: probability / 3 },
    ...held(creates),
  ];
}

function pveFaults(probability: number): object[] {
  const clones = { method: "POST", path: "/clone$", times: 0 };
  const tasks = { method: "POST", path: "/qemu/\\d+/(status/\\w+|snapshot(/[^/]+/rollback)?)$", times: 0 };
  const resizes = { method: "PUT", path: "/qemu/\\d+/resize$", times: 0 };
  const configs = { method: "PUT", path: "/qemu/\\d+/config$", times: 0 };
  const deletes = { method: "DELETE", path: "/qemu/", times: 0 };
  const each = { probability: probability / 2 };
  return [
    { ...clones, id: "lost answer of a clone", kind: "drop_after", ...each },
    { ...clones, id: "596, and cloned", preset: "proxy_596_after", ...each },
    { ...clones, id: "595, not cloned", preset: "proxy_595", probability: probability / 3 },
    { ...configs, id: "lost answer of a config", kind: "drop_after", ...each },
    { ...configs, id: "596, and configured", preset: "proxy_596_after", ...each },
    { ...tasks, id: "lost answer of power or snapshot", kind: "drop_after", ...each },
    { ...tasks, id: "596, and begun", preset: "proxy_596_after", ...each },
    { ...tasks, id: "595, not begun", preset: "proxy_595", probability: probability / 3 },
    { ...resizes, id: "lost answer of a resize", kind: "drop_after", ...each },
    { ...resizes, id: "596, and resized", preset: "proxy_596_after", ...each },
    { ...resizes, id: "595, not resized", preset: "proxy_595", probability: probability / 3 },
    { ...deletes, id: "lost answer of a delete", kind: "drop_after", ...each },
    { ...deletes, id: "596, and deleted", preset: "proxy_596_after", ...each },
    {
      method: "GET",
      path: "/api2/",
      times: 0,
      id: "595 of a reading call",
      preset: "proxy_595",
      probability: 0.004,
    },
    {
      method: "GET",
      path: "/api2/",
      times: 0,
      id: "596 of a reading call",
      preset: "proxy_596",
      probability: 0.004,
    },
    ...held({ method: "POST", path: "/clone$" }),
  ];
}

/** Other people's VMs in the middle of our range, some named as ours will be, with snapshots named as ours will be. */
export async function addStrangers(cloud: CloudAddress): Promise<void> {
  if (cloud.kind !== "pve") return;
  for (let n = 0; n < 12; n += 1) {
    const body = {
      vmid: vmidRange[0] + 3 + n * 17,
      node: n % 2 === 0 ? "n1" : "n2",
      ...(n % 3 === 0 ? { name: `web-${n}`, tags: "ratatosk" } : {}),
      running: n % 4 !== 0,
    };
    await askSimulator(cloud, { method: "POST", path: "vms", body });
    if (n % 3 === 0) {
      const call = `/nodes/${body.node}/qemu/${body.vmid}/snapshot`;
      await askPve(cloud, { method: "POST", path: call, form: { snapname: snapshotName } });
    }
  }
}

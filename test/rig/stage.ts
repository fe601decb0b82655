/** Before the first worker: catalogue, customers and the orders themselves, entered as chat would enter them. */

import { createEntrance } from "../../src/core/dispatch.ts";
import type { Answer, Entrance } from "../../src/core/request.ts";
import { runSync } from "../../src/core/sync/run.ts";
import { newId } from "../../src/database/id.ts";
import { type Built, longestHoldMs } from "./build.ts";

const customers = ["ada", "bob", "cleo", "dora", "emil"];
const slots = 100;

export interface Order {
  operationId: string;
  meantToFail: boolean;
}

export async function furnish({ database, engine }: Built): Promise<void> {
  const cloud = engine.clouds.list()[0];
  if (cloud === undefined) throw new Error("the rig has no cloud");
  const cloudId = newId();
  for (const ref of customers) {
    await database.sql(`INSERT INTO customers (id, ref, name) VALUES ($1, $2, initcap($2))`, [newId(), ref]);
  }
  await database.sql(`INSERT INTO clouds (id, name, provider) VALUES ($1, $2, $3)`, [
    cloudId,
    cloud.name,
    cloud.provider,
  ]);
  await database.sql(`INSERT INTO slots (cloud_id, n) SELECT $1, n FROM generate_series(1, $2::int) n`, [
    cloudId,
    slots,
  ]);
  await database.sql(
    `INSERT INTO plans (id, code, name, vcpus, memory_mib, disk_gib, targets) VALUES ($1, 's', 'Small', 1, 2048, 10, $2::jsonb)`,
    [newId(), { [cloud.name]: { flavor: "m1.small", network: "private" } }],
  );
  for (const resource of ["flavors", "images", "networks"] as const) {
    await runSync({ database, cloud, resource, requester: "rig", log: engine.log });
  }
}

/** Every so manieth order is one whose build fails in the cloud: what it leaves behind must be nothing. */
export async function enterOrders(
  { engine }: Built,
  { from, count, failingEvery }: { from: number; count: number; failingEvery: number },
): Promise<Order[]> {
  const entrance = createEntrance({ engine, identify: () => Promise.resolve(null) });
  const orders: Order[] = [];
  const left = Array.from({ length: count }, (_, index) => from + index);
  const enterSome = async () => {
    for (let index = left.pop(); index !== undefined; index = left.pop()) {
      const meantToFail = index % failingEvery === failingEvery - 1;
      const answer = await enterOne(entrance, index, meantToFail);
      if (answer.kind !== "operation" || answer.existing)
        throw new Error(`order ${index}: ${JSON.stringify(answer)}`);
      orders.push({ operationId: answer.operationId, meantToFail });
    }
  };
  await Promise.all(Array.from({ length: 8 }, enterSome));
  return orders;
}

function enterOne(entrance: Entrance, index: number, meantToFail: boolean): Promise<Answer> {
  const customer = customers[index % customers.length] ?? "ada";
  return entrance.dispatch({
    action: "server.provision",
    options: {
      name: `web-${index}`,
      customer,
      plan: "s",
      image: "debian-12",
      ...(meantToFail ? { metadata: "osr_fail=spawn" } : {}),
    },
    principal: { kind: "staff", id: "sam", name: "Sam", role: "operator" },
    source: "console",
    idempotencyKey: `rig:${index}`,
    origin: null,
  });
}

/** Some creates and deletes lose their answer, some never arrive, some are held back and carried out later. */
export async function armFaults(simulatorUrl: string, probability: number): Promise<void> {
  const creates = { method: "POST", path: "/servers(/[^/]+/action)?$", times: 0 };
  const deletes = { method: "DELETE", path: "/servers/", times: 0 };
  const faults = [
    { ...creates, id: "lost answer", kind: "drop_after", probability },
    { ...deletes, id: "lost answer of a delete", kind: "drop_after", probability },
    { ...creates, id: "never arrived", kind: "drop", probability: probability / 3 },
    ...[0.2, 0.5, 1].map((part) => {
      const delayMs = part * longestHoldMs;
      return Object.assign({ id: `held ${delayMs} ms`, kind: "delay", delayMs, probability: 0.06 }, creates);
    }),
  ];
  const response = await fetch(`${simulatorUrl}/_sim/faults`, {
    method: "POST",
    body: JSON.stringify(faults),
  });
  if (!response.ok) throw new Error(`the simulator refused the faults: ${await response.text()}`);
}

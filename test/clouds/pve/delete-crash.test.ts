/** A deletion with backups whose worker dies at each of its moments: another one ends it, and nothing is deleted twice. */
import { setImmediate } from "node:timers/promises";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createWorker } from "../../../src/core/operations/worker.ts";
import type { Database } from "../../../src/database/client.ts";
import { newId, newPublicId } from "../../../src/database/id.ts";
import { moveClock, testDatabase } from "../../support/database.ts";
import { stride } from "../../support/thorough.ts";
import { createTime, finish, type Time } from "./time.ts";
import { createPveWorld, type PveWorld } from "./world.ts";

const MOST_MOMENTS = 60;
const ROUNDS = 2_000;
const LEASE_MS = 16_000;
let database: Database;
let world: PveWorld;
let time: Time;
let nextVmid = 100_000;

beforeAll(async () => {
  database = await testDatabase();
  time = await createTime(database);
  world = await createPveWorld({ database, runtime: { now: time.now } });
});
afterAll(async () => {
  await moveClock(database, 0);
  await world.close();
  await database.close();
});

/** As a build leaves it: the VM with our marker, its number reserved, and its row. */
async function aServer(name: string): Promise<number> {
  const builtBy = newId();
  const vmid = nextVmid;
  nextVmid += 1;
  const vm = world.simulator.addStranger({
    vmid,
    name,
    node: "n1",
    description: `op:${builtBy}.1`,
    tags: "ratatosk",
  });
  await database.sql(
    `INSERT INTO vmid_reservations (cloud_id, vmid, operation_id) SELECT id, $1, $2 FROM clouds WHERE name = 'sim'`,
    [vmid, builtBy],
  );
  await database.sql(
    `INSERT INTO servers (id, public_id, customer_id, cloud_id, external_id, name, state, vcpus, memory_mib, disk_gib, provider_data)
     SELECT $1, $2, $3, id, $4, $5, 'active', 1, 512, 4, $6::jsonb FROM clouds WHERE name = 'sim'`,
    [
      newId(),
      newPublicId("srv"),
      world.ada.customerId,
      String(vmid),
      name,
      { node: "n1", smbiosUuid: vm.uuid },
    ],
  );
  return vmid;
}

/** Confirmed, and not begun. */
async function askedFor(name: string): Promise<{ operationId: string; vmid: number }> {
  const vmid = await aServer(name);
  // By the database's clock, which has moved.
  const takenAt = time.now() + 2_000;
  for (const index of [0, 1]) world.simulator.addBackup({ vmid, takenAt: takenAt + index * 1_000 });
  const answer = await world.ask(world.rita, "server.delete", { server: name, purge_backups: "yes" });
  if (answer.kind !== "operation") throw new Error("no operation");
  await world.ask(world.rita, "ops.confirm", { operation: answer.publicId });
  return { operationId: answer.operationId, vmid };
}

/** True when it has lived to see the end. */
async function dieAt(nth: number, operationId: string): Promise<boolean> {
  let left = nth;
  const engine = {
    ...world.engine,
    worker: `w${nth}`,
    reached() {
      left -= 1;
      if (left === 0) throw new Error("dies here");
    },
  };
  const first = createWorker(engine, { concurrency: 4, now: time.now });
  for (let round = 0; round < ROUNDS; round += 1) {
    await first.tick();
    if (left <= 0) return false;
    await first.watcher.tick();
    if ((await world.operation(operationId)).finishedAt !== null) return true;
    await setImmediate();
    if (round % 50 === 49) await time.later(5_000);
  }
  throw new Error("it neither died nor ended");
}

it("each moment of a deletion with its backups may be a worker's last: the next one ends it, once", async () => {
  const wrong: string[] = [];
  let moments = 1 - stride(3);
  for (let lived = false; !lived && moments < MOST_MOMENTS; ) {
    moments += stride(3);
    // The dead one's leases run out.
    await time.later(LEASE_MS);
    const { operationId, vmid } = await askedFor(`web-${moments}`);
    lived = await dieAt(moments, operationId);
    await time.later(LEASE_MS);
    const end = await finish(world, time, { operationId, worker: "second" });
    if (end.state !== "succeeded") wrong.push(`${moments}: ${end.state} ${JSON.stringify(end.problem)}`);
    const { volumes, tasks } = world.simulator.state;
    if (volumes.some((volume) => volume.vmid === vmid)) wrong.push(`${moments}: something is left`);
    const done = (type: string, id: string) =>
      tasks.filter((task) => task.type === type && task.id === id && task.exitstatus === "OK").length;
    if (done("qmdestroy", String(vmid)) !== 1) wrong.push(`${moments}: destroyed more than once`);
    if (done("imgdel", `${vmid}@backups`) !== 2)
      wrong.push(`${moments}: a backup was deleted more than once`);
  }
  expect(wrong).toEqual([]);
  expect(moments).toBeGreaterThan(10);
  expect(world.simulator.state.vms.filter((vm) => vm.vmid >= 100_000)).toEqual([]);
}, 60_000);

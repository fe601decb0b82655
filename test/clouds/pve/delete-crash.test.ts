/** A deletion with backups whose worker dies at each of its moments: another one ends it, and nothing is deleted twice. */
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Database } from "../../../src/database/client.ts";
import { newId, newPublicId } from "../../../src/database/id.ts";
import { moveClock, testDatabase } from "../../support/database.ts";
import { surviveDeaths } from "./deaths.ts";
import { createTime, type Time } from "./time.ts";
import { createPveWorld, type PveWorld } from "./world.ts";

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

it("each moment of a deletion with its backups may be a worker's last: the next one ends it, once", async () => {
  const vmids: number[] = [];
  const { moments } = await surviveDeaths(
    { ...world, time },
    {
      async begin(order) {
        const { operationId, vmid } = await askedFor(`web-${order}`);
        vmids.push(vmid);
        return operationId;
      },
      after(_order, _end, nth) {
        const vmid = vmids.at(-1) ?? 0;
        const { volumes, tasks } = world.simulator.state;
        const done = (type: string, id: string) =>
          tasks.filter((task) => task.type === type && task.id === id && task.exitstatus === "OK").length;
        expect({
          nth,
          left: volumes.filter((volume) => volume.vmid === vmid),
          destroyed: done("qmdestroy", String(vmid)),
          backupsDeleted: done("imgdel", `${vmid}@backups`),
        }).toEqual({ nth, left: [], destroyed: 1, backupsDeleted: 2 });
      },
    },
  );
  expect(moments).toBeGreaterThan(10);
  expect(world.simulator.state.vms.filter((vm) => vm.vmid >= 100_000)).toEqual([]);
}, 60_000);

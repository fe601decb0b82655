/** What /server usage says, of months as they stand in the database. */
import { beforeEach, describe, expect, it } from "vitest";
import type { Principal } from "../../../src/core/access.ts";
import { describeBytes, describeShare } from "../../../src/core/traffic/bytes.ts";
import type { View } from "../../../src/core/view.ts";
import { newId } from "../../../src/database/id.ts";
import { clean } from "../../support/database.ts";
import { useStage } from "../../support/stage.ts";
import { createWorld, type World } from "../../support/world.ts";

const stage = useStage();
const GIB = 2n ** 30n;

async function open(options: { counts: boolean }): Promise<{ world: World; serverId: string }> {
  const world = stage.keep(
    await createWorld({
      database: stage.database,
      ...(options.counts ? { cloud: { traffic: () => Promise.resolve([]) } } : {}),
    }),
  );
  const [cloud] = await stage.database.sql<{ id: string }>(`SELECT id FROM clouds`);
  const serverId = newId();
  await stage.database.sql(
    `INSERT INTO servers (id, public_id, customer_id, cloud_id, external_id, name, state, vcpus, memory_mib, disk_gib, bandwidth_gib)
     VALUES ($1, 'srv-aaaabbbb', $2, $3, 'x', 'web-1', 'active', 1, 512, 10, 100)`,
    [serverId, world.ada.customerId, cloud?.id],
  );
  return { world, serverId };
}

interface Month {
  /** Before this one. */
  ago: number;
  customerId: string | null;
  gib: bigint;
}

async function addMonth(serverId: string, { ago, customerId, gib }: Month): Promise<void> {
  await stage.database.sql(
    `INSERT INTO traffic_months (id, server_id, customer_id, month, in_bytes, out_bytes, counted_from, allowance_gib)
     SELECT $1, $2, $3, month, $4::bigint, 0, month, 100
     FROM (SELECT (date_trunc('month', clock() AT TIME ZONE 'UTC') - $5 * interval '1 month')::date AS month) m`,
    [newId(), serverId, customerId, String(gib * GIB), ago],
  );
}

async function usage(world: World, by: Principal): Promise<View> {
  const answer = await world.ask(by, "server.usage", { server: "srv-aaaabbbb" });
  if (answer.kind !== "view") throw new Error(JSON.stringify(answer));
  return answer.view;
}

beforeEach(() => clean(stage.database));

describe("/server usage", () => {
  it("on a cloud without counters says that nothing is counted there", async () => {
    const { world } = await open({ counts: false });
    const view = await usage(world, world.ada);
    expect(view.text).toBe(
      "Traffic is not counted on this server's cloud: it has no counters for single servers.",
    );
    expect(view.table).toBeUndefined();
    expect(JSON.stringify(view)).not.toMatch(/\d+\.\d\d GiB/u);
  });

  it("of a server that was never counted gives no number", async () => {
    const { world } = await open({ counts: true });
    const view = await usage(world, world.ada);
    expect(view.footer).toBe("Not counted yet.");
    expect(JSON.stringify(view)).not.toMatch(/\d+\.\d\d GiB|%/u);
  });

  it("shows this month and twelve before it, newest first, with the share of what each included", async () => {
    const { world, serverId } = await open({ counts: true });
    for (let ago = 0; ago < 15; ago += 1) {
      await addMonth(serverId, { ago, customerId: world.ada.customerId, gib: BigInt(79 + ago) });
    }
    const view = await usage(world, world.sam);
    expect(view.fields).toContainEqual({ label: "Total", value: "79.00 GiB" });
    expect(view.fields).toContainEqual({
      label: "Allowance",
      value: "100 GiB a month, in and out together; 79.0 % of it used",
    });
    expect(view.table?.rows.map(([, , , total, , used]) => [total, used])).toEqual(
      Array.from({ length: 12 }, (_, index) => [`${80 + index}.00 GiB`, `${80 + index}.0 %`]),
    );
  });

  it("shows a customer what was counted since the server is theirs, and staff whose the rest is", async () => {
    const { world, serverId } = await open({ counts: true });
    await addMonth(serverId, { ago: 1, customerId: world.bob.customerId, gib: 11n });
    await addMonth(serverId, { ago: 0, customerId: world.bob.customerId, gib: 22n });
    await addMonth(serverId, { ago: 0, customerId: world.ada.customerId, gib: 33n });
    await stage.database.sql(
      `INSERT INTO traffic_gaps (id, server_id, customer_id, from_at, to_at, kind, cause)
       VALUES ($1, $2, $3, clock() - interval '2 hours', clock() - interval '1 hour', 'lost', 'cloud')`,
      [newId(), serverId, world.bob.customerId],
    );
    const hers = await usage(world, world.ada);
    expect(hers.fields).toContainEqual({ label: "Total", value: "33.00 GiB" });
    expect(hers.table?.rows).toEqual([]);
    expect(JSON.stringify(hers)).not.toMatch(/11\.00|22\.00|Bob|Not counted from/u);
    const all = await usage(world, world.sam);
    expect(all.table?.rows.map(([month = "", , , total]) => [/\((\w+)\)/u.exec(month)?.[1], total])).toEqual([
      ["Bob", "22.00 GiB"],
      ["Bob", "11.00 GiB"],
    ]);
    expect(all.text).toMatch(/Not counted from/u);
  });

  it("of a deleted server is found by its id, by those whose it was", async () => {
    const { world, serverId } = await open({ counts: true });
    await addMonth(serverId, { ago: 0, customerId: world.ada.customerId, gib: 33n });
    await stage.database.sql(
      `INSERT INTO traffic_counters (server_id, external_id, uptime_s, in_bytes, out_bytes, measured_at)
       VALUES ($1, 'x', 5, 0, 0, clock() - interval '1 day')`,
      [serverId],
    );
    await stage.database.sql(`UPDATE servers SET state = 'deleted', deleted_at = clock()`);
    for (const by of [world.ada, world.sam]) {
      const view = await usage(world, by);
      expect(view).toMatchObject({ title: "Traffic of web-1, which is deleted", tone: "neutral" });
      expect(view.fields).toContainEqual({ label: "Total", value: "33.00 GiB" });
      expect(view.text).toBeUndefined();
      await expect(world.ask(by, "server.usage", { server: "web-1" })).rejects.toMatchObject({
        code: "not_found",
      });
    }
    await expect(world.ask(world.bob, "server.usage", { server: "srv-aaaabbbb" })).rejects.toMatchObject({
      code: "not_found",
      message: 'No server "srv-aaaabbbb" in your account. It has none yet.',
    });
  });

  it("says what a gap is: lost, a counter that fell, or a month's end within it", async () => {
    const { world, serverId } = await open({ counts: true });
    const ada = world.ada.customerId;
    for (const [hours, kind, cause, bytes] of [
      [5, "lost", "us", 0n],
      [4, "reset", "figures", 0n],
      [3, "carried", "us", 3n * GIB],
    ] as const) {
      await stage.database.sql(
        `INSERT INTO traffic_gaps (id, server_id, customer_id, from_at, to_at, kind, cause, in_bytes)
         VALUES ($1, $2, $3, clock() - $4 * interval '1 hour', clock(), $5, $6, $7::bigint)`,
        [newId(), serverId, ada, hours, kind, cause, String(bytes)],
      );
    }
    const lines = (await usage(world, world.ada)).text?.split("\n") ?? [];
    expect(lines.map((line) => line.replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d UTC/gu, "T"))).toEqual([
      "3.00 GiB were sent and received from T to T, across a month's end; how much before it is not known, and all of it is booked in the later month.",
      "Not counted from T to T: its counters fell, as they do when a network card is taken out.",
      "Not counted from T to T: nobody asked the cloud, and the server was switched off or started anew in that time.",
    ]);
  });
});

it("bytes and shares are cut, never rounded up, and little is not nothing", () => {
  expect([0n, 1n, GIB - 1n, GIB, 5n * GIB + GIB / 2n].map(describeBytes)).toEqual([
    "0.00 GiB",
    "less than 0.01 GiB",
    "0.99 GiB",
    "1.00 GiB",
    "5.50 GiB",
  ]);
  expect([0n, 80n * GIB - 1n, 80n * GIB, 250n * GIB].map((bytes) => describeShare(bytes, 100))).toEqual([
    "0.0 %",
    "79.9 %",
    "80.0 %",
    "250.0 %",
  ]);
});

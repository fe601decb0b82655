import { describe, expect, it } from "vitest";
import type { TrafficSample } from "../../../src/core/cloud.ts";
import { payloadBytes } from "../../../src/core/traffic/bytes.ts";
import type { Database } from "../../../src/database/client.ts";
import { newId } from "../../../src/database/id.ts";
import { eachBackend } from "../../support/database.ts";
import { createScene, GIB, running, type Scene } from "./scene.ts";

const LONG = 2_000_000;

eachBackend("traffic thresholds", (database) => {
  it("80, 90 and 100 % are told once each in a month, whatever comes after", async () => {
    const scene = await begin(database(), { bandwidthGib: 100 });
    const told: number[][] = [];
    for (const gib of [79n, 80n, 81n, 95n, 100n, 300n]) {
      await scene.sent(gib);
      told.push((await scene.thresholds()).map(({ percent }) => percent));
    }
    expect(told).toEqual([[], [80], [80], [80, 90], [80, 90, 100], [80, 90, 100]]);
    await scene.at("2026-12-01T00:01:00Z");
    await scene.sent(385n);
    expect(await scene.thresholds()).toEqual([
      { month: "2026-11", percent: 80 },
      { month: "2026-11", percent: 90 },
      { month: "2026-11", percent: 100 },
      { month: "2026-12", percent: 80 },
    ]);
  });

  it("all that are passed at once are told, lowest first, with what was counted", async () => {
    const scene = await begin(database(), { bandwidthGib: 10 });
    await scene.sent(25n);
    const rows = await scene.database.sql<{ data: Record<string, unknown> }>(
      `SELECT data - 'server' AS data FROM events WHERE type = 'server.bandwidth.threshold' ORDER BY sequence`,
    );
    const bytes = { inBytes: Number(25n * GIB), outBytes: 0, totalBytes: Number(25n * GIB) };
    expect(rows.map(({ data }) => data)).toEqual([
      { month: "2026-11", percent: 80, allowanceGib: 10, ...bytes },
      { month: "2026-11", percent: 90, allowanceGib: 10, ...bytes },
      { month: "2026-11", percent: 100, allowanceGib: 10, ...bytes },
    ]);
  });

  it("an allowance that changes in the month counts for all of it, and tells nothing twice", async () => {
    const scene = await begin(database(), { bandwidthGib: 100 });
    await scene.sent(85n);
    await scene.database.sql(`UPDATE servers SET bandwidth_gib = 1000`);
    await scene.sent(86n);
    await scene.database.sql(`UPDATE servers SET bandwidth_gib = 90`);
    await scene.sent(86n);
    expect((await scene.thresholds()).map(({ percent }) => percent)).toEqual([80, 90]);
    await scene.database.sql(`UPDATE servers SET bandwidth_gib = 0`);
    await scene.sent(900n);
    expect((await scene.thresholds()).map(({ percent }) => percent)).toEqual([80, 90]);
  });

  it("a plan's allowance is its servers', unless they have their own; without one nothing is told", async () => {
    const scene = await begin(database(), { planCode: "m" });
    await scene.sent(500n);
    expect(await scene.thresholds()).toEqual([]);
    await scene.database.sql(
      `INSERT INTO plans (id, code, name, vcpus, memory_mib, disk_gib, bandwidth_gib, targets)
       VALUES ($1, 'm', 'M', 1, 512, 10, 600, '{}'::jsonb)`,
      [newId()],
    );
    await scene.sent(501n);
    expect((await scene.thresholds()).map(({ percent }) => percent)).toEqual([80]);
    await scene.database.sql(`UPDATE servers SET bandwidth_gib = 505`);
    await scene.sent(501n);
    expect((await scene.thresholds()).map(({ percent }) => percent)).toEqual([80, 90]);
  });

  it("of two looks at once one counts, and no threshold is told twice", async () => {
    const scene = await begin(database(), { bandwidthGib: 10 });
    await scene.at("2026-11-10T12:05:00Z");
    scene.says(running(LONG + 300, { in: 50n * GIB }));
    const look = () => scene.count({ everyMs: 60_000 });
    const outcomes = await Promise.all([look(), look(), look()]);
    expect(outcomes.map(({ outcome }) => outcome).toSorted()).toEqual(["counted", "skipped", "skipped"]);
    expect(await scene.months(scene.id)).toEqual([{ month: "2026-11", inBytes: 50n * GIB, outBytes: 0n }]);
    expect(await scene.thresholds()).toHaveLength(3);
  });

  it("a look that another process took a moment ago is enough", async () => {
    const scene = await begin(database(), {});
    await scene.at("2026-11-10T12:00:20Z");
    expect(await scene.count({ everyMs: 60_000 })).toEqual({ outcome: "skipped" });
    await scene.at("2026-11-10T12:00:31Z");
    expect(await scene.count({ everyMs: 60_000 })).toMatchObject({ outcome: "counted" });
  });

  describe("a process that was asleep while the cloud answered", () => {
    it("does not write old figures when its turn is over", async () => {
      const scene = await begin(database(), {});
      const slow = slowLook(scene, [running(LONG + 60, { in: 3n })]);
      await slow.asked;
      await scene.at("2026-11-10T13:00:00Z");
      slow.answer();
      expect(await slow.counted).toEqual({ outcome: "late" });
      expect(await scene.months(scene.id)).toEqual([{ month: "2026-11", inBytes: 0n, outBytes: 0n }]);
    });

    it("is overtaken by another one, and its figures change nothing", async () => {
      const scene = await begin(database(), {});
      const slow = slowLook(scene, [running(LONG + 60, { in: 3n })]);
      await slow.asked;
      await scene.at("2026-11-10T12:04:00Z");
      scene.says(running(LONG + 240, { in: 8n }));
      expect(await scene.count()).toMatchObject({ outcome: "counted" });
      slow.answer();
      expect(await slow.counted).toEqual({ outcome: "late" });
      expect(await scene.months(scene.id)).toEqual([{ month: "2026-11", inBytes: 8n, outBytes: 0n }]);
    });
  });

  it("counts ten thousand servers in one statement", async () => {
    const scene = await createScene(database());
    await scene.database.sql(
      `INSERT INTO servers (id, public_id, cloud_id, external_id, name, state, vcpus, memory_mib, disk_gib, created_at, synced_at)
       SELECT gen_random_uuid(), 'srv-' || n, c.id, n::text, 'web-' || n, 'active', 1, 512, 10, '2026-01-01T00:00:00Z', clock()
       FROM generate_series(100000, 109999) n, clouds c`,
    );
    const all = Array.from({ length: 10_000 }, (_, index) => String(100_000 + index));
    const look = (uptimeS: number, bytes: bigint) =>
      all.map((externalId) => running(uptimeS, { externalId, in: bytes, out: bytes }));
    scene.says(...look(LONG, 5n));
    await scene.count();
    await scene.at("2026-11-10T12:01:00Z");
    scene.says(...look(LONG + 60, 9n));
    const statements: string[] = [];
    const watched: Database = {
      ...scene.database,
      transaction: (work) =>
        scene.database.transaction((tx) =>
          work({
            ...tx,
            sql(text, values) {
              if (/INSERT INTO traffic_(?:months|counters)/u.test(text)) statements.push(text);
              return tx.sql(text, values);
            },
          }),
        ),
    };
    expect(await scene.count({ database: watched })).toEqual({
      outcome: "counted",
      servers: 10_000,
      told: 0,
    });
    expect(statements).toHaveLength(1);
    const [sum] = await scene.database.sql(
      `SELECT count(*)::int AS rows, sum(in_bytes)::int AS "inBytes", sum(out_bytes)::int AS "outBytes" FROM traffic_months`,
    );
    expect(sum).toEqual({ rows: 10_000, inBytes: 40_000, outBytes: 40_000 });
  }, 60_000);
});

it("bytes beyond what JSON's receivers can count are text", () => {
  expect([2n ** 53n - 1n, 2n ** 53n].map(payloadBytes)).toEqual([2 ** 53 - 1, "9007199254740992"]);
});

interface Begun extends Scene {
  id: string;
  /** The server has received so much since the scene began; a minute later. */
  sent(gib: bigint): Promise<void>;
}

async function begin(
  database: Database,
  server: { bandwidthGib?: number; planCode?: string },
): Promise<Begun> {
  const scene = await createScene(database);
  const id = await scene.server(server);
  const began = Date.parse("2026-11-10T12:00:00Z");
  let now = began;
  const at: Scene["at"] = async (time) => {
    now = Date.parse(time);
    await scene.at(time);
  };
  scene.says(running(LONG));
  await scene.count();
  return {
    ...scene,
    id,
    at,
    async sent(gib) {
      await at(new Date(now + 60_000).toISOString());
      scene.says(running(LONG + (now - began) / 1000, { in: gib * GIB }));
      expect(await scene.count()).toMatchObject({ outcome: "counted" });
    },
  };
}

/** One whose cloud answers when the test lets it. */
function slowLook(scene: Scene, samples: TrafficSample[]) {
  const asked = Promise.withResolvers<void>();
  const answered = Promise.withResolvers<TrafficSample[]>();
  const cloud = {
    ...scene.cloud,
    traffic() {
      asked.resolve();
      return answered.promise;
    },
  };
  const counted = scene.count({ cloud });
  return { asked: asked.promise, counted, answer: () => answered.resolve(samples) };
}

import { describe, expect, it } from "vitest";
import { newId } from "../../../src/database/id.ts";
import { eachBackend } from "../../support/database.ts";
import { createScene, GIB, off, running, type Scene } from "./scene.ts";

/** 23 days: longer than the month at the scene's beginning. */
const LONG = 2_000_000;
const LONGER = 2 * LONG;

eachBackend("counting traffic", (database) => {
  describe("one life of a server", () => {
    it("counts nothing at the first look, and from then on every difference", async () => {
      const scene = await createScene(database());
      const id = await scene.server();
      scene.says(running(LONG, { in: 500n * GIB, out: 70n * GIB }));
      expect(await scene.count()).toEqual({ outcome: "counted", servers: 1, told: 0 });
      expect(await scene.months(id)).toEqual([{ month: "2026-11", inBytes: 0n, outBytes: 0n }]);
      await scene.at("2026-11-10T12:01:00Z");
      scene.says(running(LONG + 60, { in: 501n * GIB, out: 70n * GIB + 5n }));
      await scene.count();
      await scene.at("2026-11-10T12:02:00Z");
      scene.says(running(LONG + 120, { in: 503n * GIB, out: 70n * GIB + 6n }));
      await scene.count();
      expect(await scene.months(id)).toEqual([{ month: "2026-11", inBytes: 3n * GIB, outBytes: 6n }]);
      expect(await scene.gaps(id)).toEqual([]);
    });

    it("that began this month counts from its beginning, also at the first look", async () => {
      const scene = await createScene(database());
      const id = await scene.server({ createdAt: "2026-11-10T11:50:00Z" });
      scene.says(running(500, { in: 7n, out: 9n }));
      await scene.count();
      expect(await scene.months(id)).toEqual([{ month: "2026-11", inBytes: 7n, outBytes: 9n }]);
    });

    it("that is older than the server's row is not the row's", async () => {
      const scene = await createScene(database());
      const id = await scene.server({ createdAt: "2026-11-10T11:50:00Z" });
      scene.says(running(3600, { in: 7n, out: 9n }));
      await scene.count();
      expect(await scene.months(id)).toEqual([{ month: "2026-11", inBytes: 0n, outBytes: 0n }]);
    });

    it("covers an outage by itself", async () => {
      const scene = await lookedAt(createScene(database()), running(LONG, { in: 100n }));
      scene.says(new Error("away"));
      await scene.at("2026-11-10T13:00:00Z");
      expect(await scene.count()).toEqual({ outcome: "failed" });
      await scene.at("2026-11-10T18:00:00Z");
      scene.says(running(LONG + 6 * 3600 - 9, { in: 900n }));
      await scene.count();
      expect(await scene.months(scene.id)).toEqual([{ month: "2026-11", inBytes: 800n, outBytes: 0n }]);
      expect(await scene.gaps(scene.id)).toEqual([]);
    });

    it("whose counters fall, as when a network card is taken out, counts nothing of that time and says so", async () => {
      const scene = await lookedAt(createScene(database()), running(LONG, { in: 900n, out: 900n }));
      await scene.at("2026-11-10T12:01:00Z");
      scene.says(running(LONG + 60, { in: 400n, out: 950n }));
      await scene.count();
      await scene.at("2026-11-10T12:02:00Z");
      scene.says(running(LONG + 120, { in: 410n, out: 952n }));
      await scene.count();
      expect(await scene.months(scene.id)).toEqual([{ month: "2026-11", inBytes: 10n, outBytes: 2n }]);
      expect(await scene.gaps(scene.id)).toEqual([
        { kind: "reset", cause: "figures", from: "10 12:00", to: "10 12:01" },
      ]);
    });

    it("is not counted from figures that are older than the last ones, or have stood still", async () => {
      const scene = await lookedAt(createScene(database()), running(LONG, { in: 900n }));
      for (const sample of [running(LONG - 40, { in: 800n }), running(LONG, { in: 900n })]) {
        await scene.at("2026-11-10T12:01:00Z");
        scene.says(sample);
        expect(await scene.count()).toMatchObject({ servers: 0 });
      }
      await scene.at("2026-11-10T12:02:00Z");
      scene.says(running(LONG + 110, { in: 1000n }));
      await scene.count();
      expect(await scene.months(scene.id)).toEqual([{ month: "2026-11", inBytes: 100n, outBytes: 0n }]);
      expect(await scene.gaps(scene.id)).toEqual([]);
    });

    it("is not ended by a list that shows it as off for a moment", async () => {
      const scene = await lookedAt(createScene(database()), running(LONG, { in: 900n }));
      await scene.at("2026-11-10T12:01:00Z");
      scene.says(off());
      await scene.count();
      await scene.at("2026-11-10T12:02:00Z");
      await scene.prove(scene.id);
      scene.says(running(LONG + 120, { in: 1000n }));
      await scene.count();
      expect(await scene.months(scene.id)).toEqual([{ month: "2026-11", inBytes: 0n, outBytes: 0n }]);
      expect(await scene.gaps(scene.id)).toEqual([
        { kind: "reset", cause: "figures", from: "10 12:01", to: "10 12:02" },
      ]);
    });
  });

  describe("a restart", () => {
    it("begins a life that counts as a whole, whether its counters are smaller or not", async () => {
      const scene = await lookedAt(createScene(database()), running(LONG, { in: 5000n, out: 100n }));
      await scene.at("2026-11-10T12:01:00Z");
      await scene.prove(scene.id);
      scene.says(running(20, { in: 30n, out: 200n }));
      await scene.count();
      expect(await scene.months(scene.id)).toEqual([{ month: "2026-11", inBytes: 30n, outBytes: 200n }]);
      expect(await scene.gaps(scene.id)).toEqual([]);
    });

    it("right after another one is told by the counters", async () => {
      const scene = await lookedAt(createScene(database()), running(25, { in: 500n }));
      await scene.at("2026-11-10T12:01:00Z");
      await scene.prove(scene.id);
      scene.says(running(50, { in: 30n }));
      await scene.count();
      expect(await scene.months(scene.id)).toEqual([{ month: "2026-11", inBytes: 530n, outBytes: 0n }]);
      expect(await scene.gaps(scene.id)).toEqual([]);
    });

    it("after a time of being off counts from the start on, and being off is no gap", async () => {
      const scene = await lookedAt(createScene(database()), running(LONG, { in: 5000n }));
      scene.says(off());
      for (const minute of ["01", "02", "03", "04", "05", "06", "07", "08"]) {
        await scene.at(`2026-11-10T12:${minute}:00Z`);
        await scene.count();
      }
      await scene.at("2026-11-10T12:09:00Z");
      await scene.prove(scene.id);
      scene.says(running(15, { in: 40n }));
      await scene.count();
      expect(await scene.months(scene.id)).toEqual([{ month: "2026-11", inBytes: 40n, outBytes: 0n }]);
      expect(await scene.gaps(scene.id)).toEqual([]);
    });

    it("in an outage of the cloud leaves a gap up to the new start, with its cause", async () => {
      const scene = await lookedAt(createScene(database()), running(LONG, { in: 100n }));
      scene.says(new Error("away"));
      await scene.at("2026-11-10T12:30:00Z");
      await scene.count();
      await scene.at("2026-11-10T13:00:00Z");
      await scene.prove(scene.id);
      scene.says(running(600, { in: 900n }));
      await scene.count();
      expect(await scene.months(scene.id)).toEqual([{ month: "2026-11", inBytes: 900n, outBytes: 0n }]);
      expect(await scene.gaps(scene.id)).toEqual([
        { kind: "lost", cause: "cloud", from: "10 12:00", to: "10 12:50" },
      ]);
    });

    it("in a long outage is found also when the new life is older and has counted more than the old one had", async () => {
      const scene = await lookedAt(createScene(database()), running(600, { in: 100n }));
      await scene.at("2026-11-10T16:00:00Z");
      await scene.prove(scene.id);
      scene.says(running(7200, { in: 900n }));
      await scene.count();
      expect(await scene.months(scene.id)).toEqual([{ month: "2026-11", inBytes: 1000n, outBytes: 0n }]);
      expect(await scene.gaps(scene.id)).toEqual([
        { kind: "lost", cause: "us", from: "10 12:00", to: "10 14:00" },
      ]);
    });

    it("while the cloud had no figures of this one server is a gap of that cause", async () => {
      const scene = await lookedAt(createScene(database()), running(LONG, { in: 100n }));
      scene.says();
      await scene.at("2026-11-10T12:10:00Z");
      await scene.count();
      await scene.at("2026-11-10T12:11:00Z");
      scene.says(off());
      await scene.count();
      expect(await scene.gaps(scene.id)).toEqual([
        { kind: "lost", cause: "figures", from: "10 12:00", to: "10 12:11" },
      ]);
    });
  });

  describe("whose traffic it is", () => {
    it("a new life counts once the server was seen to be ours since it began, and then as a whole", async () => {
      const scene = await lookedAt(createScene(database()), running(LONG, { in: 100n }));
      await scene.at("2026-11-10T12:03:00Z");
      scene.says(running(120, { in: 40n }));
      expect(await scene.count()).toMatchObject({ servers: 0 });
      await scene.at("2026-11-10T12:05:00Z");
      await scene.prove(scene.id);
      scene.says(running(240, { in: 90n }));
      await scene.count();
      expect(await scene.months(scene.id)).toEqual([{ month: "2026-11", inBytes: 90n, outBytes: 0n }]);
    });

    it("a stranger's under our number counts nothing, and what is ours again counts on", async () => {
      const scene = await lookedAt(createScene(database()), running(LONG, { in: 100n }));
      await scene.at("2026-11-10T12:10:00Z");
      scene.says(running(500, { in: 900n * GIB }));
      await scene.count();
      // A synchronisation has seen whose it is.
      await scene.database.sql(`UPDATE servers SET state = 'missing', synced_at = clock()`);
      await scene.at("2026-11-10T12:20:00Z");
      scene.says(running(1100, { in: 950n * GIB }));
      await scene.count();
      await scene.database.sql(`UPDATE servers SET state = 'active', synced_at = clock()`);
      await scene.at("2026-11-10T12:21:00Z");
      scene.says(running(30, { in: 5n }));
      await scene.count();
      await scene.at("2026-11-10T12:22:00Z");
      await scene.prove(scene.id);
      scene.says(running(90, { in: 6n }));
      await scene.count();
      expect(await scene.months(scene.id)).toEqual([{ month: "2026-11", inBytes: 6n, outBytes: 0n }]);
      expect(await scene.gaps(scene.id)).toEqual([
        { kind: "lost", cause: "figures", from: "10 12:00", to: "10 12:20" },
      ]);
    });

    it("numbers that are nobody's, another cloud's or a deleted server's are not counted", async () => {
      const scene = await createScene(database());
      const id = await scene.server();
      const elsewhere = newId();
      await scene.database.sql(`INSERT INTO clouds (id, name, provider) VALUES ($1, 'pve2', 'pve')`, [
        elsewhere,
      ]);
      const other = await scene.server({ externalId: "100002" });
      await scene.database.sql(`UPDATE servers SET cloud_id = $2 WHERE id = $1`, [other, elsewhere]);
      const gone = await scene.server({ externalId: "100003" });
      await scene.database.sql(`UPDATE servers SET state = 'deleted', deleted_at = clock() WHERE id = $1`, [
        gone,
      ]);
      const ids = ["100001", "100002", "100003", "100004"];
      scene.says(...ids.map((externalId) => running(LONG, { externalId })));
      expect(await scene.count()).toMatchObject({ servers: 1 });
      expect(await scene.months(id)).toHaveLength(1);
      expect([...(await scene.months(other)), ...(await scene.months(gone))]).toEqual([]);
    });

    it("a rebuilt server goes on in the same month, with all that its new system has sent", async () => {
      const scene = await lookedAt(createScene(database()), running(LONG, { in: 100n }));
      await scene.at("2026-11-10T12:01:00Z");
      scene.says(running(LONG + 60, { in: 150n }));
      await scene.count();
      await scene.database.sql(
        `UPDATE servers SET external_id = '100002', synced_at = '2026-11-10T12:04:00Z'`,
      );
      await scene.at("2026-11-10T12:05:00Z");
      scene.says(off("100001"), running(100, { externalId: "100002", in: 7n }));
      await scene.count();
      await scene.at("2026-11-10T12:06:00Z");
      scene.says(running(160, { externalId: "100002", in: 9n }));
      await scene.count();
      expect(await scene.months(scene.id)).toEqual([{ month: "2026-11", inBytes: 59n, outBytes: 0n }]);
      expect(await scene.gaps(scene.id)).toEqual([]);
    });

    it("a deleted server keeps its months", async () => {
      const scene = await lookedAt(createScene(database()), running(LONG, { in: 100n }));
      await scene.at("2026-11-10T12:01:00Z");
      scene.says(running(LONG + 60, { in: 150n }));
      await scene.count();
      await scene.database.sql(`UPDATE servers SET state = 'deleted', deleted_at = clock()`);
      await scene.at("2026-11-10T12:02:00Z");
      scene.says(running(LONG + 120, { in: 950n }));
      await scene.count();
      expect(await scene.months(scene.id)).toEqual([{ month: "2026-11", inBytes: 50n, outBytes: 0n }]);
    });

    it("a server that changes hands has a month for each of them", async () => {
      const scene = await createScene(database());
      const [ada, bob] = [newId(), newId()];
      await scene.database.sql(
        `INSERT INTO customers (id, ref, name) VALUES ($1, 'ada', 'Ada'), ($2, 'bob', 'Bob')`,
        [ada, bob],
      );
      const id = await scene.server({ customerId: ada });
      scene.says(running(LONG, { in: 100n }));
      await scene.count();
      await scene.at("2026-11-10T12:01:00Z");
      scene.says(running(LONG + 60, { in: 150n }));
      await scene.count();
      await scene.database.sql(`UPDATE servers SET customer_id = $1`, [bob]);
      await scene.at("2026-11-10T12:02:00Z");
      scene.says(running(LONG + 120, { in: 157n }));
      await scene.count();
      expect(
        await scene.database.sql(
          `SELECT customer_id AS whose, in_bytes AS "inBytes" FROM traffic_months WHERE server_id = $1 ORDER BY in_bytes`,
          [id],
        ),
      ).toEqual([
        { whose: bob, inBytes: 7n },
        { whose: ada, inBytes: 50n },
      ]);
    });
  });

  describe("a month's end", () => {
    it("is between two looks: what they differ by is the later month's", async () => {
      const scene = await lookedAt(
        createScene(database()),
        running(LONGER, { in: 100n }),
        "2026-11-30T23:58:30Z",
      );
      await scene.at("2026-11-30T23:59:30Z");
      scene.says(running(LONGER + 60, { in: 110n }));
      await scene.count();
      await scene.at("2026-12-01T00:00:30Z");
      scene.says(running(LONGER + 120, { in: 125n }));
      await scene.count();
      expect(await scene.months(scene.id)).toEqual([
        { month: "2026-11", inBytes: 10n, outBytes: 0n },
        { month: "2026-12", inBytes: 15n, outBytes: 0n },
      ]);
      expect(await scene.gaps(scene.id)).toEqual([]);
    });

    it("in an outage: all of it is the later month's, and both say so", async () => {
      const scene = await lookedAt(
        createScene(database()),
        running(LONGER, { in: 100n }),
        "2026-11-30T22:00:00Z",
      );
      await scene.at("2026-12-01T02:00:00Z");
      scene.says(running(LONGER + 4 * 3600, { in: 900n, out: 1n }));
      await scene.count();
      expect(await scene.months(scene.id)).toEqual([
        { month: "2026-11", inBytes: 0n, outBytes: 0n },
        { month: "2026-12", inBytes: 800n, outBytes: 1n },
      ]);
      expect(await scene.gaps(scene.id)).toEqual([
        { kind: "carried", cause: "us", from: "30 22:00", to: "01 02:00" },
      ]);
    });

    it("is UTC's, whatever the session's time zone", async () => {
      const scene = await lookedAt(
        createScene(database()),
        running(LONGER, { in: 100n }),
        "2026-11-30T23:59:00Z",
      );
      expect(await scene.months(scene.id)).toMatchObject([{ month: "2026-11" }]);
      await scene.at("2026-12-01T00:00:00Z");
      scene.says(running(LONGER + 60, { in: 101n }));
      await scene.count();
      expect(await scene.months(scene.id)).toMatchObject([{ month: "2026-11" }, { month: "2026-12" }]);
    });
  });
});

/** A scene with one server, looked at once. */
async function lookedAt(
  opening: Promise<Scene>,
  sample: ReturnType<typeof running>,
  time = "2026-11-10T12:00:00Z",
): Promise<Scene & { id: string }> {
  const scene = await opening;
  await scene.at(time);
  const id = await scene.server();
  scene.says(sample);
  await scene.count();
  return { ...scene, id };
}

import { describe, expect, it } from "vitest";
import { eachBackend } from "../../support/database.ts";
import { createScene, GIB, off, running } from "./scene.ts";

eachBackend("counting traffic", (database) => {
  describe("one life of a server", () => {
    it("counts nothing at the first look, and from then on every difference", async () => {
      const scene = await createScene(database());
      const id = await scene.server();
      scene.says(running(2_000_000, { in: 500n * GIB, out: 70n * GIB }));
      expect(await scene.count()).toEqual({ outcome: "counted", servers: 1, told: 0 });
      expect(await scene.months(id)).toEqual([{ month: "2026-11", inBytes: 0n, outBytes: 0n }]);
      await scene.at("2026-11-10T12:01:00Z");
      scene.says(running(2_000_060, { in: 501n * GIB, out: 70n * GIB + 5n }));
      await scene.count();
      await scene.at("2026-11-10T12:02:00Z");
      scene.says(running(2_000_120, { in: 503n * GIB, out: 70n * GIB + 6n }));
      await scene.count();
      expect(await scene.months(id)).toEqual([{ month: "2026-11", inBytes: 3n * GIB, outBytes: 6n }]);
      expect(await scene.gaps(id)).toEqual([]);
    });

    it("of a server that was made this month counts from its beginning", async () => {
      const scene = await createScene(database());
      const id = await scene.server({ createdAt: "2026-11-10T11:50:00Z" });
      scene.says(running(500, { in: 7n, out: 9n }));
      await scene.count();
      expect(await scene.months(id)).toEqual([{ month: "2026-11", inBytes: 7n, outBytes: 9n }]);
    });

    it("covers an outage by itself", async () => {
      const scene = await createScene(database());
      const id = await scene.server();
      scene.says(running(2_000_000, { in: 100n }));
      await scene.count();
      scene.says(new Error("away"));
      await scene.at("2026-11-10T13:00:00Z");
      expect(await scene.count()).toEqual({ outcome: "failed" });
      await scene.at("2026-11-10T18:00:00Z");
      scene.says(running(2_000_000 + 6 * 3600 - 9, { in: 900n }));
      await scene.count();
      expect(await scene.months(id)).toEqual([{ month: "2026-11", inBytes: 800n, outBytes: 0n }]);
      expect(await scene.gaps(id)).toEqual([]);
    });
  });

  describe("a restart", () => {
    it("begins a new life, which counts as a whole", async () => {
      const scene = await createScene(database());
      const id = await scene.server();
      scene.says(running(2_000_000, { in: 5000n, out: 100n }));
      await scene.count();
      await scene.at("2026-11-10T12:01:00Z");
      await scene.prove(id);
      scene.says(running(20, { in: 30n, out: 200n }));
      await scene.count();
      expect(await scene.months(id)).toEqual([{ month: "2026-11", inBytes: 30n, outBytes: 200n }]);
      expect(await scene.gaps(id)).toEqual([]);
    });

    it("after a time of being off counts from the start on", async () => {
      const scene = await createScene(database());
      const id = await scene.server();
      scene.says(running(2_000_000, { in: 5000n }));
      await scene.count();
      await scene.at("2026-11-10T12:01:00Z");
      scene.says(off());
      await scene.count();
      await scene.at("2026-11-10T12:02:00Z");
      await scene.count();
      await scene.at("2026-11-10T12:03:00Z");
      await scene.prove(id);
      scene.says(running(15, { in: 40n }));
      await scene.count();
      expect(await scene.months(id)).toEqual([{ month: "2026-11", inBytes: 40n, outBytes: 0n }]);
      expect(await scene.gaps(id)).toEqual([]);
    });
  });
});

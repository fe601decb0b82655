import { afterEach, beforeEach, expect, it } from "vitest";
import type { Observation } from "../../../src/core/cloud.ts";
import { eachBackend } from "../../support/database.ts";
import { createScene, order, type Scene } from "./scene.ts";

eachBackend("the watcher", (database) => {
  let at: Scene;
  /** What the cloud answers to the next look, for every wait. */
  let answer: Omit<Observation, "waitId">;
  let looks: number;

  beforeEach(async () => {
    answer = {};
    looks = 0;
    at = await createScene({
      database: database(),
      cloud: {
        watch: (waits) => {
          looks += 1;
          return Promise.resolve(waits.map(({ id }) => ({ waitId: id, ...answer })));
        },
      },
    });
  });
  afterEach(() => at.close());

  async function wait(): Promise<{
    observedAt: Date | null;
    note: string | null;
    done: boolean;
    version: number;
  }> {
    const [row] = await at.database.sql<Awaited<ReturnType<typeof wait>>>(
      `SELECT w.observed_at AS "observedAt", w.note, w.resolved_at IS NOT NULL AS done, o.version
       FROM waits w JOIN operations o ON o.id = w.operation_id`,
    );
    if (row === undefined) throw new Error("nothing waits");
    return row;
  }

  it("writes what is new at once, and that it looked once or twice a minute", async () => {
    await at.ask(at.sam, "server.provision", { ...order, name: "web-1" });
    const { tick, watcher } = at.process("first");
    await tick();
    expect((await wait()).observedAt).toBeNull();
    await watcher.tick();
    const first = await wait();
    expect(first.observedAt).not.toBeNull();

    await at.later(20_000);
    await watcher.tick();
    expect(looks).toBe(2);
    expect(await wait()).toEqual(first);

    answer = { note: "building" };
    await at.later(2_000);
    await watcher.tick();
    const told = await wait();
    expect(told).toMatchObject({ note: "building", version: first.version + 1 });
    expect(told.observedAt?.getTime()).toBeGreaterThan(first.observedAt?.getTime() ?? 0);
    await watcher.tick();
    expect(await wait()).toEqual(told);

    await at.later(61_000);
    await watcher.tick();
    const noted = await wait();
    expect(noted).toEqual({ ...told, observedAt: noted.observedAt });
    expect(noted.observedAt?.getTime()).toBeGreaterThan(told.observedAt?.getTime() ?? 0);

    answer = { result: { outcome: "settled" } };
    await watcher.tick();
    expect(await wait()).toMatchObject({ done: true, version: told.version + 1 });
  });
});

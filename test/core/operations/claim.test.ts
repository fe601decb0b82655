import { afterEach, beforeEach, expect, it } from "vitest";
import { claimNext } from "../../../src/core/operations/claim.ts";
import { newId } from "../../../src/database/id.ts";
import { eachBackend } from "../../support/database.ts";
import { createScene, nothingLeft, order, type Scene } from "./scene.ts";

eachBackend("claiming", (database) => {
  let at: Scene;

  beforeEach(async () => {
    at = await createScene({ database: database() });
  });
  afterEach(() => at.close());

  async function orders(count: number): Promise<string[]> {
    const ids: string[] = [];
    for (let n = 0; n < count; n += 1) {
      const answer = await at.ask(at.sam, "server.provision", { ...order, name: `web-${n}` });
      if (answer.kind === "operation") ids.push(answer.operationId);
    }
    return ids;
  }

  it("gives each free place of a cloud to one operation, however many workers want it", async () => {
    await orders(10);
    await at.database.sql(`DELETE FROM slots WHERE n > 2`);

    const claims = await Promise.all(
      Array.from({ length: 8 }, (_, n) => claimNext(at.database, `worker-${n}`)),
    );

    const got = claims.filter((claim) => claim !== null);
    expect(new Set(got.map((claim) => claim.operationId)).size).toBe(got.length);
    expect(got).toHaveLength(2);
    expect(await claimNext(at.database, "late")).toBeNull();
  });

  it("looks past a cloud without a place", async () => {
    const ids = await orders(3);
    await at.database.sql(`DELETE FROM slots`);
    const other = newId();
    await at.database.sql(`INSERT INTO clouds (id, name, provider) VALUES ($1, 'os2', 'openstack')`, [other]);
    await at.database.sql(`INSERT INTO slots (cloud_id, n) VALUES ($1, 1)`, [other]);
    await at.database.sql(`UPDATE operations SET cloud_id = $1 WHERE id = $2`, [other, ids[2]]);

    expect(await claimNext(at.database, "one")).toMatchObject({ operationId: ids[2] });
    expect(await claimNext(at.database, "one")).toBeNull();
  });

  it("takes over only what is due and whose lease has run out", async () => {
    const [id] = await orders(1);
    const first = await claimNext(at.database, "one");
    expect(first).toMatchObject({ operationId: id, fence: 1 });
    await at.later(14_000);
    expect(await claimNext(at.database, "two")).toBeNull();
    await at.later(2_000);
    expect(await claimNext(at.database, "two")).toMatchObject({ operationId: id, fence: 2 });
  });

  it("runs each operation once with several workers, and never more at a time than there are places", {
    timeout: 60_000,
  }, async () => {
    const ids = await orders(12);
    await at.database.sql(`DELETE FROM slots WHERE n > 3`);
    const workers = ["one", "two", "three"].map((name) => at.process(name));
    let most = 0;
    await expect
      .poll(
        async () => {
          await Promise.all(workers.map((worker) => worker.tick()));
          const [row] = await at.database.sql<{ busy: number; ended: number }>(
            `SELECT count(*) FILTER (WHERE state IN ('running', 'waiting'))::int AS busy,
               count(*) FILTER (WHERE state = 'succeeded')::int AS ended FROM operations`,
          );
          most = Math.max(most, row?.busy ?? 0);
          await Promise.all(workers.map((worker) => worker.watcher.tick()));
          return row?.ended;
        },
        { interval: 4, timeout: 40_000 },
      )
      .toBe(ids.length);

    expect(most).toBeGreaterThan(0);
    expect(most).toBeLessThanOrEqual(3);
    expect(at.live()).toHaveLength(12);
    const steps = await at.database.sql<{ attempt: number }>(`SELECT attempt FROM operation_steps`);
    expect(new Set(steps.map((step) => step.attempt))).toEqual(new Set([1]));
    expect(await at.leftovers()).toEqual(nothingLeft);
  });
});

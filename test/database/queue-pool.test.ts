// The queue's pool is only as good as what BullMQ can do with it.
import { createPostgresBackend, isPgPool, type PgPool, runMigrations, withBackend } from "bullmq";
import { beforeAll, expect, test } from "vitest";
import { eachBackend } from "../support/database.ts";

const { Queue, Worker } = withBackend(createPostgresBackend);

eachBackend("BullMQ on queuePool", (database) => {
  // pg's own types and BullMQ's idea of them differ in the listeners of a client.
  function connectionOf(pool: unknown): PgPool {
    if (!isPgPool(pool)) {
      throw new Error("BullMQ does not take the queue's pool for a pool");
    }
    return pool;
  }

  beforeAll(async () => {
    const client = await database().queuePool.connect();
    await runMigrations(client);
    client.release();
  });

  test("jobs run while transactions do, and nothing lands in our schema", async () => {
    const connection = connectionOf(database().queuePool);
    const queue = new Queue("nudges", { connection });
    let done = 0;
    let finish = (): void => {};
    const finished = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const worker = new Worker(
      "nudges",
      async () => {
        await database().transaction(async (tx) => {
          await tx.prisma.customer.count();
          await tx.sql("SELECT 1");
        });
        done += 1;
        if (done === 40) {
          finish();
        }
      },
      { connection, concurrency: 4 },
    );
    await worker.waitUntilReady();
    await Promise.all(Array.from({ length: 40 }, (_, n) => queue.add("nudge", { n })));
    await finished;
    await worker.close();
    await queue.close();
    const tables = await database().sql<{ schema: string }>(
      "SELECT DISTINCT schemaname AS schema FROM pg_tables WHERE tablename IN ('job', 'scheduler', 'meta')",
    );

    expect(done).toBe(40);
    expect(tables).toEqual([{ schema: "bullmq" }]);
  });

  test("adding a job inside a transaction is refused at once", async () => {
    const queue = new Queue("nudges", { connection: connectionOf(database().queuePool) });
    await queue.waitUntilReady();
    await database().transaction(async () => {
      await expect(queue.add("nudge", {})).rejects.toThrow(/The queue was used inside a transaction/);
    });
    await expect(queue.add("nudge", {})).resolves.toBeDefined();
    await queue.close();
  });
});

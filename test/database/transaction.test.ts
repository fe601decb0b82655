import { setTimeout as sleep } from "node:timers/promises";
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Database, Transaction } from "../../src/database/client.ts";
import { newId } from "../../src/database/id.ts";
import { assertOutsideTransaction } from "../../src/database/transaction.ts";
import { clean, eachBackend } from "../support/database.ts";

const INSIDE = /inside a transaction/;

eachBackend("transaction", (database) => {
  beforeAll(async () => {
    await database().sql(
      "CREATE TABLE probe (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, note text UNIQUE)",
    );
  });
  beforeEach(async () => {
    await clean(database());
  });

  async function ids(): Promise<number[]> {
    const rows = await database().sql<{ id: number }>("SELECT id FROM probe ORDER BY id");
    return rows.map(({ id }) => id);
  }

  describe("commit and rollback", () => {
    test("commits what work wrote through sql and through prisma, and answers its result", async () => {
      const result = await database().transaction(async (tx) => {
        await tx.sql("INSERT INTO probe VALUES ($1, $2)", [1, "one"]);
        await tx.prisma.customer.create({ data: { id: newId(), ref: "c-1", name: "Ada" } });
        return "done";
      });

      expect(result).toBe("done");
      expect(await ids()).toEqual([1]);
      expect(await database().prisma.customer.count()).toBe(1);
    });

    test("rolls both back when work throws, and throws the same error", async () => {
      const failure = new Error("no");
      const attempt = database().transaction(async (tx) => {
        await tx.sql("INSERT INTO probe VALUES (1)");
        await tx.prisma.customer.create({ data: { id: newId(), ref: "c-1", name: "Ada" } });
        throw failure;
      });

      await expect(attempt).rejects.toBe(failure);
      expect(await ids()).toEqual([]);
      expect(await database().prisma.customer.count()).toBe(0);
    });

    test("sql and prisma are the same transaction: each sees what the other wrote", async () => {
      await database().transaction(async (tx) => {
        await tx.prisma.customer.create({ data: { id: newId(), ref: "c-1", name: "Ada" } });
        expect(await tx.sql("SELECT ref FROM customers")).toEqual([{ ref: "c-1" }]);
        await tx.sql("UPDATE customers SET name = 'Grace'");
        expect(await tx.prisma.customer.findFirst()).toMatchObject({ name: "Grace" });
      });
    });

    test("runs statements that were started together, one after the other", async () => {
      await database().transaction(async (tx) => {
        await Promise.all([1, 2, 3].map((id) => tx.sql("INSERT INTO probe VALUES ($1)", [id])));
        await Promise.all([tx.prisma.customer.count(), tx.sql("SELECT 1"), tx.prisma.server.count()]);
      });

      expect(await ids()).toEqual([1, 2, 3]);
    });

    test("a COMMIT that the database refuses is thrown with the database's own error", async () => {
      await database().sql("INSERT INTO probe VALUES (1)");
      const attempt = database().transaction(async (tx) => {
        await tx.sql("INSERT INTO probe VALUES (1)");
        return "a lie";
      });

      await expect(attempt).rejects.toMatchObject({ code: "23505", constraint: "probe_pkey" });
      expect(await ids()).toEqual([1]);
    });

    test("a swallowed error does not pass for a success", async () => {
      const attempt = database().transaction(async (tx) => {
        await tx.sql("INSERT INTO probe VALUES (1)");
        await tx.sql("SELECT * FROM no_such_table").catch(() => {});
        return "a lie";
      });

      await expect(attempt).rejects.toThrow(/rolled back at its commit/);
      expect(await ids()).toEqual([]);
    });

    test("an error swallowed from prisma does not pass for a success either", async () => {
      await database().prisma.customer.create({ data: { id: newId(), ref: "c-1", name: "Ada" } });
      const attempt = database().transaction(async (tx) => {
        await tx.sql("INSERT INTO probe VALUES (1)");
        await tx.prisma.customer.create({ data: { id: newId(), ref: "c-1", name: "Again" } }).catch(() => {});
      });

      await expect(attempt).rejects.toThrow(/rolled back at its commit/);
      expect(await ids()).toEqual([]);
    });

    test("many at once all commit", async () => {
      await Promise.all(
        Array.from({ length: 50 }, (_, id) =>
          database().transaction(async (tx) => {
            await tx.sql("INSERT INTO probe VALUES ($1)", [id]);
            await tx.prisma.customer.count();
          }),
        ),
      );

      expect(await ids()).toHaveLength(50);
    });
  });

  describe("the end of a transaction", () => {
    test("a transaction over its time is rolled back and refuses later statements", async () => {
      const attempt = database().transaction(
        async (tx) => {
          await tx.sql("INSERT INTO probe VALUES (1)");
          await sleep(400);
          await tx.sql("INSERT INTO probe VALUES (2)");
        },
        { timeoutMs: 100 },
      );

      await expect(attempt).rejects.toThrow(/has ended/);
      expect(await ids()).toEqual([]);
    });

    test("a transaction over its time is not committed when work returns", async () => {
      const attempt = database().transaction(
        async (tx) => {
          await tx.sql("INSERT INTO probe VALUES (1)");
          await sleep(400);
        },
        { timeoutMs: 100 },
      );

      await expect(attempt).rejects.toMatchObject({ code: "P2028" });
      expect(await ids()).toEqual([]);
    });

    test("a transaction kept beyond its end refuses to run", async () => {
      let kept: Transaction | undefined;
      await database().transaction((tx) => {
        kept = tx;
        return Promise.resolve();
      });

      await expect(kept?.sql("INSERT INTO probe VALUES (1)")).rejects.toThrow(/has ended/);
      await expect(kept?.prisma.customer.count()).rejects.toMatchObject({ code: "P2028" });
      expect(await ids()).toEqual([]);
    });

    test("afterCommit runs after the commit, in order, where root queries are allowed again", async () => {
      const seen: unknown[] = [];
      await database().transaction(async (tx) => {
        tx.afterCommit(() => seen.push(ids()));
        tx.afterCommit(() => {
          assertOutsideTransaction("a test");
          seen.push("second");
        });
        await tx.sql("INSERT INTO probe VALUES (1)");
        expect(seen).toEqual([]);
      });

      expect(seen[1]).toBe("second");
      expect(await seen[0]).toEqual([1]);
    });

    test("afterCommit does not run after a rollback", async () => {
      let ran = false;
      const attempt = database().transaction((tx) => {
        tx.afterCommit(() => {
          ran = true;
        });
        return Promise.reject(new Error("no"));
      });

      await expect(attempt).rejects.toThrow("no");
      expect(ran).toBe(false);
    });
  });

  describe("retry", () => {
    const fail = (tx: Transaction, code: string): Promise<unknown> =>
      tx.sql(`DO $$ BEGIN RAISE EXCEPTION 'planted' USING ERRCODE = '${code}'; END $$`);

    test.for(["40001", "40P01"])(
      "runs work again after SQLSTATE %s, and forgets the lost attempt",
      async (code) => {
        let attempts = 0;
        const committed: number[] = [];
        await database().transaction(async (tx) => {
          attempts += 1;
          const attempt = attempts;
          tx.afterCommit(() => committed.push(attempt));
          await tx.sql("INSERT INTO probe VALUES ($1)", [attempt]);
          if (attempt < 3) {
            await fail(tx, code);
          }
        });

        expect(attempts).toBe(3);
        expect(committed).toEqual([3]);
        expect(await ids()).toEqual([3]);
      },
    );

    test("gives up after three attempts with the database's error", async () => {
      let attempts = 0;
      const attempt = database().transaction(async (tx) => {
        attempts += 1;
        await fail(tx, "40001");
      });

      await expect(attempt).rejects.toMatchObject({ code: "40001" });
      expect(attempts).toBe(3);
    });

    test("recognises what prisma makes of a deadlock", async () => {
      let attempts = 0;
      await database().transaction(async (tx) => {
        attempts += 1;
        if (attempts === 1) {
          await tx.prisma.$executeRawUnsafe(
            "DO $$ BEGIN RAISE EXCEPTION 'planted' USING ERRCODE = '40P01'; END $$",
          );
        }
      });

      expect(attempts).toBe(2);
    });

    test("does not repeat any other error", async () => {
      let attempts = 0;
      const attempt = database().transaction(async (tx) => {
        attempts += 1;
        await fail(tx, "23514");
      });

      await expect(attempt).rejects.toMatchObject({ code: "23514" });
      expect(attempts).toBe(1);
    });

    test("two transactions that deadlock both commit in the end", async (context) => {
      context.skip(database().mode === "embedded", "one session cannot deadlock");
      await database().sql("INSERT INTO probe VALUES (1, 'a'), (2, 'b')");
      let starts = 0;
      const bothHoldOne = Promise.withResolvers<void>();
      const update = async (tx: Transaction, first: number, second: number): Promise<void> => {
        await tx.sql("UPDATE probe SET note = note || $2 WHERE id = $1", [first, first]);
        starts += 1;
        if (starts === 2) {
          bothHoldOne.resolve();
        }
        await bothHoldOne.promise;
        await tx.sql("UPDATE probe SET note = note || $2 WHERE id = $1", [second, first]);
      };
      await Promise.all([
        database().transaction((tx) => update(tx, 1, 2)),
        database().transaction((tx) => update(tx, 2, 1)),
      ]);

      // The one that gave way may take its row again before the other is awake: a second deadlock.
      expect(starts).toBeGreaterThanOrEqual(3);
      expect(await database().sql("SELECT length(note) AS n FROM probe")).toEqual([{ n: 3 }, { n: 3 }]);
    });
  });

  describe("the guard", () => {
    const forbidden: Record<string, (db: Database) => unknown> = {
      "a root query of a model": (db) => db.prisma.customer.count(),
      "a root look-up that prisma batches": (db) => db.prisma.customer.findUnique({ where: { ref: "x" } }),
      "a root nested write": (db) => db.prisma.customer.deleteMany(),
      "a root $queryRaw": (db) => db.prisma.$queryRaw`SELECT 1`,
      "a root $executeRawUnsafe": (db) => db.prisma.$executeRawUnsafe("SELECT 1"),
      sql: (db) => db.sql("SELECT 1"),
      "pool.query": (db) => db.pool.query("SELECT 1"),
      "pool.connect": (db) => db.pool.connect(),
      "the queue's pool.query": (db) => db.queuePool.query("SELECT 1"),
      "the queue's pool.connect": (db) => db.queuePool.connect(),
      "a transaction in a transaction": (db) => db.transaction(() => Promise.resolve()),
    };

    test.for(Object.entries(forbidden))(
      "refuses %s, before and after a statement of the transaction",
      async ([, use]) => {
        await database().transaction(async (tx) => {
          await expect(use(database())).rejects.toThrow(INSIDE);
          await tx.prisma.customer.count();
          await expect(use(database())).rejects.toThrow(INSIDE);
          await tx.sql("SELECT 1");
          await sleep(1);
          await expect(use(database())).rejects.toThrow(INSIDE);
        });
      },
    );

    test("refuses prisma's own $transaction everywhere", async () => {
      await expect(database().prisma.$transaction([])).rejects.toThrow(/only door/);
    });

    test("names what was tried", async () => {
      await database().transaction(async () => {
        await expect(database().prisma.customer.count()).rejects.toThrow(
          "The root database client (Customer.count) was used inside a transaction",
        );
        expect(() => assertOutsideTransaction("HTTP to a cloud")).toThrow(/^HTTP to a cloud was used inside/);
      });
    });

    test("everything refused inside works before, after and beside a transaction", async () => {
      let release = (): void => {};
      const held = new Promise<void>((resolve) => {
        release = resolve;
      });
      const open = database().transaction(() => held);
      await sleep(20);
      const beside = Promise.all([
        database().prisma.customer.count(),
        database().sql("SELECT 1"),
        database().pool.query("SELECT 1"),
        database().queuePool.query("SELECT 1"),
        database().transaction((tx) => tx.sql("SELECT 1")),
      ]);
      if (database().mode === "postgres") {
        await beside;
      }
      release();
      await open;

      await expect(beside).resolves.toHaveLength(5);
      assertOutsideTransaction("a test");
    });

    test("is not fooled by look-ups that prisma batches in one tick across contexts", async () => {
      const find = (): Promise<unknown> => database().prisma.customer.findUnique({ where: { ref: "x" } });
      let outside: Promise<unknown[]> | undefined;
      let askOutside = (): void => {};
      const asked = new Promise<void>((resolve) => {
        askOutside = resolve;
      });
      const outsider = asked.then(() => {
        outside = Promise.all([find(), find()]);
        return outside;
      });
      await database().transaction(async (tx) => {
        const own = tx.prisma.customer.findUnique({ where: { ref: "x" } }).then((found) => found);
        askOutside();
        const mine = find();
        await expect(mine).rejects.toThrow(INSIDE);
        expect(await own).toBeNull();
      });

      await expect(outsider).resolves.toEqual([null, null]);
    });

    test("ends with the transaction, also for work left running", async () => {
      let late: Promise<unknown> | undefined;
      await database().transaction(() => {
        late = sleep(50).then(() => database().sql("SELECT 1 AS one"));
        return Promise.resolve();
      });

      await expect(late).resolves.toEqual([{ one: 1 }]);
    });
  });
});

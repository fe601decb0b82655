import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Queryable } from "../../src/database/client.ts";
import { isSerializationFailure, isUniqueViolation, sqlState } from "../../src/database/errors.ts";
import { newId } from "../../src/database/id.ts";
import { clean, eachBackend, moveClock } from "../support/database.ts";

interface Now {
  readonly now: Date;
}

eachBackend("sql", (database) => {
  beforeAll(async () => {
    await database().sql(`CREATE TABLE probe (id int PRIMARY KEY, name text, state text, body jsonb)`);
    await database().sql("CREATE UNIQUE INDEX probe_live_name ON probe (lower(name)) WHERE state = 'live'");
    await database().sql(
      "CREATE TABLE late (id int CONSTRAINT late_unique UNIQUE DEFERRABLE INITIALLY DEFERRED)",
    );
  });
  beforeEach(async () => {
    await clean(database());
  });

  /** The same question outside and inside a transaction. */
  async function both<T>(ask: (db: Queryable) => Promise<T>): Promise<{ outside: T; inside: T }> {
    return { outside: await ask(database()), inside: await database().transaction((tx) => ask(tx)) };
  }

  describe("types", () => {
    const bytes = Buffer.from([0, 1, 254, 255]);
    const at = new Date("2026-03-04T05:06:07.089Z");
    const id = "0198f3a0-0000-7000-8000-000000000001";
    const cases: [type: string, given: unknown, answer: unknown][] = [
      ["int4", 7, 7],
      ["int8", 9_007_199_254_740_993n, 9_007_199_254_740_993n],
      ["int8[]", [1n, null, 2n], [1n, null, 2n]],
      ["float8", 1.5, 1.5],
      ["numeric", "12.340", "12.340"],
      ["bool", true, true],
      ["text", "é 'quoted' \\ \"x\"", "é 'quoted' \\ \"x\""],
      ["text", null, null],
      ["text[]", ['a,"b"', "c\\", ""], ['a,"b"', "c\\", ""]],
      ["text[]", [], []],
      ["int4[]", [1, 2], [1, 2]],
      ["uuid", id, id],
      ["uuid[]", [id], [id]],
      ["timestamptz", at, at],
      ["timestamptz[]", [at], [at]],
      ["timestamp", "2026-03-04 05:06:07.089", at],
      ["date", "2026-03-04", "2026-03-04"],
      ["jsonb", { a: [1, { b: null }] }, { a: [1, { b: null }] }],
      ["json", { a: "é" }, { a: "é" }],
      ["jsonb", JSON.stringify([1, "two"]), [1, "two"]],
      ["bytea", bytes, bytes],
      ["bytea", new Uint8Array(bytes), bytes],
    ];

    test.for(cases)("%s (%#)", async ([type, given, answer]) => {
      const { outside, inside } = await both((db) => db.sql(`SELECT $1::${type} AS value`, [given]));

      expect(outside).toEqual([{ value: answer }]);
      expect(inside).toEqual(outside);
    });

    test("a date in another zone's notation is the same moment for prisma and for sql", async () => {
      const data = { id: newId(), ref: "c", name: "Ada", closedAt: at };
      await database().prisma.customer.create({ data });
      const { outside, inside } = await both((db) => db.sql("SELECT closed_at FROM customers"));

      expect(outside).toEqual([{ closed_at: at }]);
      expect(inside).toEqual(outside);
      expect(await database().prisma.customer.findFirst()).toMatchObject({ closedAt: at });
    });

    test("no rows, no columns and RETURNING", async () => {
      expect(await both((db) => db.sql("SELECT 1 WHERE false"))).toEqual({ outside: [], inside: [] });
      expect(await both((db) => db.sql("UPDATE probe SET name = 'x'"))).toEqual({ outside: [], inside: [] });
      expect(await database().sql("INSERT INTO probe (id) VALUES ($1) RETURNING id", [5])).toEqual([
        { id: 5 },
      ]);
    });
  });

  describe("errors", () => {
    test("are the same outside and inside, and do not quote the parameters", async () => {
      const ask = async (db: Queryable): Promise<unknown> => {
        try {
          await db.sql("SELECT $1::int", ["s3cret-value"]);
        } catch (error) {
          return error;
        }
        return undefined;
      };
      const outside = await ask(database());
      const inside = await database()
        .transaction(async (tx) => {
          throw await ask(tx);
        })
        .catch((error: unknown) => error);

      expect(sqlState(outside)).toBe("22P02");
      expect(inside).toEqual(outside);
      expect(Object.keys(outside as object)).not.toContain("params");
      expect(Object.keys(outside as object)).not.toContain("query");
    });

    test("isUniqueViolation names the index on every path", async () => {
      const row = "INSERT INTO probe (id, name, state) VALUES ($1, 'Web', 'live')";
      await database().sql(row, [1]);
      const paths: Record<string, () => Promise<unknown>> = {
        sql: () => database().sql(row, [2]),
        pool: () => database().pool.query(row, [2]),
        "tx.sql": () => database().transaction((tx) => tx.sql(row, [2])),
        "prisma raw": () => database().prisma.$executeRawUnsafe(row, 2),
        "tx.prisma raw": () => database().transaction((tx) => tx.prisma.$executeRawUnsafe(row, 2)),
      };
      for (const [path, attempt] of Object.entries(paths)) {
        const error = await attempt().catch((reason: unknown) => reason);
        expect(isUniqueViolation(error), path).toBe(true);
        expect(isUniqueViolation(error, "probe_live_name"), path).toBe(true);
        expect(isUniqueViolation(error, "probe_pkey"), path).toBe(false);
      }
    });

    test("isUniqueViolation names the index for prisma's models", async () => {
      const data = { ref: "c-1", name: "Ada" };
      await database().prisma.customer.create({ data: { id: newId(), ...data } });
      const outside = database().prisma.customer.create({ data: { id: newId(), ...data } });
      const outsideError = await outside.catch((error: unknown) => error);
      const inside = database().transaction((tx) =>
        tx.prisma.customer.create({ data: { id: newId(), ...data } }),
      );
      const insideError = await inside.catch((error: unknown) => error);

      for (const error of [outsideError, insideError]) {
        expect(isUniqueViolation(error)).toBe(true);
        expect(isUniqueViolation(error, "customers_ref_key")).toBe(true);
        expect(isUniqueViolation(error, "customers_pkey")).toBe(false);
      }
    });

    test("isUniqueViolation names the constraint that refused a COMMIT", async () => {
      await database().sql("INSERT INTO late VALUES (1)");
      const attempt = database().transaction((tx) => tx.sql("INSERT INTO late VALUES (1)"));
      const error = await attempt.catch((reason: unknown) => reason);

      expect(isUniqueViolation(error, "late_unique")).toBe(true);
    });

    test("isUniqueViolation finds the error behind others", async () => {
      const attempt = database().sql("INSERT INTO probe (id) VALUES (1), (1)");
      const error = await attempt.catch((cause: unknown) => new Error("could not save", { cause }));

      expect(isUniqueViolation(error, "probe_pkey")).toBe(true);
    });

    test("isUniqueViolation is false for everything else", async () => {
      const attempt = database().sql("INSERT INTO probe (id) VALUES (NULL)");
      const error = await attempt.catch((reason: unknown) => reason);

      expect(sqlState(error)).toBe("23502");
      for (const other of [error, new Error("no"), undefined, null, "23505", { code: "23505" }]) {
        expect(isUniqueViolation(other)).toBe(false);
        expect(isSerializationFailure(other)).toBe(false);
      }
    });
  });

  describe("a statement that is asked again", () => {
    test("is parsed once for its connection", async () => {
      const known = await database().transaction(async (tx) => {
        for (const id of [1, 2, 3]) await tx.sql("INSERT INTO probe (id, name) VALUES ($1, 'again')", [id]);
        return tx.sql<{ statement: string }>(
          "SELECT statement FROM pg_prepared_statements WHERE statement LIKE '%''again'')'",
        );
      });

      expect(known).toEqual([{ statement: "INSERT INTO probe (id, name) VALUES ($1, 'again')" }]);
    });

    test("works after it has failed for its values", async () => {
      const divide = (by: number) => database().sql("SELECT 12 / $1::int AS value", [by]);

      expect(await divide(0).catch(sqlState)).toBe("22012");
      expect(await divide(4)).toEqual([{ value: 3 }]);
      expect(await divide(0).catch(sqlState)).toBe("22012");
      expect(await divide(6)).toEqual([{ value: 2 }]);
    });

    test("works after what it names was made, and made anew", async () => {
      const ask = () => database().sql("SELECT id FROM later WHERE id = $1", [1]);

      expect(await ask().catch(sqlState)).toBe("42P01");
      await database().sql("CREATE TABLE later (id int)");
      expect(await ask()).toEqual([]);
      await database().sql("DROP TABLE later");
      await database().sql("CREATE TABLE later AS SELECT 'x' AS name, 1 AS id");
      expect(await ask()).toEqual([{ id: 1 }]);
      await database().sql("DROP TABLE later");
    });

    test("works inside a transaction after an earlier one was rolled back", async () => {
      const text = "INSERT INTO probe (id, name) VALUES ($1, 'rolled back')";
      const attempt = database().transaction(async (tx) => {
        await tx.sql(text, [1]);
        await tx.sql(text, [1]);
      });

      expect(await attempt.catch(sqlState)).toBe("23505");
      await database().transaction((tx) => tx.sql(text, [1]));
      expect(await database().sql("SELECT id FROM probe")).toEqual([{ id: 1 }]);
    });
  });

  describe("clock()", () => {
    test("moves for sql and for defaults, and back", async () => {
      const day = 24 * 60 * 60 * 1000;
      await moveClock(database(), day);
      const [row] = await database().sql<Now>("SELECT clock() AS now");
      const customer = await database().prisma.customer.create({
        data: { id: newId(), ref: "c", name: "Ada" },
      });
      await moveClock(database(), 0);
      const [later] = await database().sql<Now>("SELECT clock() AS now");

      expect(Number(row?.now) - Date.now()).toBeGreaterThan(day - 60_000);
      expect(customer.createdAt.getTime() - Date.now()).toBeGreaterThan(day - 60_000);
      expect(Math.abs(Number(later?.now) - Date.now())).toBeLessThan(60_000);
    });

    test("moves for a statement that was asked before", async () => {
      const hour = 60 * 60 * 1000;
      const inAnHour = async () => {
        const rows = await database().sql<Now>(
          "SELECT clock() + make_interval(hours => $1::int) AS now",
          [1],
        );
        return Number(rows[0]?.now) - Date.now();
      };
      expect(Math.abs((await inAnHour()) - hour)).toBeLessThan(60_000);
      await moveClock(database(), 24 * hour);
      expect(Math.abs((await inAnHour()) - 25 * hour)).toBeLessThan(60_000);
      await moveClock(database(), 0);
      expect(Math.abs((await inAnHour()) - hour)).toBeLessThan(60_000);
    });
  });
});

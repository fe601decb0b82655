import type pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openEmbedded } from "../../src/database/embedded.ts";
import { type Migration, migrate, readMigrations } from "../../src/database/migrate.ts";
import { createPostgresPool } from "../../src/database/postgres.ts";
import { createPostgresDatabase, TEST_DATABASE_URL } from "../support/database.ts";

interface Store {
  /** Pools of as many processes starting at once. */
  readonly pools: readonly pg.Pool[];
  close(): Promise<void>;
}

const FIRST: Migration = {
  name: "20260101000000_first",
  // Slow enough that starters which don't wait for each other would collide.
  sql: "CREATE TABLE one (id int); SELECT pg_sleep(0.1); CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1; $$;",
};
const SECOND: Migration = { name: "20260102000000_second", sql: "CREATE TABLE two (id int);" };

async function embeddedStore(): Promise<Store> {
  const embedded = await openEmbedded();
  // One process only: the lock on the data directory sees to that.
  return { pools: [embedded.createPool("public")], close: () => embedded.close() };
}

async function postgresStore(serverUrl: string): Promise<Store> {
  const created = await createPostgresDatabase(serverUrl);
  const pools = [1, 2, 3].map(() =>
    createPostgresPool({
      url: created.url,
      searchPath: "public",
      maxConnections: 2,
      statementTimeoutMs: 30_000,
      onError: () => {},
    }),
  );
  return {
    pools,
    async close() {
      await Promise.all(pools.map((pool) => pool.end()));
      await created.drop();
    },
  };
}

function declareTests(open: () => Promise<Store>): void {
  let store: Store;
  beforeAll(async () => {
    store = await open();
  });
  afterAll(() => store.close());
  const pool = (): pg.Pool => {
    const [first] = store.pools;
    if (!first) {
      throw new Error("no pool");
    }
    return first;
  };

  test("starters at the same moment apply each migration exactly once", async () => {
    const applied = await Promise.all(store.pools.map((each) => migrate(each, [FIRST, SECOND])));

    expect(applied.flat().toSorted()).toEqual([FIRST.name, SECOND.name]);
    expect(await migrate(pool(), [FIRST, SECOND])).toEqual([]);
  });

  test("keeps the record that prisma migrate deploy keeps", async () => {
    const { rows } = await pool().query('SELECT * FROM "_prisma_migrations" ORDER BY migration_name');

    expect(rows).toHaveLength(2);
    expect(rows[1]).toMatchObject({
      migration_name: SECOND.name,
      checksum: "3186ecfe507e0eb98d8c7e02e1b2ac0147e3fcb7e87805868bdda72bd56a818e",
      logs: null,
      rolled_back_at: null,
      applied_steps_count: 1,
    });
  });

  test("refuses to go on when an applied migration was edited", async () => {
    const edited = { ...FIRST, sql: `${FIRST.sql} ` };

    await expect(migrate(pool(), [edited, SECOND])).rejects.toThrow(/first was edited after it was applied/);
  });

  test("leaves nothing of a migration that fails, and can go on when it is mended", async () => {
    const broken = {
      name: "20260103000000_broken",
      sql: "CREATE TABLE three (id int); SELECT no_such_column;",
    };
    const attempt = migrate(pool(), [FIRST, SECOND, broken]);

    await expect(attempt).rejects.toThrow(/broken failed: nothing of it was applied/);
    const mended = { ...broken, sql: "CREATE TABLE three (id int);" };
    expect(await migrate(pool(), [FIRST, SECOND, mended])).toEqual([broken.name]);
  });

  test("leaves migrations alone that a newer version applied", async () => {
    expect(await migrate(pool(), [FIRST])).toEqual([]);
  });

  test("refuses to go on when prisma left a migration half applied", async () => {
    await pool().query(
      `INSERT INTO "_prisma_migrations" (id, checksum, migration_name) VALUES ('x', 'x', '20260104000000_half')`,
    );

    await expect(migrate(pool(), [FIRST, SECOND])).rejects.toThrow(/half failed earlier/);
  });

  test("does not keep its lock or its settings", async () => {
    const { rows: locks } = await pool().query(
      "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    );
    expect(locks).toEqual([]);
  });
}

describe("migrate (embedded)", () => {
  declareTests(embeddedStore);
});
describe.skipIf(TEST_DATABASE_URL === undefined)("migrate (PostgreSQL: needs TEST_DATABASE_URL)", () => {
  declareTests(() => postgresStore(TEST_DATABASE_URL ?? ""));
});

test("the project's migrations are read in order", () => {
  const names = readMigrations().map(({ name }) => name);

  expect(names.length).toBeGreaterThan(0);
  expect(names).toEqual(names.toSorted());
});

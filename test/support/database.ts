import { openAsBlob } from "node:fs";
import { afterAll, beforeAll, describe, inject } from "vitest";
import { type Database, openDatabase } from "../../src/database/client.ts";
import { createPostgresDatabase } from "./postgres.ts";

export { createPostgresDatabase } from "./postgres.ts";

export const TEST_DATABASE_URL = process.env["TEST_DATABASE_URL"];

/** A fresh embedded database with the schema, in memory. Call it in beforeAll, once per file; close() it in afterAll. */
export async function testDatabase(): Promise<Database> {
  return openDatabase({ loadDataDir: await openAsBlob(inject("databaseDump")), migrate: false });
}

/**
 * Declares the same tests for the embedded database and, when TEST_DATABASE_URL is set, for a real server (a database of its own).
 * `database()` answers the open database from beforeAll on.
 */
export function eachBackend(name: string, declareTests: (database: () => Database) => void): void {
  describe(`${name} (embedded)`, () => {
    declareOn(testDatabase, declareTests);
  });
  if (TEST_DATABASE_URL === undefined) {
    describe.skip(`${name} (PostgreSQL: skipped, TEST_DATABASE_URL is not set)`, () => {
      declareOn(testDatabase, declareTests);
    });
    return;
  }
  describe(`${name} (PostgreSQL)`, () => {
    declareOn(() => openPostgres(TEST_DATABASE_URL), declareTests);
  });
}

function declareOn(open: () => Promise<Database>, declareTests: (database: () => Database) => void): void {
  let opened: Database | undefined;
  beforeAll(async () => {
    opened = await open();
  });
  afterAll(async () => {
    await opened?.close();
  });
  declareTests(() => {
    if (!opened) {
      throw new Error("The database is open from beforeAll on, not while tests are declared.");
    }
    return opened;
  });
}

async function openPostgres(serverUrl: string): Promise<Database> {
  const { url, drop } = await createPostgresDatabase(serverUrl);
  const database = await openDatabase({ url });
  return {
    ...database,
    async close() {
      await database.close();
      await drop();
    },
  };
}

/** Empties every table (not the migrations), for use between tests. */
export async function clean(database: Database): Promise<void> {
  if (database.mode === "embedded") {
    await database.sql(deleteAll);
    return;
  }
  const tables = await database.sql<{ name: string }>(
    `SELECT quote_ident(tablename) AS name FROM pg_tables
     WHERE schemaname = 'public' AND tablename <> '_prisma_migrations'`,
  );
  if (tables.length > 0) {
    await database.sql(
      `TRUNCATE ${tables.map(({ name }) => `public.${name}`).join(", ")} RESTART IDENTITY CASCADE`,
    );
  }
}

// TRUNCATE makes new files of all tables and has the session forget every plan: 40 ms of a processor, this takes 4. As a
// replica the session neither follows keys nor minds the triggers that keep facts from being deleted.
const deleteAll = `DO $$
  DECLARE item record;
  BEGIN
    PERFORM set_config('session_replication_role', 'replica', true);
    FOR item IN SELECT tablename AS name FROM pg_tables
        WHERE schemaname = 'public' AND tablename <> '_prisma_migrations' LOOP
      EXECUTE format('DELETE FROM public.%I', item.name);
    END LOOP;
    FOR item IN SELECT sequencename AS name, start_value AS first FROM pg_sequences WHERE schemaname = 'public' LOOP
      PERFORM setval(format('public.%I', item.name), item.first, false);
    END LOOP;
  END $$`;

const movable = new WeakSet<Database>();

/** Sets clock() to the real time plus `ms` (not cumulative); 0 puts it right again. */
export async function moveClock(database: Database, ms: number): Promise<void> {
  const moved = `interval '${Math.trunc(ms)} milliseconds'`;
  if (database.mode !== "embedded") {
    await defineClock(database, moved);
    return;
  }
  // A changed function has the session plan every statement anew; a setting does not, and embedded there is one session.
  if (!movable.has(database)) {
    await defineClock(database, "current_setting('test.moved')::interval");
    movable.add(database);
  }
  await database.sql("SELECT set_config('test.moved', $1, false)", [`${Math.trunc(ms)} milliseconds`]);
}

async function defineClock(database: Database, moved: string): Promise<void> {
  await database.sql(
    `CREATE OR REPLACE FUNCTION public.clock() RETURNS timestamptz LANGUAGE sql STABLE
     AS $$ SELECT statement_timestamp() + ${moved} $$`,
  );
}

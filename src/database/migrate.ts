// Applies prisma/migrations, with the same table, checksums and lock as `prisma migrate deploy`, so that either can continue
// where the other stopped; ours needs no native engine and also works on the embedded database.
// A migration runs in one transaction, so it cannot contain CREATE INDEX CONCURRENTLY.
import { createHash, randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type pg from "pg";
import { DatabaseSetupError } from "./errors.ts";

export interface Migration {
  readonly name: string;
  readonly sql: string;
}

interface AppliedMigration {
  readonly migration_name: string;
  readonly checksum: string;
  readonly finished_at: Date | null;
}

export const MIGRATIONS_DIRECTORY = fileURLToPath(new URL("../../prisma/migrations", import.meta.url));
const PRISMA_LOCK = 72_707_369;
const TABLE = `
CREATE TABLE IF NOT EXISTS "_prisma_migrations" (
    id                      VARCHAR(36) PRIMARY KEY NOT NULL,
    checksum                VARCHAR(64) NOT NULL,
    finished_at             TIMESTAMPTZ,
    migration_name          VARCHAR(255) NOT NULL,
    logs                    TEXT,
    rolled_back_at          TIMESTAMPTZ,
    started_at              TIMESTAMPTZ NOT NULL DEFAULT now(),
    applied_steps_count     INTEGER NOT NULL DEFAULT 0
)`;

export function readMigrations(directory = MIGRATIONS_DIRECTORY): Migration[] {
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name)
    .toSorted()
    .map((name) => ({ name, sql: readFileSync(join(directory, name, "migration.sql"), "utf8") }));
}

/** Applies what is missing, exactly once however many processes start together; answers the names it applied. */
export async function migrate(
  pool: pg.Pool,
  migrations: readonly Migration[] = readMigrations(),
): Promise<string[]> {
  const client = await pool.connect();
  try {
    await client.query("SET statement_timeout = 0");
    await client.query(`SELECT pg_advisory_lock(${PRISMA_LOCK})`);
    await client.query(TABLE);
    const pending = await findPending(client, migrations);
    for (const migration of pending) {
      await apply(client, migration);
    }
    return pending.map(({ name }) => name);
  } finally {
    await client.query(`SELECT pg_advisory_unlock(${PRISMA_LOCK})`).catch(() => {});
    // Not back into the pool: its statement_timeout is gone, and so is the lock if the unlock failed.
    client.release(true);
  }
}

async function findPending(client: pg.PoolClient, migrations: readonly Migration[]): Promise<Migration[]> {
  const { rows } = await client.query<AppliedMigration>(
    'SELECT migration_name, checksum, finished_at FROM "_prisma_migrations" WHERE rolled_back_at IS NULL',
  );
  const failed = rows.find((row) => row.finished_at === null);
  if (failed) {
    throw new DatabaseSetupError(
      `Migration ${failed.migration_name} failed earlier and was left half applied: repair the database, ` +
        'then delete its row from "_prisma_migrations" or set rolled_back_at.',
    );
  }
  const applied = new Map(rows.map((row) => [row.migration_name, row.checksum]));
  for (const migration of migrations) {
    const recorded = applied.get(migration.name);
    if (recorded !== undefined && recorded !== checksum(migration)) {
      throw new DatabaseSetupError(
        `Migration ${migration.name} was edited after it was applied: write a new migration instead.`,
      );
    }
  }
  return migrations.filter(({ name }) => !applied.has(name));
}

async function apply(client: pg.PoolClient, migration: Migration): Promise<void> {
  await client.query("BEGIN");
  try {
    await client.query(migration.sql);
    await client.query(
      `INSERT INTO "_prisma_migrations" (id, checksum, finished_at, migration_name, started_at, applied_steps_count)
       VALUES ($1, $2, clock_timestamp(), $3, now(), 1)`,
      [randomUUID(), checksum(migration), migration.name],
    );
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK").catch(() => {});
    throw new DatabaseSetupError(`Migration ${migration.name} failed: nothing of it was applied.`, {
      cause: error,
    });
  }
}

function checksum({ sql }: Migration): string {
  return createHash("sha256").update(sql).digest("hex");
}

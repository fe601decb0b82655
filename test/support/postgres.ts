import { randomUUID } from "node:crypto";
import pg from "pg";

export interface PostgresTestDatabase {
  readonly url: string;
  drop(): Promise<void>;
}

/** A fresh, empty database on the server of TEST_DATABASE_URL. */
export async function createPostgresDatabase(serverUrl: string): Promise<PostgresTestDatabase> {
  const name = `ratatosk_test_${randomUUID().replaceAll("-", "")}`;
  await administer(serverUrl, `CREATE DATABASE ${name}`);
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return { url: url.href, drop: () => administer(serverUrl, `DROP DATABASE ${name} WITH (FORCE)`) };
}

async function administer(url: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}

/** What the benches share: the databases, a whole engine over a cloud, and the rows that it needs. */
import { pino } from "pino";
import { createRegistry } from "../src/core/actions/index.ts";
import type { Cloud, Clouds } from "../src/core/cloud.ts";
import { createEntrance } from "../src/core/dispatch.ts";
import { ServiceError } from "../src/core/errors.ts";
import type { Engine } from "../src/core/operations/engine.ts";
import type { Entrance } from "../src/core/request.ts";
import { createSecretBox } from "../src/core/secrets/box.ts";
import { loadMasterKey } from "../src/core/secrets/master-key.ts";
import type { Wake } from "../src/core/wake.ts";
import { type Database, openDatabase } from "../src/database/client.ts";
import { newId } from "../src/database/id.ts";
import { createPostgresDatabase } from "../test/support/postgres.ts";

export const log = pino({ level: process.env["BENCH_LOG"] ?? "warn" }, pino.destination(2));
export const sam = { kind: "staff", id: "sam", name: "Sam", role: "operator" } as const;

export interface Backend {
  name: string;
  redisUrl: string | undefined;
  open(): Promise<{ database: Database; url: string | undefined; close(): Promise<void> }>;
}

/** The embedded one always; a server, and Redis beside it, when the variables of the live tests name them. */
export function backends(): Backend[] {
  const [serverUrl, redisUrl] = [process.env["TEST_DATABASE_URL"], process.env["TEST_REDIS_URL"]];
  const embedded: Backend = {
    name: "embedded",
    redisUrl: undefined,
    async open() {
      const database = await openDatabase();
      return { database, url: undefined, close: () => database.close() };
    },
  };
  if (serverUrl === undefined) return [embedded];
  const server: Backend = {
    name: redisUrl === undefined ? "PostgreSQL" : "PostgreSQL and Redis",
    redisUrl,
    async open() {
      const { url, drop } = await createPostgresDatabase(serverUrl);
      const database = await openDatabase({ url });
      const close = async () => {
        await database.close();
        await drop();
      };
      return { database, url, close };
    },
  };
  return [embedded, server];
}

/** Without a server only half of this is measured, and the reader should know. */
export const withoutServer =
  process.env["TEST_DATABASE_URL"] === undefined
    ? "PostgreSQL and Redis: not measured, TEST_DATABASE_URL and TEST_REDIS_URL are not set"
    : undefined;

export function engineOn(
  database: Database,
  cloud: Cloud,
  wake: Wake,
): { engine: Engine; entrance: Entrance } {
  const clouds: Clouds = {
    list: () => [cloud],
    get(name) {
      if (name === cloud.name) return cloud;
      throw new ServiceError("configuration", `The bench has no cloud ${name}.`);
    },
  };
  const key = loadMasterKey({ secretKey: Buffer.alloc(32, 7).toString("base64"), dataDir: "/nonexistent" });
  const engine: Engine = {
    database,
    clouds,
    registry: createRegistry(),
    secrets: createSecretBox(key),
    wake,
    log,
    policies: {
      confirmDestructive: true,
      confirmWithinMs: 30 * 60_000,
      secretLifetimeMs: 24 * 3_600_000,
      operationChannels: [],
      alertChannels: [],
      deleteGraceMs: 0,
    },
    worker: `bench:${process.pid}`,
    patienceMs: 60_000,
    reached: () => undefined,
  };
  const entrance = createEntrance({ engine, identify: () => Promise.resolve(sam) });
  return { engine, entrance };
}

/** A customer, a plan, the cloud with room for `slots` operations at a time, and `servers` that run on it. */
export async function furnish(
  database: Database,
  cloud: Pick<Cloud, "name" | "provider">,
  { slots, servers, network = "private" }: { slots: number; servers: number; network?: string },
): Promise<void> {
  const [customerId, cloudId] = [newId(), newId()];
  await database.sql(`INSERT INTO customers (id, ref, name) VALUES ($1, 'ada', 'Ada')`, [customerId]);
  await database.sql(`INSERT INTO clouds (id, name, provider) VALUES ($1, $2, $3)`, [
    cloudId,
    cloud.name,
    cloud.provider,
  ]);
  await database.sql(`INSERT INTO slots (cloud_id, n) SELECT $1, n FROM generate_series(1, $2::int) n`, [
    cloudId,
    slots,
  ]);
  await database.sql(
    `INSERT INTO plans (id, code, name, vcpus, memory_mib, disk_gib, targets) VALUES ($1, 's', 'Small', 1, 2048, 10, $2::jsonb)`,
    [newId(), { [cloud.name]: { flavor: "m1.small", network } }],
  );
  await database.sql(
    `INSERT INTO servers (id, public_id, customer_id, cloud_id, external_id, name, state, vcpus, memory_mib, disk_gib, addresses, synced_at)
     SELECT gen_random_uuid(), 'srv-' || lpad(n::text, 8, '0'), $1, $2, 'ext-' || n, 'web-' || n, 'active', 1, 2048, 10, '{192.0.2.1}', clock()
     FROM generate_series(1, $3::int) n`,
    [customerId, cloudId, servers],
  );
  // As autovacuum would have by then; without it the planner guesses.
  await database.sql("ANALYZE");
}

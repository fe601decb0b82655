/**
 * Customers, plans and clouds are the configuration's; the database keeps them so that servers and operations can refer
 * to them. What is no longer configured is closed or retired and never deleted: its history stays.
 */
import type { Transaction } from "../../database/client.ts";
import { newId } from "../../database/id.ts";
import type { Provider } from "../cloud.ts";
import { forgetCards, type RevokedIdentity } from "./revoke.ts";

// One number for all processes; the migration runner's and the audit chain's are the ones before it.
const LOCK = 72_707_371;

/** What of the settings lives in the database. */
export interface Configured {
  customers: readonly {
    ref: string;
    name: string;
    email?: string | undefined;
    maxServers?: number | undefined;
    slack?: readonly string[];
    discord?: readonly string[];
  }[];
  plans: readonly {
    code: string;
    name: string;
    vcpus: number;
    memoryMib: number;
    diskGib: number;
    bandwidthGib?: number | undefined;
    targets: Readonly<Record<string, { flavor?: string | undefined; network?: string | undefined }>>;
  }[];
  clouds: readonly { name: string; type: Provider; maxConcurrent: number }[];
}

/** Brings the three tables in line. At start, in one transaction; safe when several processes start at once. */
export async function syncPeople(tx: Transaction, configured: Configured): Promise<void> {
  await tx.sql("SELECT pg_advisory_xact_lock($1)", [LOCK]);
  await syncCustomers(tx, configured.customers);
  await syncIdentities(tx, configured.customers);
  await syncPlans(tx, configured.plans);
  await syncClouds(tx, configured.clouds);
}

async function syncCustomers(tx: Transaction, customers: Configured["customers"]): Promise<void> {
  const rows = customers.map(({ ref, name, email, maxServers }) => ({
    id: newId(),
    ref,
    name,
    email: email ?? null,
    max_servers: maxServers ?? null,
  }));
  await tx.sql(
    `INSERT INTO customers (id, ref, name, email, max_servers)
     SELECT id, ref, name, email, max_servers
       FROM jsonb_to_recordset($1::jsonb) AS r(id uuid, ref text, name text, email text, max_servers int)
     ON CONFLICT (ref) DO UPDATE
       SET name = excluded.name, email = excluded.email, max_servers = excluded.max_servers, closed_at = NULL`,
    [JSON.stringify(rows)],
  );
  await tx.sql(
    `WITH closed AS (
       UPDATE customers SET closed_at = clock() WHERE closed_at IS NULL AND NOT ref = ANY($1::text[]) RETURNING id)
     DELETE FROM cards USING operations o, closed c
      WHERE o.id = cards.operation_id AND o.customer_id = c.id AND cards.audience = 'customer'`,
    [customers.map((customer) => customer.ref)],
  );
}

/**
 * What the configuration says of an identity counts: one that it no longer names is revoked, and one that was linked by a
 * code to somebody else, too.
 */
async function syncIdentities(tx: Transaction, customers: Configured["customers"]): Promise<void> {
  const rows = customers.flatMap(({ ref, slack = [], discord = [] }) => [
    ...slack.map((userId) => ({ id: newId(), ref, platform: "slack", user_id: userId })),
    ...discord.map((userId) => ({ id: newId(), ref, platform: "discord", user_id: userId })),
  ]);
  const wanted = JSON.stringify(rows);
  const revoked = await tx.sql<RevokedIdentity>(
    `WITH wanted AS (
       SELECT c.id AS customer_id, r.platform, r.user_id
         FROM jsonb_to_recordset($1::jsonb) AS r(ref text, platform text, user_id text) JOIN customers c ON c.ref = r.ref)
     UPDATE identities i SET revoked_at = clock() WHERE i.revoked_at IS NULL AND (
       (i.source = 'configuration' AND NOT EXISTS (SELECT FROM wanted w
          WHERE w.customer_id = i.customer_id AND w.platform = i.platform AND w.user_id = i.user_id))
       OR (i.source = 'code' AND EXISTS (SELECT FROM wanted w WHERE w.platform = i.platform AND w.user_id = i.user_id)))
     RETURNING i.customer_id AS "customerId", i.platform, i.user_id AS "userId"`,
    [wanted],
  );
  await forgetCards(tx, revoked);
  await tx.sql(
    `INSERT INTO identities (id, customer_id, platform, user_id, source)
     SELECT r.id, c.id, r.platform, r.user_id, 'configuration'
       FROM jsonb_to_recordset($1::jsonb) AS r(id uuid, ref text, platform text, user_id text)
       JOIN customers c ON c.ref = r.ref
     ON CONFLICT (platform, user_id) WHERE revoked_at IS NULL DO NOTHING`,
    [wanted],
  );
}

async function syncPlans(tx: Transaction, plans: Configured["plans"]): Promise<void> {
  const rows = plans.map(({ code, name, vcpus, memoryMib, diskGib, bandwidthGib, targets }) => ({
    id: newId(),
    code,
    name,
    vcpus,
    memory_mib: memoryMib,
    disk_gib: diskGib,
    bandwidth_gib: bandwidthGib ?? null,
    targets,
  }));
  await tx.sql(
    `INSERT INTO plans (id, code, name, vcpus, memory_mib, disk_gib, bandwidth_gib, targets)
     SELECT id, code, name, vcpus, memory_mib, disk_gib, bandwidth_gib, targets FROM jsonb_to_recordset($1::jsonb)
         AS r(id uuid, code text, name text, vcpus int, memory_mib int, disk_gib int, bandwidth_gib int,
           targets jsonb)
     ON CONFLICT (code) DO UPDATE
       SET name = excluded.name, vcpus = excluded.vcpus, memory_mib = excluded.memory_mib,
           disk_gib = excluded.disk_gib, bandwidth_gib = excluded.bandwidth_gib, targets = excluded.targets, retired_at = NULL`,
    [JSON.stringify(rows)],
  );
  await tx.sql(
    "UPDATE plans SET retired_at = clock() WHERE retired_at IS NULL AND NOT code = ANY($1::text[])",
    [plans.map((plan) => plan.code)],
  );
}

async function syncClouds(tx: Transaction, clouds: Configured["clouds"]): Promise<void> {
  const rows = clouds.map(({ name, type, maxConcurrent }) => ({
    id: newId(),
    name,
    provider: type,
    places: maxConcurrent,
  }));
  const wanted = JSON.stringify(rows);
  await tx.sql(
    `INSERT INTO clouds (id, name, provider)
     SELECT id, name, provider FROM jsonb_to_recordset($1::jsonb) AS r(id uuid, name text, provider text)
     ON CONFLICT (name) DO UPDATE SET provider = excluded.provider, retired_at = NULL`,
    [wanted],
  );
  await tx.sql(
    "UPDATE clouds SET retired_at = clock() WHERE retired_at IS NULL AND NOT name = ANY($1::text[])",
    [clouds.map((cloud) => cloud.name)],
  );
  await tx.sql(
    `INSERT INTO slots (cloud_id, n)
     SELECT c.id, n FROM jsonb_to_recordset($1::jsonb) AS r(name text, places int)
       JOIN clouds c ON c.name = r.name CROSS JOIN generate_series(1, r.places) AS n
     ON CONFLICT (cloud_id, n) DO NOTHING`,
    [wanted],
  );
  // A place that is taken goes at a later start; an operation never loses its own.
  await tx.sql(
    `DELETE FROM slots s USING jsonb_to_recordset($1::jsonb) AS r(name text, places int), clouds c
      WHERE c.name = r.name AND s.cloud_id = c.id AND s.n > r.places AND s.operation_id IS NULL`,
    [wanted],
  );
}

/** What the webhook tests share: rows written by SQL, a dispatcher with short leases, a log that is kept. */
import { createSecretKey, randomBytes } from "node:crypto";
import pino, { type Logger } from "pino";
import { createSecretBox, type SecretBox } from "../../src/core/secrets/box.ts";
import type { Database, Queryable } from "../../src/database/client.ts";
import { newId, newPublicId } from "../../src/database/id.ts";
import { assertOutsideTransaction } from "../../src/database/transaction.ts";
import { type Connector, createConnector } from "../../src/net/connector.ts";
import { createDispatcher, type Dispatcher, type DispatcherOptions } from "../../src/webhooks/dispatcher.ts";
import { type ConfiguredEndpoint, syncEndpoints } from "../../src/webhooks/endpoints.ts";
import { generateSecret } from "../../src/webhooks/signature.ts";

export interface World {
  readonly secrets: SecretBox;
  readonly connector: Connector;
  readonly log: Logger;
  /** Every line that was logged, as JSON. */
  readonly lines: string[];
  readonly alerts: string[];
  dispatcher(options?: Partial<DispatcherOptions>): Dispatcher;
  /** Replaces the whole list. Returns the secret of the first. */
  endpoints(...list: (Partial<ConfiguredEndpoint> & { url: string })[]): Promise<string>;
  close(): Promise<void>;
}

export function createWorld(database: () => Database): World {
  const lines: string[] = [];
  const alerts: string[] = [];
  const log = pino({ level: "debug" }, { write: (line: string) => void lines.push(line) });
  const secrets = createSecretBox({ id: "test", key: createSecretKey(randomBytes(32)) });
  const connector = createConnector({
    allow: ["127.0.0.0/8"],
    guard: () => assertOutsideTransaction("a webhook call"),
  });
  return {
    secrets,
    connector,
    log,
    lines,
    alerts,
    dispatcher: (options = {}) =>
      createDispatcher({
        database: database(),
        secrets,
        connector,
        log,
        onAlert: (text) => void alerts.push(text),
        random: () => 0.5,
        ...options,
      }),
    async endpoints(...list) {
      const secret = generateSecret();
      const full = list.map((each, index) =>
        Object.assign(
          {
            name: `endpoint-${index + 1}`,
            secret: index === 0 ? secret : generateSecret(),
            events: ["*"],
            format: "standard",
          },
          each,
        ),
      );
      await syncEndpoints(database(), secrets, full);
      return full[0]?.secret ?? secret;
    },
    close: () => connector.close(),
  };
}

export async function addCustomer(database: Queryable, ref = newPublicId("cus")): Promise<string> {
  const id = newId();
  await database.sql("INSERT INTO customers (id, ref, name) VALUES ($1, $2, 'A customer')", [id, ref]);
  return id;
}

export interface TestServer {
  id: string;
  publicId: string;
}

export async function addServer(database: Queryable, customerId: string | null = null): Promise<TestServer> {
  const cloudId = newId();
  await database.sql("INSERT INTO clouds (id, name, provider) VALUES ($1, $2, 'pve')", [
    cloudId,
    newPublicId("cloud"),
  ]);
  const server = { id: newId(), publicId: newPublicId("srv") };
  await database.sql(
    `INSERT INTO servers (id, public_id, customer_id, cloud_id, name, state, vcpus, memory_mib, disk_gib, addresses)
     VALUES ($1, $2, $3, $4, $2, 'active', 1, 1024, 10, '{}')`,
    [server.id, server.publicId, customerId, cloudId],
  );
  return server;
}

export interface TestEvent {
  type?: string;
  serverId?: string | null;
  customerId?: string | null;
  data?: Record<string, unknown> | string;
  staffData?: Record<string, unknown>;
  occurredAt?: Date;
}

/** As core/operations/events.ts does it: the server's counter is the lock. */
export async function addEvent(database: Queryable, event: TestEvent = {}): Promise<string> {
  const id = newId();
  const { serverId = null, data = {} } = event;
  const [row] =
    serverId === null
      ? []
      : await database.sql<{ sequence: bigint }>(
          "UPDATE servers SET event_seq = event_seq + 1 WHERE id = $1 RETURNING event_seq AS sequence",
          [serverId],
        );
  await database.sql(
    `INSERT INTO events (id, type, server_id, sequence, customer_id, data, staff_data, occurred_at)
     VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7::jsonb, COALESCE($8::timestamptz, clock()))`,
    [
      id,
      event.type ?? "server.created",
      serverId,
      row?.sequence ?? null,
      event.customerId ?? null,
      typeof data === "string" ? data : JSON.stringify(data),
      JSON.stringify(event.staffData ?? {}),
      event.occurredAt ?? null,
    ],
  );
  return id;
}

export interface DeliveryRow {
  eventId: string;
  endpoint: string;
  state: string;
  attempts: number;
  nextInMs: number | null;
  leased: boolean;
}

export async function deliveries(database: Queryable): Promise<DeliveryRow[]> {
  return await database.sql(
    `SELECT d.event_id AS "eventId", n.name AS endpoint, d.state, d.attempt_count AS attempts,
            (extract(epoch FROM d.next_attempt_at - clock()) * 1000)::float8 AS "nextInMs",
            d.lease_by IS NOT NULL AS leased
       FROM deliveries d JOIN endpoints n ON n.id = d.endpoint_id JOIN events e ON e.id = d.event_id
      ORDER BY e.position, n.name`,
  );
}

export interface AttemptRow {
  n: number;
  httpStatus: number | null;
  outcome: string;
  error: string | null;
  response: string | null;
}

export async function attempts(database: Queryable): Promise<AttemptRow[]> {
  return await database.sql(
    `SELECT a.n, a.http_status AS "httpStatus", a.outcome, a.error, a.response
       FROM attempts a ORDER BY a.delivery_id, a.n`,
  );
}

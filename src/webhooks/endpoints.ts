/** Brings the configured endpoints into the database. */
import { ServiceError } from "../core/errors.ts";
import type { SecretBox } from "../core/secrets/box.ts";
import type { Database, Transaction } from "../database/client.ts";
import { newId } from "../database/id.ts";
import { findFormat, formats } from "./formats/index.ts";
import { parseSecrets } from "./signature.ts";

export interface ConfiguredEndpoint {
  readonly name: string;
  readonly url: string;
  /** One `whsec_…`, or the new and the old one with a space between while it is being changed. */
  readonly secret: string;
  /** "*", "server.*", "server.resize.succeeded" */
  readonly events: readonly string[];
  readonly format: string;
  /** The billing system's id of the customer it belongs to; absent: ours, with staff data. */
  readonly customer?: string | undefined;
  readonly timeoutMs?: number | undefined;
}

export interface SyncedEndpoints {
  created: string[];
  changed: string[];
  /** Were disabled and are on again: because they are configured, a restart says that they are wanted. */
  enabled: string[];
  disabled: string[];
}

export const REMOVED_REASON = "It is no longer in the configuration.";
const DEFAULT_TIMEOUT_MS = 15_000;
const SYNC_LOCK = 72_707_372;
const PATTERN = /^(\*|[a-z_]+(\.[a-z_]+)*(\.\*)?)$/u;

interface EndpointRow {
  id: string;
  name: string;
  url: string;
  eventTypes: string[];
  format: string;
  customerId: string | null;
  secretId: string;
  timeoutMs: number;
  disabledAt: Date | null;
}

type Wanted = Omit<EndpointRow, "id" | "secretId" | "disabledAt">;

/**
 * Creates, changes and disables endpoints until the table says what the list says; deliveries and attempts of a removed one
 * are kept. Throws ServiceError `configuration` with every problem of the list in it, before anything is written.
 */
export async function syncEndpoints(
  database: Database,
  secrets: SecretBox,
  list: readonly ConfiguredEndpoint[],
): Promise<SyncedEndpoints> {
  const problems = problemsOf(list);
  if (problems.length > 0) throw new ServiceError("configuration", problems.join("\n"));
  return await database.transaction(async (tx) => {
    // Several processes start at the same time with the same list.
    await tx.sql("SELECT pg_advisory_xact_lock($1)", [SYNC_LOCK]);
    const rows = await tx.sql<EndpointRow>(
      `SELECT id, name, url, event_types AS "eventTypes", format, customer_id AS "customerId",
              secret_id AS "secretId", timeout_ms AS "timeoutMs", disabled_at AS "disabledAt"
         FROM public.endpoints`,
    );
    const customers = await customerIds(tx, list);
    const done: SyncedEndpoints = { created: [], changed: [], enabled: [], disabled: [] };
    for (const configured of list) {
      const wanted: Wanted = {
        name: configured.name,
        url: configured.url,
        eventTypes: [...configured.events],
        format: configured.format,
        customerId: configured.customer === undefined ? null : (customers.get(configured.customer) ?? null),
        timeoutMs: configured.timeoutMs ?? DEFAULT_TIMEOUT_MS,
      };
      const row = rows.find(({ name }) => name === configured.name);
      if (row === undefined) {
        await create(tx, secrets, { wanted, secret: configured.secret });
        done.created.push(configured.name);
        continue;
      }
      if (await change(tx, secrets, { row, wanted, secret: configured.secret })) done.changed.push(row.name);
      if (row.disabledAt !== null) done.enabled.push(row.name);
    }
    done.disabled = await disableOthers(tx, list);
    return done;
  });
}

function problemsOf(list: readonly ConfiguredEndpoint[]): string[] {
  const problems: string[] = [];
  const names = new Set<string>();
  for (const { name, url, secret, events, format } of list) {
    const add = (text: string): number => problems.push(`Webhook ${name}: ${text}`);
    if (names.has(name)) add("there are two of this name; give each its own.");
    names.add(name);
    const parsed = URL.parse(url);
    if (parsed === null || !["https:", "http:"].includes(parsed.protocol))
      add("the url must be an https address.");
    else if (parsed.username !== "" || parsed.password !== "")
      add("the url must not hold a name or password; calls are signed with the secret.");
    try {
      parseSecrets(secret);
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      add(error.message);
    }
    if (events.length === 0) add('it names no events; write "*" for all.');
    for (const pattern of events) {
      if (!PATTERN.test(pattern))
        add(`"${pattern}" is no event type; write "*", "server.*" or a whole name.`);
    }
    if (findFormat(format) === undefined) {
      add(`there is no format "${format}"; there is ${formats.map((known) => known.name).join(", ")}.`);
    }
  }
  return problems;
}

async function customerIds(
  tx: Transaction,
  list: readonly ConfiguredEndpoint[],
): Promise<Map<string, string>> {
  const refs = [...new Set(list.flatMap(({ customer }) => customer ?? []))];
  const rows = await tx.sql<{ id: string; ref: string }>(
    "SELECT id, ref FROM public.customers WHERE ref = ANY ($1::text[])",
    [refs],
  );
  const ids = new Map(rows.map(({ id, ref }) => [ref, id]));
  // An unknown customer must never fall back to "ours", which sees everything.
  const unknown = list.filter(({ customer }) => customer !== undefined && !ids.has(customer));
  if (unknown.length > 0) {
    throw new ServiceError(
      "configuration",
      unknown
        .map(
          ({ name, customer }) => `Webhook ${name}: there is no customer ${customer}; add it to customers.`,
        )
        .join("\n"),
    );
  }
  return ids;
}

function secretField(endpointId: string): string {
  return `endpoints:${endpointId}:secret`;
}

function fieldsOf(wanted: Wanted): unknown[] {
  return [wanted.name, wanted.url, wanted.eventTypes, wanted.format, wanted.customerId, wanted.timeoutMs];
}

async function create(
  tx: Transaction,
  secrets: SecretBox,
  { wanted, secret }: { wanted: Wanted; secret: string },
): Promise<void> {
  const id = newId();
  const secretId = await secrets.store(tx, {
    kind: "webhook_signing",
    field: secretField(id),
    plaintext: secret,
  });
  await tx.sql(
    `INSERT INTO public.endpoints (id, secret_id, name, url, event_types, format, customer_id, timeout_ms)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
    [id, secretId, ...fieldsOf(wanted)],
  );
}

/** Whether anything was different. */
async function change(
  tx: Transaction,
  secrets: SecretBox,
  { row, wanted, secret }: { row: EndpointRow; wanted: Wanted; secret: string },
): Promise<boolean> {
  if (wanted.customerId !== row.customerId) {
    // What waits for it may hold what the new owner must not see.
    throw new ServiceError(
      "configuration",
      `Webhook ${row.name}: it belongs to another customer already. Give the new one another name.`,
    );
  }
  const sameSecret = (await secrets.read(tx, row.secretId)) === secret;
  const same =
    sameSecret &&
    row.disabledAt === null &&
    JSON.stringify(fieldsOf(wanted)) === JSON.stringify(fieldsOf(row));
  if (same) return false;
  const secretId = sameSecret
    ? row.secretId
    : await secrets.store(tx, { kind: "webhook_signing", field: secretField(row.id), plaintext: secret });
  await tx.sql(
    `UPDATE public.endpoints
        SET secret_id = $2, name = $3, url = $4, event_types = $5, format = $6, customer_id = $7, timeout_ms = $8,
            disabled_at = NULL, disabled_reason = NULL
      WHERE id = $1`,
    [row.id, secretId, ...fieldsOf(wanted)],
  );
  if (!sameSecret) await secrets.drop(tx, row.secretId);
  return true;
}

async function disableOthers(tx: Transaction, list: readonly ConfiguredEndpoint[]): Promise<string[]> {
  const disabled = await tx.sql<{ name: string }>(
    `UPDATE public.endpoints SET disabled_at = clock(), disabled_reason = $2
      WHERE disabled_at IS NULL AND name <> ALL ($1::text[]) RETURNING name`,
    [list.map(({ name }) => name), REMOVED_REASON],
  );
  return disabled.map(({ name }) => name);
}

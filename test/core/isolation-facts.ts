/** What a customer may not learn, read from the database itself, and how to find it in what they were given. */

import type { Principal } from "../../src/core/access.ts";
import { ServiceError } from "../../src/core/errors.ts";
import type { Tenants } from "../support/tenants.ts";
import { STAFF_CANARY } from "../support/tenants.ts";

/** A promise of isolation was broken; `message` says by what, and where. */
export class Violation extends Error {
  override readonly name = "Violation";
}

interface Fact {
  text: string;
  what: string;
  /** The customer who may know it; null: staff alone. */
  owner: string | null;
}

/** An operation is nobody's when its server is no longer its customer's. */
const OPERATION_OWNER = `CASE WHEN o.server_id IS NULL OR s.customer_id = o.customer_id THEN o.customer_id END`;

const FACTS = `
  SELECT 'public id of a server' AS what, public_id AS text, customer_id AS owner FROM servers
  UNION ALL SELECT 'name of a server', name, customer_id FROM servers
  UNION ALL SELECT 'address', unnest(addresses), customer_id FROM servers
  UNION ALL SELECT 'row id of a server', id::text, customer_id FROM servers
  UNION ALL SELECT 'id in the cloud', external_id, NULL FROM servers
  UNION ALL SELECT 'status in the cloud', provider_status, NULL FROM servers WHERE provider_status LIKE 'ZQ%'
  UNION ALL SELECT 'metadata', m.key, NULL FROM servers, jsonb_each_text(metadata) m WHERE m.key LIKE 'zq%'
  UNION ALL SELECT 'metadata', m.value, NULL FROM servers, jsonb_each_text(metadata) m WHERE m.value LIKE 'zq%'
  UNION ALL SELECT 'customer', unnest(ARRAY[ref, name, email, id::text]), id FROM customers
  UNION ALL SELECT 'operation', unnest(ARRAY[o.public_id, o.id::text]), ${OPERATION_OWNER}
    FROM operations o LEFT JOIN servers s ON s.id = o.server_id
  UNION ALL SELECT 'button', c.token, ${OPERATION_OWNER}
    FROM capabilities c JOIN operations o ON o.id = c.operation_id LEFT JOIN servers s ON s.id = o.server_id
  UNION ALL SELECT 'cloud', unnest(ARRAY[name, id::text]), NULL FROM clouds
  UNION ALL SELECT 'flavor', unnest(ARRAY[name, external_id]), NULL FROM flavors
  UNION ALL SELECT 'image in the cloud', external_id, NULL FROM images
  UNION ALL SELECT 'network', external_id, NULL FROM networks
  UNION ALL SELECT 'snapshot', unnest(ARRAY[n.name, n.description]), s.customer_id
    FROM snapshots n JOIN servers s ON s.id = n.server_id
  UNION ALL SELECT 'traffic', in_bytes / 1073741824 || '.00 GiB', customer_id FROM traffic_months
  UNION ALL SELECT 'traffic', in_bytes / 1073741824 || '.00 GiB', customer_id FROM traffic_gaps
  UNION ALL SELECT 'chat identity', user_id, customer_id FROM identities
  UNION ALL SELECT 'kept by the provider', v.text, NULL FROM servers,
    jsonb_path_query(provider_data, 'strict $.**') AS j(value), LATERAL (SELECT j.value #>> '{}' AS text) v WHERE v.text LIKE 'ZQ%'
  UNION ALL SELECT 'secret', id::text, NULL FROM secrets`;

async function readFacts({ world, staff }: Tenants): Promise<Fact[]> {
  const rows = await world.database.sql<Fact>(
    `SELECT DISTINCT what, lower(text) AS text, owner FROM (${FACTS}) f WHERE text <> ''`,
  );
  const team = Object.values(staff).flatMap(({ id, name }) => [id, name]);
  return [
    ...rows,
    ...team.map((text) => ({ what: "somebody of the team", text: text.toLowerCase(), owner: null })),
    { what: "staff detail", text: STAFF_CANARY.toLowerCase(), owner: null },
  ];
}

/** A request id of the cloud, whichever. */
const REQUEST_ID = /\breq-[0-9a-f]{8}-/i;

export type Finder = (
  viewer: Principal & { kind: "customer" },
  typed: readonly string[],
  given: unknown,
) => string | null;

/** Answers with what the viewer must not know, or null. What they typed themselves is no news to them. */
export async function factFinder(tenants: Tenants): Promise<Finder> {
  const facts = await readFacts(tenants);
  return (viewer, typed, given) => {
    // JSON's "\\n" would make one word of it and what follows.
    const text = textOf(given).toLowerCase().replaceAll("\\n", " ");
    if (REQUEST_ID.test(text)) return "a request id of the cloud";
    const known = facts.filter(({ owner }) => owner === viewer.customerId).map((fact) => fact.text);
    const news = [...known, ...typed.map((one) => one.toLowerCase())];
    const leak = facts.find(
      (fact) =>
        fact.owner !== viewer.customerId &&
        contains(text, fact.text) &&
        !news.some((one) => one.includes(fact.text)),
    );
    return leak === undefined ? null : `${leak.what} "${leak.text}"`;
  };
}

/** As a word of its own: "os1" is not in "xos17". */
function contains(text: string, part: string): boolean {
  for (let at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + 1)) {
    const before = text[at - 1] ?? " ";
    const after = text[at + part.length] ?? " ";
    if (!/[a-z0-9_-]/.test(before) && !/[a-z0-9_-]/.test(after)) return true;
  }
  return false;
}

/** Everything that leaves the entrance, an error's facts and staff detail too: who shows it is not asked here. */
export function textOf(given: unknown): string {
  if (given instanceof ServiceError) {
    const { code, message, facts, staffDetail } = given;
    return JSON.stringify({ code, message, facts, staffDetail });
  }
  return JSON.stringify(given) ?? "";
}

/** One number for all rows that are not this customer's (null: for all rows). */
export async function digest({ world }: Tenants, customerId: string | null): Promise<string> {
  const parts = [
    ...[
      "customers",
      "servers",
      "operations",
      "events",
      "endpoints",
      "identities",
      "link_codes",
      "customer_factors",
      "console_links",
      "traffic_months",
    ].map(
      (table) =>
        `SELECT t::text FROM ${table} t WHERE t.${table === "customers" ? "id" : "customer_id"} IS DISTINCT FROM $1::uuid`,
    ),
    ...["operation_steps", "operation_log", "waits", "capabilities", "cards"].map(
      (table) =>
        `SELECT t::text FROM ${table} t LEFT JOIN operations o ON o.id = t.operation_id WHERE o.customer_id IS DISTINCT FROM $1::uuid`,
    ),
    `SELECT t::text FROM secrets t LEFT JOIN operations o ON o.id = t.operation_id
       LEFT JOIN customer_factors f ON f.secret_id = t.id
     WHERE COALESCE(o.customer_id, f.customer_id) IS DISTINCT FROM $1::uuid`,
  ];
  const rows = await world.database.sql<{ digest: string }>(
    `SELECT md5(string_agg(md5(x.t), '' ORDER BY md5(x.t))) AS digest FROM (${parts.join(" UNION ALL ")}) x(t)`,
    [customerId],
  );
  return rows[0]?.digest ?? "";
}

export async function outcomeOf(work: Promise<unknown>): Promise<unknown> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof ServiceError) return error;
    throw new Violation(`it crashed instead of answering: ${String(error)}`, { cause: error });
  }
}

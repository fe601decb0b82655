/** From what a person typed to one server that they may see. The only way from text to a server's row. */
import type { Queryable } from "../../database/client.ts";
import { ownRows, type Principal, tenantOf } from "../access.ts";
import type { Provider, ServerState } from "../cloud.ts";
import { ServiceError } from "../errors.ts";
import { nearest } from "../nearest.ts";

export interface ServerRow {
  id: string;
  publicId: string;
  name: string;
  customerId: string | null;
  customerRef: string | null;
  customerName: string | null;
  cloudId: string;
  cloudName: string;
  provider: Provider;
  externalId: string | null;
  planCode: string | null;
  imageName: string | null;
  state: ServerState;
  providerStatus: string | null;
  vcpus: number;
  memoryMib: number;
  diskGib: number;
  addresses: string[];
  metadata: Record<string, string>;
  hasAgent: boolean | null;
  suspendedAt: Date | null;
  /** It may not be deleted or rebuilt before that is lifted. */
  deleteProtected: boolean;
  /** Asked to be deleted then; until then it can be brought back. */
  deleteAt: Date | null;
  /** That time has come, and it is there still. */
  isDue: boolean;
  /** A new size of CPU and memory was stored in the cloud and, by the last look, waits for a stop and start. */
  sizeWaits: boolean;
  /** What it has from its next boot on instead of `addresses`, by the last look; nothing when they are as they will be. */
  nextAddresses: string[];
  /** The ISO in its CD drive, by the name that it is offered under; null when there is none of those. */
  iso: string | null;
  syncedAt: Date | null;
  missingSince: Date | null;
  createdAt: Date;
}

const serverColumns = `s.id, s.public_id AS "publicId", s.name, s.customer_id AS "customerId", k.ref AS "customerRef",
  k.name AS "customerName", s.cloud_id AS "cloudId", c.name AS "cloudName", c.provider, s.external_id AS "externalId",
  s.plan_code AS "planCode", s.image_name AS "imageName", s.state, s.provider_status AS "providerStatus", s.vcpus,
  s.memory_mib AS "memoryMib", s.disk_gib AS "diskGib", s.addresses, s.metadata, s.has_agent AS "hasAgent",
  s.suspended_at AS "suspendedAt", s.delete_protected AS "deleteProtected", s.delete_at AS "deleteAt",
  COALESCE(s.delete_at <= clock(), false) AS "isDue",
  COALESCE((s.provider_data->>'sizeWaits')::boolean, false) AS "sizeWaits",
  ARRAY(SELECT jsonb_array_elements_text(COALESCE(s.provider_data->'nextAddresses', '[]'))) AS "nextAddresses",
  s.provider_data->>'iso' AS iso, s.synced_at AS "syncedAt", s.missing_since AS "missingSince", s.created_at AS "createdAt"`;
const serverTables = `servers s JOIN clouds c ON c.id = s.cloud_id LEFT JOIN customers k ON k.id = s.customer_id`;

/**
 * By public id or name. Throws `not_found` with one and the same text for a foreign and an unknown server, and
 * `conflict` with the public ids when the name is ambiguous among what the principal may see.
 */
export async function findServer(
  database: Queryable,
  principal: Principal,
  typed: string,
): Promise<ServerRow> {
  const rows = await database.sql<ServerRow>(
    `SELECT ${serverColumns} FROM ${serverTables}
     WHERE ${ownRows("s.customer_id", 1)} AND s.deleted_at IS NULL AND (s.public_id = $2 OR lower(s.name) = lower($2))
     ORDER BY (s.public_id = $2) DESC, s.created_at`,
    [tenantOf(principal), typed],
  );
  const [first, second] = rows;
  if (first === undefined) throw await noServer(database, principal, typed);
  if (first.publicId === typed || second === undefined) return first;
  const which = rows.map((row) => `${row.publicId} (${row.customerName ?? "nobody's"})`).join(", ");
  throw new ServiceError("conflict", `Several servers are called "${clip(typed)}". Say which one: ${which}.`);
}

async function noServer(database: Queryable, principal: Principal, typed: string): Promise<ServiceError> {
  const rows = await database.sql<{ name: string; publicId: string }>(
    `SELECT s.name, s.public_id AS "publicId" FROM servers s
     WHERE ${ownRows("s.customer_id", 1)} AND s.deleted_at IS NULL ORDER BY s.name LIMIT 500`,
    [tenantOf(principal)],
  );
  if (principal.kind === "customer") {
    // The advice depends on the account alone, so that foreign and unknown read the same.
    const some = rows.slice(0, 5).map((row) => row.name);
    const yours =
      some.length === 0 ? "It has none yet." : `It has ${some.join(", ")}${rows.length > 5 ? ", …" : ""}.`;
    return new ServiceError("not_found", `No server "${clip(typed)}" in your account. ${yours}`);
  }
  const guess = nearest(
    typed,
    rows.flatMap((row) => [row.name, row.publicId]),
  );
  const advice = guess === undefined ? "See /server list." : `Did you mean ${guess}?`;
  return new ServiceError("not_found", `No server "${clip(typed)}". ${advice}`);
}

export interface ServerFilter {
  state?: string | undefined;
  customer?: string | undefined;
  query?: string | undefined;
}

/** What a list shows of a server. Counting reads these of every one, so what it does not show stays out. */
export type ListedServer = Pick<
  ServerRow,
  | "id"
  | "publicId"
  | "name"
  | "state"
  | "planCode"
  | "addresses"
  | "suspendedAt"
  | "deleteAt"
  | "isDue"
  | "customerName"
  | "cloudName"
>;

export async function listServers(
  database: Queryable,
  principal: Principal,
  filter: ServerFilter,
  limit: number,
): Promise<{ rows: ListedServer[]; total: number }> {
  const rows = await database.sql<ListedServer & { total: number }>(
    `SELECT s.id, s.public_id AS "publicId", s.name, s.state, s.plan_code AS "planCode", s.addresses,
       s.suspended_at AS "suspendedAt", s.delete_at AS "deleteAt",
       COALESCE(s.delete_at <= clock(), false) AS "isDue", k.name AS "customerName", c.name AS "cloudName", count(*) OVER ()::int AS total
     FROM ${serverTables}
     WHERE ${ownRows("s.customer_id", 1)} AND s.deleted_at IS NULL
       AND ($2::text IS NULL OR s.state = $2)
       AND ($3::text IS NULL OR k.ref = $3 OR lower(k.name) = lower($3))
       AND ($4::text IS NULL OR position(lower($4) IN lower(s.name)) > 0 OR s.public_id = $4 OR $4 = ANY(s.addresses))
     ORDER BY k.name NULLS LAST, s.name LIMIT $5`,
    [tenantOf(principal), filter.state ?? null, filter.customer ?? null, filter.query ?? null, limit],
  );
  return { rows, total: rows[0]?.total ?? 0 };
}

function clip(text: string): string {
  return text.length > 60 ? `${text.slice(0, 59)}…` : text;
}

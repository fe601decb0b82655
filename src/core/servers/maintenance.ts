/** Work on a cloud, or on one node of it, that was announced: who is told, what is refused, where nothing new is placed. */
import type { Queryable } from "../../database/client.ts";
import type { Audience, Principal } from "../access.ts";
import { ServiceError } from "../errors.ts";
import { minuteOf } from "../time.ts";

export interface OpenMaintenance {
  id: string;
  cloud: string;
  /** Null: the whole cloud. */
  node: string | null;
  /** For everybody; which cloud and node is the team's to know. */
  message: string;
  startedBy: string;
  startedAt: Date;
}

/** What an answer is about. */
export interface Touched {
  serverIds?: readonly string[];
  /** The name of a cloud on which something is made. */
  cloud?: string | null;
}

const columns = `m.id, c.name AS cloud, m.node, m.message, m.started_by AS "startedBy", m.started_at AS "startedAt"`;
const tables = "maintenances m JOIN clouds c ON c.id = m.cloud_id";

/** SQL: the server `s` is on what the maintenance `m` is about. */
const isOn = "s.cloud_id = m.cloud_id AND (m.node IS NULL OR m.node = s.provider_data->>'node')";

export async function openMaintenances(database: Queryable): Promise<OpenMaintenance[]> {
  return database.sql<OpenMaintenance>(
    `SELECT ${columns} FROM ${tables} WHERE m.ended_at IS NULL ORDER BY c.name, m.node NULLS FIRST`,
  );
}

async function maintenancesOf(database: Queryable, touched: Touched): Promise<OpenMaintenance[]> {
  return database.sql<OpenMaintenance>(
    `SELECT ${columns} FROM ${tables}
     WHERE m.ended_at IS NULL AND ((m.node IS NULL AND c.name = $2)
       OR EXISTS (SELECT FROM servers s WHERE s.id = ANY($1::uuid[]) AND ${isOn}))
     ORDER BY c.name, m.node NULLS FIRST`,
    [[...(touched.serverIds ?? [])], touched.cloud ?? null],
  );
}

/** The lines above an answer, none when nothing of it is being worked on. */
export async function bannersFor(
  database: Queryable,
  viewer: Audience,
  touched: Touched,
): Promise<{ banner?: string[] }> {
  const lines = bannersOf(await maintenancesOf(database, touched), viewer);
  return lines.length === 0 ? {} : { banner: lines };
}

/** Which cloud and node it is, is for the team alone. */
export function bannersOf(open: readonly OpenMaintenance[], viewer: Audience): string[] {
  const lines = open.map((one) => {
    if (viewer === "customer") return `Maintenance: ${one.message}`;
    return `Maintenance of ${placeOf(one)} since ${minuteOf(one.startedAt)}: ${one.message}`;
  });
  return [...new Set(lines)];
}

/** "pve1, node n1" */
export function placeOf({ cloud, node }: Pick<OpenMaintenance, "cloud" | "node">): string {
  return node === null ? cloud : `${cloud}, node ${node}`;
}

export function viewerOf(principal: Principal): Audience {
  return principal.kind === "customer" ? "customer" : "staff";
}

/** Throws `busy` for a customer's change on what is being worked on. The team goes on, and sees the banner. */
export async function requireNoMaintenance(
  database: Queryable,
  principal: Principal,
  plan: { serverId: string | null; cloud: string | null },
): Promise<void> {
  if (principal.kind !== "customer") return;
  const [first] = await maintenancesOf(database, touchedBy(plan));
  if (first === undefined) return;
  throw new ServiceError(
    "busy",
    `Not now, because of maintenance: ${first.message} Nothing was changed; ask again when it has ended.`,
    { retryable: true },
  );
}

/** An operation on a server is on its node; one that makes a server is on the cloud. */
export function touchedBy({ serverId, cloud }: { serverId: string | null; cloud: string | null }): Touched {
  return serverId === null ? { cloud } : { serverIds: [serverId] };
}

/** Where nothing new is placed. */
export async function nodesInMaintenance(database: Queryable, cloud: string): Promise<ReadonlySet<string>> {
  const rows = await database.sql<{ node: string }>(
    `SELECT m.node FROM ${tables} WHERE m.ended_at IS NULL AND m.node IS NOT NULL AND c.name = $1`,
    [cloud],
  );
  return new Set(rows.map(({ node }) => node));
}

/** The cards of what is under way there, and of what has ended since it began, show or lose their banner. */
export async function renewCards(
  database: Queryable,
  { cloudId, node, since }: { cloudId: string; node: string | null; since: Date | null },
): Promise<void> {
  await database.sql(
    `UPDATE operations o SET version = version + 1
     WHERE o.cloud_id = $1 AND (o.finished_at IS NULL OR o.finished_at >= $3::timestamptz)
       AND ($2::text IS NULL OR EXISTS (SELECT FROM servers s WHERE s.id = o.server_id AND s.provider_data->>'node' = $2))`,
    [cloudId, node, since],
  );
}

/** What came of it: the cloud's own list against our rows. */
import type { Database } from "../../src/database/client.ts";
import type { Order } from "./stage.ts";

const resting = "('succeeded', 'failed', 'cancelled', 'expired', 'needs_attention')";

interface SimulatedServer {
  id: string;
  deleted: boolean;
  createdAt: string;
  tags: string[];
}

interface OrderRow {
  id: string;
  state: string;
  externalId: string | null;
  problem: { code: string; message: string; staffDetail?: string } | null;
}

export interface Findings {
  states: Record<string, number>;
  /** Servers in the cloud → how many orders have so many. */
  histogram: Record<number, number>;
  succeeded: number;
  withoutPerson: number;
  failedAsMeant: number;
  needAttention: number;
  stuck: number;
  /** Orders of which the cloud has more than one server. */
  duplicates: number;
  /** Succeeded, and not exactly one server, or another one than our row names. */
  wrongServer: number;
  /** Ended otherwise, and something is left in the cloud. */
  leftBehind: number;
  unreferenced: number;
  events: number;
  serversWithGaps: number;
  brokenAuditLinks: number;
  heldSlots: number;
  openWaits: number;
  adoptions: number;
  faults: Record<string, number>;
  problems: string[];
  /** Of each order with two servers: when and for which attempt each was made, and what our side noted. */
  twins: string[];
}

export async function countResting(database: Database): Promise<number> {
  const rows = await database.sql<{ count: number }>(
    `SELECT count(*)::int AS count FROM operations WHERE state IN ${resting}`,
  );
  return rows[0]?.count ?? 0;
}

export async function inspect(
  database: Database,
  simulatorUrl: string,
  orders: readonly Order[],
): Promise<Findings> {
  const rows = await database.sql<OrderRow>(
    `SELECT o.id, o.state, s.external_id AS "externalId", o.problem FROM operations o JOIN servers s ON s.id = o.server_id`,
  );
  const { servers } = (await ask(simulatorUrl, "servers")) as { servers: SimulatedServer[] };
  const live = servers.filter((server) => !server.deleted);
  const byOperation = Map.groupBy(live, (server) => operationOf(server.tags));
  const meantToFail = new Set(orders.filter((order) => order.meantToFail).map((order) => order.operationId));
  const judged = rows.map((row) => ({
    ...row,
    servers: (byOperation.get(row.id) ?? []).map((server) => server.id),
    meantToFail: meantToFail.has(row.id),
  }));
  const known = new Set(rows.map((row) => row.externalId));
  const good = judged.filter((row) => row.state === "succeeded");
  const ended = judged.filter((row) => row.state === "failed" || row.state === "cancelled");
  return {
    states: countBy(judged.map((row) => row.state)),
    histogram: countBy(judged.map((row) => String(row.servers.length))),
    succeeded: good.length,
    withoutPerson: good.length / judged.filter((row) => !row.meantToFail).length,
    failedAsMeant: ended.filter((row) => row.meantToFail).length,
    needAttention: judged.filter((row) => row.state === "needs_attention").length,
    stuck: judged.length - (await countResting(database)),
    duplicates: judged.filter((row) => row.servers.length > 1).length,
    wrongServer: good.filter((row) => row.servers.length !== 1 || row.servers[0] !== row.externalId).length,
    leftBehind: ended.filter((row) => row.servers.length > 0).length,
    unreferenced: live.filter((server) => operationOf(server.tags) !== "" && !known.has(server.id)).length,
    ...(await rowsOf(database)),
    faults: await faultsOf(simulatorUrl),
    twins: await twinsOf(database, byOperation),
    problems: judged
      .filter((row) => row.problem !== null && !row.meantToFail)
      .map(
        (row) =>
          `${row.id} ${row.state}: ${row.problem?.code} ${row.problem?.staffDetail ?? row.problem?.message}`,
      ),
  };
}

async function twinsOf(database: Database, byOperation: Map<string, SimulatedServer[]>): Promise<string[]> {
  const told: string[] = [];
  for (const [id, servers] of byOperation) {
    if (id === "" || servers.length < 2) continue;
    const made = servers.map(
      ({ createdAt, tags }) => `${createdAt} ${tags.find((tag) => tag.startsWith(`op=${id}.`))}`,
    );
    const lines = await database.sql<{ line: string }>(
      `SELECT to_char(at AT TIME ZONE 'UTC', 'HH24:MI:SS.MS ') || text AS line FROM operation_log WHERE operation_id = $1 ORDER BY seq`,
      [id],
    );
    told.push(...made, ...lines.map(({ line }) => line));
  }
  return told;
}

async function rowsOf(database: Database) {
  const rows = await database.sql<
    Pick<
      Findings,
      "events" | "serversWithGaps" | "brokenAuditLinks" | "heldSlots" | "openWaits" | "adoptions"
    >
  >(`SELECT
      (SELECT count(*)::int FROM events) AS events,
      (SELECT count(*)::int FROM servers s WHERE s.event_seq <> (SELECT count(*) FROM events e WHERE e.server_id = s.id)
         OR s.event_seq <> (SELECT COALESCE(max(e.sequence), 0) FROM events e WHERE e.server_id = s.id)) AS "serversWithGaps",
      (SELECT count(*)::int FROM (SELECT previous_hash, lag(hash, 1, '') OVER (ORDER BY seq) AS expected FROM audit_entries) a
         WHERE previous_hash <> expected) AS "brokenAuditLinks",
      (SELECT count(*)::int FROM slots WHERE operation_id IS NOT NULL) AS "heldSlots",
      (SELECT count(*)::int FROM waits WHERE resolved_at IS NULL) AS "openWaits",
      (SELECT count(DISTINCT operation_id)::int FROM operation_log WHERE text LIKE '%Going on with it.') AS adoptions`);
  if (rows[0] === undefined) throw new Error("no counts");
  return rows[0];
}

async function faultsOf(simulatorUrl: string): Promise<Record<string, number>> {
  const { faults } = (await ask(simulatorUrl, "faults")) as { faults: { id: string; hits: number }[] };
  return Object.fromEntries(faults.map(({ id, hits }) => [id, hits]));
}

async function ask(simulatorUrl: string, what: string): Promise<unknown> {
  const response = await fetch(`${simulatorUrl}/_sim/${what}`);
  if (!response.ok) throw new Error(`the simulator answered ${response.status} for ${what}`);
  return response.json();
}

/** "op=<id>.<attempt>" → "<id>" */
function operationOf(tags: readonly string[]): string {
  return tags.map((tag) => /^op=([0-9a-f-]{36})/.exec(tag)?.[1]).find((id) => id !== undefined) ?? "";
}

function countBy(values: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const value of values) counts[value] = (counts[value] ?? 0) + 1;
  return counts;
}

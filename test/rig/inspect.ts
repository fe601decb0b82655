/** What came of it: the clouds' own lists against our rows. */
import type { Database } from "../../src/database/client.ts";
import { askSimulator, type CloudAddress } from "./address.ts";
import type { Order } from "./stage.ts";

const resting = "('succeeded', 'failed', 'cancelled', 'expired', 'needs_attention')";

/** A server of a cloud that carries the marker of one of our operations. */
export interface MarkedServer {
  id: string;
  operationId: string;
  marker: string;
  state: string;
  createdAt: string;
}

interface OrderRow {
  id: string;
  state: string;
  serverId: string;
  serverState: string;
  cloud: string;
  externalId: string | null;
  problem: { code: string; message: string; staffDetail?: string } | null;
}

export interface Findings {
  states: Record<string, number>;
  /** Servers in the cloud → how many orders have so many. */
  histogram: Record<string, number>;
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
  /** Orders whose VMID a stranger took between our question and PVE's task. */
  robbed: number;
  faults: Record<string, Record<string, number>>;
  problems: string[];
  /** Of each order with two servers: when and for which attempt each was made, and what our side noted. */
  twins: string[];
}

async function countOpen(database: Database): Promise<number> {
  const rows = await database.sql<{ count: number }>(
    `SELECT count(*)::int AS count FROM operations WHERE state NOT IN ${resting}`,
  );
  return rows[0]?.count ?? 0;
}

/** The servers in the clouds by the id of our row: an order's own, or the one that a rebuild has put in its place. */
export async function serversByRow(
  database: Database,
  clouds: readonly CloudAddress[],
): Promise<Map<string, MarkedServer[]>> {
  const operations = await database.sql<{ id: string; serverId: string }>(
    `SELECT id, server_id AS "serverId" FROM operations WHERE server_id IS NOT NULL`,
  );
  const rowOf = new Map(operations.map(({ id, serverId }) => [id, serverId]));
  const live = (await Promise.all(clouds.map(markedServers))).flat();
  return Map.groupBy(live, ({ operationId }) => rowOf.get(operationId) ?? "unknown");
}

export async function inspect(
  database: Database,
  clouds: readonly CloudAddress[],
  orders: readonly Order[],
): Promise<Findings> {
  const rows = await database.sql<OrderRow>(
    `SELECT o.id, o.state, c.name AS cloud, s.external_id AS "externalId", s.id AS "serverId",
       s.state AS "serverState", o.problem
     FROM operations o JOIN servers s ON s.id = o.server_id JOIN clouds c ON c.id = o.cloud_id
     WHERE o.action = 'server.provision'`,
  );
  const byRow = await serversByRow(database, clouds);
  const live = [...byRow.values()].flat();
  const meantToFail = new Set(orders.filter((order) => order.meantToFail).map((order) => order.operationId));
  const judged = rows.map((row) => ({
    ...row,
    servers: (byRow.get(row.serverId) ?? []).map((server) => server.id),
    meantToFail: meantToFail.has(row.id),
  }));
  const known = new Set(rows.map((row) => row.externalId));
  const good = judged.filter((row) => row.state === "succeeded");
  const ended = judged.filter((row) => row.state === "failed" || row.state === "cancelled");
  return {
    states: countBy(judged.map((row) => `${row.cloud} ${row.state}`)),
    histogram: countBy(judged.map((row) => `${row.servers.length} on ${row.cloud}`)),
    succeeded: good.length,
    withoutPerson: good.length / judged.filter((row) => !row.meantToFail && !isRobbed(row)).length,
    failedAsMeant: ended.filter((row) => row.meantToFail).length,
    needAttention: judged.filter((row) => row.state === "needs_attention").length,
    stuck: await countOpen(database),
    duplicates: judged.filter((row) => row.servers.length > 1).length,
    wrongServer: good.filter((row) => !isItsOwn(row)).length,
    leftBehind: ended.filter((row) => row.servers.length > 0).length,
    unreferenced: live.filter((server) => !known.has(server.id)).length,
    robbed: ended.filter(isRobbed).length,
    ...(await rowsOf(database)),
    faults: Object.fromEntries(
      await Promise.all(clouds.map(async (cloud) => [cloud.name, await faultsOf(cloud)] as const)),
    ),
    twins: await twinsOf(database, byRow),
    problems: judged
      .filter((row) => row.problem !== null && (row.state === "needs_attention" || !row.meantToFail))
      .map(
        (row) =>
          `${row.id} ${row.cloud} ${row.state}: ${row.problem?.code} ${row.problem?.staffDetail ?? row.problem?.message}`,
      ),
  };
}

/** Failed as it must: what stands under its number is somebody else's, and a person was told to order again. */
function isRobbed({ state, problem }: OrderRow): boolean {
  return state === "failed" && problem?.message.startsWith("Somebody else took the number") === true;
}

export async function markedServers(cloud: CloudAddress): Promise<MarkedServer[]> {
  const all = cloud.kind === "openstack" ? await novaServers(cloud) : await pveServers(cloud);
  return all.filter(({ operationId }) => operationId !== "");
}

async function novaServers(cloud: CloudAddress): Promise<MarkedServer[]> {
  const { servers } = (await askSimulator(cloud, { path: "servers" })) as {
    servers: { id: string; deleted: boolean; status: string; createdAt: string; tags: string[] }[];
  };
  return servers
    .filter(({ deleted }) => !deleted)
    .map(({ id, status, createdAt, tags }) => {
      const marker = tags.findLast((tag) => tag.startsWith("op=")) ?? "";
      const state = status === "ACTIVE" ? "active" : status;
      return { id, createdAt, state, marker, operationId: operationOf(marker) };
    });
}

export interface SimulatedVm {
  vmid: number;
  node: string;
  name: string;
  status: string;
  stranger: boolean;
  template: boolean;
  description: string;
  config: Record<string, string>;
  pending: Record<string, string>;
  snapshots: string[];
  disks: Record<string, { sizeBytes: number }>;
}

/** Its card with the MAC address, and its address as cloud-init gives it. */
export function networkOf({ config }: SimulatedVm): string {
  return `${config["net0"] ?? "none"} ${config["ipconfig0"] ?? "none"}`;
}

export async function vmsOf(cloud: CloudAddress): Promise<SimulatedVm[]> {
  const { vms } = (await askSimulator(cloud, { path: "vms" })) as { vms: SimulatedVm[] };
  return vms;
}

async function pveServers(cloud: CloudAddress): Promise<MarkedServer[]> {
  return (await vmsOf(cloud)).map(({ vmid, status, description }) => {
    const marker = description.split("\n").find((line) => line.startsWith("op:")) ?? "";
    const state = status === "running" ? "active" : status;
    return { id: String(vmid), createdAt: "", state, marker, operationId: operationOf(marker) };
  });
}

/** What other people have on the cluster, as text: nothing of ours may change a letter of it. */
export async function strangersOf(clouds: readonly CloudAddress[]): Promise<Map<string, string>> {
  const all = await Promise.all(clouds.filter(({ kind }) => kind === "pve").map(vmsOf));
  const others = all.flat().filter((vm) => vm.stranger || vm.template);
  return new Map(others.map((vm) => [`${vm.vmid} ${vm.name}`, JSON.stringify(vm)]));
}

/** One, the one that our row names; none when the row says that it was deleted. */
function isItsOwn({ servers, serverState, externalId }: OrderRow & { servers: string[] }): boolean {
  if (serverState === "deleted") return servers.length === 0;
  return servers.length === 1 && servers[0] === externalId;
}

async function twinsOf(database: Database, byRow: Map<string, MarkedServer[]>): Promise<string[]> {
  const told: string[] = [];
  for (const [id, servers] of byRow) {
    if (servers.length < 2) continue;
    const made = servers.map(({ createdAt, marker }) => `${createdAt} ${marker}`);
    const lines = await database.sql<{ line: string }>(
      `SELECT to_char(at AT TIME ZONE 'UTC', 'HH24:MI:SS.MS ') || text AS line FROM operation_log
       WHERE operation_id IN (SELECT id FROM operations WHERE server_id::text = $1) ORDER BY at`,
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

async function faultsOf(cloud: CloudAddress): Promise<Record<string, number>> {
  const { faults } = (await askSimulator(cloud, { path: "faults" })) as {
    faults: { id: string; hits: number }[];
  };
  return Object.fromEntries(faults.map(({ id, hits }) => [id, hits]));
}

/** "op=<id>.<attempt>", on PVE "op:<id>.<attempt>" → "<id>" */
function operationOf(marker: string): string {
  return /^op[=:]([0-9a-f-]{36})(?:\.|$)/.exec(marker)?.[1] ?? "";
}

function countBy(values: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const value of values.toSorted()) counts[value] = (counts[value] ?? 0) + 1;
  return counts;
}

/**
 * A server's size is what is paid for: each change of it is told, whoever made it, and a plan whose size the cloud has stored
 * counts as soon as the server has that size, not when somebody presses a button.
 */
import { z } from "zod";
import type { Queryable } from "../../database/client.ts";
import { type ServerState, Size } from "../cloud.ts";
import { recordEvent } from "../operations/events.ts";

/** What was ordered of a resize that did not come to its end. */
export const PlanWaits = Size.extend({ code: z.string() });
export type PlanWaits = z.infer<typeof PlanWaits>;

/** A server's row, as far as it is paid for. */
export interface Sold extends Size {
  planCode: string | null;
  planWaits: PlanWaits | null;
}

export const soldColumns = `vcpus, memory_mib AS "memoryMib", disk_gib AS "diskGib", plan_code AS "planCode",
  plan_waits AS "planWaits"`;

/** A size that the cloud may still take back, or does not vouch for. */
const passing: ReadonlySet<ServerState> = new Set(["resizing", "verify_resize", "unknown", "missing"]);

interface SizeChange {
  serverId: string;
  operationId: string | null;
  /** The row before, and its size now. */
  before: Sold;
  now: Size;
  state: ServerState;
  /** Whether a stored size waits for a stop and start: as the cloud was asked just now; absent when it was not. */
  sizeWaits: boolean | undefined;
  /** It is another one of the cloud by now, for which nothing was stored. */
  isReplaced: boolean;
}

/** After the row has its new size. */
export async function followSize(database: Queryable, change: SizeChange): Promise<void> {
  const { serverId, before, now, state } = change;
  // What was stored is what it has now, or somebody has set another one.
  const isApplied =
    (before.vcpus !== now.vcpus || before.memoryMib !== now.memoryMib) && !isHalfOf(now, before.planWaits);
  const sizeWaits = change.sizeWaits ?? (isApplied ? false : undefined);
  if (isApplied && change.sizeWaits === undefined) {
    await database.sql(
      `UPDATE servers SET provider_data = provider_data || '{"sizeWaits": false}' WHERE id = $1
         AND provider_data->>'sizeWaits' = 'true'`,
      [serverId],
    );
  }
  const counts = before.planWaits !== null && !passing.has(state) && hasSizeOf(now, before.planWaits);
  if (before.planWaits !== null && (counts || sizeWaits === false || change.isReplaced)) {
    await setPlan(database, serverId, counts ? before.planWaits.code : null);
  }
  const plan = counts ? (before.planWaits?.code ?? null) : before.planCode;
  await recordSizeChange(database, { ...change, plan });
}

/** At the end of a resize that has not succeeded. `isUnknown`: whether its size was stored nobody knows. */
export async function letPlanWait(
  database: Queryable,
  {
    serverId,
    operationId,
    waits,
    isUnknown,
  }: { serverId: string; operationId: string; waits: PlanWaits; isUnknown: boolean },
): Promise<void> {
  const [row] = await database.sql<Sold & { state: ServerState; sizeWaits: boolean }>(
    `SELECT ${soldColumns}, state, COALESCE((provider_data->>'sizeWaits')::boolean, false) AS "sizeWaits"
     FROM servers WHERE id = $1 FOR UPDATE`,
    [serverId],
  );
  if (row === undefined) throw new Error(`no server ${serverId} to wait for a size`);
  const isThere = hasSizeOf(row, waits);
  if (isThere && !passing.has(row.state)) {
    await setPlan(database, serverId, waits.code);
    await recordSizeChange(database, { serverId, operationId, before: row, now: row, plan: waits.code });
  } else if (isThere || row.sizeWaits || isUnknown) {
    await database.sql(`UPDATE servers SET plan_waits = $2::jsonb WHERE id = $1`, [serverId, waits]);
  }
}

/** A running guest may take one of the two at once. */
function isHalfOf(now: Size, plan: PlanWaits | null): boolean {
  return plan !== null && (now.vcpus === plan.vcpus) !== (now.memoryMib === plan.memoryMib);
}

/** A disk never shrinks, so a server may have more of it than its plan. */
function hasSizeOf(now: Size, plan: Size): boolean {
  return now.vcpus === plan.vcpus && now.memoryMib === plan.memoryMib && now.diskGib >= plan.diskGib;
}

/** Null: none waits any more, and the one that it has stays. */
async function setPlan(database: Queryable, serverId: string, code: string | null): Promise<void> {
  await database.sql(
    `UPDATE servers SET plan_code = COALESCE($2, plan_code), plan_waits = NULL WHERE id = $1`,
    [serverId, code],
  );
}

async function recordSizeChange(
  database: Queryable,
  {
    serverId,
    operationId,
    before,
    now,
    plan,
  }: Pick<SizeChange, "serverId" | "operationId" | "before" | "now"> & { plan: string | null },
): Promise<void> {
  const from = told(before, before.planCode);
  const to = told(now, plan);
  if (JSON.stringify(from) === JSON.stringify(to)) return;
  // While it is being made it has its template's size at first, which nobody has ordered.
  const made = await database.sql(
    `SELECT 1 FROM events WHERE operation_id = $1 AND server_id = $2 AND type = 'server.created'`,
    [operationId, serverId],
  );
  if (made.length > 0) return;
  await recordEvent(database, { type: "server.size.changed", serverId, operationId, data: { from, to } });
}

function told({ vcpus, memoryMib, diskGib }: Size, plan: string | null) {
  return { plan, vcpus, memoryMib, diskGib };
}

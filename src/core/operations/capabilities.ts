/** What buttons carry: opaque, single use, bound to the stage they were offered in. Authorised when pressed. */
import { randomBytes } from "node:crypto";
import type { Queryable, Transaction } from "../../database/client.ts";
import { ServiceError } from "../errors.ts";
import { type OperationState, type Stage, stageOf } from "./state.ts";

export interface Capability {
  token: string;
  operationId: string;
  action: string;
  input: Record<string, unknown>;
  offeredIn: Stage;
}

const offers: Record<Stage, readonly string[]> = {
  awaiting: ["ops.confirm", "ops.cancel"],
  live: ["ops.cancel"],
  attention: ["ops.retry", "ops.abandon"],
  ended_badly: ["ops.retry"],
  ended_well: [],
};

const lifetimeDays = 7;

/** Makes the buttons of a state, once; a state entered again keeps those that were not pressed. */
export async function offerButtons(
  tx: Transaction,
  operation: { id: string; publicId: string },
  state: OperationState,
): Promise<void> {
  const stage = stageOf[state];
  for (const action of offers[stage]) {
    await offer(tx, {
      operationId: operation.id,
      action,
      input: { operation: operation.publicId },
      offeredIn: stage,
      lifetimeMs: lifetimeDays * 86_400_000,
    });
  }
}

export async function offer(
  tx: Queryable,
  capability: Omit<Capability, "token"> & { lifetimeMs: number },
): Promise<void> {
  await tx.sql(
    `INSERT INTO capabilities (token, operation_id, action, input, offered_in, expires_at)
     VALUES ($1, $2, $3, $4::jsonb, $5, clock() + make_interval(secs => $6::float8 / 1000))
     ON CONFLICT (operation_id, action, offered_in) DO UPDATE
       SET token = EXCLUDED.token, input = EXCLUDED.input, expires_at = EXCLUDED.expires_at, used_at = NULL, used_by = NULL
       WHERE capabilities.used_at IS NOT NULL OR capabilities.expires_at < clock()`,
    [
      randomBytes(18).toString("base64url"),
      capability.operationId,
      capability.action,
      capability.input,
      capability.offeredIn,
      capability.lifetimeMs,
    ],
  );
}

/** Marks it used, by compare-and-set. Throws ServiceError `expired` or `conflict` with who was first. */
export async function useCapability(tx: Queryable, token: string, user: string): Promise<Capability> {
  const used = await tx.sql<Capability>(
    `UPDATE capabilities c SET used_at = clock(), used_by = $2
     WHERE token = $1 AND used_at IS NULL AND expires_at > clock()
     RETURNING token, operation_id AS "operationId", action, input, offered_in AS "offeredIn"`,
    [token, user],
  );
  if (used[0] !== undefined) return used[0];
  const rows = await tx.sql<{ usedBy: string | null }>(
    `SELECT used_by AS "usedBy" FROM capabilities WHERE token = $1`,
    [token],
  );
  const by = rows[0]?.usedBy;
  if (by) throw new ServiceError("conflict", `${by} was first: this button has been used already.`);
  throw new ServiceError(
    "expired",
    "This button is no longer valid. Ask for the operation again with /ops show.",
  );
}

export async function findCapability(database: Queryable, token: string): Promise<Capability | null> {
  const rows = await database.sql<Capability>(
    `SELECT token, operation_id AS "operationId", action, input, offered_in AS "offeredIn" FROM capabilities WHERE token = $1`,
    [token],
  );
  return rows[0] ?? null;
}

export async function releaseCapability(database: Queryable, token: string): Promise<void> {
  await database.sql(`UPDATE capabilities SET used_at = NULL, used_by = NULL WHERE token = $1`, [token]);
}

/** What buttons carry: opaque, single use, bound to the stage they were offered in. Authorised when pressed. */
import { randomBytes } from "node:crypto";
import type { Queryable, Transaction } from "../../database/client.ts";
import { ownOperations, type Principal, tenantOf } from "../access.ts";
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

export const buttonLifetimeMs = 7 * 86_400_000;

interface Offer extends Capability {
  lifetimeMs: number;
}

/** The buttons that a state offers. */
export function buttonsFor(operation: { id: string; publicId: string }, state: OperationState): Offer[] {
  return offers[stageOf[state]].map((action) => ({
    token: newToken(),
    operationId: operation.id,
    action,
    input: { operation: operation.publicId },
    offeredIn: stageOf[state],
    lifetimeMs: buttonLifetimeMs,
  }));
}

function newToken(): string {
  return randomBytes(18).toString("base64url");
}

/** Makes the buttons of a state, once; a state entered again keeps those that were not pressed. */
export async function offerButtons(
  tx: Transaction,
  operation: { id: string; publicId: string },
  state: OperationState,
): Promise<void> {
  for (const button of buttonsFor(operation, state)) await offer(tx, button);
}

export async function offer(tx: Queryable, capability: Omit<Offer, "token">): Promise<void> {
  await tx.sql(
    `INSERT INTO capabilities (token, operation_id, action, input, offered_in, expires_at)
     VALUES ($1, $2, $3, $4::jsonb, $5, clock() + make_interval(secs => $6::float8 / 1000))
     ON CONFLICT (operation_id, action, offered_in) DO UPDATE
       SET token = EXCLUDED.token, input = EXCLUDED.input, expires_at = EXCLUDED.expires_at, used_at = NULL, used_by = NULL
       WHERE capabilities.used_at IS NOT NULL OR capabilities.expires_at < clock()`,
    [
      newToken(),
      capability.operationId,
      capability.action,
      capability.input,
      capability.offeredIn,
      capability.lifetimeMs,
    ],
  );
}

const capabilityColumns = `c.token, c.operation_id AS "operationId", c.action, c.input, c.offered_in AS "offeredIn"`;

/** One text for a button that is gone, never was, or is another customer's. */
export function invalidButton(): ServiceError {
  return new ServiceError(
    "expired",
    "This button is no longer valid. Ask for the operation again with /ops show.",
  );
}

/** Past the point of no return there is nothing to cancel. */
export async function withdrawCancel(tx: Queryable, operationId: string): Promise<void> {
  await tx.sql(
    `DELETE FROM capabilities WHERE operation_id = $1 AND action = 'ops.cancel' AND offered_in = 'live'`,
    [operationId],
  );
}

/** PostgreSQL takes no NUL, and a token has none. */
function looksLikeToken(token: string): boolean {
  return /^[\w-]{1,64}$/.test(token);
}

/** Marks it used, by compare-and-set. Throws ServiceError `expired`, or `conflict` with who was first. */
export async function useCapability(tx: Queryable, token: string, principal: Principal): Promise<Capability> {
  if (!looksLikeToken(token)) throw invalidButton();
  const used = await tx.sql<Capability>(
    `UPDATE capabilities c SET used_at = clock(), used_by = $2 FROM operations o
     WHERE c.token = $1 AND c.used_at IS NULL AND c.expires_at > clock() AND o.id = c.operation_id AND ${ownOperations(3)}
     RETURNING ${capabilityColumns}`,
    [token, principal.name, tenantOf(principal)],
  );
  if (used[0] !== undefined) return used[0];
  const rows = await tx.sql<{ usedBy: string | null }>(
    `SELECT c.used_by AS "usedBy" FROM capabilities c JOIN operations o ON o.id = c.operation_id
     WHERE c.token = $1 AND ${ownOperations(2)}`,
    [token, tenantOf(principal)],
  );
  const by = rows[0]?.usedBy;
  if (!by) throw invalidButton();
  if (by === principal.name) throw new ServiceError("conflict", "You have used this button already.");
  // Only the name is kept, and it may be one of the team's.
  const who = principal.kind === "customer" ? "Somebody" : by;
  throw new ServiceError("conflict", `${who} was first: this button has been used already.`);
}

/** Null for a foreign one as for an unknown one. */
export async function findCapability(
  database: Queryable,
  token: string,
  principal: Principal,
): Promise<Capability | null> {
  if (!looksLikeToken(token)) return null;
  const rows = await database.sql<Capability>(
    `SELECT ${capabilityColumns} FROM capabilities c JOIN operations o ON o.id = c.operation_id
     WHERE c.token = $1 AND ${ownOperations(2)}`,
    [token, tenantOf(principal)],
  );
  return rows[0] ?? null;
}

export async function releaseCapability(database: Queryable, token: string): Promise<void> {
  await database.sql(`UPDATE capabilities SET used_at = NULL, used_by = NULL WHERE token = $1`, [token]);
}

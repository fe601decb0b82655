import type { Queryable } from "../../database/client.ts";
import { ownOperations, type Principal, tenantOf } from "../access.ts";
import { ServiceError } from "../errors.ts";
import { shortened } from "../option-values.ts";
import { type OperationRow, operationColumns } from "./rows.ts";

/** Throws `not_found`, the same for a foreign and an unknown operation. `lock` takes the row's lock. */
export async function findOperation(
  database: Queryable,
  principal: Principal,
  typed: string,
  options: { lock?: boolean } = {},
): Promise<OperationRow> {
  const rows = await database.sql<OperationRow>(
    `SELECT ${operationColumns} FROM operations o WHERE ${ownOperations(1)} AND o.public_id = lower($2)
     ${options.lock === true ? "FOR UPDATE" : ""}`,
    [tenantOf(principal), typed.trim()],
  );
  const found = rows[0];
  if (found !== undefined) return found;
  const where = principal.kind === "customer" ? " in your account" : "";
  throw new ServiceError("not_found", `No operation "${shortened(typed)}"${where}. See /ops list.`);
}

export interface OperationFilter {
  state?: string | undefined;
  serverId?: string | undefined;
}

export async function listOperations(
  database: Queryable,
  principal: Principal,
  filter: OperationFilter,
  limit: number,
): Promise<(OperationRow & { serverName: string | null })[]> {
  return database.sql(
    `SELECT ${operationColumns}, (SELECT s.name FROM servers s WHERE s.id = o.server_id) AS "serverName"
     FROM operations o
     WHERE ${ownOperations(1)}
       AND ($2::text IS NULL OR o.state = $2
         OR ($2 = 'open' AND o.state NOT IN ('succeeded', 'failed', 'cancelled', 'expired')))
       AND ($3::uuid IS NULL OR o.server_id = $3)
     ORDER BY o.created_at DESC LIMIT $4`,
    [tenantOf(principal), filter.state ?? null, filter.serverId ?? null, limit],
  );
}

/** For those who follow one operation and know its id already. */
export async function stateOfOperation(
  database: Queryable,
  id: string,
): Promise<OperationRow["state"] | null> {
  const rows = await database.sql<Pick<OperationRow, "state">>(`SELECT state FROM operations WHERE id = $1`, [
    id,
  ]);
  return rows[0]?.state ?? null;
}

import type { Queryable } from "../../database/client.ts";
import type { Principal } from "../access.ts";
import type { Source } from "../action.ts";

export interface AuditEntry {
  principal: Pick<Principal, "id" | "name"> & { kind: Principal["kind"] | "stranger" };
  source: Source;
  action: string;
  /** A public id, or what was typed when nothing was found. */
  subject: string | null;
  customerId?: string | null;
  operationId?: string | null;
  /** `refused`: allowed, but not possible now. `denied`: not theirs to do, or nothing they may know of. */
  outcome: "allowed" | "denied" | "refused";
  reason?: string;
  /** No secrets. */
  data?: Record<string, unknown>;
}

/**
 * Appends to the hash-chained audit trail. Writers of the chain wait for each other until they commit, so this comes
 * last in a transaction.
 */
export async function recordAudit(database: Queryable, entry: AuditEntry): Promise<void> {
  await database.sql(
    `INSERT INTO audit_entries (principal_kind, principal_id, principal_name, source, action, subject, customer_id,
       operation_id, outcome, reason, data)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::jsonb)`,
    [
      entry.principal.kind,
      entry.principal.id,
      entry.principal.name,
      entry.source,
      entry.action,
      entry.subject,
      entry.customerId ?? null,
      entry.operationId ?? null,
      entry.outcome,
      entry.reason ?? null,
      entry.data ?? {},
    ],
  );
}

/** What a step gets to work with, and what an error of its call says about the effect. */
import { ServiceError } from "../errors.ts";
import { cloudOf, type Run } from "./engine.ts";
import type { OperationRow, StepRow } from "./rows.ts";
import type { StepContext, StepDefinition } from "./step.ts";

/** Where a run stands. */
export interface At {
  operation: OperationRow;
  step: StepRow;
  definition: StepDefinition;
}

/** How soon a cloud that could not be asked is asked again. */
export const askAgainMs = 2_000;

/** Codes of an attempt after which the effect may be there. Everything that is not ours to name is one of them. */
export function isInDoubt(error: unknown): boolean {
  return !(error instanceof ServiceError) || error.code === "unknown_outcome" || error.code === "internal";
}

/**
 * Codes that say nothing was done and that it may work later. A credential that is refused in the middle of the work may be
 * one that is just being replaced; a preflight tells at once.
 */
export function isWorthAnotherTry(error: unknown, { definition }: At): error is ServiceError {
  if (!(error instanceof ServiceError)) return false;
  if (error.code === "unauthorized") return definition.evidence !== "none";
  return error.code === "unreachable" || error.code === "timeout" || error.retryable;
}

export async function contextOf(
  run: Run,
  { operation, step }: At,
  signal = run.signal,
): Promise<StepContext> {
  const { engine } = run;
  const rows =
    operation.serverId === null
      ? []
      : await engine.database.sql<{ externalId: string | null; serverData: Record<string, unknown> }>(
          `SELECT external_id AS "externalId", provider_data AS "serverData" FROM servers WHERE id = $1`,
          [operation.serverId],
        );
  return {
    operation: {
      id: operation.id,
      publicId: operation.publicId,
      action: operation.action,
      input: operation.input,
      plan: { ...operation.plan },
      output: operation.output,
    },
    input: step.input,
    attempt: step.attempt,
    marker: `op=${operation.id}.${step.attempt}`,
    reference: step.reference,
    inDoubt: step.inDoubt,
    issuedAt: step.issuedAt ?? new Date(0),
    externalId: rows[0]?.externalId ?? null,
    serverData: rows[0]?.serverData ?? {},
    get cloud() {
      return cloudOf(engine, operation);
    },
    database: engine.database,
    log: engine.log,
    signal,
    readSecret: (secretId) => engine.secrets.read(engine.database, secretId),
  };
}

/** The one way an operation comes to be: key, lock, pinned steps, first event, card and audit entry in one transaction. */
import type { Transaction } from "../../database/client.ts";
import { commandOf, nameFor, ownOperations, tenantOf } from "../access.ts";
import type { ActionContext, ChangePlan, OperationAction } from "../action.ts";
import { recordAudit } from "../audit/record.ts";
import { hashOf } from "../canonical.ts";
import { isServiceError, ServiceError } from "../errors.ts";
import { requireStepUp } from "../people/step-up.ts";
import { requireNoMaintenance } from "../servers/maintenance.ts";
import { endOperation } from "./end.ts";
import { recordEvent } from "./events.ts";
import { awaitsConfirmation, type EnterRequest, insertOperation } from "./insert.ts";
import { type OperationRow, operationColumns } from "./rows.ts";
import { liveStatesInSql, stateLabels } from "./state.ts";

/** The order exists already: the same customer, name, plan and image. It is answered with the first one's card. */
export class ExistingOrder extends ServiceError {
  readonly operationId: string;
  readonly publicId: string;

  constructor(operation: { id: string; publicId: string }) {
    super("conflict", `This was ordered already: ${operation.publicId}.`);
    this.operationId = operation.id;
    this.publicId = operation.publicId;
  }
}

export interface Entered {
  operationId: string;
  publicId: string;
  existing: boolean;
  /** What the answer tells of it; absent for one that was there, which may have moved on. */
  told?: Pick<OperationRow, "state" | "plan">;
}

type TransactionContext = ActionContext & { database: Transaction };

/**
 * Throws ServiceError: `idempotency_mismatch` (same key, other input), `busy` with who holds the lock, and whatever the
 * action's plan refuses. A unique violation means that somebody else entered first: the caller runs it once more.
 */
export async function enterOperation(context: TransactionContext, request: EnterRequest): Promise<Entered> {
  const { database: tx, principal, engine } = context;
  const requestHash = hashOf({
    action: request.action.name,
    input: request.input,
    by: [principal.kind, principal.id],
  });
  const planned = await planOf(context, request);
  const earlier = await findEarlier(context, request, { lockKey: planned.lockKey, requestHash });
  if (earlier !== null) return earlier;
  if (planned.refusal !== undefined) throw planned.refusal;
  const { plan } = planned;
  if (request.action.stepUp === true) await requireStepUp(context);
  await requireNoMaintenance(tx, principal, plan);
  const prepared = await request.action.prepare?.(context, plan, request.input);
  const made = prepared?.serverId;
  const full: ChangePlan = {
    ...plan,
    serverId: made ?? plan.serverId,
    // From now on it is a server like any other: whatever else is asked of it waits for its making.
    lockKey: made === undefined ? plan.lockKey : `server:${made}`,
    details: { ...plan.details, ...prepared?.details },
  };
  const inserted = await insertOperation(context, request, { plan: full, requestHash });
  const { operationId, publicId, state } = inserted;
  if (made !== undefined) await recordEvent(tx, { type: "server.created", serverId: made, operationId });
  await recordAudit(tx, {
    principal,
    source: context.source,
    action: request.action.name,
    subject: full.title,
    customerId: full.customerId,
    operationId,
    outcome: "allowed",
    data: { operation: publicId, before: full.before, after: full.after },
  });
  tx.afterCommit(() => {
    engine.wake.nudge("operations");
    engine.wake.nudge("cards");
    engine.wake.nudge("events");
  });
  return { operationId, publicId, existing: false, told: { state, plan: full } };
}

type Planned =
  | { plan: ChangePlan; lockKey: string; refusal?: never }
  | { refusal: ServiceError; lockKey: string | null };

/**
 * A refusal is thrown later: a request that was entered already is answered with what it entered, and a state that an
 * operation brings about is told as that operation: who asked for it, since when, at which step.
 */
async function planOf(context: TransactionContext, { action, input }: EnterRequest): Promise<Planned> {
  try {
    const plan = await action.plan(context, input);
    return { plan, lockKey: plan.lockKey };
  } catch (refusal) {
    if (!(refusal instanceof ServiceError)) throw refusal;
    const serverId = isServiceError(refusal, "wrong_state") ? refusal.facts["serverId"] : undefined;
    return { refusal, lockKey: typeof serverId === "string" ? `server:${serverId}` : null };
  }
}

/** The operation that this very request has entered already. Throws `busy` with who holds the lock otherwise. */
async function findEarlier(
  context: TransactionContext,
  { action, idempotencyKey }: EnterRequest,
  { lockKey, requestHash }: { lockKey: string | null; requestHash: string },
): Promise<Entered | null> {
  const { database: tx, principal } = context;
  // Both are wanted for nearly every request, and each has a unique index.
  const rows = await tx.sql<OperationRow & { isSame: boolean; requestHash: string; visible: boolean }>(
    `SELECT ${operationColumns}, o.idempotency_key = $1 AS "isSame", o.request_hash AS "requestHash",
       ${ownOperations(3)} AS visible
     FROM operations o WHERE o.idempotency_key = $1 OR (o.lock_key = $2 AND o.state IN (${liveStatesInSql})) FOR UPDATE`,
    [idempotencyKey, lockKey, tenantOf(principal)],
  );
  const same = rows.find(({ isSame }) => isSame);
  if (same === undefined) {
    // One that waits for a confirmation takes nothing from anybody yet.
    const holder = rows[0];
    const mayWait =
      holder !== undefined &&
      awaitsConfirmation(context, action) &&
      supersedes(action, holder) &&
      (await isInCloud(tx, holder));
    if (holder !== undefined && !mayWait) await takeLockFrom(context, action, holder);
    return null;
  }
  if (same.requestHash !== requestHash || !same.visible) {
    const which = same.visible ? ` (${same.publicId})` : "";
    const message = `This key was used for another request${which}. Use a new key for a new request.`;
    const facts = same.visible ? { operation: same.publicId } : {};
    throw new ServiceError("idempotency_mismatch", message, { facts });
  }
  return { operationId: same.id, publicId: same.publicId, existing: true };
}

/** Throws `busy` with who holds the lock, since when, at which step. */
export async function requireFreeLock(
  context: TransactionContext,
  action: OperationAction,
  lockKey: string,
): Promise<void> {
  const rows = await context.database.sql<OperationRow>(
    `SELECT ${operationColumns} FROM operations o WHERE o.lock_key = $1 AND o.state IN (${liveStatesInSql}) FOR UPDATE`,
    [lockKey],
  );
  if (rows[0] !== undefined) await takeLockFrom(context, action, rows[0]);
}

/** Ends the holder where the action may do that. Throws `busy` otherwise. */
async function takeLockFrom(
  context: TransactionContext,
  action: OperationAction,
  holder: OperationRow,
): Promise<void> {
  const { database: tx, principal } = context;
  if (supersedes(action, holder) && (await isInCloud(tx, holder))) {
    await endOperation(context.engine, tx, holder, {
      end: "failed",
      problem: {
        code: "cancelled",
        message: `Given up for ${commandOf(action.name)}, asked for by ${nameFor("customer", principal)}.`,
        staffDetail: `Given up by ${principal.name}.`,
      },
      supersededBy: action.name,
    });
    return;
  }
  throw await busyError(context, holder);
}

/** Not one that has two systems of the server to look after: both would be left to nobody. */
function supersedes(action: OperationAction, { state, output }: OperationRow): boolean {
  const isBetween =
    output["retiring"] !== undefined && !(output["switched"] === true && output["retired"] === true);
  return action.supersedes === true && state === "needs_attention" && !isBetween;
}

/** While nobody knows whether the cloud made it, only its own operation can look for it by its marker. */
async function isInCloud(tx: Transaction, { serverId }: OperationRow): Promise<boolean> {
  const rows = await tx.sql(`SELECT 1 FROM servers WHERE id = $1 AND external_id IS NOT NULL`, [serverId]);
  return rows.length > 0;
}

async function busyError(context: TransactionContext, holder: OperationRow): Promise<ServiceError> {
  const { principal } = context;
  // A server that has just changed hands: its work is another customer's.
  if (principal.kind === "customer" && holder.customerId !== principal.customerId) {
    return new ServiceError("busy", "Our team is at work on this. Try again later, or ask them.");
  }
  const steps = await context.database.sql<{ label: string; seq: number; count: number }>(
    `SELECT label, seq, (SELECT count(*)::int FROM operation_steps t WHERE t.operation_id = s.operation_id) AS count
     FROM operation_steps s WHERE operation_id = $1 AND state IN ('planned', 'intent', 'waiting') ORDER BY seq LIMIT 1`,
    [holder.id],
  );
  const since = (holder.startedAt ?? holder.createdAt).toISOString().slice(11, 16);
  const step = steps[0];
  const at = step === undefined ? "" : `, step ${step.seq} of ${step.count}: ${step.label}`;
  const who =
    context.principal.kind === "customer" && holder.requesterKind !== "customer"
      ? "our team"
      : holder.requesterName;
  const advice =
    holder.state === "needs_attention"
      ? "Our team has to decide first what becomes of that."
      : "Try again when it has ended, or cancel it.";
  return new ServiceError(
    "busy",
    `${holder.publicId} (${holder.action}, ${stateLabels[holder.state].toLowerCase()}) holds it since ${since} UTC for ${who}${at}. ${advice}`,
    { facts: { operation: holder.publicId, state: holder.state } },
  );
}

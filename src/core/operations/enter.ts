/** The one way an operation comes to be: key, lock, pinned steps, first event, card and audit entry in one transaction. */
import type { Transaction } from "../../database/client.ts";
import { newId, newPublicId } from "../../database/id.ts";
import { type Audience, commandOf, nameFor, ownOperations, tenantOf } from "../access.ts";
import type { ActionContext, ChangePlan, OperationAction } from "../action.ts";
import { recordAudit } from "../audit/record.ts";
import type { Origin } from "../bot.ts";
import { hashOf } from "../canonical.ts";
import { isServiceError, ServiceError } from "../errors.ts";
import { offerButtons } from "./capabilities.ts";
import { addCard } from "./card.ts";
import { endOperation } from "./end.ts";
import { recordEvent } from "./events.ts";
import { appendLog, lineBy, type OperationRow, operationColumns } from "./rows.ts";
import { liveStates, stateLabels } from "./state.ts";

export interface EnterRequest {
  action: OperationAction;
  input: Record<string, unknown>;
  idempotencyKey: string;
  origin: Origin | null;
  retriesOf?: string;
  /** Who reads in the channel of `origin`; by default the person who asks. */
  audience?: Audience;
}

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
}

type TransactionContext = ActionContext & { database: Transaction };

/** What a confirmation is bound to: no texts, times or locale. */
export function planHash(action: string, input: unknown, plan: ChangePlan): string {
  return hashOf({ action, input, before: plan.before, after: plan.after, irreversible: plan.irreversible });
}

/**
 * Throws ServiceError: `idempotency_mismatch` (same key, other input), `busy` with who holds the lock, and whatever the
 * action's plan refuses. A unique violation means that somebody else entered first: the caller runs it once more.
 */
export async function enterOperation(context: TransactionContext, request: EnterRequest): Promise<Entered> {
  const { principal } = context;
  const requestHash = hashOf({
    action: request.action.name,
    input: request.input,
    by: [principal.kind, principal.id],
  });
  const earlier = await findByKey(context, request.idempotencyKey, requestHash);
  if (earlier !== null) return earlier;
  const plan = await planOf(context, request);
  await requireFreeLock(context, request.action, plan.lockKey);
  const prepared = await request.action.prepare?.(context, plan, request.input);
  const made = prepared?.serverId;
  const full: ChangePlan = {
    ...plan,
    serverId: made ?? plan.serverId,
    // From now on it is a server like any other: whatever else is asked of it waits for its making.
    lockKey: made === undefined ? plan.lockKey : `server:${made}`,
    details: { ...plan.details, ...prepared?.details },
  };
  const entered = await insertOperation(context, request, full, requestHash);
  await insertSteps(context, entered.operationId, request.action, full);
  await afterInsert(context, request, full, { ...entered, isNewServer: prepared?.serverId !== undefined });
  return { operationId: entered.operationId, publicId: entered.publicId, existing: false };
}

/** A state that an operation brings about is told as that operation: who asked for it, since when, at which step. */
async function planOf(context: TransactionContext, { action, input }: EnterRequest): Promise<ChangePlan> {
  try {
    return await action.plan(context, input);
  } catch (error) {
    const serverId = isServiceError(error, "wrong_state") ? error.facts["serverId"] : undefined;
    if (typeof serverId === "string") await requireFreeLock(context, action, `server:${serverId}`);
    throw error;
  }
}

async function findByKey(
  { database: tx, principal }: TransactionContext,
  key: string,
  requestHash: string,
): Promise<Entered | null> {
  const rows = await tx.sql<{ id: string; publicId: string; requestHash: string; visible: boolean }>(
    `SELECT o.id, o.public_id AS "publicId", o.request_hash AS "requestHash", ${ownOperations(2)} AS visible
     FROM operations o WHERE o.idempotency_key = $1`,
    [key, tenantOf(principal)],
  );
  const found = rows[0];
  if (found === undefined) return null;
  if (found.requestHash !== requestHash || !found.visible) {
    const which = found.visible ? ` (${found.publicId})` : "";
    const message = `This key was used for another request${which}. Use a new key for a new request.`;
    const facts = found.visible ? { operation: found.publicId } : {};
    throw new ServiceError("idempotency_mismatch", message, { facts });
  }
  return { operationId: found.id, publicId: found.publicId, existing: true };
}

/** Throws `busy` with who holds the lock, since when, at which step. */
export async function requireFreeLock(
  context: TransactionContext,
  action: OperationAction,
  lockKey: string,
): Promise<void> {
  const { database: tx, principal } = context;
  const rows = await tx.sql<OperationRow>(
    `SELECT ${operationColumns} FROM operations o WHERE o.lock_key = $1 AND o.state = ANY($2::text[]) FOR UPDATE`,
    [lockKey, [...liveStates]],
  );
  const holder = rows[0];
  if (holder === undefined) return;
  if (action.supersedes === true && holder.state === "needs_attention" && (await isInCloud(tx, holder))) {
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

interface Inserted {
  operationId: string;
  publicId: string;
  state: OperationRow["state"];
}

async function insertOperation(
  context: TransactionContext,
  request: EnterRequest,
  plan: ChangePlan,
  requestHash: string,
): Promise<Inserted> {
  const { database: tx, principal, engine } = context;
  const id = newId();
  const publicId = newPublicId("op");
  const confirm =
    request.action.risk === "destructive" &&
    engine.policies.confirmDestructive &&
    principal.kind !== "system";
  const state = confirm ? "awaiting_confirmation" : "queued";
  await tx.sql(
    `INSERT INTO operations (id, public_id, action, spec_version, state, input, plan, plan_hash, server_id, customer_id,
       cloud_id, lock_key, idempotency_key, request_hash, requester_kind, requester_id, requester_name, source, retries_of,
       next_run_at, expires_at)
     VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7::jsonb, $8, $9, $10, (SELECT c.id FROM clouds c WHERE c.name = $11), $12, $13,
       $14, $15, $16, $17, $18, $19, CASE WHEN $20 THEN NULL ELSE clock() END,
       CASE WHEN $20 THEN clock() + make_interval(secs => $21::float8 / 1000) END)`,
    [
      id,
      publicId,
      request.action.name,
      request.action.specVersion,
      state,
      request.input,
      plan,
      planHash(request.action.name, request.input, plan),
      plan.serverId,
      plan.customerId,
      plan.cloud,
      plan.lockKey,
      request.idempotencyKey,
      requestHash,
      principal.kind,
      principal.id,
      principal.name,
      context.source,
      request.retriesOf ?? null,
      confirm,
      engine.policies.confirmWithinMs,
    ],
  );
  return { operationId: id, publicId, state };
}

async function insertSteps(
  context: TransactionContext,
  operationId: string,
  action: OperationAction,
  plan: ChangePlan,
) {
  const steps = action.steps(plan, context.engine.clouds);
  await context.database.sql(
    `INSERT INTO operation_steps (operation_id, seq, name, label, input)
     SELECT $1, x.n, x.step->>'name', x.step->>'label', x.step->'input'
     FROM jsonb_array_elements($2::jsonb) WITH ORDINALITY AS x(step, n)`,
    [operationId, JSON.stringify(steps)],
  );
}

async function afterInsert(
  context: TransactionContext,
  request: EnterRequest,
  plan: ChangePlan,
  entered: Inserted & { isNewServer: boolean },
): Promise<void> {
  const { database: tx, principal, engine, source } = context;
  const { operationId, publicId, state } = entered;
  // Secrets that were made for this order live and die with it.
  const secretId = plan.details["secretId"];
  if (typeof secretId === "string") {
    await tx.sql(`UPDATE secrets SET operation_id = $2 WHERE id = $1`, [secretId, operationId]);
  }
  await offerButtons(tx, { id: operationId, publicId }, state);
  await appendLog(
    tx,
    operationId,
    lineBy(principal, "info", (name) => `${plan.title}, asked for by ${name}.`),
  );
  const audience = request.audience ?? (principal.kind === "customer" ? "customer" : "staff");
  if (request.origin !== null) await addCard(tx, operationId, { ...request.origin, audience });
  else
    for (const channel of engine.policies.operationChannels)
      await addCard(tx, operationId, { ...channel, audience: "staff" });
  if (entered.isNewServer)
    await recordEvent(tx, { type: "server.created", serverId: plan.serverId, operationId });
  await recordAudit(tx, {
    principal,
    source,
    action: request.action.name,
    subject: plan.title,
    customerId: plan.customerId,
    operationId,
    outcome: "allowed",
    data: { operation: publicId, before: plan.before, after: plan.after },
  });
  tx.afterCommit(() => {
    engine.wake.nudge("operations");
    engine.wake.nudge("cards");
    engine.wake.nudge("events");
  });
}

/** What people do to an operation: confirm, cancel, retry, adopt, abandon. Each runs in the caller's transaction. */
import type { Transaction } from "../../database/client.ts";
import { type Audience, nameFor, type Principal } from "../access.ts";
import type { ActionContext, OperationAction } from "../action.ts";
import { type Problem, ServiceError } from "../errors.ts";
import { requireStepUp } from "../people/step-up.ts";
import { requireNoMaintenance } from "../servers/maintenance.ts";
import { pointOfNoReturn } from "./cancel.ts";
import { offerButtons } from "./capabilities.ts";
import { endOperation } from "./end.ts";
import { stepDefinition } from "./engine.ts";
import { type Entered, enterOperation, requireFreeLock } from "./enter.ts";
import { planHash } from "./insert.ts";
import { appendLog, lineBy, type OperationRow, readSteps, type StepRow, type StepState } from "./rows.ts";
import { stateLabels } from "./state.ts";

/** A problem's message goes to everybody; which of the team it was is for staff. */
function staffName(
  what: string,
  person: Principal,
  earlier: Problem | null = null,
): { staffDetail?: string } {
  const name = person.kind === "customer" ? "" : `${what} by ${person.name}.`;
  const staffDetail = [name, earlier?.staffDetail ?? ""].filter(Boolean).join(" ");
  return staffDetail === "" ? {} : { staffDetail };
}

export type TransactionContext = ActionContext & { database: Transaction };

function wrongState(operation: OperationRow, verb: string, advice: string): ServiceError {
  return new ServiceError(
    "wrong_state",
    `${operation.publicId} is ${stateLabels[operation.state].toLowerCase()}, so it cannot be ${verb}. ${advice}`,
    { facts: { state: operation.state } },
  );
}

function operationAction(context: TransactionContext, operation: OperationRow) {
  const action = context.engine.registry.get(operation.action);
  if (action.kind !== "operation") throw new Error(`${operation.action} is not an operation`);
  return action;
}

function nudgeAll(context: TransactionContext) {
  context.database.afterCommit(() => {
    context.engine.wake.nudge("operations");
    context.engine.wake.nudge("cards");
    context.engine.wake.nudge("events");
  });
}

/** The plan is computed again: what was confirmed must be what is done. Answers what came of it. */
export async function confirmOperation(
  context: TransactionContext,
  operation: OperationRow,
): Promise<string> {
  const { database: tx, engine, principal } = context;
  if (operation.state !== "awaiting_confirmation")
    throw wrongState(operation, "confirmed", "Nothing waits for that.");
  await requireNoMaintenance(tx, principal, operation.plan);
  const action = operationAction(context, operation);
  if (action.stepUp === true) await requireStepUp(context);
  let same = false;
  try {
    const plan = await action.plan(context, operation.input);
    same =
      plan.serverId === operation.serverId &&
      planHash(operation.action, operation.input, plan) === operation.planHash;
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
  }
  if (!same) {
    await endOperation(engine, tx, operation, {
      end: "expired",
      problem: { code: "drifted", message: "The server has changed since this was asked for. Ask again." },
    });
    return `${operation.publicId} was not started: the server has changed since it was asked for. Ask again.`;
  }
  await requireFreeLock(context, action, operation.plan.lockKey);
  await tx.sql(
    `UPDATE operations SET state = 'queued', next_run_at = clock(), expires_at = NULL, confirmed_by = $2,
       version = version + 1 WHERE id = $1`,
    [operation.id, principal.name],
  );
  await offerButtons(tx, operation, "queued");
  await appendLog(
    tx,
    operation.id,
    lineBy(principal, "info", (name) => `Confirmed by ${name}.`),
  );
  nudgeAll(context);
  return `${operation.publicId} is confirmed. The card shows how it goes.`;
}

export async function cancelOperation(context: TransactionContext, operation: OperationRow): Promise<string> {
  const { database: tx, engine, principal } = context;
  switch (operation.state) {
    case "awaiting_confirmation":
    case "awaiting_approval":
    case "queued":
      if (operation.startedAt !== null) return requestCancel(context, operation);
      await endOperation(engine, tx, operation, {
        end: "cancelled",
        problem: {
          code: "cancelled",
          message: `Cancelled by ${nameFor("customer", principal)} before anything was done.`,
          ...staffName("Cancelled", principal),
        },
      });
      return `${operation.publicId} is cancelled. Nothing was done.`;
    case "running":
    case "waiting":
      return requestCancel(context, operation);
    case "compensating":
      throw wrongState(operation, "cancelled", "It is being undone already.");
    case "needs_attention":
      throw wrongState(operation, "cancelled", `Use /ops retry, adopt or abandon ${operation.publicId}.`);
    case "succeeded":
    case "failed":
    case "cancelled":
    case "expired":
      throw wrongState(operation, "cancelled", "It has ended.");
  }
}

async function requestCancel(context: TransactionContext, operation: OperationRow): Promise<string> {
  const { database: tx, engine, principal } = context;
  const tooLate = pointOfNoReturn(engine, operation, await readSteps(tx, operation.id));
  if (tooLate !== null)
    throw new ServiceError("wrong_state", `Too late to cancel ${operation.publicId}: ${tooLate}`);
  if (operation.cancelRequestedAt !== null) return "That was asked for already.";
  await tx.sql(
    `UPDATE operations SET cancel_requested_at = clock(), cancel_requested_by = $2, version = version + 1,
       next_run_at = CASE WHEN lease_until > clock() THEN next_run_at ELSE clock() END WHERE id = $1`,
    [operation.id, principal.name],
  );
  await appendLog(
    tx,
    operation.id,
    lineBy(principal, "warning", (name) => `Cancel asked for by ${name}.`),
  );
  nudgeAll(context);
  return `Cancelling ${operation.publicId}: what was made is undone, and the card says when that is done.`;
}

/** needs_attention resumes the same operation, looking first; an ended one is entered anew. */
export async function retryOperation(context: TransactionContext, operation: OperationRow): Promise<Entered> {
  if (operation.state === "needs_attention") {
    await requireNoMaintenance(context.database, context.principal, operation.plan);
    if (operationAction(context, operation).stepUp === true) await requireStepUp(context);
    await resume(context, operation, { staff: "Tried again", customer: "Tried again" });
    return { operationId: operation.id, publicId: operation.publicId, existing: true };
  }
  if (operation.state !== "failed" && operation.state !== "cancelled" && operation.state !== "expired") {
    throw wrongState(operation, "retried", "Only what failed, was cancelled or needs attention can.");
  }
  const earlier = await retryOf(context.database, operation);
  if (earlier !== null) return earlier;
  const action = operationAction(context, operation);
  return enterOperation(context, {
    action,
    input: { ...operation.input, ...(await sameSubject(context, action, operation)) },
    idempotencyKey: `retry:${operation.id}`,
    ...(await placeOfCard(context.database, operation.id)),
    retriesOf: operation.id,
  });
}

/** What follows from an operation is shown where that one is. */
export async function placeOfCard(tx: Transaction, operationId: string) {
  const [card] = await tx.sql<{
    platform: "slack" | "discord" | "console";
    workspace: string;
    channel: string;
    userId: string;
    audience: Audience;
  }>(
    `SELECT platform, workspace, channel, COALESCE(user_id, '') AS "userId", audience FROM cards
     WHERE operation_id = $1 ORDER BY created_at, id LIMIT 1`,
    [operationId],
  );
  // The channel is the customer's, whoever of the team presses the button, and the other way round.
  return card === undefined ? { origin: null } : { origin: card, audience: card.audience };
}

/** A retry is one order too: pressed twice, by whomever, it is the same. */
async function retryOf(tx: Transaction, operation: OperationRow): Promise<Entered | null> {
  const rows = await tx.sql<{ operationId: string; publicId: string }>(
    `SELECT id AS "operationId", public_id AS "publicId" FROM operations WHERE retries_of = $1`,
    [operation.id],
  );
  return rows[0] === undefined ? null : { ...rows[0], existing: true };
}

/** A name may mean another server by now, or to another person: a retry is about the same server and customer. */
async function sameSubject(context: TransactionContext, action: OperationAction, operation: OperationRow) {
  const rows = await context.database.sql<{ server: string | null; customer: string | null }>(
    `SELECT (SELECT public_id FROM servers WHERE id = $1) AS server, (SELECT ref FROM customers WHERE id = $2) AS customer`,
    [operation.serverId, operation.customerId],
  );
  const subject: Record<string, string> = {};
  for (const field of ["server", "customer"] as const) {
    const value = rows[0]?.[field] ?? null;
    if (value !== null && action.options.some((option) => option.field === field)) subject[field] = value;
  }
  return subject;
}

const openStates: ReadonlySet<StepState> = new Set(["intent", "waiting", "planned"]);

async function resume(
  context: TransactionContext,
  operation: OperationRow,
  how: Record<Audience, string>,
): Promise<void> {
  const { database: tx, engine, principal } = context;
  const steps = await readSteps(tx, operation.id);
  // What did not work is done again: a compensation, or a step past the point of no return, before which nothing later
  // has begun. Any other stays where its evidence is.
  // What is undone is undone in its order: nothing after a part that did not work has begun.
  const undoing = operation.endState !== null;
  const stuck = steps.find(
    ({ state, compensates }) =>
      (compensates !== null) === undoing && (state === "failed" || openStates.has(state)),
  );
  if (stuck !== undefined) {
    const deadlineMs = stepDefinition(engine, operation, stuck.name)?.deadlineMs ?? 0;
    await tx.sql(
      `UPDATE operation_steps SET state = CASE WHEN state = 'failed' THEN 'planned' ELSE state END,
         reference = CASE WHEN state = 'failed' THEN NULL ELSE reference END, started_at = clock(), finished_at = NULL, deadline_at = clock() + make_interval(secs => $3::float8 / 1000)
       WHERE operation_id = $1 AND seq = $2`,
      [operation.id, stuck.seq, deadlineMs],
    );
  }
  // What it has to hand over at its end is there still when the team takes its time.
  await tx.sql(
    `UPDATE secrets SET expires_at = clock() + make_interval(secs => $2::float8 / 1000) WHERE operation_id = $1`,
    [operation.id, engine.policies.secretLifetimeMs],
  );
  await tx.sql(
    `UPDATE operations SET state = $2, problem = CASE WHEN end_state IS NULL THEN NULL ELSE problem END,
       next_run_at = clock(), version = version + 1 WHERE id = $1`,
    [operation.id, operation.endState === null ? "waiting" : "compensating"],
  );
  await offerButtons(tx, operation, "waiting");
  await appendLog(
    tx,
    operation.id,
    lineBy(principal, "info", (name) => `${name === principal.name ? how.staff : how.customer} by ${name}.`),
  );
  nudgeAll(context);
}

/** A person says: this server of the cloud is the one. The step's verification still asks the cloud. */
export async function adoptOperation(
  context: TransactionContext,
  operation: OperationRow,
  externalId: string | undefined,
) {
  const { database: tx } = context;
  if (operation.state !== "needs_attention")
    throw wrongState(operation, "adopted", "Only what needs attention can be.");
  const steps = await readSteps(tx, operation.id);
  const step = steps.find(({ state }) => state === "intent" || state === "waiting");
  if (step === undefined || operation.endState !== null) {
    throw wrongState(operation, "adopted", "No step of it waits for an outcome; use retry or abandon.");
  }
  await requireAdoptable(tx, operation, step, externalId);
  const reference = externalId === undefined ? (step.reference ?? {}) : { ...step.reference, externalId };
  await tx.sql(
    `UPDATE operation_steps SET state = 'waiting', reference = $3::jsonb WHERE operation_id = $1 AND seq = $2`,
    [operation.id, step.seq, reference],
  );
  await resume(context, operation, {
    staff: externalId === undefined ? "Said to be done" : `Said to be done, as ${externalId},`,
    customer: "Said to be done",
  });
}

async function requireAdoptable(
  tx: Transaction,
  operation: OperationRow,
  step: StepRow,
  externalId: string | undefined,
) {
  const servers = await tx.sql<{ externalId: string | null }>(
    `SELECT external_id AS "externalId" FROM servers WHERE id = $1 FOR UPDATE`,
    [operation.serverId],
  );
  const known = servers[0]?.externalId ?? null;
  if (known === null && externalId === undefined) {
    throw new ServiceError(
      "invalid_input",
      `${operation.publicId} stopped at "${step.label}" before its server was known. Give the server's id in the cloud: id:….`,
      { facts: { option: "id" } },
    );
  }
  if (externalId === undefined) return;
  if (known !== null && known !== externalId) {
    throw new ServiceError(
      "conflict",
      `This operation's server is ${known} in the cloud, not ${externalId}.`,
    );
  }
  const taken = await tx.sql<{ publicId: string }>(
    `SELECT public_id AS "publicId" FROM servers WHERE cloud_id = (SELECT cloud_id FROM operations WHERE id = $1)
       AND external_id = $2 AND id IS DISTINCT FROM $3 AND deleted_at IS NULL`,
    [operation.id, externalId, operation.serverId],
  );
  if (taken[0] !== undefined)
    throw new ServiceError("conflict", `${externalId} is ${taken[0].publicId} already.`);
}

/** A person gives up: it ends as failed, and what may be left is said. */
export async function abandonOperation(context: TransactionContext, operation: OperationRow): Promise<void> {
  const { database: tx, engine, principal } = context;
  if (operation.state !== "needs_attention")
    throw wrongState(operation, "given up", "Only what needs attention can be.");
  const why = operation.problem?.message ?? "";
  await endOperation(engine, tx, operation, {
    end: "failed",
    problem: {
      code: "unknown_outcome",
      message: `Given up by ${nameFor("customer", principal)}. ${why}`.trim(),
      ...staffName("Given up", principal, operation.problem),
    },
  });
  await appendLog(tx, operation.id, [
    {
      level: "warning",
      audience: "staff",
      text: `What it made may still be in the cloud, marked op=${operation.id}. A sync reports it as a late twin.`,
    },
  ]);
}

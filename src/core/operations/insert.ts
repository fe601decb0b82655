/** The rows of a new operation, in one statement: a person waits for this one, and every round trip counts. */
import type { Transaction } from "../../database/client.ts";
import { newId, newPublicId } from "../../database/id.ts";
import type { Audience, Principal } from "../access.ts";
import type { ActionContext, ChangePlan, OperationAction } from "../action.ts";
import type { Origin } from "../bot.ts";
import { hashOf } from "../canonical.ts";
import { buttonsFor } from "./capabilities.ts";
import { lineBy } from "./rows.ts";
import type { OperationState } from "./state.ts";

export interface EnterRequest {
  action: OperationAction;
  input: Record<string, unknown>;
  idempotencyKey: string;
  origin: Origin | null;
  retriesOf?: string;
  /** Who reads in the channel of `origin`; by default the person who asks. */
  audience?: Audience;
}

/** What a confirmation is bound to: no texts, times or locale. */
export function planHash(action: string, input: unknown, plan: ChangePlan): string {
  return hashOf({ action, input, before: plan.before, after: plan.after, irreversible: plan.irreversible });
}

/** It is entered, and nothing of it is done before somebody has confirmed it. */
export function awaitsConfirmation(
  { principal, engine }: Pick<ActionContext, "principal" | "engine">,
  action: OperationAction,
): boolean {
  return action.risk === "destructive" && engine.policies.confirmDestructive && principal.kind !== "system";
}

/** The operation, its pinned steps, its first line, its buttons and its cards. */
export async function insertOperation(
  { database: tx, principal, source, engine }: ActionContext & { database: Transaction },
  request: EnterRequest,
  { plan, requestHash }: { plan: ChangePlan; requestHash: string },
): Promise<{ operationId: string; publicId: string; state: OperationState }> {
  const { action, input, idempotencyKey, retriesOf } = request;
  const operationId = newId();
  const publicId = newPublicId("op");
  const confirm = awaitsConfirmation({ principal, engine }, action);
  const state: OperationState = confirm ? "awaiting_confirmation" : "queued";
  const rows = {
    steps: action.steps(plan, engine.clouds),
    lines: lineBy(principal, "info", (name) => `${plan.title}, asked for by ${name}.`),
    buttons: buttonsFor({ id: operationId, publicId }, state),
    cards: cardsFor(request, principal, engine.policies.operationChannels),
    // Secrets that were made for this order live and die with it.
    secrets: [plan.details["secretId"]].filter((id) => typeof id === "string"),
  };
  await tx.sql(
    `WITH made AS (
       INSERT INTO operations (id, public_id, action, spec_version, state, input, plan, plan_hash, server_id, customer_id,
         cloud_id, lock_key, idempotency_key, request_hash, requester_kind, requester_id, requester_name, source,
         retries_of, log_seq, next_run_at, expires_at)
       VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7::jsonb, $8, $9, $10, (SELECT c.id FROM clouds c WHERE c.name = $11), $12,
         $13, $14, $15, $16, $17, $18, $19, jsonb_array_length($22::jsonb->'lines'), CASE WHEN $20 THEN NULL ELSE clock() END,
         CASE WHEN $20 THEN clock() + make_interval(secs => $21::float8 / 1000) END)
       RETURNING id),
     step_rows AS (
       INSERT INTO operation_steps (operation_id, seq, name, label, input)
       SELECT made.id, x.n, x.row->>'name', x.row->>'label', x.row->'input'
       FROM made, jsonb_array_elements($22::jsonb->'steps') WITH ORDINALITY AS x(row, n)),
     line_rows AS (
       INSERT INTO operation_log (operation_id, seq, level, audience, text)
       SELECT made.id, x.n, x.row->>'level', COALESCE(x.row->>'audience', 'everyone'), x.row->>'text'
       FROM made, jsonb_array_elements($22::jsonb->'lines') WITH ORDINALITY AS x(row, n)),
     button_rows AS (
       INSERT INTO capabilities (token, operation_id, action, input, offered_in, expires_at)
       SELECT x.row->>'token', made.id, x.row->>'action', x.row->'input', x.row->>'offeredIn',
         clock() + make_interval(secs => (x.row->>'lifetimeMs')::float8 / 1000)
       FROM made, jsonb_array_elements($22::jsonb->'buttons') AS x(row)),
     card_rows AS (
       INSERT INTO cards (id, operation_id, platform, workspace, channel, user_id, audience)
       SELECT (x.row->>'id')::uuid, made.id, x.row->>'platform', x.row->>'workspace', x.row->>'channel', x.row->>'userId',
         x.row->>'audience'
       FROM made, jsonb_array_elements($22::jsonb->'cards') AS x(row))
     UPDATE secrets SET operation_id = made.id FROM made
     WHERE secrets.id IN (SELECT x::uuid FROM jsonb_array_elements_text($22::jsonb->'secrets') AS x)`,
    [
      operationId,
      publicId,
      action.name,
      action.specVersion,
      state,
      input,
      plan,
      planHash(action.name, input, plan),
      plan.serverId,
      plan.customerId,
      plan.cloud,
      plan.lockKey,
      idempotencyKey,
      requestHash,
      principal.kind,
      principal.id,
      principal.name,
      source,
      retriesOf ?? null,
      confirm,
      engine.policies.confirmWithinMs,
      rows,
    ],
  );
  return { operationId, publicId, state };
}

/** Where it was asked for, or the channels for what nobody asked for in a chat. */
function cardsFor(
  { origin, audience }: EnterRequest,
  principal: Principal,
  channels: ActionContext["engine"]["policies"]["operationChannels"],
) {
  const own = audience ?? (principal.kind === "customer" ? "customer" : "staff");
  if (origin !== null) return [{ id: newId(), ...origin, audience: own }];
  return channels.map((channel) => ({ id: newId(), ...channel, audience: "staff" }));
}

/** The one entrance: find, parse, authorise, record, enter. Bots, console and API call this and nothing else. */
import { z } from "zod";
import { isUniqueViolation } from "../database/errors.ts";
import { type Principal, requirePermission, tenantOf } from "./access.ts";
import type { Action, ActionContext, ImmediateAction, OperationAction, Source } from "./action.ts";
import { recordAudit } from "./audit/record.ts";
import { isServiceError, ServiceError } from "./errors.ts";
import { formOf } from "./form-of.ts";
import { lookup } from "./lookup.ts";
import {
  findCapability,
  invalidButton,
  releaseCapability,
  useCapability,
} from "./operations/capabilities.ts";
import { changesOf } from "./operations/card.ts";
import type { Engine } from "./operations/engine.ts";
import { type Entered, ExistingOrder, enterOperation } from "./operations/enter.ts";
import { placeOfCard } from "./operations/resolve.ts";
import { type OperationRow, operationColumns } from "./operations/rows.ts";
import { missingOptions, parseOptions } from "./options.ts";
import { linkStranger } from "./people/link.ts";
import { requireStepUp } from "./people/step-up.ts";
import type { Answer, Entrance, Request, Reveal } from "./request.ts";
import { bannersFor, requireNoMaintenance, touchedBy, viewerOf } from "./servers/maintenance.ts";
import type { View } from "./view.ts";

const RevealInput = z.object({ secretId: z.string(), label: z.string() });

export interface EntranceOptions {
  engine: Engine;
  /** Who a platform's user is, by configuration and linked identities. */
  identify: Entrance["identify"];
}

export function createEntrance({ engine, identify }: EntranceOptions): Entrance {
  return {
    identify,
    dispatch: (request) => shielded(engine, request.principal, dispatch(engine, request)),
    press: (token, principal, source) =>
      shielded(engine, principal, press(engine, { token, principal, source })),
    reveal: (token, principal, source) =>
      shielded(engine, principal, reveal(engine, { token, principal, source })),
    link: (stranger, code) => linkStranger({ engine, identify }, stranger, code),
    lookup: (query, principal) => lookup(engine.database, query, principal),
    async form(name, given, principal) {
      const action = engine.registry.get(name);
      requirePermission(principal, action);
      return formOf(action, given, principal);
    },
  };
}

/** What is for staff does not leave here towards a customer, whatever shows it then; staff find it in the log. */
async function shielded<T>(engine: Engine, principal: Principal, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (principal.kind !== "customer" || !(error instanceof ServiceError)) throw error;
    const { code, message, facts, retryable, staffDetail } = error;
    if (staffDetail === undefined) throw error;
    engine.log.warn(
      { code, staffDetail, customer: principal.id },
      "a customer met what the team has to repair",
    );
    throw new ServiceError(code, message, { facts, retryable, cause: error });
  }
}

async function dispatch(engine: Engine, request: Request): Promise<Answer> {
  const action = engine.registry.get(request.action);
  try {
    requirePermission(request.principal, action);
    if (missingOptions(action, request.options, request.principal).length > 0) {
      return { kind: "form", form: formOf(action, request.options, request.principal) };
    }
    const input = parseOptions(action, request.options, request.principal);
    return await run(engine, request, action, input);
  } catch (error) {
    await auditRefusal(engine, request, error);
    throw error;
  }
}

/** A person was told no: that is worth a line in the audit trail, with what was typed. */
async function auditRefusal(
  engine: Engine,
  request: Pick<Request, "principal" | "source" | "action" | "options">,
  error: unknown,
) {
  if (!(error instanceof ServiceError) || error.code === "invalid_input") return;
  const subject = request.options["server"] ?? request.options["operation"] ?? null;
  await recordAudit(engine.database, {
    principal: request.principal,
    source: request.source,
    action: request.action,
    subject: subject === null ? null : cleanSubject(subject),
    customerId: tenantOf(request.principal),
    outcome: isServiceError(error, "forbidden", "not_found") ? "denied" : "refused",
    reason: error.code,
  });
}

/** PostgreSQL takes no NUL, and whoever types one must not escape the trail by it. */
function cleanSubject(typed: string): string {
  return typed
    .slice(0, 80)
    .toWellFormed()
    .replace(/\p{Cc}/gu, "\ufffd");
}

async function run(
  engine: Engine,
  request: Request,
  action: Action,
  input: Record<string, unknown>,
): Promise<Answer> {
  const context: ActionContext = {
    database: engine.database,
    principal: request.principal,
    source: request.source,
    engine,
  };
  switch (action.kind) {
    case "read":
      return { kind: "view", view: await action.run(context, input) };
    case "immediate":
      return runImmediate(engine, context, action, input);
    case "operation":
      if (request.dryRun === true) return { kind: "view", view: await dryRun(context, action, input) };
      return enter(engine, context, action, { ...request, input });
  }
}

async function runImmediate(
  engine: Engine,
  context: ActionContext,
  action: ImmediateAction,
  input: unknown,
): Promise<Answer> {
  const attempt = () =>
    engine.database.transaction(async (tx): Promise<Answer> => {
      if (action.stepUp === true) await requireStepUp({ ...context, database: tx });
      const result = await action.run({ ...context, database: tx }, input);
      await recordAudit(tx, {
        principal: context.principal,
        source: context.source,
        action: action.name,
        subject: result.subject ?? null,
        customerId: tenantOf(context.principal),
        operationId: result.operationId ?? null,
        ...(result.denied === undefined
          ? { outcome: "allowed" as const }
          : { outcome: "denied" as const, reason: result.denied }),
      });
      return { kind: "view", view: result.view };
    });
  return onceMoreWhenBeaten(attempt);
}

/** What would be done, from the database, with its age. Nothing is entered. */
async function dryRun(context: ActionContext, action: OperationAction, input: unknown): Promise<View> {
  const { database, principal } = context;
  const plan = await action.plan(context, input);
  await requireNoMaintenance(database, principal, plan);
  const steps = action.steps(plan, context.engine.clouds);
  const fields = changesOf(plan);
  if (plan.downtime !== null) fields.push({ label: "Downtime", value: plan.downtime });
  if (plan.irreversible.length > 0)
    fields.push({ label: "Cannot be undone", value: plan.irreversible.join(" ") });
  if (plan.notes.length > 0) fields.push({ label: "Note", value: plan.notes.join(" ") });
  const age =
    plan.dataAsOf === null ? "" : ` Computed from data of ${plan.dataAsOf.toISOString().slice(0, 16)}Z.`;
  return {
    title: `Dry run: ${plan.title}`,
    tone: "neutral",
    text: `Nothing was done.${age}`,
    fields,
    steps: steps.map(({ label }) => ({ label, state: "planned" })),
    ...(await bannersFor(database, viewerOf(principal), touchedBy(plan))),
  };
}

async function enter(
  engine: Engine,
  context: ActionContext,
  action: OperationAction,
  request: Pick<Request, "idempotencyKey" | "origin"> & { input: Record<string, unknown> },
): Promise<Answer> {
  const { idempotencyKey, origin, input } = request;
  const attempt = () =>
    engine.database.transaction((tx) =>
      enterOperation({ ...context, database: tx }, { action, input, idempotencyKey, origin }),
    );
  let entered: Entered;
  try {
    entered = await onceMoreWhenBeaten(attempt);
  } catch (error) {
    if (!(error instanceof ExistingOrder)) throw error;
    entered = { operationId: error.operationId, publicId: error.publicId, existing: true };
  }
  return operationAnswer(engine, context.principal, entered);
}

/** Somebody entered the same key, lock or name between our look and our insert: the second look sees them. */
async function onceMoreWhenBeaten<T>(attempt: () => Promise<T>): Promise<T> {
  try {
    return await attempt();
  } catch (error) {
    if (!isUniqueViolation(error)) throw error;
    return attempt();
  }
}

async function operationAnswer(engine: Engine, principal: Principal, entered: Entered): Promise<Answer> {
  const { operationId, publicId, existing } = entered;
  const { plan, state } = entered.told ?? (await readOperation(engine, operationId));
  const way = state === "awaiting_confirmation" ? "waits for your confirmation." : "is on its way.";
  const text = existing
    ? `This was asked for already: ${publicId}. Nothing new was started.`
    : [`${plan.title}: ${publicId} ${way}`, ...plan.notes].join(" ");
  const banner = await bannersFor(engine.database, viewerOf(principal), touchedBy(plan));
  const view: View = { title: plan.title, tone: existing ? "neutral" : "progress", text, ...banner };
  return { kind: "operation", operationId, publicId, existing, view };
}

async function readOperation(engine: Engine, id: string): Promise<OperationRow> {
  const rows = await engine.database.sql<OperationRow>(
    `SELECT ${operationColumns} FROM operations o WHERE o.id = $1`,
    [id],
  );
  if (rows[0] === undefined) throw new Error(`operation ${id} vanished`);
  return rows[0];
}

interface Press {
  token: string;
  principal: Principal;
  source: Source;
}

/** The capability says what; the principal at the click says whether. Both in one transaction with the effect. */
async function press(engine: Engine, { token, principal, source }: Press): Promise<Answer> {
  const capability = await findCapability(engine.database, token, principal);
  if (capability === null || capability.action === "secret.reveal") {
    throw await refuseButton(engine, { token, principal, source });
  }
  const action = engine.registry.get(capability.action);
  const asked = { principal, source, action: action.name, options: stringValues(capability.input) };
  try {
    requirePermission(principal, action);
    if (action.kind === "read") throw new Error(`${action.name} cannot be pressed`);
    if (action.kind === "operation") return await enterByButton(engine, { token, principal, source }, action);
    return await onceMoreWhenBeaten(() =>
      engine.database.transaction(async (tx) => {
        await useCapability(tx, token, principal);
        const context = { database: tx, principal, source, engine };
        if (action.stepUp === true) await requireStepUp(context);
        const result = await action.run(context, action.input.parse(capability.input));
        await recordAudit(tx, {
          principal,
          source,
          action: action.name,
          subject: result.subject ?? null,
          customerId: tenantOf(principal),
          operationId: capability.operationId,
          outcome: "allowed",
          data: { button: true },
        });
        return { kind: "view", view: result.view } as const;
      }),
    );
  } catch (error) {
    await auditRefusal(engine, asked, error);
    throw error;
  }
}

/** What a card offered to do next, shown where that card is. */
async function enterByButton(
  engine: Engine,
  { token, principal, source }: Press,
  action: OperationAction,
): Promise<Answer> {
  const entered = await onceMoreWhenBeaten(() =>
    engine.database.transaction(async (tx) => {
      const capability = await useCapability(tx, token, principal);
      return enterOperation(
        { database: tx, principal, source, engine },
        {
          action,
          input: z.record(z.string(), z.unknown()).parse(action.input.parse(capability.input)),
          idempotencyKey: `button:${token}`,
          ...(await placeOfCard(tx, capability.operationId)),
        },
      );
    }),
  );
  return operationAnswer(engine, principal, entered);
}

/** Nothing that this person may know of. The token itself stays out of the trail: it may be somebody's. */
async function refuseButton(engine: Engine, { principal, source }: Press): Promise<ServiceError> {
  const error = invalidButton();
  await recordAudit(engine.database, {
    principal,
    source,
    action: "button",
    subject: null,
    customerId: tenantOf(principal),
    outcome: "denied",
    reason: error.code,
  });
  return error;
}

function stringValues(input: Record<string, unknown>): Record<string, string> {
  return Object.fromEntries(Object.entries(input).map(([key, value]) => [key, String(value)]));
}

/**
 * Claims the secret for showing. Only the requester sees it, and staff who asked on a customer's behalf; the claim is
 * burnt once it was shown, or released when the platform could not show it.
 */
async function reveal(engine: Engine, { token, principal, source }: Press): Promise<Reveal> {
  const asked = { principal, source, action: "secret.reveal", options: {} };
  try {
    const claimed = await engine.database.transaction(async (tx) => {
      const capability = await useCapability(tx, token, principal);
      await requireStepUp({ database: tx, principal, source, engine });
      const rows = await tx.sql<OperationRow>(
        `SELECT ${operationColumns} FROM operations o WHERE o.id = $1`,
        [capability.operationId],
      );
      const operation = rows[0];
      if (capability.action !== "secret.reveal" || operation === undefined) {
        throw invalidButton();
      }
      if (operation.requesterKind !== principal.kind || operation.requesterId !== principal.id) {
        throw new ServiceError("forbidden", "Only the person who asked for it can see this secret.");
      }
      const { secretId, label } = RevealInput.parse(capability.input);
      const text = await engine.secrets.read(tx, secretId);
      await recordAudit(tx, {
        principal,
        source,
        action: "secret.reveal",
        subject: operation.publicId,
        customerId: tenantOf(principal),
        operationId: operation.id,
        outcome: "allowed",
      });
      return { secretId, label, text, operationId: operation.id };
    });
    return {
      label: claimed.label,
      text: claimed.text,
      burn: () => burn(engine, claimed),
      release: () => releaseCapability(engine.database, token),
    };
  } catch (error) {
    if (
      isServiceError(error, "expired") &&
      (await findCapability(engine.database, token, principal)) === null
    ) {
      throw await refuseButton(engine, { token, principal, source });
    }
    await auditRefusal(engine, asked, error);
    throw error;
  }
}

async function burn(engine: Engine, claimed: { secretId: string; operationId: string }): Promise<void> {
  await engine.database.transaction(async (tx) => {
    await engine.secrets.drop(tx, claimed.secretId);
    await tx.sql(`UPDATE operations SET version = version + 1 WHERE id = $1`, [claimed.operationId]);
    tx.afterCommit(() => engine.wake.nudge("cards"));
  });
}

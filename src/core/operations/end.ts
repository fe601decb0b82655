/** How an operation ends: its state, the server's row, events and the thread in one transaction. */
import type { Transaction } from "../../database/client.ts";
import type { ChangePlan, EndEffects, OperationAction } from "../action.ts";
import { type ServerState, serverStates } from "../cloud.ts";
import type { Problem } from "../errors.ts";
import { applyObserved, recordProtection, setServerState } from "../servers/observe.ts";
import { letPlanWait } from "../servers/size-change.ts";
import { replaceSnapshots } from "../servers/snapshots.ts";
import { buttonLifetimeMs, offer, offerButtons } from "./capabilities.ts";
import { addCard } from "./card.ts";
import { freeSlot } from "./claim.ts";
import type { Engine } from "./engine.ts";
import { recordEvent } from "./events.ts";
import { appendLog, type LogEntry, type OperationRow } from "./rows.ts";
import { type OperationState, stageOf } from "./state.ts";
import type { StepOutcome } from "./step.ts";

export type End = "succeeded" | "failed" | "cancelled" | "expired";

/** What a step found out, into the operation's output and the server's row. */
export async function applyOutcome(
  tx: Transaction,
  operation: OperationRow,
  outcome: StepOutcome,
): Promise<void> {
  const addresses = outcome.server?.addresses;
  const handedOn = { ...(addresses === undefined ? {} : { addresses }), ...outcome.output };
  if (Object.keys(handedOn).length > 0) {
    operation.output = { ...operation.output, ...handedOn };
    await tx.sql(`UPDATE operations SET output = $2::jsonb WHERE id = $1`, [operation.id, operation.output]);
  }
  if (operation.serverId === null) return;
  if (outcome.server !== undefined) {
    await applyObserved(tx, {
      serverId: operation.serverId,
      remote: outcome.server,
      operationId: operation.id,
      replaces: outcome.replaces,
    });
  }
  if (outcome.snapshots !== undefined) {
    await replaceSnapshots(tx, { serverId: operation.serverId, snapshots: outcome.snapshots });
  }
  if (outcome.gone === true) {
    await setServerState(tx, { serverId: operation.serverId, state: "deleted", operationId: operation.id });
  }
}

export async function endOperation(
  engine: Engine,
  tx: Transaction,
  operation: OperationRow,
  end: { end: End; problem?: Problem | null; supersededBy?: string },
): Promise<void> {
  const problem = end.problem ?? operation.problem;
  const action = engine.registry.find(operation.action);
  // What becomes of the server is then for the one that took over to say.
  const effects: EndEffects =
    action?.kind === "operation" && end.end !== "expired"
      ? end.supersededBy === undefined
        ? (action.onEnd?.(end.end, { ...operation, problem }) ?? {})
        : whatMayCount(action.onEnd?.(end.end, { ...operation, problem: operation.problem ?? problem }) ?? {})
      : {};
  // Succeeded means that all are done.
  if (end.end !== "succeeded") await leaveSteps(tx, operation.id);
  await tx.sql(
    `WITH freed AS (UPDATE slots SET operation_id = NULL WHERE operation_id = $1)
     UPDATE operations SET state = $2, problem = $3::jsonb, finished_at = clock(), next_run_at = NULL, lease_by = NULL,
       lease_until = NULL, version = version + 1 WHERE id = $1`,
    [operation.id, end.end, end.end === "succeeded" ? null : problem],
  );
  if (end.end !== "succeeded") {
    await dropOrKeepSecrets(engine, tx, operation, effects);
    await restoreServerState(
      tx,
      operation,
      action?.kind === "operation" ? duringOf(action, operation.plan) : undefined,
    );
  }
  await applyEffects(engine, tx, operation, { end: end.end, effects });
  if (effects.alert === true) await alertChannels(engine, tx, operation);
  await offerButtons(tx, operation, end.end);
  await appendLog(tx, operation.id, closingLines(end.end, problem, effects));
  await recordEnd(tx, operation, end.end, problem, effects);
  tx.afterCommit(() => {
    engine.wake.nudge("cards");
    engine.wake.nudge("events");
    engine.wake.nudge("operations");
  });
}

/** The one that took over may be taken back: what may be stored in the cloud is not forgotten for it. */
function whatMayCount({ server, reveal }: EndEffects): EndEffects {
  return {
    ...(server?.planWaits ? { server: { planWaits: server.planWaits } } : {}),
    ...(reveal === undefined ? {} : { reveal }),
  };
}

/** What may count in the cloud is kept as long as it can be shown, counted from now: a person may have taken their time. */
async function dropOrKeepSecrets(
  engine: Engine,
  tx: Transaction,
  operation: OperationRow,
  { reveal }: EndEffects,
) {
  if (reveal === undefined) {
    await tx.sql(`DELETE FROM secrets WHERE operation_id = $1`, [operation.id]);
    return;
  }
  await tx.sql(
    `UPDATE secrets SET expires_at = clock() + make_interval(secs => $2::float8 / 1000) WHERE operation_id = $1`,
    [operation.id, engine.policies.secretLifetimeMs],
  );
}

/** Given up or never begun: nobody follows them any more. */
async function leaveSteps(tx: Transaction, operationId: string) {
  await tx.sql(
    `UPDATE operation_steps SET state = 'skipped', finished_at = CASE WHEN started_at IS NULL THEN NULL ELSE clock() END
     WHERE operation_id = $1 AND state IN ('planned', 'intent', 'waiting')`,
    [operationId],
  );
  await closeWaits(tx, operationId);
}

export async function closeWaits(tx: Transaction, operationId: string): Promise<void> {
  await tx.sql(`UPDATE waits SET resolved_at = clock() WHERE operation_id = $1 AND resolved_at IS NULL`, [
    operationId,
  ]);
}

function closingLines(end: End, problem: Problem | null, effects: EndEffects): LogEntry[] {
  const line = closingLine(end, problem, effects);
  if (end === "succeeded" || problem?.staffDetail === undefined) return [line];
  return [line, { level: "info", audience: "staff", text: problem.staffDetail }];
}

function closingLine(end: End, problem: Problem | null, effects: EndEffects) {
  if (end === "succeeded") return { level: "success" as const, text: effects.note ?? "Done." };
  if (end === "expired") return { level: "warning" as const, text: problem?.message ?? "Expired." };
  const [level, otherwise] =
    end === "cancelled" ? (["warning", "Cancelled."] as const) : (["error", "Failed."] as const);
  return { level, text: [problem?.message ?? otherwise, effects.note].filter(Boolean).join(" ") };
}

/** What its server is shown as while an operation runs. */
export function duringOf({ during }: OperationAction, plan: ChangePlan): ServerState | undefined {
  return typeof during === "function" ? during(plan) : during;
}

/** Nobody looked at the server since: it is what it was before. */
async function restoreServerState(tx: Transaction, operation: OperationRow, during: ServerState | undefined) {
  const before = serverStates.find((state) => state === operation.output["stateBefore"]);
  if (operation.serverId === null || during === undefined || before === undefined) return;
  const rows = await tx.sql<{ state: string }>(`SELECT state FROM servers WHERE id = $1 FOR UPDATE`, [
    operation.serverId,
  ]);
  if (rows[0]?.state !== during) return;
  await setServerState(tx, { serverId: operation.serverId, state: before, operationId: operation.id });
}

async function applyEffects(
  engine: Engine,
  tx: Transaction,
  operation: OperationRow,
  { end, effects }: { end: End; effects: EndEffects },
) {
  const change = effects.server;
  if (change !== undefined && operation.serverId !== null) {
    const before =
      change.deleteProtected === undefined
        ? []
        : await tx.sql<{ deleteProtected: boolean }>(
            `SELECT delete_protected AS "deleteProtected" FROM servers WHERE id = $1 FOR UPDATE`,
            [operation.serverId],
          );
    await tx.sql(
      `UPDATE servers SET plan_code = COALESCE($2, plan_code), vcpus = COALESCE($3, vcpus),
         memory_mib = COALESCE($4, memory_mib), disk_gib = COALESCE($5, disk_gib), image_name = COALESCE($6, image_name),
         has_agent = CASE WHEN $7 THEN $8::boolean ELSE has_agent END,
         delete_protected = COALESCE($9::boolean, delete_protected),
         delete_at = CASE WHEN $10 THEN $11::timestamptz ELSE delete_at END,
         plan_waits = CASE WHEN $12 THEN NULL ELSE plan_waits END
       WHERE id = $1`,
      [
        operation.serverId,
        change.planCode ?? null,
        change.vcpus ?? null,
        change.memoryMib ?? null,
        change.diskGib ?? null,
        change.imageName ?? null,
        change.hasAgent !== undefined,
        change.hasAgent ?? null,
        change.deleteProtected ?? null,
        change.deleteAt !== undefined,
        change.deleteAt ?? null,
        change.planWaits === null,
      ],
    );
    if (change.planWaits) {
      const { isUnknown, ...waits } = change.planWaits;
      const ids = { serverId: operation.serverId, operationId: operation.id };
      await letPlanWait(tx, { ...ids, waits, isUnknown });
    }
    await recordProtection(tx, {
      serverId: operation.serverId,
      operationId: operation.id,
      before: before[0]?.deleteProtected,
      now: change.deleteProtected,
    });
    if (change.deleted === true) {
      await setServerState(tx, { serverId: operation.serverId, state: "deleted", operationId: operation.id });
      await tx.sql(
        `UPDATE servers SET deleted_at = clock(), delete_at = NULL WHERE id = $1 AND deleted_at IS NULL`,
        [operation.serverId],
      );
    }
  }
  for (const { action, input } of effects.offers ?? []) {
    await offer(tx, {
      operationId: operation.id,
      action,
      input,
      offeredIn: stageOf[end],
      lifetimeMs: buttonLifetimeMs,
    });
  }
  if (effects.reveal !== undefined) {
    await offer(tx, {
      operationId: operation.id,
      action: "secret.reveal",
      input: { ...effects.reveal },
      offeredIn: stageOf[end],
      lifetimeMs: engine.policies.secretLifetimeMs,
    });
  }
}

async function recordEnd(
  tx: Transaction,
  operation: OperationRow,
  end: End,
  problem: Problem | null,
  effects: EndEffects,
) {
  for (const event of effects.events ?? []) {
    await recordEvent(tx, {
      type: event.type,
      serverId: operation.serverId,
      operationId: operation.id,
      customerId: operation.customerId,
      ...(event.data === undefined ? {} : { data: event.data }),
    });
  }
  const failure =
    problem === null || end === "succeeded"
      ? {}
      : { problem: { code: problem.code, message: problem.message } };
  await recordEvent(tx, {
    type: effects.endsAs?.type ?? `${operation.action}.${end}`,
    serverId: operation.serverId,
    operationId: operation.id,
    customerId: operation.customerId,
    data: { ...operationData(operation), ...failure, ...effects.endsAs?.data },
    staffData: { requestedBy: operation.requesterName, source: operation.source },
  });
}

export function operationData(operation: OperationRow): Record<string, unknown> {
  return {
    operation: { id: operation.publicId, action: operation.action },
    before: operation.plan.before,
    after: operation.plan.after,
  };
}

/** The honest "unknown": a person decides. The lock stays, the place on the cloud is freed. */
export async function needAttention(
  engine: Engine,
  tx: Transaction,
  operation: OperationRow,
  problem: Problem,
): Promise<void> {
  const state: OperationState = "needs_attention";
  await freeSlot(tx, operation.id);
  await closeWaits(tx, operation.id);
  await tx.sql(
    `UPDATE operations SET state = $2, problem = $3::jsonb, next_run_at = NULL, lease_by = NULL, lease_until = NULL,
       version = version + 1 WHERE id = $1`,
    [operation.id, state, problem],
  );
  await offerButtons(tx, operation, state);
  await appendLog(tx, operation.id, [
    { level: "error", text: `${problem.message} A member of the team has to look at this.` },
    {
      level: "info",
      audience: "staff",
      text: `${problem.staffDetail ? `${problem.staffDetail} ` : ""}Use /ops retry, adopt or abandon ${operation.publicId}.`,
    },
  ]);
  await alertChannels(engine, tx, operation);
  await recordEvent(tx, {
    type: "operation.needs_attention",
    serverId: operation.serverId,
    operationId: operation.id,
    customerId: operation.customerId,
    data: { ...operationData(operation), problem: { code: problem.code, message: problem.message } },
  });
  engine.log.warn({ operation: operation.publicId, code: problem.code }, "an operation needs attention");
  tx.afterCommit(() => {
    engine.wake.nudge("cards");
    engine.wake.nudge("events");
    engine.wake.nudge("operations");
  });
}

/** The same card, once in each channel for alerts: it stays in step when somebody resolves it. */
async function alertChannels(engine: Engine, tx: Transaction, operation: OperationRow): Promise<void> {
  for (const channel of engine.policies.alertChannels) {
    const shown = await tx.sql(
      `SELECT 1 FROM cards WHERE operation_id = $1 AND platform = $2 AND channel = $3`,
      [operation.id, channel.platform, channel.channel],
    );
    if (shown.length === 0) await addCard(tx, operation.id, { ...channel, audience: "staff" });
  }
}

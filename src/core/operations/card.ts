/** An operation as a person sees it: the card, its buttons, and the lines of its thread. */
import type { Queryable } from "../../database/client.ts";
import { newId } from "../../database/id.ts";
import type { Audience } from "../access.ts";
import type { Platform, ThreadLine } from "../bot.ts";
import { ServiceError } from "../errors.ts";
import { bannersFor } from "../servers/maintenance.ts";
import { describeMemory } from "../servers/size.ts";
import { minuteOf } from "../time.ts";
import type { Tone, View, ViewButton, ViewField, ViewStep } from "../view.ts";
import { type OperationRow, operationColumns, readSteps, type StepRow } from "./rows.ts";
import { isFinal, type OperationState, stageOf, stateLabels } from "./state.ts";

/** A message that will show the operation; the projector posts and edits it. */
export async function addCard(
  database: Queryable,
  operationId: string,
  card: { platform: Platform; workspace: string; channel: string; userId?: string; audience: Audience },
): Promise<void> {
  await database.sql(
    `INSERT INTO cards (id, operation_id, platform, workspace, channel, user_id, audience) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
    [newId(), operationId, card.platform, card.workspace, card.channel, card.userId ?? null, card.audience],
  );
}

export interface RenderedCard {
  version: number;
  /** The last thread line that exists. */
  logSeq: number;
  final: boolean;
  /** Somebody has to act; worth a mention although it is not final. */
  needsPerson: boolean;
  view: View;
}

interface CardRow extends OperationRow {
  serverName: string | null;
  serverPublicId: string | null;
  customerName: string | null;
  customerRef: string | null;
  now: Date;
}

const tones: Record<OperationState, Tone> = {
  awaiting_confirmation: "warning",
  awaiting_approval: "warning",
  queued: "progress",
  running: "progress",
  waiting: "progress",
  compensating: "warning",
  succeeded: "success",
  failed: "error",
  cancelled: "warning",
  expired: "warning",
  needs_attention: "error",
};

/** Throws ServiceError `not_found` when the operation is gone (retention). */
export async function renderCard(
  database: Queryable,
  operationId: string,
  audience: Audience,
): Promise<RenderedCard> {
  const rows = await database.sql<CardRow>(
    `SELECT ${operationColumns}, s.name AS "serverName", s.public_id AS "serverPublicId", k.name AS "customerName",
       k.ref AS "customerRef", clock() AS now
     FROM operations o LEFT JOIN customers k ON k.id = o.customer_id
       LEFT JOIN servers s ON s.id = o.server_id AND ($2 = 'staff' OR s.customer_id = o.customer_id)
     WHERE o.id = $1`,
    [operationId, audience],
  );
  const operation = rows[0];
  if (operation === undefined) throw new ServiceError("not_found", "This operation is no longer kept.");
  const steps = await readSteps(database, operationId);
  const notes = await database.sql<{ seq: number; note: string }>(
    `SELECT step_seq AS seq, note FROM waits WHERE operation_id = $1 AND resolved_at IS NULL AND note IS NOT NULL`,
    [operationId],
  );
  const view: View = {
    title: operation.plan.title,
    tone: tones[operation.state],
    text: headline(operation, audience),
    fields: fieldsOf(operation, audience),
    steps: steps.map((step) =>
      viewStep(step, operation.now, notes.find(({ seq }) => seq === step.seq)?.note),
    ),
    footer: footerOf(operation, audience),
    buttons: await buttonsOf(database, operation, audience),
    ...(await bannersFor(database, audience, {
      serverIds: operation.serverId === null ? [] : [operation.serverId],
      cloud: operation.serverId === null ? operation.cloudName : null,
    })),
  };
  return {
    version: operation.version,
    logSeq: operation.logSeq,
    final: isFinal(operation.state),
    needsPerson: operation.state === "needs_attention",
    view,
  };
}

function headline(operation: OperationRow, audience: Audience): string {
  const label = stateLabels[operation.state];
  if (operation.state === "awaiting_confirmation") {
    const lost = [...operation.plan.irreversible, ...operation.plan.notes].join(" ");
    return `${label}. ${lost} Nothing happens until somebody confirms.`.replace("  ", " ");
  }
  if (operation.cancelRequestedAt !== null && !isFinal(operation.state) && operation.endState === null) {
    // Only the name is kept, and it may be one of the team's.
    const by = audience === "customer" ? "" : ` by ${operation.cancelRequestedBy ?? "somebody"}`;
    return `${label}, cancel asked for${by}.`;
  }
  if (operation.problem === null) return `${label}.`;
  const { message } = operation.problem;
  // "Cancelled by our team …" says it itself.
  return message.startsWith(label) ? message : `${label}: ${message}`;
}

const shownFields: Record<string, [string, (value: unknown) => string]> = {
  plan: ["Plan", String],
  image: ["Image", String],
  vcpus: ["vCPU", String],
  memoryMib: ["Memory", (value) => describeMemory(Number(value))],
  diskGib: ["Disk", (value) => `${String(value)} GiB`],
  power: ["Power", String],
  password: ["Password", String],
  iso: ["ISO", String],
  bootsFrom: ["Boots from", String],
  address: ["Address", String],
  gateway: ["Gateway", String],
  keys: ["SSH keys", (value) => [value].flat().map(String).join(", ")],
  snapshot: ["Snapshot", String],
  protected: ["Protected", (value) => (value === true ? "yes" : "no")],
  deletion: ["Deletion", String],
  state: ["State", String],
};

function fieldsOf(operation: CardRow, audience: Audience): ViewField[] {
  const fields: ViewField[] = [];
  if (operation.serverName !== null) {
    fields.push({ label: "Server", value: `${operation.serverName} (${operation.serverPublicId ?? "?"})` });
  }
  if (audience === "staff" && operation.customerName !== null) {
    fields.push({ label: "Customer", value: `${operation.customerName} (${operation.customerRef ?? "?"})` });
  }
  fields.push(...changesOf(operation.plan));
  if (audience === "staff" && operation.cloudName !== null)
    fields.push({ label: "Cloud", value: operation.cloudName });
  const addresses = operation.output["addresses"];
  const isTheirs = audience === "staff" || operation.serverName !== null;
  if (isTheirs && Array.isArray(addresses) && addresses.length > 0) {
    fields.push({ label: "Addresses", value: addresses.map(String).join(", ") });
  }
  if (operation.plan.downtime !== null && !isFinal(operation.state)) {
    fields.push({ label: "Downtime", value: operation.plan.downtime });
  }
  return fields;
}

/** "2 → 4" for what changes, the value alone for what is new. */
export function changesOf(plan: {
  before: Record<string, unknown>;
  after: Record<string, unknown>;
}): ViewField[] {
  // In the order of the table: JSON columns do not keep one.
  return Object.entries(shownFields).flatMap(([key, [label, describe]]) => {
    const after = plan.after[key];
    const before = plan.before[key];
    if (after === null || after === undefined) return [];
    if (before === undefined || before === null) return [{ label, value: describe(after) }];
    return before === after ? [] : [{ label, value: `${describe(before)} → ${describe(after)}` }];
  });
}

const stepStates: Record<StepRow["state"], ViewStep["state"]> = {
  planned: "planned",
  intent: "running",
  waiting: "running",
  done: "done",
  failed: "failed",
  skipped: "skipped",
};

function viewStep(step: StepRow, now: Date, note: string | undefined): ViewStep {
  const view: ViewStep = { label: step.label, state: stepStates[step.state] };
  if (step.startedAt === null) return view;
  const elapsed = duration((step.finishedAt ?? now).getTime() - step.startedAt.getTime());
  if (step.state === "intent" && step.inDoubt) view.detail = "looking in the cloud whether it was done";
  else if (step.state === "intent" && step.attempt > 1) view.detail = `trying again, ${elapsed}`;
  else if (view.state === "running") view.detail = note === undefined ? elapsed : `${note}, ${elapsed}`;
  else if (view.state === "done") view.detail = elapsed;
  // Begun and planned again: the thread says why.
  else if (view.state === "planned") view.detail = "not possible yet, trying again";
  return view;
}

export function duration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60
    ? `${minutes} min ${seconds % 60} s`
    : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function footerOf(operation: CardRow, audience: Audience): string {
  const hidden = audience === "customer" && operation.requesterKind !== "customer";
  const parts = [operation.publicId, `by ${hidden ? "our team" : operation.requesterName}`];
  parts.push(minuteOf(operation.createdAt));
  if (operation.finishedAt !== null && operation.startedAt !== null) {
    parts.push(`took ${duration(operation.finishedAt.getTime() - operation.createdAt.getTime())}`);
  }
  if (audience === "staff" && operation.problem?.staffDetail !== undefined)
    parts.push(operation.problem.staffDetail);
  return parts.join(" · ");
}

/** An action without one has no button. */
export const buttonTexts: Record<string, Omit<ViewButton, "token">> = {
  "ops.confirm": { label: "Confirm", style: "danger", purpose: "act" },
  "ops.cancel": { label: "Cancel", style: "default", purpose: "act" },
  "ops.retry": { label: "Retry", style: "primary", purpose: "act" },
  "ops.abandon": { label: "Give up", style: "danger", purpose: "act" },
  "server.unrescue": { label: "Leave the rescue system", style: "default", purpose: "act" },
  "server.restart": { label: "Stop and start it now", style: "default", purpose: "act" },
  "server.undelete": { label: "Bring it back", style: "primary", purpose: "act" },
  "secret.reveal": { label: "Show password once", style: "primary", purpose: "reveal" },
};
const staffButtons = new Set(["ops.abandon"]);

async function buttonsOf(database: Queryable, operation: CardRow, audience: Audience): Promise<ViewButton[]> {
  // What our team started is the team's to decide, and what is on a server that changed hands is nobody's.
  const isSold = operation.serverId !== null && operation.serverName === null;
  if (audience === "customer" && (operation.requesterKind !== "customer" || isSold)) return [];
  const rows = await database.sql<{ token: string; action: string }>(
    `SELECT token, action FROM capabilities
     WHERE operation_id = $1 AND offered_in = $2 AND used_at IS NULL AND expires_at > clock() ORDER BY action DESC`,
    [operation.id, stageOf[operation.state]],
  );
  return rows.flatMap(({ token, action }) => {
    const texts = buttonTexts[action];
    if (texts === undefined || (audience === "customer" && staffButtons.has(action))) return [];
    if (action === "ops.cancel" && (operation.cancelRequestedAt !== null || operation.endState !== null))
      return [];
    if (action !== "ops.confirm") return [{ token, ...texts }];
    const of = operation.customerName === null ? "" : ` of ${operation.customerName}`;
    const confirm = {
      title: "Are you sure?",
      text: `${operation.serverName ?? "It"} (${operation.serverPublicId ?? "?"})${of}. ${operation.plan.irreversible.join(" ")}`,
      yes: "Yes, do it",
      no: "No",
    };
    return [{ token, ...texts, confirm }];
  });
}

/**
 * What the thread has still to tell. A customer's thread leaves out the lines for staff, and falls silent when the
 * server is no longer the customer's.
 */
export async function readLines(
  database: Queryable,
  operationId: string,
  afterSeq: number,
  audience: Audience,
): Promise<(ThreadLine & { seq: number })[]> {
  return database.sql(
    `SELECT seq, at, level, text FROM operation_log
     WHERE operation_id = $1 AND seq > $2 AND audience IN ('everyone', $3) AND ($3 = 'staff' OR EXISTS (
       SELECT FROM operations o LEFT JOIN servers s ON s.id = o.server_id
       WHERE o.id = $1 AND (o.server_id IS NULL OR s.customer_id = o.customer_id))) ORDER BY seq`,
    [operationId, afterSeq, audience],
  );
}

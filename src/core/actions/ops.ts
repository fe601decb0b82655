/** The actions on operations themselves. */
import { z } from "zod";
import { requirePermission } from "../access.ts";
import { defineImmediate, defineRead } from "../action.ts";
import { ServiceError } from "../errors.ts";
import { renderCard } from "../operations/card.ts";
import { findOperation, listOperations } from "../operations/find.ts";
import {
  abandonOperation,
  adoptOperation,
  cancelOperation,
  confirmOperation,
  retryOperation,
  type TransactionContext,
} from "../operations/resolve.ts";
import type { OperationRow } from "../operations/rows.ts";
import { operationStates, stateLabels } from "../operations/state.ts";
import { findServer } from "../servers/find.ts";
import type { View } from "../view.ts";
import { operationOption } from "./options.ts";

const pageSize = 20;

const ListInput = z.object({
  state: z.enum(["open", ...operationStates]).optional(),
  server: z.string().optional(),
});
type ListInput = z.infer<typeof ListInput>;

export const opsList = defineRead<ListInput>({
  name: "ops.list",
  summary: "List operations, the latest first",
  audience: ["staff", "customer"],
  permission: "operation.read",
  input: ListInput,
  options: [
    {
      name: "state",
      field: "state",
      label: "State",
      help: "Only operations in this state",
      type: "text",
      subject: true,
      choices: [
        { value: "open", label: "Open (not ended)" },
        ...operationStates.map((value) => ({ value, label: stateLabels[value] })),
      ],
    },
    {
      name: "server",
      field: "server",
      label: "Server",
      help: "Only operations on this server",
      type: "text",
      lookup: "server",
    },
  ],
  async run({ database, principal }, input) {
    const serverId =
      input.server === undefined ? undefined : (await findServer(database, principal, input.server)).id;
    const rows = await listOperations(database, principal, { state: input.state, serverId }, pageSize);
    return {
      title: "Operations",
      tone: "neutral",
      table: {
        columns: ["Operation", "What", "State", "Since", "By"],
        rows: rows.map((row) => [
          row.publicId,
          row.plan.title,
          stateLabels[row.state],
          row.createdAt.toISOString().slice(5, 16).replace("T", " "),
          principal.kind === "customer" && row.requesterKind !== "customer" ? "our team" : row.requesterName,
        ]),
        empty: "No operations.",
      },
    };
  },
});

const OneInput = z.object({ operation: z.string() });
type OneInput = z.infer<typeof OneInput>;

export const opsShow = defineRead<OneInput>({
  name: "ops.show",
  summary: "Show an operation with its steps and buttons",
  audience: ["staff", "customer"],
  permission: "operation.read",
  input: OneInput,
  options: [operationOption],
  async run({ database, principal }, input) {
    const { id } = await findOperation(database, principal, input.operation);
    return (await renderCard(database, id, principal.kind === "customer" ? "customer" : "staff")).view;
  },
});

/**
 * Locks the operation for a person who may ask for its action themselves. What our team started on a customer's server
 * is the team's to decide.
 */
async function actionable(context: TransactionContext, typed: string): Promise<OperationRow> {
  const { principal } = context;
  const operation = await findOperation(context.database, principal, typed, { lock: true });
  if (principal.kind === "customer" && operation.requesterKind !== "customer") {
    throw new ServiceError("forbidden", `${operation.publicId} was started by our team. Ask them about it.`);
  }
  requirePermission(principal, context.engine.registry.get(operation.action));
  return operation;
}

function told(title: string, text: string): View {
  return { title, tone: "neutral", text };
}

export const opsConfirm = defineImmediate<OneInput>({
  name: "ops.confirm",
  summary: "Confirm an operation that waits for it",
  audience: ["staff", "customer"],
  permission: "operation.change",
  risk: "destructive",
  input: OneInput,
  options: [operationOption],
  async run(context, input) {
    const operation = await actionable(context, input.operation);
    await confirmOperation(context, operation);
    return {
      view: told(operation.plan.title, `${operation.publicId} is confirmed. The card shows how it goes.`),
      operationId: operation.id,
      subject: operation.publicId,
    };
  },
});

export const opsCancel = defineImmediate<OneInput>({
  name: "ops.cancel",
  summary: "Cancel an operation and undo what it made",
  audience: ["staff", "customer"],
  permission: "operation.change",
  risk: "change",
  input: OneInput,
  options: [operationOption],
  async run(context, input) {
    const operation = await actionable(context, input.operation);
    const text = await cancelOperation(context, operation);
    return { view: told(operation.plan.title, text), operationId: operation.id, subject: operation.publicId };
  },
});

export const opsRetry = defineImmediate<OneInput>({
  name: "ops.retry",
  summary: "Try a failed operation again",
  audience: ["staff", "customer"],
  permission: "operation.resolve",
  risk: "change",
  input: OneInput,
  options: [operationOption],
  async run(context, input) {
    const operation = await actionable(context, input.operation);
    const entered = await retryOperation(context, operation);
    const text =
      entered.operationId === operation.id
        ? `${operation.publicId} goes on. It looks in the cloud first.`
        : `${operation.publicId} is tried again as ${entered.publicId}.`;
    return {
      view: told(operation.plan.title, text),
      operationId: entered.operationId,
      subject: operation.publicId,
    };
  },
});

const AdoptInput = z.object({ operation: z.string(), id: z.string().max(255).optional() });
type AdoptInput = z.infer<typeof AdoptInput>;

export const opsAdopt = defineImmediate<AdoptInput>({
  name: "ops.adopt",
  summary: "Say that an unknown step was done, and go on with it",
  audience: ["staff"],
  permission: "operation.resolve",
  risk: "change",
  input: AdoptInput,
  options: [
    operationOption,
    {
      name: "id",
      field: "id",
      label: "Id in the cloud",
      help: "The server's id in its cloud, when it is not known yet",
      type: "text",
    },
  ],
  async run(context, input) {
    const operation = await actionable(context, input.operation);
    await adoptOperation(context, operation, input.id);
    const text = `${operation.publicId} goes on from there. The cloud is asked whether it is so.`;
    return { view: told(operation.plan.title, text), operationId: operation.id, subject: operation.publicId };
  },
});

export const opsAbandon = defineImmediate<OneInput>({
  name: "ops.abandon",
  summary: "Give up an operation that needs attention",
  audience: ["staff"],
  permission: "operation.resolve",
  risk: "destructive",
  input: OneInput,
  options: [operationOption],
  async run(context, input) {
    const operation = await actionable(context, input.operation);
    await abandonOperation(context, operation);
    return {
      view: told(
        operation.plan.title,
        `${operation.publicId} ended as failed. What it made may still be in the cloud.`,
      ),
      operationId: operation.id,
      subject: operation.publicId,
    };
  },
});

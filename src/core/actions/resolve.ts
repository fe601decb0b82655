/** What people decide about an operation. Each locks it, and is one transaction. */
import { z } from "zod";
import { requirePermission } from "../access.ts";
import { type Action, defineImmediate, type ImmediateAction, type Option } from "../action.ts";
import { ServiceError } from "../errors.ts";
import { findOperation } from "../operations/find.ts";
import {
  abandonOperation,
  adoptOperation,
  cancelOperation,
  confirmOperation,
  retryOperation,
  type TransactionContext,
} from "../operations/resolve.ts";
import type { OperationRow } from "../operations/rows.ts";
import { operationOption } from "./options.ts";

const Input = z.object({ operation: z.string(), id: z.string().max(255).optional() });
type Input = z.infer<typeof Input>;

type Decision = Pick<ImmediateAction, "name" | "summary" | "audience" | "permission" | "risk"> & {
  options?: readonly Option[];
  /** Answers what a person is told, and which operation goes on when it is another one. */
  decide(
    context: TransactionContext,
    operation: OperationRow,
    input: Input,
  ): Promise<{ text: string; goesOn?: string }>;
};

function decision({ options = [], decide, ...action }: Decision): Action {
  return defineImmediate<Input>({
    ...action,
    input: Input,
    options: [operationOption, ...options],
    async run(context, input) {
      const operation = await actionable(context, input.operation);
      const { text, goesOn } = await decide(context, operation, input);
      return {
        view: { title: operation.plan.title, tone: "neutral", text },
        operationId: goesOn ?? operation.id,
        subject: operation.publicId,
      };
    },
  });
}

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

export const opsConfirm = decision({
  name: "ops.confirm",
  summary: "Confirm an operation that waits for it",
  audience: ["staff", "customer"],
  permission: "operation.change",
  risk: "destructive",
  decide: async (context, operation) => ({ text: await confirmOperation(context, operation) }),
});

export const opsCancel = decision({
  name: "ops.cancel",
  summary: "Cancel an operation and undo what it made",
  audience: ["staff", "customer"],
  permission: "operation.change",
  risk: "change",
  decide: async (context, operation) => ({ text: await cancelOperation(context, operation) }),
});

export const opsRetry = decision({
  name: "ops.retry",
  summary: "Try a failed operation again",
  audience: ["staff", "customer"],
  permission: "operation.resolve",
  risk: "change",
  async decide(context, operation) {
    const entered = await retryOperation(context, operation);
    const text =
      entered.operationId === operation.id
        ? `${operation.publicId} goes on. It looks in the cloud first.`
        : `${operation.publicId} is tried again as ${entered.publicId}.`;
    return { text, goesOn: entered.operationId };
  },
});

export const opsAdopt = decision({
  name: "ops.adopt",
  summary: "Say that an unknown step was done, and go on with it",
  audience: ["staff"],
  permission: "operation.resolve",
  risk: "change",
  options: [
    {
      name: "id",
      field: "id",
      label: "Id in the cloud",
      help: "The server's id in its cloud, when it is not known yet",
      type: "text",
    },
  ],
  async decide(context, operation, input) {
    await adoptOperation(context, operation, input.id);
    return { text: `${operation.publicId} goes on from there. The cloud is asked whether it is so.` };
  },
});

export const opsAbandon = decision({
  name: "ops.abandon",
  summary: "Give up an operation that needs attention",
  audience: ["staff"],
  permission: "operation.resolve",
  risk: "destructive",
  async decide(context, operation) {
    await abandonOperation(context, operation);
    return { text: `${operation.publicId} ended as failed. What it made may still be in the cloud.` };
  },
});

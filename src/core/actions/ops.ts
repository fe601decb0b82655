/** What there is to read of operations. */
import { z } from "zod";
import { defineRead } from "../action.ts";
import { renderCard } from "../operations/card.ts";
import { findOperation, listOperations } from "../operations/find.ts";
import { operationStates, stateLabels } from "../operations/state.ts";
import { findServer } from "../servers/find.ts";
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

import { z } from "zod";
import { type ActionContext, type ChangePlan, defineOperation } from "../action.ts";
import { preflightServer } from "../operations/preflight.ts";
import type { PlannedStep } from "../operations/step.ts";
import { allowedIn, requireState } from "../servers/allowed.ts";
import { findServer } from "../servers/find.ts";
import { serverOption } from "./options.ts";

const DeleteInput = z.object({ server: z.string() });
type DeleteInput = z.infer<typeof DeleteInput>;

export const serverDelete = defineOperation<DeleteInput>({
  name: "server.delete",
  summary: "Delete a server for good",
  audience: ["staff"],
  permission: "server.delete",
  risk: "destructive",
  specVersion: 1,
  during: "deleting",
  supersedes: true,
  input: DeleteInput,
  options: [serverOption],
  plan: planDelete,
  steps(plan, clouds): PlannedStep[] {
    const externalId = plan.details["externalId"];
    // A row whose server the cloud never made.
    if (typeof externalId !== "string") return [];
    const states = [...allowedIn.delete, "deleting" as const, "deleted" as const];
    return [
      preflightServer({ externalId, states, mayBeGone: true }),
      ...clouds.get(plan.cloud ?? "").remove({ externalId }),
    ];
  },
  onEnd(end) {
    if (end !== "succeeded") return {};
    return {
      server: { deleted: true },
      events: [{ type: "server.deleted" }],
      note: "The server is deleted.",
    };
  },
});

async function planDelete(context: ActionContext, input: DeleteInput): Promise<ChangePlan> {
  const server = await findServer(context.database, context.principal, input.server);
  requireState(server, "deleted", allowedIn.delete);
  return {
    title: `Delete ${server.name}${server.customerName === null ? "" : ` of ${server.customerName}`}`,
    serverId: server.id,
    customerId: server.customerId,
    cloud: server.cloudName,
    lockKey: `server:${server.id}`,
    before: { server: server.publicId, name: server.name },
    after: {},
    downtime: null,
    irreversible: ["The server and everything on its disk are gone for good."],
    notes: [],
    dataAsOf: server.syncedAt,
    details: { externalId: server.externalId },
  };
}

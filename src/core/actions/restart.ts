import { z } from "zod";
import { type ActionContext, type ChangePlan, defineOperation } from "../action.ts";
import { ServiceError } from "../errors.ts";
import { preflightServer } from "../operations/preflight.ts";
import { allowedIn, requireState } from "../servers/allowed.ts";
import { findServer } from "../servers/find.ts";
import { describeSize, findPlan, type PlanRow } from "../servers/size.ts";
import { serverOption } from "./options.ts";

const RestartInput = z.object({
  server: z.string(),
  /** Only buttons give it: the plan that a resize has stored and that counts once its size does. */
  planCode: z.string().optional(),
});
type RestartInput = z.infer<typeof RestartInput>;

const Size = z.object({ vcpus: z.number(), memoryMib: z.number(), diskGib: z.number() });
const Details = z.object({
  externalId: z.string(),
  plan: Size.extend({ code: z.string() }).nullable(),
});
type Details = z.infer<typeof Details>;

/** A reboot from inside the guest leaves a new size, and whatever else waits in the cloud, where it is. */
export const serverRestart = defineOperation<RestartInput>({
  name: "server.restart",
  summary: "Stop and start a server, so that a new size counts",
  audience: ["staff", "customer"],
  permission: "server.change",
  risk: "change",
  specVersion: 1,
  input: RestartInput,
  options: [serverOption],
  plan: planRestart,
  steps(plan, clouds) {
    const { externalId } = Details.parse(plan.details);
    const cloud = clouds.get(plan.cloud ?? "");
    return [
      preflightServer({ externalId, states: [...allowedIn.restart] }),
      ...(cloud.restart?.({ externalId }) ?? []),
    ];
  },
  onEnd(end, { plan, output }) {
    if (end !== "succeeded") return {};
    const details = Details.parse(plan.details);
    const size = Size.optional().catch(undefined).parse(output["size"]);
    const isOfPlan = details.plan !== null && size !== undefined && hasSize(details.plan, size);
    return {
      ...(isOfPlan && details.plan !== null ? { server: { planCode: details.plan.code } } : {}),
      events: [{ type: "server.power.changed", data: { action: "restart" } }],
      note: `It was stopped and started${size === undefined ? "" : `, and has ${describeSize(size)}`}.`,
    };
  },
});

function hasSize(plan: z.infer<typeof Size>, size: z.infer<typeof Size>): boolean {
  return plan.vcpus === size.vcpus && plan.memoryMib === size.memoryMib && plan.diskGib <= size.diskGib;
}

async function planRestart(context: ActionContext, input: RestartInput): Promise<ChangePlan> {
  const server = await findServer(context.database, context.principal, input.server);
  const name = `${server.name} (${server.publicId})`;
  if (context.engine.clouds.get(server.cloudName).restart === undefined) {
    throw new ServiceError(
      "unsupported",
      `Nothing waits for a stop and start on the cloud of ${name}. Use /server power with action:reboot.`,
    );
  }
  if (server.suspendedAt !== null) {
    throw new ServiceError("wrong_state", `${name} is suspended by billing, so it cannot be restarted.`);
  }
  requireState(server, "restarted", allowedIn.restart);
  const sold = input.planCode === undefined ? null : await findPlan(context.database, input.planCode);
  return {
    title: `Stop and start ${server.name}${server.customerName === null ? "" : ` of ${server.customerName}`}`,
    serverId: server.id,
    customerId: server.customerId,
    cloud: server.cloudName,
    lockKey: `server:${server.id}`,
    before: { power: server.state },
    after: { power: "active" },
    downtime:
      server.state === "stopped"
        ? null
        : "The server is away while it stops and starts. A guest that does not shut down in a minute has its power cut.",
    irreversible: [],
    notes: [],
    dataAsOf: server.syncedAt,
    details: {
      externalId: server.externalId ?? "",
      plan: sold === null ? null : sizeOf(sold),
    } satisfies Details,
  };
}

function sizeOf({ code, vcpus, memoryMib, diskGib }: PlanRow) {
  return { code, vcpus, memoryMib, diskGib };
}

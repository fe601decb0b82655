import { z } from "zod";
import { type ActionContext, type ChangePlan, defineOperation } from "../action.ts";
import { Size } from "../cloud.ts";
import { preflightServer } from "../operations/preflight.ts";
import { allowedIn, requireNotSuspended, requireState } from "../servers/allowed.ts";
import { changeOf, externalIdOf, named } from "../servers/change.ts";
import { findServer } from "../servers/find.ts";
import { requireProcedure } from "../servers/procedure.ts";
import { describeSize, findPlan, type PlanRow, sizesOf } from "../servers/size.ts";
import { serverOption } from "./options.ts";

const RestartInput = z.object({
  server: z.string(),
  /** Only buttons give it: the plan that a resize has stored and that counts once its size does. */
  planCode: z.string().optional(),
});
type RestartInput = z.infer<typeof RestartInput>;

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
      ...requireProcedure(cloud, "restart", nothingWaits("this server"))({ externalId }),
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

function hasSize(plan: Size, size: Size): boolean {
  return plan.vcpus === size.vcpus && plan.memoryMib === size.memoryMib && plan.diskGib <= size.diskGib;
}

function nothingWaits(server: string): string {
  return `Nothing waits for a stop and start on the cloud of ${server}. Use /server power with action:reboot.`;
}

async function planRestart(context: ActionContext, input: RestartInput): Promise<ChangePlan> {
  const server = await findServer(context.database, context.principal, input.server);
  requireProcedure(context.engine.clouds.get(server.cloudName), "restart", nothingWaits(named(server)));
  requireNotSuspended(server, "restarted");
  requireState(server, "restarted", allowedIn.restart);
  const sold = input.planCode === undefined ? null : await findPlan(context.database, input.planCode);
  return {
    ...changeOf(server, "Stop and start"),
    before: { power: server.state },
    after: { power: "active" },
    downtime:
      server.state === "stopped"
        ? null
        : "The server is away while it stops and starts. A guest that does not shut down in a minute has its power cut.",
    details: {
      externalId: externalIdOf(server),
      plan: sold === null ? null : sizeOf(sold),
    } satisfies Details,
  };
}

function sizeOf(sold: PlanRow) {
  return { code: sold.code, ...sizesOf(sold) };
}

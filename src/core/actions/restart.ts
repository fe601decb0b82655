import { z } from "zod";
import { type ActionContext, type ChangePlan, defineOperation } from "../action.ts";
import { Size } from "../cloud.ts";
import { preflightServer } from "../operations/preflight.ts";
import { allowedIn, requireNotSuspended, requireState } from "../servers/allowed.ts";
import { changeOf, externalIdOf, named } from "../servers/change.ts";
import { findServer } from "../servers/find.ts";
import { requireProcedure } from "../servers/procedure.ts";
import { describeSize } from "../servers/size.ts";
import { serverOption } from "./options.ts";

const RestartInput = z.object({ server: z.string() });
type RestartInput = z.infer<typeof RestartInput>;

const Details = z.object({ externalId: z.string() });
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
  onEnd(end, { output }) {
    if (end !== "succeeded") return {};
    const size = Size.optional().catch(undefined).parse(output["size"]);
    return {
      events: [{ type: "server.power.changed", data: { action: "restart" } }],
      note: `It was stopped and started${size === undefined ? "" : `, and has ${describeSize(size)}`}.`,
    };
  },
});

function nothingWaits(server: string): string {
  return `Nothing waits for a stop and start on the cloud of ${server}. Use /server power with action:reboot.`;
}

async function planRestart(context: ActionContext, input: RestartInput): Promise<ChangePlan> {
  const server = await findServer(context.database, context.principal, input.server);
  requireProcedure(context.engine.clouds.get(server.cloudName), "restart", nothingWaits(named(server)));
  requireNotSuspended(server, "restarted");
  requireState(server, "restarted", allowedIn.restart);
  return {
    ...changeOf(server, "Stop and start"),
    before: { power: server.state },
    after: { power: "active" },
    downtime:
      server.state === "stopped"
        ? null
        : "The server is away while it stops and starts. A guest that does not shut down in a minute has its power cut.",
    details: { externalId: externalIdOf(server) } satisfies Details,
  };
}

import { z } from "zod";
import { type ActionContext, type ChangePlan, defineOperation } from "../action.ts";
import { type PowerVerb, powerVerbs } from "../cloud.ts";
import { ServiceError } from "../errors.ts";
import { preflightServer } from "../operations/preflight.ts";
import { powerTable, requireNotSuspended, requireState } from "../servers/allowed.ts";
import { changeOf, externalIdOf, named } from "../servers/change.ts";
import { findServer } from "../servers/find.ts";
import { serverOption } from "./options.ts";

const PowerInput = z.object({ server: z.string(), action: z.enum(powerVerbs) });
type PowerInput = z.infer<typeof PowerInput>;

const helpOf: Record<PowerVerb, string> = {
  start: "Start",
  stop: "Stop",
  shutdown: "Shut down (the guest is asked)",
  reboot: "Reboot (the guest is asked)",
  kill: "Cut the power",
  reset: "Reset (hard reboot)",
  suspend: "Suspend to disk",
  resume: "Resume from disk",
};
const pastOf: Record<PowerVerb, string> = {
  start: "started",
  stop: "stopped",
  shutdown: "shut down",
  reboot: "rebooted",
  kill: "switched off",
  reset: "reset",
  suspend: "suspended",
  resume: "resumed",
};

const Details = z.object({ order: z.object({ externalId: z.string(), verb: z.enum(powerVerbs) }) });
type Details = z.infer<typeof Details>;

export const serverPower = defineOperation<PowerInput>({
  name: "server.power",
  summary: "Start, stop or reboot a server",
  audience: ["staff", "customer"],
  permission: "server.change",
  risk: "change",
  specVersion: 1,
  input: PowerInput,
  options: [
    serverOption,
    {
      name: "action",
      field: "action",
      label: "Action",
      help: "What to do",
      type: "text",
      required: true,
      choices: powerVerbs.map((value) => ({ value, label: helpOf[value] })),
    },
  ],
  plan: planPower,
  steps(plan, clouds) {
    const { externalId, verb } = Details.parse(plan.details).order;
    const states = [...powerTable[verb].from];
    return [
      preflightServer({ externalId, states }),
      ...clouds.get(plan.cloud ?? "").power({ externalId, verb }),
    ];
  },
  onEnd(end, { plan }) {
    if (end !== "succeeded") return {};
    const { verb } = Details.parse(plan.details).order;
    return {
      note: `It was ${pastOf[verb]}.`,
      events: [{ type: "server.power.changed", data: { action: verb } }],
    };
  },
});

async function planPower(context: ActionContext, input: PowerInput): Promise<ChangePlan> {
  const server = await findServer(context.database, context.principal, input.server);
  const cloud = context.engine.clouds.get(server.cloudName);
  const verb = input.action;
  const { from, to, already } = powerTable[verb];
  if (!cloud.powerVerbs.includes(verb)) {
    throw new ServiceError(
      "unsupported",
      `This server's cloud cannot "${verb}". It can ${cloud.powerVerbs.join(", ")}.`,
      {
        facts: { option: "action" },
      },
    );
  }
  if (to === "active") requireNotSuspended(server, pastOf[verb]);
  if (server.state === to && !from.includes(server.state)) {
    throw new ServiceError("nothing_to_change", `Nothing to change: ${named(server)} ${already}.`);
  }
  requireState(server, pastOf[verb], from);
  return {
    ...changeOf(server, helpOf[verb].replace(/ \(.*/, "")),
    before: { power: server.state },
    // Until the rescue is left, it boots from there.
    after: { power: to === "active" && server.state === "rescue" ? "rescue" : to },
    downtime:
      to === "active" && ["active", "rescue"].includes(server.state)
        ? "The server is away while it restarts."
        : null,
    details: { order: { externalId: externalIdOf(server), verb } } satisfies Details,
  };
}

/** Booting a server from rescue media, and from its own disk again. */
import { z } from "zod";
import { type ActionContext, type ChangePlan, defineOperation } from "../action.ts";
import type { Cloud } from "../cloud.ts";
import { preflightServer } from "../operations/preflight.ts";
import { allowedIn, requireNotSuspended, requireState } from "../servers/allowed.ts";
import { changeOf, externalIdOf } from "../servers/change.ts";
import { findServer } from "../servers/find.ts";
import { requireProcedure } from "../servers/procedure.ts";
import { serverOption } from "./options.ts";

const RescueInput = z.object({ server: z.string(), media: z.string().max(200).optional() });
type RescueInput = z.infer<typeof RescueInput>;

const Details = z.object({
  server: z.string(),
  order: z.object({ externalId: z.string(), media: z.string().optional() }),
});
type Details = z.infer<typeof Details>;

export const serverRescue = defineOperation<RescueInput>({
  name: "server.rescue",
  summary: "Restart a server into a rescue system",
  audience: ["staff", "customer"],
  permission: "server.change",
  risk: "change",
  specVersion: 1,
  input: RescueInput,
  options: [
    serverOption,
    {
      name: "iso",
      field: "media",
      label: "ISO image",
      help: "Another one than the cloud's own: local:iso/rescue.iso",
      type: "text",
      advanced: true,
      audience: ["staff"],
    },
  ],
  plan: planRescue,
  steps(plan, clouds) {
    const { order } = Details.parse(plan.details);
    return [
      preflightServer({ externalId: order.externalId, states: [...allowedIn.rescue] }),
      ...proceduresOf(clouds.get(plan.cloud ?? "")).enter(order),
    ];
  },
  onEnd(end, { plan, output }) {
    const { server } = Details.parse(plan.details);
    if (end === "succeeded") {
      return {
        note: "It runs the rescue system now. /server unrescue starts it from its own disk again.",
        offers: [{ action: "server.unrescue", input: { server } }],
      };
    }
    if (output["rescueSet"] !== true) return {};
    return { note: "It boots from the rescue media from now on; /server unrescue takes that back." };
  },
});

function proceduresOf(cloud: Cloud) {
  return requireProcedure(cloud, "rescue", "This server's cloud has no rescue system that we can start.");
}

async function planRescue(context: ActionContext, input: RescueInput): Promise<ChangePlan> {
  const { server, procedures } = await serverFor(context, input.server);
  requireState(server, "started into a rescue system", allowedIn.rescue);
  const media = input.media === undefined ? {} : { media: input.media };
  const order = { externalId: externalIdOf(server), ...media };
  // Refuses here what the cloud has no media for.
  procedures.enter(order);
  return {
    ...changeOf(server, "Start the rescue system on"),
    before: { power: server.state },
    after: { power: "rescue" },
    downtime:
      "The server restarts into the rescue system; what runs on it is away until it is started normally.",
    notes: ["Its disk is not changed by this. Work on it on its screen: /server console."],
    details: { server: server.publicId, order } satisfies Details,
  };
}

async function serverFor({ database, principal, engine }: ActionContext, typed: string) {
  const server = await findServer(database, principal, typed);
  const procedures = proceduresOf(engine.clouds.get(server.cloudName));
  requireNotSuspended(server, "started");
  return { server, procedures };
}

const UnrescueInput = z.object({ server: z.string() });
type UnrescueInput = z.infer<typeof UnrescueInput>;

export const serverUnrescue = defineOperation<UnrescueInput>({
  name: "server.unrescue",
  summary: "Start a server from its own disk again after a rescue",
  audience: ["staff", "customer"],
  permission: "server.change",
  risk: "change",
  specVersion: 1,
  input: UnrescueInput,
  options: [serverOption],
  async plan(context, input): Promise<ChangePlan> {
    const { server } = await serverFor(context, input.server);
    requireState(server, "taken out of a rescue", allowedIn.unrescue);
    return {
      ...changeOf(server, "Leave the rescue system on"),
      before: { power: server.state },
      after: { power: "active" },
      downtime: "The server restarts from its own disk.",
      details: {
        server: server.publicId,
        order: { externalId: externalIdOf(server) },
      } satisfies Details,
    };
  },
  steps(plan, clouds) {
    const { externalId } = Details.parse(plan.details).order;
    return [
      preflightServer({ externalId, states: [...allowedIn.unrescue] }),
      ...proceduresOf(clouds.get(plan.cloud ?? "")).leave({ externalId }),
    ];
  },
  onEnd(end) {
    return end === "succeeded" ? { note: "It runs from its own disk again." } : {};
  },
});

import { z } from "zod";
import { type ActionContext, type ChangePlan, defineOperation } from "../action.ts";
import { serverStates } from "../cloud.ts";
import { ServiceError } from "../errors.ts";
import { preflightServer } from "../operations/preflight.ts";
import { storeNewPassword } from "../secrets/password.ts";
import { allowedIn, requireState } from "../servers/allowed.ts";
import { changeOf, externalIdOf, named } from "../servers/change.ts";
import { findServer } from "../servers/find.ts";
import { serverOption } from "./options.ts";

const PasswordInput = z.object({ server: z.string() });
type PasswordInput = z.infer<typeof PasswordInput>;

const Details = z.object({
  externalId: z.string(),
  name: z.string(),
  secretId: z.string(),
  /** Operations of earlier releases have none. */
  publicId: z.string().default(""),
  states: z.array(z.enum(serverStates)).default([...allowedIn.password]),
});

export const serverPassword = defineOperation<PasswordInput>({
  name: "server.password",
  summary: "Set a new password in a server",
  audience: ["staff", "customer"],
  permission: "server.change",
  risk: "change",
  stepUp: true,
  specVersion: 1,
  input: PasswordInput,
  options: [serverOption],
  plan: planPassword,
  prepare: (context, plan) => storeNewPassword(context, `server:${plan.serverId}`),
  steps(plan, clouds) {
    const { externalId, secretId, states } = detailsOf(plan);
    return [
      preflightServer({ externalId, states }),
      ...clouds.get(plan.cloud ?? "").password({ externalId, secretId }),
    ];
  },
  onEnd(end, { plan, output, problem }) {
    const { secretId, name, publicId } = detailsOf(plan);
    const reveal = { secretId, label: `New password of ${name}` };
    if (end !== "succeeded") {
      return problem?.code === "unknown_outcome"
        ? {
            reveal,
            note: "It is not known which password counts, the old or the new one, which can be shown once.",
          }
        : { note: "The old password was not replaced, as far as the cloud says." };
    }
    const waits =
      output["passwordActive"] === "after_next_boot" || output["passwordActive"] === "after_restart";
    return {
      reveal,
      events: [{ type: "server.password.changed" }],
      offers: waits && publicId !== "" ? [{ action: "server.restart", input: { server: publicId } }] : [],
      note: noteOf(output["passwordActive"]),
    };
  },
});

function noteOf(active: unknown): string {
  if (active === "after_next_boot")
    return "The new password becomes active at the next boot, not before. It can be shown once.";
  if (active === "after_restart")
    return "The new password becomes active when the server is stopped and started, not before. It can be shown once.";
  if (active === "at_next_start")
    return "The new password becomes active at the next start, not before. It can be shown once.";
  return "The new password is active. It can be shown once.";
}

/** A dry run has no secret yet. */
function detailsOf(plan: ChangePlan) {
  return Details.parse({ secretId: "", ...plan.details });
}

async function planPassword(context: ActionContext, input: PasswordInput): Promise<ChangePlan> {
  const server = await findServer(context.database, context.principal, input.server);
  const atBoot = context.engine.clouds.get(server.cloudName).passwordAtBoot === true;
  const states = atBoot ? allowedIn.atNextBoot : allowedIn.password;
  requireState(server, "given a new password", states);
  if (server.hasAgent === false && !atBoot) {
    throw new ServiceError(
      "unsupported",
      `${named(server)} has no guest agent, so its password cannot be set while it runs. Log in with its key or first password, or rebuild it.`,
    );
  }
  return {
    ...changeOf(server, "New password for"),
    before: {},
    after: { password: "a new one, generated" },
    irreversible: ["The old password stops working."],
    details: {
      externalId: externalIdOf(server),
      name: server.name,
      publicId: server.publicId,
      states: [...states],
    },
  };
}

import { z } from "zod";
import { type ActionContext, type ChangePlan, defineOperation } from "../action.ts";
import { serverStates } from "../cloud.ts";
import { ServiceError } from "../errors.ts";
import { preflightServer } from "../operations/preflight.ts";
import { requireNotDueForDeletion, requireNotSuspended } from "../servers/allowed.ts";
import { changeOf, named } from "../servers/change.ts";
import { findServer, type ServerRow } from "../servers/find.ts";
import { minuteOf } from "../time.ts";
import { serverOption } from "./options.ts";

const ProtectInput = z.object({ server: z.string(), on: z.boolean().optional() });
type ProtectInput = z.infer<typeof ProtectInput>;

const Details = z.object({ externalId: z.string(), on: z.boolean() });

export const serverProtect = defineOperation<ProtectInput>({
  name: "server.protect",
  summary: "Protect a server against deletion, or lift that",
  audience: ["staff", "customer"],
  permission: "server.change",
  risk: "change",
  specVersion: 1,
  input: ProtectInput,
  options: [
    serverOption,
    {
      name: "on",
      field: "on",
      label: "Protected",
      help: "yes (when left out) or no",
      type: "flag",
    },
  ],
  plan: planProtect,
  steps(plan, clouds) {
    const { externalId, on } = Details.parse(plan.details);
    const cloud = clouds.get(plan.cloud ?? "");
    return [
      preflightServer({ externalId, states: serverStates.filter((state) => state !== "deleted") }),
      // A cloud without a protection of its own: ours is what every plan looks at.
      ...(cloud.protect?.({ externalId, on }) ?? []),
    ];
  },
  onEnd(end, { plan }) {
    if (end !== "succeeded") return {};
    const { on } = Details.parse(plan.details);
    return {
      server: { deleteProtected: on },
      note: on
        ? "It can be neither deleted nor rebuilt until the protection is lifted."
        : "The protection is lifted: it can be deleted and rebuilt.",
    };
  },
});

async function planProtect(context: ActionContext, input: ProtectInput): Promise<ChangePlan> {
  const server = await findServer(context.database, context.principal, input.server);
  const on = input.on ?? true;
  const name = named(server);
  // What our team or billing has decided is not a customer's to stop.
  if (context.principal.kind === "customer") {
    requireNotDueForDeletion(server, "protected");
    requireNotSuspended(server, "protected");
  }
  if (server.externalId === null) {
    throw new ServiceError("wrong_state", `${name} is not built yet, so it cannot be protected.`, {
      facts: { serverId: server.id, state: server.state },
    });
  }
  if (server.deleteProtected === on) {
    const already = on ? "is protected already" : "is not protected";
    throw new ServiceError("nothing_to_change", `Nothing to change: ${name} ${already}.`);
  }
  const change = changeOf(server, on ? "Protect" : "Lift the protection of");
  return {
    ...change,
    title: `${change.title} against deletion`,
    before: { protected: server.deleteProtected },
    after: { protected: on },
    notes: notesOf(server, on),
    details: { externalId: server.externalId, on } satisfies z.infer<typeof Details>,
  };
}

function notesOf({ deleteAt }: ServerRow, on: boolean): string[] {
  if (!on) return ["Afterwards whoever may delete or rebuild it can do so, and its disk is lost then."];
  const kept =
    deleteAt === null
      ? []
      : [
          `It was going to be deleted at ${minuteOf(deleteAt)}: that is not done then, and it stays switched off.`,
        ];
  return ["Nobody can delete or rebuild it until that is lifted with on:no.", ...kept];
}

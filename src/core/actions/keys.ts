import { z } from "zod";
import { type ActionContext, type ChangePlan, defineOperation } from "../action.ts";
import { preflightServer } from "../operations/preflight.ts";
import { allowedIn, requireState } from "../servers/allowed.ts";
import { changeOf, externalIdOf, named } from "../servers/change.ts";
import { findServer } from "../servers/find.ts";
import { fingerprintOf, PublicKeys, publicKeysOf } from "../servers/keys.ts";
import { requireProcedure } from "../servers/procedure.ts";
import { serverOption } from "./options.ts";

const KeysInput = z.object({ server: z.string(), keys: PublicKeys });
type KeysInput = z.infer<typeof KeysInput>;

const Details = z.object({ externalId: z.string(), publicId: z.string(), sshKeys: z.array(z.string()) });
type Details = z.infer<typeof Details>;

/** cloud-init adds keys to a user and never takes one away, so what a guest has learned stays in it. */
const STAYS = "Keys that it has taken before stay in it until they are removed there.";

export const serverKeys = defineOperation<KeysInput>({
  name: "server.keys",
  stepUp: true,
  summary: "Set the public SSH keys that may log in to a server",
  audience: ["staff", "customer"],
  permission: "server.change",
  risk: "change",
  specVersion: 1,
  input: KeysInput,
  options: [
    serverOption,
    {
      name: "keys",
      field: "keys",
      label: "SSH keys",
      help: "Public keys, one a line or with commas; they replace those that were set here before",
      type: "text",
      required: true,
    },
  ],
  plan: planKeys,
  steps(plan, clouds) {
    const { externalId, sshKeys } = Details.parse(plan.details);
    const cloud = clouds.get(plan.cloud ?? "");
    return [
      preflightServer({ externalId, states: [...allowedIn.atNextBoot] }),
      ...requireProcedure(cloud, "keys", onlyWhenMade("this server"))({ externalId, sshKeys }),
    ];
  },
  onEnd(end, { plan, output, problem }) {
    const { publicId, sshKeys } = Details.parse(plan.details);
    if (end !== "succeeded") {
      return problem?.code === "unknown_outcome"
        ? {
            note: `It is not known which keys count from its next boot on. Set them again: /server keys ${publicId}`,
          }
        : {};
    }
    const when = momentOf(output["keysActive"]);
    const runs = when !== "next start";
    return {
      events: [{ type: "server.keys.changed", data: { fingerprints: sshKeys.map(fingerprintOf) } }],
      offers: runs ? [{ action: "server.restart", input: { server: publicId } }] : [],
      note: `The keys count from the ${when} on, not before. ${STAYS}`,
    };
  },
});

function momentOf(active: unknown): string {
  if (active === "after_restart") return "next stop and start";
  return active === "after_next_boot" ? "next boot" : "next start";
}

function onlyWhenMade(server: string): string {
  return `The cloud of ${server} takes keys only when a server is made. Add them inside it, to ~/.ssh/authorized_keys.`;
}

async function planKeys(context: ActionContext, input: KeysInput): Promise<ChangePlan> {
  const server = await findServer(context.database, context.principal, input.server);
  requireProcedure(context.engine.clouds.get(server.cloudName), "keys", onlyWhenMade(named(server)));
  requireState(server, "given other keys", allowedIn.atNextBoot);
  const sshKeys = publicKeysOf(input.keys);
  return {
    ...changeOf(server, "SSH keys of"),
    before: {},
    // A fingerprint names a key to whoever has it, and tells others nothing.
    after: { keys: sshKeys.map(fingerprintOf) },
    notes: [`They count from its next boot on. ${STAYS}`],
    details: {
      externalId: externalIdOf(server),
      publicId: server.publicId,
      sshKeys,
    } satisfies Details,
  };
}

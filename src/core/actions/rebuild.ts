import { z } from "zod";
import { type ActionContext, type ChangePlan, defineOperation, type OperationAction } from "../action.ts";
import { type Clouds, RebuildOrder } from "../cloud.ts";
import { isServiceError, ServiceError } from "../errors.ts";
import { preflightServer } from "../operations/preflight.ts";
import { storeNewPassword } from "../secrets/password.ts";
import { allowedIn, requireNotSuspended, requireState, requireUnprotected } from "../servers/allowed.ts";
import { findImage, type ImageRow } from "../servers/catalogue.ts";
import { changeOf, externalIdOf, named } from "../servers/change.ts";
import { findServer, type ServerRow } from "../servers/find.ts";
import { PublicKeys, publicKeysOf } from "../servers/keys.ts";
import { requireRoomFor } from "../servers/order.ts";
import { requireProcedure } from "../servers/procedure.ts";
import { sizesOf } from "../servers/size.ts";
import { imageOption, serverOption } from "./options.ts";

const ReinstallInput = z.object({
  server: z.string(),
  key: PublicKeys.optional(),
  inPlace: z.boolean().optional(),
});
type ReinstallInput = z.infer<typeof ReinstallInput>;

const RebuildInput = ReinstallInput.extend({ image: z.string() });
type RebuildInput = z.infer<typeof RebuildInput>;

const Details = z.object({
  order: RebuildOrder,
  imageName: z.string(),
  hasAgent: z.boolean().nullable(),
  /** A dry run has none yet. */
  secretId: z.string().default(""),
});

const furtherOptions: OperationAction["options"] = [
  {
    name: "key",
    field: "key",
    label: "SSH key",
    help: "Proxmox VE: a public key that may log in; else those of the server stay",
    type: "text",
    advanced: true,
  },
  {
    name: "in_place",
    field: "inPlace",
    label: "In place",
    help: "Delete the old system first; only where there is no room for both",
    type: "flag",
    audience: ["staff"],
    advanced: true,
  },
];

const common = {
  audience: ["staff", "customer"],
  permission: "server.change",
  risk: "destructive",
  stepUp: true,
  specVersion: 1,
  during: "rebuilding",
  prepare: (context, plan) => storeNewPassword(context, `server:${plan.serverId}`),
  steps,
  onEnd,
} as const satisfies Partial<OperationAction>;

export const serverRebuild = defineOperation<RebuildInput>({
  ...common,
  name: "server.rebuild",
  summary: "Give a server a new system from another image",
  input: RebuildInput,
  options: [serverOption, { ...imageOption, required: true }, ...furtherOptions],
  async plan(context, input) {
    const server = await findRebuildable(context, input, "rebuilt");
    const image = await findImage(context.database, server.cloudName, input.image);
    return planOf(server, image, { verb: "Rebuild", input });
  },
});

export const serverReinstall = defineOperation<ReinstallInput>({
  ...common,
  name: "server.reinstall",
  summary: "Give a server a new system from its present image",
  input: ReinstallInput,
  options: [serverOption, ...furtherOptions],
  async plan(context, input) {
    const server = await findRebuildable(context, input, "reinstalled");
    const image = await presentImage(context, server);
    return planOf(server, image, { verb: "Reinstall", input });
  },
});

async function findRebuildable(
  context: ActionContext,
  input: ReinstallInput,
  verb: string,
): Promise<ServerRow> {
  const server = await findServer(context.database, context.principal, input.server);
  const cloud = context.engine.clouds.get(server.cloudName);
  requireProcedure(cloud, "rebuild", noSuchThing(named(server), verb));
  requireState(server, verb, allowedIn.rebuild);
  requireUnprotected(server, verb);
  // It runs afterwards.
  requireNotSuspended(server, verb);
  return server;
}

function noSuchThing(server: string, verb: string): string {
  return `${server} cannot be ${verb}: its cloud has no such thing here yet. Order a new server and delete this one.`;
}

async function presentImage({ database }: ActionContext, server: ServerRow): Promise<ImageRow> {
  const name = named(server);
  const advice = `Choose one: /server rebuild ${server.publicId} image:…`;
  if (server.imageName === null) {
    throw new ServiceError("wrong_state", `It is not known which image ${name} was made from. ${advice}`);
  }
  try {
    return await findImage(database, server.cloudName, server.imageName);
  } catch (error) {
    if (!isServiceError(error, "not_found")) throw error;
    const message = `The image ${server.imageName} that ${name} was made from is no longer offered. ${advice}`;
    throw new ServiceError("not_found", message, { cause: error });
  }
}

function planOf(
  server: ServerRow,
  image: ImageRow,
  { verb, input }: { verb: string; input: ReinstallInput },
): ChangePlan {
  const size = sizesOf(server);
  requireRoomFor(image, size, { name: "image", what: server.name });
  const inPlace = input.inPlace ?? false;
  const order: RebuildOrder = {
    externalId: externalIdOf(server),
    name: server.name,
    size,
    imageId: image.externalId,
    passwordSecretId: "",
    defaultUser: image.defaultUser,
    ...(input.key === undefined ? {} : { sshKeys: publicKeysOf(input.key) }),
    inPlace,
  };
  return {
    ...changeOf(server, verb),
    before: { image: server.imageName },
    after: { image: image.name, password: "a new one, generated" },
    downtime: inPlace
      ? "The server is away until its new system is built and runs, usually some minutes."
      : "The server is away while the new system takes the old one's place, usually one to two minutes.",
    irreversible: ["Everything on its disk is lost for good.", "Its snapshots are lost with it."],
    notes: [
      inPlace
        ? "The old server is deleted FIRST, because there is no room for both: if the new one cannot be built, nothing is left to go back to."
        : "The new system is built beside the old one, which is deleted only when the new one runs.",
      "Its name, size and addresses stay. The new password can be shown once at the end.",
    ],
    details: { order, imageName: image.name, hasAgent: image.hasAgent },
  };
}

function steps(plan: ChangePlan, clouds: Clouds) {
  const { order, secretId } = Details.parse(plan.details);
  const cloud = clouds.get(plan.cloud ?? "");
  const rebuild = requireProcedure(cloud, "rebuild", noSuchThing("This server", "rebuilt"));
  const { externalId, size } = order;
  return [
    preflightServer({ externalId, states: [...allowedIn.rebuild], size }),
    ...rebuild({ ...order, passwordSecretId: secretId }),
  ];
}

type OnEnd = NonNullable<OperationAction["onEnd"]>;

function onEnd(...[end, { plan, output, problem }]: Parameters<OnEnd>): ReturnType<OnEnd> {
  const { order, imageName, hasAgent, secretId } = Details.parse(plan.details);
  const reveal = { secretId, label: `New password of ${order.name}` };
  if (end === "succeeded") {
    return {
      server: { imageName, hasAgent },
      reveal,
      note: `${order.name} runs its new system, ${imageName}. Its new password can be shown once.`,
    };
  }
  // Past the point of no return it only ends because a person gave up.
  if (output["switched"] === true) {
    return {
      server: { imageName, hasAgent },
      reveal,
      note: `${order.name} has its new system, but not everything of the old one is gone from the cloud. Its new password can be shown once.`,
    };
  }
  if (output["retired"] === true) {
    return {
      note: `The old system of ${order.name} is deleted, and the new one was not finished: the server has none.`,
    };
  }
  if (problem?.code === "unknown_outcome") {
    return { note: `Which of its systems ${order.name} has is for our team to find out in the cloud.` };
  }
  return { note: `${order.name} has its old system, as before.` };
}

import { z } from "zod";
import { type ActionContext, type ChangePlan, defineOperation } from "../action.ts";
import type { Cloud, ProvisionOrder } from "../cloud.ts";
import { ServiceError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { findCustomer } from "../people/find.ts";
import { findImage, findNetwork } from "../servers/catalogue.ts";
import {
  answerExistingOrder,
  endOfOrder,
  prepareOrder,
  requireRoomFor,
  ServerName,
  stepsOfOrder,
} from "../servers/order.ts";
import { exactFlavor } from "../servers/size.ts";
import { cloudOption, customerOption, imageOption, nameOption } from "./options.ts";

// One line of an authorized_keys file without options; a cloud would refuse a broken one only half-way.
const PublicKey = z
  .string()
  .trim()
  .regex(
    /^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh\.com) [A-Za-z0-9+/]{40,}={0,2}( [^\r\n]*)?$/,
    'is no public SSH key; paste one line, as in "ssh-ed25519 AAAA… name"',
  );

const BuildInput = z.object({
  name: ServerName,
  customer: z.string().optional(),
  cloud: z.string().optional(),
  node: z.string().max(63).optional(),
  image: z.string(),
  vcpus: z.int().min(1).max(128),
  memoryMib: z.int().min(512),
  diskGib: z.int().min(1),
  network: z.string().optional(),
  key: PublicKey.optional(),
});
type BuildInput = z.infer<typeof BuildInput>;

/** As server.provision, but the team says where and how big instead of a plan. */
export const serverBuild = defineOperation<BuildInput>({
  name: "server.build",
  summary: "Make a server of a chosen size on a chosen node",
  audience: ["staff"],
  permission: "server.change",
  risk: "change",
  specVersion: 1,
  during: "building",
  input: BuildInput,
  options: [
    nameOption,
    { ...customerOption, required: true },
    { ...imageOption, required: true },
    { name: "cpu", field: "vcpus", label: "CPU", help: "Number of vCPUs", type: "number", required: true },
    {
      name: "memory",
      field: "memoryMib",
      label: "Memory",
      help: "With unit: 8G",
      type: "memory",
      required: true,
    },
    { name: "disk", field: "diskGib", label: "Disk", help: "With unit: 80G", type: "disk", required: true },
    {
      name: "node",
      field: "node",
      label: "Node",
      help: "Proxmox VE: where; else where there is most room",
      type: "text",
    },
    { ...cloudOption },
    {
      name: "network",
      field: "network",
      label: "Network",
      help: "Needed when there are several",
      type: "text",
      lookup: "network",
      advanced: true,
    },
    {
      name: "key",
      field: "key",
      label: "SSH key",
      help: "Proxmox VE: a public key that may log in",
      type: "text",
      advanced: true,
    },
  ],
  plan: planBuild,
  prepare: prepareOrder,
  steps: stepsOfOrder,
  onEnd: endOfOrder,
});

async function planBuild(context: ActionContext, input: BuildInput): Promise<ChangePlan> {
  const { database } = context;
  const customer = await findCustomer(database, context.principal, input.customer);
  const cloud = chooseCloud(context, input.cloud);
  requirePlayable(cloud, input);
  const { vcpus, memoryMib, diskGib } = input;
  const { size, asOf } = await exactFlavor(database, cloud, { vcpus, memoryMib, diskGib });
  const image = await findImage(database, cloud.name, input.image);
  requireRoomFor(image, size, { name: "disk", what: "this size" });
  await answerExistingOrder(database, customer, { name: input.name, plan: null, image: image.name, size });
  const network = await findNetwork(database, cloud.name, input.network);
  const order: ProvisionOrder = {
    name: input.name,
    size,
    imageId: image.externalId,
    networkId: network.externalId,
    metadata: {},
    passwordSecretId: "",
    defaultUser: image.defaultUser,
    ...(input.key === undefined ? {} : { sshKeys: [input.key] }),
    ...(input.node === undefined ? {} : { node: input.node }),
  };
  return {
    title: `Build ${input.name} for ${customer.name}`,
    serverId: null,
    customerId: customer.id,
    cloud: cloud.name,
    lockKey: `order:${customer.id}:${input.name.toLowerCase()}`,
    before: {},
    after: {
      name: input.name,
      image: image.name,
      vcpus: size.vcpus,
      memoryMib: size.memoryMib,
      diskGib: size.diskGib,
      ...(input.node === undefined ? {} : { node: input.node }),
    },
    downtime: null,
    irreversible: [],
    notes: ["Its first password is set at first boot and handed over once."],
    dataAsOf: asOf,
    details: { order, planCode: null, imageName: image.name, hasAgent: image.hasAgent },
  };
}

/** The only one, or the one that was named. */
function chooseCloud({ engine }: ActionContext, typed: string | undefined): Cloud {
  const clouds = engine.clouds.list();
  const names = clouds.map((cloud) => cloud.name);
  const [only, another] = clouds;
  if (typed === undefined) {
    if (only !== undefined && another === undefined) return only;
    throw new ServiceError(
      "invalid_input",
      clouds.length === 0
        ? "No cloud is configured."
        : `Say on which cloud: cloud:${names.join(" or cloud:")}.`,
      { facts: { option: "cloud" } },
    );
  }
  const found = clouds.find((cloud) => cloud.name.toLowerCase() === typed.toLowerCase());
  if (found !== undefined) return found;
  const guess = nearest(typed, names);
  const advice = guess === undefined ? `There are ${names.join(", ")}.` : `Did you mean ${guess}?`;
  throw new ServiceError("not_found", `No cloud "${typed}". ${advice}`, { facts: { option: "cloud" } });
}

function requirePlayable(cloud: Cloud, input: BuildInput): void {
  if (cloud.provider === "pve") return;
  for (const option of ["node", "key"] as const) {
    if (input[option] === undefined) continue;
    throw new ServiceError("unsupported", `${cloud.name} takes no ${option}: leave it out.`, {
      facts: { option },
    });
  }
}

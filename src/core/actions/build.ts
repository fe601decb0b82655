import { z } from "zod";
import { type ActionContext, type ChangePlan, defineOperation, type Option } from "../action.ts";
import { buildOptions, type Cloud, type ProvisionOrder } from "../cloud.ts";
import { ServiceError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { shortened } from "../option-values.ts";
import { findCustomer } from "../people/find.ts";
import { fixedAddress, withoutPrefix } from "../servers/address.ts";
import { findImage, findNetwork } from "../servers/catalogue.ts";
import { requireFreeAddress } from "../servers/claims.ts";
import { PublicKeys, publicKeysOf } from "../servers/keys.ts";
import { requireEvenSockets, requireWithinLimits } from "../servers/limits.ts";
import {
  answerExistingOrder,
  endOfOrder,
  prepareOrder,
  requireRoomFor,
  ServerName,
  stepsOfOrder,
} from "../servers/order.ts";
import { exactFlavor, findPlan, sizeOfPlan } from "../servers/size.ts";
import { cloudOption, customerOption, imageOption, nameOption, planOption } from "./options.ts";

const BuildInput = z
  .object({
    name: ServerName,
    customer: z.string().optional(),
    cloud: z.string().optional(),
    image: z.string(),
    plan: z.string().optional(),
    vcpus: z.int().optional(),
    memoryMib: z.int().optional(),
    diskGib: z.int().optional(),
    sockets: z.int().min(1).max(128).optional(),
    node: z.string().max(63).optional(),
    storage: z.string().max(100).optional(),
    clone: z.enum(["full", "linked"]).optional(),
    network: z.string().optional(),
    ip: z.string().max(64).optional(),
    gateway: z.string().max(64).optional(),
    key: PublicKeys.optional(),
    start: z.boolean().optional(),
  })
  .refine(({ plan, vcpus, memoryMib, diskGib }) => {
    const sizes = [vcpus, memoryMib, diskGib];
    return plan === undefined ? !sizes.includes(undefined) : sizes.every((size) => size === undefined);
  }, "Give either plan:, or all of cpu:, memory: and disk:.")
  .refine(
    ({ clone, storage }) => clone !== "linked" || storage === undefined,
    "A linked clone stays on the storage of its template: leave storage: out, or ask for clone:full.",
  );
type BuildInput = z.infer<typeof BuildInput>;

const sizeOptions: readonly Option[] = [
  { name: "cpu", field: "vcpus", label: "CPU", help: "Number of vCPUs", type: "number" },
  { name: "memory", field: "memoryMib", label: "Memory", help: "With unit: 8G", type: "memory" },
  { name: "disk", field: "diskGib", label: "Disk", help: "With unit: 80G", type: "disk" },
  {
    name: "sockets",
    field: "sockets",
    label: "Sockets",
    help: "Proxmox VE: the vCPUs are split evenly over them",
    type: "number",
    advanced: true,
  },
];

const placeOptions: readonly Option[] = [
  {
    name: "node",
    field: "node",
    label: "Node",
    help: "Proxmox VE: where; else where there is most room",
    type: "text",
  },
  cloudOption,
  {
    name: "storage",
    field: "storage",
    label: "Storage",
    help: "Proxmox VE: for its disk; else the one with most room",
    type: "text",
    advanced: true,
  },
  {
    name: "clone",
    field: "clone",
    label: "Clone",
    help: "Proxmox VE: a full copy, or linked to its template",
    type: "text",
    choices: [
      { value: "full", label: "Full" },
      { value: "linked", label: "Linked" },
    ],
    advanced: true,
  },
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
    name: "ip",
    field: "ip",
    label: "Address",
    help: "Proxmox VE: fixed, with prefix length: 192.0.2.10/24",
    type: "text",
    advanced: true,
  },
  {
    name: "gateway",
    field: "gateway",
    label: "Gateway",
    help: "Proxmox VE: of the fixed address",
    type: "text",
    advanced: true,
  },
];

/** As server.provision, but the team says where, how big and how. */
export const serverBuild = defineOperation<BuildInput>({
  name: "server.build",
  summary: "Make a server of a plan or a chosen size, on a chosen node",
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
    { ...planOption, help: "Its size; or give cpu, memory and disk" },
    ...sizeOptions,
    ...placeOptions,
    {
      name: "key",
      field: "key",
      label: "SSH keys",
      help: "Proxmox VE: public keys that may log in, one a line",
      type: "text",
      advanced: true,
    },
    {
      name: "start",
      field: "start",
      label: "Start",
      help: "Proxmox VE: no leaves it off when it is built",
      type: "flag",
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
  const address = fixedAddress(input.ip, input.gateway);
  const { size, asOf, sold } = await sizeFor(context, cloud, input);
  requireEvenSockets(size.vcpus, input.sockets);
  const image = await findImage(database, cloud.name, input.image);
  requireRoomFor(image, size, sold === null ? typedSize : { name: "plan", what: `the plan ${sold.code}` });
  const planCode = sold?.code ?? null;
  await answerExistingOrder(database, customer, {
    name: input.name,
    plan: planCode,
    image: image.name,
    size,
  });
  if (address !== undefined) {
    const wish = { cloud: cloud.name, address: withoutPrefix(address.cidr), serverId: null };
    await requireFreeAddress(database, wish);
  }
  const offered = sold?.targets[cloud.name]?.network;
  const network = await findNetwork(database, cloud.name, input.network ?? offered);
  const order: ProvisionOrder = {
    name: input.name,
    size,
    imageId: image.externalId,
    networkId: network.externalId,
    metadata: {},
    passwordSecretId: "",
    defaultUser: image.defaultUser,
    ...(input.key === undefined ? {} : { sshKeys: publicKeysOf(input.key) }),
    ...(input.node === undefined ? {} : { node: input.node }),
    ...(input.sockets === undefined ? {} : { sockets: input.sockets }),
    ...(input.storage === undefined ? {} : { storage: input.storage }),
    ...(input.clone === undefined ? {} : { clone: input.clone }),
    ...(address === undefined ? {} : { address }),
    ...(input.start === undefined ? {} : { start: input.start }),
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
      ...(planCode === null ? {} : { plan: planCode }),
      image: image.name,
      vcpus: size.vcpus,
      memoryMib: size.memoryMib,
      diskGib: size.diskGib,
    },
    downtime: null,
    irreversible: [],
    notes: notesOn(input),
    dataAsOf: asOf,
    details: { order, planCode, imageName: image.name, hasAgent: image.hasAgent },
  };
}

const typedSize = { name: "disk", what: "this size" };

async function sizeFor({ database, principal }: ActionContext, cloud: Cloud, input: BuildInput) {
  const { plan, vcpus, memoryMib, diskGib } = input;
  if (plan !== undefined) {
    const sold = await findPlan(database, plan);
    return { ...(await sizeOfPlan(database, cloud, sold)), sold };
  }
  if (vcpus === undefined || memoryMib === undefined || diskGib === undefined)
    throw new Error("a build without a size");
  requireWithinLimits(principal, { vcpus, memoryMib, diskGib });
  return { ...(await exactFlavor(database, cloud, { vcpus, memoryMib, diskGib })), sold: null };
}

/** Where it goes is for the team alone, so it is no part of what changes, which customers' webhooks tell. */
function notesOn({ node, storage, clone, ip, start }: BuildInput): string[] {
  const place = [
    node === undefined ? "" : `on node ${node}`,
    storage === undefined ? "" : `on storage ${storage}`,
    clone === undefined ? "" : `as a ${clone} clone`,
    ip === undefined ? "" : `with the address ${ip}`,
  ].filter((text) => text !== "");
  return [
    "Its first password is set at first boot and handed over once.",
    ...(place.length === 0 ? [] : [`It is built ${place.join(", ")}.`]),
    ...(start === false ? ["It is left off."] : []),
  ];
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
  throw new ServiceError("not_found", `No cloud "${shortened(typed)}". ${advice}`, {
    facts: { option: "cloud" },
  });
}

function requirePlayable(cloud: Cloud, input: BuildInput): void {
  // Starting it is what every cloud does.
  const asked = { ...input, start: input.start === false ? false : undefined };
  for (const option of buildOptions) {
    if (asked[option] === undefined || cloud.buildOptions?.includes(option) === true) continue;
    throw new ServiceError("unsupported", `${cloud.name} takes no ${option}: leave it out.`, {
      facts: { option },
    });
  }
}

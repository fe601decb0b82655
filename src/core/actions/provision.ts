import { z } from "zod";
import type { Queryable } from "../../database/client.ts";
import { type ActionContext, type ChangePlan, defineOperation } from "../action.ts";
import type { Cloud, Clouds, ProvisionOrder } from "../cloud.ts";
import { isServiceError, ServiceError } from "../errors.ts";
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
import { findPlan, type PlanRow, sizeOfPlan } from "../servers/size.ts";
import { cloudOption, customerOption, imageOption, nameOption, planOption } from "./options.ts";

const ProvisionInput = z.object({
  name: ServerName,
  customer: z.string().optional(),
  plan: z.string(),
  image: z.string(),
  network: z.string().optional(),
  cloud: z.string().optional(),
  metadata: z
    .record(z.string().min(1).max(255), z.string().max(255))
    .refine(
      (pairs) => !Object.keys(pairs).some((key) => key.startsWith("ratatosk")),
      "must not use keys that start with ratatosk",
    )
    .optional(),
});
type ProvisionInput = z.infer<typeof ProvisionInput>;

export const serverProvision = defineOperation<ProvisionInput>({
  name: "server.provision",
  summary: "Make a new server",
  audience: ["staff", "customer"],
  permission: "server.change",
  risk: "change",
  specVersion: 1,
  during: "building",
  input: ProvisionInput,
  options: [
    nameOption,
    { ...customerOption, required: true },
    { ...planOption, required: true },
    { ...imageOption, required: true },
    {
      name: "network",
      field: "network",
      label: "Network",
      help: "Else the plan's or the cloud's own",
      type: "text",
      lookup: "network",
      audience: ["staff"],
      advanced: true,
    },
    cloudOption,
    {
      name: "metadata",
      field: "metadata",
      label: "Metadata",
      help: "key=value,key=value, passed to the cloud",
      type: "pairs",
      audience: ["staff"],
      advanced: true,
    },
  ],
  plan: planProvision,
  prepare: prepareOrder,
  steps: stepsOfOrder,
  onEnd: endOfOrder,
});

async function planProvision(context: ActionContext, input: ProvisionInput): Promise<ChangePlan> {
  const { database } = context;
  const customer = await findCustomer(database, context.principal, input.customer);
  const sold = await findPlan(database, input.plan);
  const cloud = chooseCloud(context.engine.clouds, sold, input.cloud);
  const { size, asOf } = await sizeOfPlan(database, cloud, sold);
  const image = await findImage(database, cloud.name, input.image);
  requireRoomFor(image, size, { name: "plan", what: `the plan ${sold.code}` });
  await answerExistingOrder(database, customer, {
    name: input.name,
    plan: sold.code,
    image: image.name,
    size,
  });
  const network = await networkFor(database, { cloud, sold, typed: input.network });
  const order: ProvisionOrder = {
    name: input.name,
    size,
    imageId: image.externalId,
    networkId: network.externalId,
    metadata: input.metadata ?? {},
    passwordSecretId: "",
    defaultUser: image.defaultUser,
  };
  return {
    title: `Provision ${input.name} for ${customer.name}`,
    serverId: null,
    customerId: customer.id,
    cloud: cloud.name,
    lockKey: `order:${customer.id}:${input.name.toLowerCase()}`,
    before: {},
    after: {
      name: input.name,
      plan: sold.code,
      image: image.name,
      vcpus: size.vcpus,
      memoryMib: size.memoryMib,
      diskGib: size.diskGib,
    },
    downtime: null,
    irreversible: [],
    notes: ["Its first password is set at first boot and handed over once."],
    dataAsOf: asOf,
    details: {
      order,
      planCode: sold.code,
      imageName: image.name,
      hasAgent: image.hasAgent,
    },
  };
}

/** What is wrong with a network that nobody typed is the team's to know and to repair. */
async function networkFor(
  database: Queryable,
  { cloud, sold, typed }: { cloud: Cloud; sold: PlanRow; typed: string | undefined },
) {
  const configured = sold.targets[cloud.name]?.network;
  try {
    return await findNetwork(database, cloud.name, typed ?? configured);
  } catch (error) {
    if (typed !== undefined || configured === undefined || !isServiceError(error, "not_found")) throw error;
    const message = `The plan ${sold.code} is not available at the moment. Ask our team.`;
    throw new ServiceError("unsupported", message, {
      cause: error,
      staffDetail: `Its network on ${cloud.name}: ${error.message}`,
    });
  }
}

function chooseCloud(clouds: Clouds, sold: PlanRow, typed: string | undefined): Cloud {
  const offered = clouds.list().filter((cloud) => sold.targets[cloud.name] !== undefined);
  if (typed === undefined) {
    if (offered[0] !== undefined) return offered[0];
    throw new ServiceError(
      "unsupported",
      `The plan ${sold.code} is offered on no cloud at the moment. Ask our team.`,
    );
  }
  const found = offered.find((cloud) => cloud.name.toLowerCase() === typed.toLowerCase());
  if (found !== undefined) return found;
  const names = offered.map((cloud) => cloud.name);
  throw new ServiceError(
    "not_found",
    `The plan ${sold.code} is not offered on a cloud "${typed}". It is on ${names.join(", ") || "none"}.`,
    {
      facts: { option: "cloud" },
    },
  );
}

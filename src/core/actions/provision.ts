import { z } from "zod";
import type { Queryable, Transaction } from "../../database/client.ts";
import { newId, newPublicId } from "../../database/id.ts";
import { type ActionContext, type ChangePlan, defineOperation } from "../action.ts";
import { type Cloud, type Clouds, ProvisionOrder } from "../cloud.ts";
import { isServiceError, ServiceError } from "../errors.ts";
import { ExistingOrder } from "../operations/enter.ts";
import { preflightProvision } from "../operations/preflight.ts";
import { type Customer, findCustomer } from "../people/find.ts";
import { generatePassword } from "../secrets/password.ts";
import { findImage, findNetwork } from "../servers/catalogue.ts";
import { findPlan, type PlanRow, sizeOfPlan } from "../servers/size.ts";
import { cloudOption, customerOption, imageOption, planOption } from "./options.ts";

const ProvisionInput = z.object({
  // RFC 1123: it becomes the guest's host name, and Nova refuses anything else there.
  name: z
    .string()
    .max(63, "must have at most 63 characters")
    .regex(
      /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/i,
      "must have only letters, digits and hyphens, and not start or end with one",
    ),
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

const Details = z.object({
  order: ProvisionOrder,
  planCode: z.string(),
  imageName: z.string(),
  hasAgent: z.boolean().nullable(),
  /** A dry run has none yet. */
  secretId: z.string().default(""),
});

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
    {
      name: "name",
      field: "name",
      label: "Name",
      help: "Letters, digits and hyphens: web-1",
      type: "text",
      required: true,
      subject: true,
    },
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
  prepare,
  steps(plan, clouds) {
    const order = orderOf(plan);
    return [preflightProvision(order), ...cloudOf(plan, clouds).provision(order)];
  },
  onEnd(end, { plan, output, problem }) {
    // The engine gets here by having undone it and looked, except when a person gave up on an unknown.
    if (problem?.code === "unknown_outcome" && end !== "succeeded") return { server: { deleted: true } };
    if (end !== "succeeded")
      return { server: { deleted: true }, note: "Nothing of it is left in the cloud." };
    const { order, planCode, secretId } = Details.parse(plan.details);
    const addresses = Array.isArray(output["addresses"]) ? output["addresses"].map(String) : [];
    return {
      server: { planCode },
      reveal: {
        secretId,
        label: `Password of ${order.name}`,
      },
      note: `${order.name} is running${addresses.length > 0 ? ` at ${addresses.join(", ")}` : ""}.`,
    };
  },
});

function cloudOf(plan: ChangePlan, clouds: Clouds): Cloud {
  if (plan.cloud === null) throw new Error("a provision without a cloud");
  return clouds.get(plan.cloud);
}

function orderOf(plan: ChangePlan): ProvisionOrder {
  const { order, secretId } = Details.parse(plan.details);
  return { ...order, passwordSecretId: secretId };
}

async function planProvision(context: ActionContext, input: ProvisionInput): Promise<ChangePlan> {
  const { database } = context;
  const customer = await findCustomer(database, context.principal, input.customer);
  const sold = await findPlan(database, input.plan);
  const cloud = chooseCloud(context.engine.clouds, sold, input.cloud);
  const { size, asOf } = await sizeOfPlan(database, cloud, sold);
  const image = await findImage(database, cloud.name, input.image);
  if (size.memoryMib < image.minMemoryMib || size.diskGib < image.minDiskGib) {
    throw new ServiceError(
      "invalid_input",
      `${image.name} needs at least ${image.minMemoryMib} MiB and ${image.minDiskGib} GiB; the plan ${sold.code} is too small.`,
      { facts: { option: "plan" } },
    );
  }
  await answerExistingOrder(database, customer, { name: input.name, plan: sold.code, image: image.name });
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

/** Throws ExistingOrder for the same order, `conflict` when the name is taken by another one. */
async function answerExistingOrder(
  database: Queryable,
  customer: Customer,
  order: { name: string; plan: string; image: string },
) {
  const rows = await database.sql<{
    publicId: string;
    planCode: string | null;
    imageName: string | null;
    operationId: string | null;
    operation: string | null;
  }>(
    `SELECT s.public_id AS "publicId", s.plan_code AS "planCode", s.image_name AS "imageName", o.id AS "operationId", o.public_id AS operation
     FROM servers s LEFT JOIN operations o ON o.server_id = s.id AND o.action = 'server.provision'
     WHERE s.customer_id = $1 AND lower(s.name) = lower($2) AND s.deleted_at IS NULL ORDER BY o.created_at DESC LIMIT 1`,
    [customer.id, order.name],
  );
  const live = rows[0];
  if (live === undefined) return;
  const same = live.planCode === order.plan && live.imageName === order.image;
  if (same && live.operationId !== null && live.operation !== null) {
    throw new ExistingOrder({ id: live.operationId, publicId: live.operation });
  }
  throw new ServiceError(
    "conflict",
    `${customer.name} has a server called ${order.name} already (${live.publicId}). Choose another name.`,
    {
      facts: { option: "name" },
    },
  );
}

/** The quota is checked under the customer's row lock; the server's row and its password exist before the first call. */
async function prepare(context: ActionContext & { database: Transaction }, plan: ChangePlan) {
  const { database: tx, engine } = context;
  await requireQuota(tx, plan);
  const secretId = await engine.secrets.store(tx, {
    kind: "root_password",
    field: `operation:${plan.lockKey}:password`,
    plaintext: generatePassword(),
    lifetimeMs: engine.policies.secretLifetimeMs,
  });
  const serverId = newId();
  const { order, planCode, imageName, hasAgent } = Details.parse(plan.details);
  await tx.sql(
    `INSERT INTO servers (id, public_id, customer_id, cloud_id, name, plan_code, image_name, state, vcpus, memory_mib,
       disk_gib, addresses, metadata, has_agent)
     SELECT $1, $2, $3, c.id, $5, $6, $7, 'pending', $8, $9, $10, '{}', $11::jsonb, $12 FROM clouds c WHERE c.name = $4`,
    [
      serverId,
      newPublicId("srv"),
      plan.customerId,
      plan.cloud,
      order.name,
      planCode,
      imageName,
      order.size.vcpus,
      order.size.memoryMib,
      order.size.diskGib,
      order.metadata,
      hasAgent,
    ],
  );
  return { serverId, details: { secretId } };
}

async function requireQuota(tx: Queryable, plan: ChangePlan): Promise<void> {
  const rows = await tx.sql<{ maxServers: number | null; name: string }>(
    `SELECT max_servers AS "maxServers", name FROM customers WHERE id = $1 FOR UPDATE`,
    [plan.customerId],
  );
  const limit = rows[0]?.maxServers ?? null;
  if (limit === null) return;
  const counted = await tx.sql<{ count: number }>(
    `SELECT count(*)::int AS count FROM servers WHERE customer_id = $1 AND deleted_at IS NULL`,
    [plan.customerId],
  );
  const count = counted[0]?.count ?? 0;
  if (count < limit) return;
  throw new ServiceError(
    "quota",
    `${rows[0]?.name ?? "This customer"} has ${count} of ${limit} servers; delete one first or raise the limit.`,
  );
}

import { z } from "zod";
import type { Queryable, Transaction } from "../../database/client.ts";
import { newId, newPublicId } from "../../database/id.ts";
import type { Principal } from "../access.ts";
import { type ActionContext, type ChangePlan, defineOperation } from "../action.ts";
import type { Cloud, Clouds, ProvisionOrder } from "../cloud.ts";
import { ServiceError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { ExistingOrder } from "../operations/enter.ts";
import { preflightProvision } from "../operations/preflight.ts";
import { generatePassword } from "../secrets/password.ts";
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

interface Customer {
  id: string;
  ref: string;
  name: string;
}

export const serverProvision = defineOperation<ProvisionInput>({
  name: "server.provision",
  summary: "Make a server from a plan",
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
  plan,
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
    const addresses = Array.isArray(output["addresses"]) ? output["addresses"].map(String) : [];
    return {
      server: { planCode: String(plan.details["planCode"]) },
      reveal: {
        secretId: String(plan.details["secretId"]),
        label: `Password of ${String(plan.after["name"])}`,
      },
      note: `${String(plan.after["name"])} is running${addresses.length > 0 ? ` at ${addresses.join(", ")}` : ""}.`,
    };
  },
});

function cloudOf(plan: ChangePlan, clouds: Clouds): Cloud {
  if (plan.cloud === null) throw new Error("a provision without a cloud");
  return clouds.get(plan.cloud);
}

function orderOf(plan: ChangePlan): ProvisionOrder {
  const order = plan.details["order"] as ProvisionOrder;
  return { ...order, passwordSecretId: String(plan.details["secretId"] ?? "") };
}

async function plan(context: ActionContext, input: ProvisionInput): Promise<ChangePlan> {
  const { database } = context;
  const customer = await customerOf(database, context.principal, input.customer);
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
  const network = await findNetwork(
    database,
    cloud.name,
    input.network ?? sold.targets[cloud.name]?.network ?? cloud.defaultNetwork ?? undefined,
  );
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
      customerRef: customer.ref,
    },
  };
}

async function customerOf(
  database: Queryable,
  principal: Principal,
  typed: string | undefined,
): Promise<Customer> {
  if (principal.kind === "customer") {
    const own = await database.sql<Customer>(
      `SELECT id, ref, name FROM customers WHERE id = $1 AND closed_at IS NULL`,
      [principal.customerId],
    );
    if (own[0] === undefined) throw new ServiceError("forbidden", "This account is closed. Ask our team.");
    return own[0];
  }
  const rows = await database.sql<Customer>(
    `SELECT id, ref, name FROM customers WHERE closed_at IS NULL ORDER BY ref`,
  );
  const lower = (typed ?? "").toLowerCase();
  const matches = rows.filter((row) => row.ref.toLowerCase() === lower || row.name.toLowerCase() === lower);
  const byRef = matches.find((row) => row.ref.toLowerCase() === lower);
  if (byRef !== undefined || matches.length === 1) return (byRef ?? matches[0]) as Customer;
  if (matches.length > 1) {
    const which = matches.map((row) => row.ref).join(", ");
    throw new ServiceError(
      "conflict",
      `Several customers are called "${typed}". Say which one by its reference: ${which}.`,
    );
  }
  const guess = nearest(
    typed ?? "",
    rows.flatMap((row) => [row.ref, row.name]),
  );
  throw new ServiceError(
    "not_found",
    `No customer "${typed}".${guess === undefined ? "" : ` Did you mean ${guess}?`}`,
    {
      facts: { option: "customer" },
    },
  );
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

interface ImageRow {
  externalId: string;
  name: string;
  minMemoryMib: number;
  minDiskGib: number;
  hasAgent: boolean | null;
  defaultUser: string | null;
}

async function findImage(database: Queryable, cloudName: string, typed: string): Promise<ImageRow> {
  const rows = await database.sql<ImageRow>(
    `SELECT i.external_id AS "externalId", i.name, i.min_memory_mib AS "minMemoryMib", i.min_disk_gib AS "minDiskGib",
       i.has_agent AS "hasAgent", i.default_user AS "defaultUser"
     FROM images i JOIN clouds c ON c.id = i.cloud_id
     WHERE c.name = $1 AND i.disabled_at IS NULL AND lower(i.status) = 'active' ORDER BY i.synced_at DESC, i.name`,
    [cloudName],
  );
  const lower = typed.toLowerCase();
  const found = rows.find((row) => row.name.toLowerCase() === lower || row.externalId === typed);
  if (found !== undefined) return found;
  if (rows.length === 0) {
    throw new ServiceError(
      "unsupported",
      "The list of images has not been read from the cloud yet. Try again in a minute, or ask our team.",
      {
        staffDetail: `Cloud ${cloudName} has no active image in the catalogue; see /sync status.`,
      },
    );
  }
  const guess = nearest(
    typed,
    rows.map((row) => row.name),
  );
  const advice =
    guess === undefined
      ? `There are ${rows
          .slice(0, 8)
          .map((row) => row.name)
          .join(", ")}.`
      : `Did you mean ${guess}?`;
  throw new ServiceError("not_found", `No image "${typed}". ${advice}`, { facts: { option: "image" } });
}

/** The one asked for, or the only one that a tenant can use: no guess among several. */
async function findNetwork(database: Queryable, cloudName: string, typed: string | undefined) {
  const rows = await database.sql<{
    externalId: string;
    name: string;
    isExternal: boolean;
    isShared: boolean;
  }>(
    `SELECT n.external_id AS "externalId", n.name, n.is_external AS "isExternal", n.is_shared AS "isShared"
     FROM networks n JOIN clouds c ON c.id = n.cloud_id WHERE c.name = $1 AND n.disabled_at IS NULL ORDER BY n.name`,
    [cloudName],
  );
  const usable = rows.filter((row) => !row.isExternal);
  if (typed !== undefined) {
    const found = usable.find(
      (row) => row.name.toLowerCase() === typed.toLowerCase() || row.externalId === typed,
    );
    if (found !== undefined) return found;
    const names = usable.map((row) => row.name);
    const guess = nearest(typed, names);
    const external = rows.some((row) => row.isExternal && row.name.toLowerCase() === typed.toLowerCase());
    const why = external
      ? `The network "${typed}" is external; servers cannot be put on it directly.`
      : `No network "${typed}".`;
    throw new ServiceError(
      "not_found",
      `${why} ${guess === undefined ? `There are ${names.join(", ") || "none"}.` : `Did you mean ${guess}?`}`,
      {
        facts: { option: "network" },
      },
    );
  }
  const own = usable.filter((row) => !row.isShared);
  const only = own.length === 1 ? own[0] : usable.length === 1 ? usable[0] : undefined;
  if (only !== undefined) return only;
  throw new ServiceError(
    "invalid_input",
    "Which network the server goes on is not configured. Ask our team.",
    {
      staffDetail: `Give network:, or set plans[].targets.${cloudName}.network to one of ${usable.map((row) => row.name).join(", ") || "none"}.`,
      facts: { option: "network" },
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
  const order = plan.details["order"] as ProvisionOrder;
  await tx.sql(
    `INSERT INTO servers (id, public_id, customer_id, cloud_id, name, plan_code, image_name, state, vcpus, memory_mib,
       disk_gib, metadata, has_agent)
     SELECT $1, $2, $3, c.id, $5, $6, $7, 'pending', $8, $9, $10, $11::jsonb, $12 FROM clouds c WHERE c.name = $4`,
    [
      serverId,
      newPublicId("srv"),
      plan.customerId,
      plan.cloud,
      order.name,
      plan.details["planCode"],
      plan.details["imageName"],
      order.size.vcpus,
      order.size.memoryMib,
      order.size.diskGib,
      order.metadata,
      plan.details["hasAgent"] ?? null,
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

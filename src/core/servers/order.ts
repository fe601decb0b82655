/** What ordering a server means, whoever chose its size: one live order a name, the quota, its row, its first password. */
import { z } from "zod";
import type { Queryable, Transaction } from "../../database/client.ts";
import { newId, newPublicId } from "../../database/id.ts";
import type { ActionContext, ChangePlan, EndEffects, OperationAction } from "../action.ts";
import { type Clouds, ProvisionOrder, type TargetSize } from "../cloud.ts";
import { ServiceError } from "../errors.ts";
import { ExistingOrder } from "../operations/enter.ts";
import { preflightProvision } from "../operations/preflight.ts";
import type { PlannedStep } from "../operations/step.ts";
import type { Customer } from "../people/find.ts";
import { storeNewPassword } from "../secrets/password.ts";
import { minuteOf } from "../time.ts";
import { withoutPrefix } from "./address.ts";
import type { ImageRow } from "./catalogue.ts";
import { claimAddress } from "./claims.ts";

// RFC 1123: it becomes the guest's host name, and both clouds refuse anything else there.
export const ServerName = z
  .string()
  .max(63, "must have at most 63 characters")
  .regex(
    /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/i,
    "must have only letters, digits and hyphens, and not start or end with one",
  );

export const OrderDetails = z.object({
  order: ProvisionOrder,
  /** Null when the size was chosen by hand. */
  planCode: z.string().nullable(),
  imageName: z.string(),
  hasAgent: z.boolean().nullable(),
  /** A dry run has none yet. */
  secretId: z.string().default(""),
});

/** The actions that make a server; a repeated order is answered with the first one's card. */
const orderActions = ["server.provision", "server.build"];

export function stepsOfOrder(plan: ChangePlan, clouds: Clouds): PlannedStep[] {
  if (plan.cloud === null) throw new Error("an order without a cloud");
  const { order: planned, secretId } = OrderDetails.parse(plan.details);
  const order = { ...planned, passwordSecretId: secretId };
  return [preflightProvision(order), ...clouds.get(plan.cloud).provision(order)];
}

export const endOfOrder: NonNullable<OperationAction["onEnd"]> = (
  end,
  { plan, output, problem },
): EndEffects => {
  // The engine gets here by having undone it and looked, except when a person gave up on an unknown.
  if (problem?.code === "unknown_outcome" && end !== "succeeded") return { server: { deleted: true } };
  if (end !== "succeeded") return { server: { deleted: true }, note: "Nothing of it is left in the cloud." };
  const { order, planCode, secretId } = OrderDetails.parse(plan.details);
  const addresses = Array.isArray(output["addresses"]) ? output["addresses"].map(String) : [];
  return {
    server: planCode === null ? {} : { planCode },
    reveal: { secretId, label: `Password of ${order.name}` },
    note: `${order.name} ${order.start === false ? "is built and off" : "is running"}${addresses.length > 0 ? ` at ${addresses.join(", ")}` : ""}.`,
  };
};

export function requireRoomFor(
  image: ImageRow,
  size: TargetSize,
  option: { name: string; what: string },
): void {
  if (size.memoryMib >= image.minMemoryMib && size.diskGib >= image.minDiskGib) return;
  throw new ServiceError(
    "invalid_input",
    `${image.name} needs at least ${image.minMemoryMib} MiB and ${image.minDiskGib} GiB; ${option.what} is too small.`,
    { facts: { option: option.name } },
  );
}

/** Throws ExistingOrder for the same order, `conflict` when the name is taken by another one or by one that is leaving. */
export async function answerExistingOrder(
  database: Queryable,
  customer: Customer,
  order: { name: string; plan: string | null; image: string; size: TargetSize },
): Promise<void> {
  const rows = await database.sql<{
    publicId: string;
    planCode: string | null;
    imageName: string | null;
    vcpus: number;
    memoryMib: number;
    diskGib: number;
    operationId: string | null;
    operation: string | null;
    deleteAt: Date | null;
  }>(
    `SELECT s.public_id AS "publicId", s.plan_code AS "planCode", s.image_name AS "imageName", s.vcpus,
       s.memory_mib AS "memoryMib", s.disk_gib AS "diskGib", o.id AS "operationId", o.public_id AS operation,
       s.delete_at AS "deleteAt"
     FROM servers s LEFT JOIN operations o ON o.server_id = s.id AND o.action = ANY($3::text[])
     WHERE s.customer_id = $1 AND lower(s.name) = lower($2) AND s.deleted_at IS NULL ORDER BY o.created_at DESC LIMIT 1`,
    [customer.id, order.name, orderActions],
  );
  const live = rows[0];
  if (live === undefined) return;
  if (live.deleteAt !== null) {
    throw new ServiceError(
      "conflict",
      `${customer.name}'s server ${order.name} (${live.publicId}) is to be deleted at ${minuteOf(live.deleteAt)}, and keeps its name until then. Our team can bring it back (/server undelete ${live.publicId}) or delete it at once; or choose another name.`,
      { facts: { option: "name" } },
    );
  }
  const sameSize =
    live.vcpus === order.size.vcpus &&
    live.memoryMib === order.size.memoryMib &&
    live.diskGib === order.size.diskGib;
  const same =
    live.planCode === order.plan && live.imageName === order.image && (order.plan !== null || sameSize);
  if (same && live.operationId !== null && live.operation !== null) {
    throw new ExistingOrder({ id: live.operationId, publicId: live.operation });
  }
  throw new ServiceError(
    "conflict",
    `${customer.name} has a server called ${order.name} already (${live.publicId}). Choose another name.`,
    { facts: { option: "name" } },
  );
}

/** The quota is checked under the customer's row lock; the server's row and its password exist before the first call. */
export async function prepareOrder(context: ActionContext & { database: Transaction }, plan: ChangePlan) {
  const { database: tx } = context;
  await requireQuota(tx, plan);
  const { details } = await storeNewPassword(context, `operation:${plan.lockKey}`);
  const serverId = newId();
  const { order, planCode, imageName, hasAgent } = OrderDetails.parse(plan.details);
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
  if (order.address !== undefined && plan.cloud !== null) {
    const address = withoutPrefix(order.address.cidr);
    await claimAddress(tx, { cloud: plan.cloud, address, serverId, held: true });
  }
  return { serverId, details };
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

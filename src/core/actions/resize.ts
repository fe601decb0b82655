import { z } from "zod";
import { type ActionContext, type ChangePlan, defineOperation } from "../action.ts";
import { type Cloud, ResizeOrder, type TargetSize } from "../cloud.ts";
import { ServiceError } from "../errors.ts";
import { preflightServer } from "../operations/preflight.ts";
import { allowedIn, requireState } from "../servers/allowed.ts";
import { findServer, type ServerRow } from "../servers/find.ts";
import { describeSize, exactFlavor, findPlan, sizeOfPlan } from "../servers/size.ts";
import { planOption, serverOption } from "./options.ts";

const ResizeInput = z
  .object({
    server: z.string(),
    plan: z.string().optional(),
    vcpus: z.int().min(1).max(128).optional(),
    memoryMib: z.int().min(512).optional(),
    diskGib: z.int().min(1).optional(),
  })
  .refine(
    (input) =>
      input.plan !== undefined ||
      input.vcpus !== undefined ||
      input.memoryMib !== undefined ||
      input.diskGib !== undefined,
    {
      message: "Say what to change: plan:, or cpu:, memory: and disk:.",
    },
  )
  .refine(
    (input) => input.plan === undefined || (input.vcpus ?? input.memoryMib ?? input.diskGib) === undefined,
    {
      message: "Give either plan: or sizes, not both.",
    },
  );
type ResizeInput = z.infer<typeof ResizeInput>;

const Details = z.object({ order: ResizeOrder, planCode: z.string().nullable() });
type Details = z.infer<typeof Details>;

export const serverResize = defineOperation<ResizeInput>({
  name: "server.resize",
  summary: "Change a server's size",
  audience: ["staff", "customer"],
  permission: "server.change",
  risk: "change",
  specVersion: 1,
  during: "resizing",
  input: ResizeInput,
  options: [
    serverOption,
    planOption,
    { name: "cpu", field: "vcpus", label: "CPU", help: "Number of vCPUs", type: "number" },
    { name: "memory", field: "memoryMib", label: "Memory", help: "With unit: 8G", type: "memory" },
    {
      name: "disk",
      field: "diskGib",
      label: "Disk",
      help: "With unit, never smaller than now: 80G",
      type: "disk",
    },
  ],
  plan: planResize,
  steps(plan, clouds) {
    const { order } = Details.parse(plan.details);
    const { before } = order;
    return [
      preflightServer({ externalId: order.externalId, states: [...allowedIn.resize], size: sizesOf(before) }),
      ...clouds.get(plan.cloud ?? "").resize(order),
    ];
  },
  onEnd(end, { plan }) {
    if (end !== "succeeded") return {};
    const { order, planCode } = Details.parse(plan.details);
    return {
      server: { ...sizesOf(order.after), ...(planCode === null ? {} : { planCode }) },
      note: `It has ${describeSize(order.after)} now.`,
    };
  },
});

function sizesOf(size: TargetSize) {
  return { vcpus: size.vcpus, memoryMib: size.memoryMib, diskGib: size.diskGib };
}

async function planResize(context: ActionContext, input: ResizeInput): Promise<ChangePlan> {
  const server = await findServer(context.database, context.principal, input.server);
  const cloud = context.engine.clouds.get(server.cloudName);
  requireState(server, "resized", allowedIn.resize);
  const { size, asOf, planCode } = await target(context, cloud, server, input);
  refuseNonsense(server, size);
  const order: ResizeOrder = { externalId: server.externalId ?? "", before: sizesOf(server), after: size };
  const planChange = planCode === null ? {} : { plan: planCode };
  return {
    title: `Resize ${server.name}${server.customerName === null ? "" : ` of ${server.customerName}`}`,
    serverId: server.id,
    customerId: server.customerId,
    cloud: server.cloudName,
    lockKey: `server:${server.id}`,
    before: { ...(planCode === null ? {} : { plan: server.planCode }), ...sizesOf(server) },
    after: { ...planChange, ...sizesOf(size) },
    downtime: "The server restarts once, usually for less than a minute.",
    irreversible:
      size.diskGib > server.diskGib ? ["A disk that has grown cannot be made smaller again."] : [],
    notes: [],
    dataAsOf: asOf ?? server.syncedAt,
    details: { order, planCode } satisfies Details,
  };
}

async function target(context: ActionContext, cloud: Cloud, server: ServerRow, input: ResizeInput) {
  if (input.plan !== undefined) {
    const sold = await findPlan(context.database, input.plan);
    return { ...(await sizeOfPlan(context.database, cloud, sold)), planCode: sold.code };
  }
  const wanted = {
    vcpus: input.vcpus ?? server.vcpus,
    memoryMib: input.memoryMib ?? server.memoryMib,
    diskGib: input.diskGib ?? server.diskGib,
  };
  refuseNonsense(server, wanted);
  return { ...(await exactFlavor(context.database, cloud, wanted)), planCode: null };
}

function refuseNonsense(server: ServerRow, size: TargetSize): void {
  const name = `${server.name} (${server.publicId})`;
  if (size.diskGib < server.diskGib) {
    throw new ServiceError(
      "invalid_input",
      `A disk cannot shrink: ${name} has ${server.diskGib} GiB and this would be ${size.diskGib} GiB.`,
      { facts: { option: "disk" } },
    );
  }
  if (size.vcpus === server.vcpus && size.memoryMib === server.memoryMib && size.diskGib === server.diskGib) {
    throw new ServiceError(
      "nothing_to_change",
      `Nothing to change: ${name} has ${describeSize(size)} already.`,
    );
  }
}

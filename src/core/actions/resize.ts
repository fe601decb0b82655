import { z } from "zod";
import type { Principal } from "../access.ts";
import {
  type ActionContext,
  type ChangePlan,
  defineOperation,
  type EndEffects,
  type OperationAction,
} from "../action.ts";
import { type Cloud, ResizeOrder, Size, type TargetSize } from "../cloud.ts";
import { type Problem, ServiceError } from "../errors.ts";
import { preflightServer } from "../operations/preflight.ts";
import { allowedIn, requireState } from "../servers/allowed.ts";
import { changeOf, externalIdOf, named } from "../servers/change.ts";
import { findServer, type ServerRow } from "../servers/find.ts";
import { requireEvenSockets, requireWithinLimits } from "../servers/limits.ts";
import { describeMemory, describeSize, exactFlavor, findPlan, sizeOfPlan, sizesOf } from "../servers/size.ts";
import { planOption, serverOption } from "./options.ts";

const ResizeInput = z
  .object({
    server: z.string(),
    plan: z.string().optional(),
    vcpus: z.int().optional(),
    memoryMib: z.int().optional(),
    diskGib: z.int().optional(),
    sockets: z.int().min(1).max(128).optional(),
    restart: z.enum(["now", "later"]).optional(),
  })
  .refine(
    ({ plan, vcpus, memoryMib, diskGib, sockets }) =>
      [plan, vcpus, memoryMib, diskGib, sockets].some((wish) => wish !== undefined),
    "Say what to change: plan:, or cpu:, memory: and disk:.",
  )
  .refine(
    (input) => input.plan === undefined || (input.vcpus ?? input.memoryMib ?? input.diskGib) === undefined,
    "Give either plan: or sizes, not both.",
  );
type ResizeInput = z.infer<typeof ResizeInput>;

const Details = z.object({
  order: ResizeOrder,
  planCode: z.string().nullable(),
  /** Operations of earlier releases have none. */
  publicId: z.string().default(""),
  /** The cloud does it part by part, and tells of each. */
  inParts: z.boolean().default(false),
});
type Details = z.infer<typeof Details>;

/** What the steps of a cloud that does it in parts have told. */
const Parts = z.object({
  /** What it has, by the last look. */
  size: Size.optional(),
  disk: z.enum(["grown", "same"]).optional(),
  /** A new one may wait for a stop and start. */
  cpuAndMemory: z.enum(["now", "at_restart"]).optional(),
});

export const serverResize = defineOperation<ResizeInput>({
  name: "server.resize",
  stepUp: true,
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
    {
      name: "restart",
      field: "restart",
      label: "Restart",
      help: "When new CPU and memory begin to count",
      type: "text",
      choices: [
        { value: "now", label: "Now, where one is needed" },
        { value: "later", label: "Later, when somebody asks for it" },
      ],
    },
    {
      name: "sockets",
      field: "sockets",
      label: "Sockets",
      help: "Proxmox VE: the vCPUs are split evenly over them",
      type: "number",
      audience: ["staff"],
      advanced: true,
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
  onEnd: endOfResize,
});

type OnEnd = NonNullable<OperationAction["onEnd"]>;

function endOfResize(end: Parameters<OnEnd>[0], { plan, output, problem }: Parameters<OnEnd>[1]): EndEffects {
  const { order, planCode, publicId, inParts } = Details.parse(plan.details);
  const parts = Parts.parse(output);
  const isWaiting = parts.cpuAndMemory === "at_restart";
  const offers =
    isWaiting && publicId !== "" ? [{ action: "server.restart", input: { server: publicId } }] : [];
  if (end !== "succeeded") {
    // What nobody knows is not told as known, and what was refused at the start says that nothing was changed.
    const isTold = inParts && problem?.code !== "unknown_outcome" && problem?.code !== "drifted";
    const told = isTold ? whatIsDone(order, parts) : "";
    return {
      ...planThatWaits(order, { planCode, inParts, parts, problem }),
      offers,
      ...(told === "" ? {} : { note: told }),
    };
  }
  const size = parts.size ?? sizesOf(order.after);
  return {
    // A cloud that looks at what it has done has told the row what there is, which may wait for a restart.
    server: { ...(inParts ? {} : size), ...(planCode === null ? {} : { planCode, planWaits: null }) },
    offers,
    note: isWaiting
      ? `It has ${describeSize(size)} until it is stopped and started; from then on ${describeSize(order.after)}.`
      : `It has ${describeSize(size)} now.`,
  };
}

/** Its size may be stored in the cloud all the same, and would come with the next stop and start: not without its plan. */
function planThatWaits(
  { after }: ResizeOrder,
  {
    planCode,
    inParts,
    parts,
    problem,
  }: Pick<Details, "planCode" | "inParts"> & { parts: z.infer<typeof Parts>; problem: Problem | null },
): Pick<EndEffects, "server"> {
  const isUnknown = problem?.code === "unknown_outcome";
  const mayBeStored = isUnknown || (inParts ? parts.cpuAndMemory !== undefined : problem?.code !== "drifted");
  if (planCode === null || !mayBeStored) return {};
  return { server: { planWaits: { code: planCode, ...sizesOf(after), isUnknown } } };
}

/** Some of it stays although the whole did not work. */
function whatIsDone({ before, after }: ResizeOrder, parts: z.infer<typeof Parts>): string {
  const told: string[] = [];
  if (parts.disk === "grown") told.push(`The disk has ${after.diskGib} GiB now.`);
  else if (after.diskGib !== before.diskGib && parts.disk === undefined) told.push("The disk was not grown.");
  const { size } = parts;
  if (parts.cpuAndMemory === undefined) {
    const changes = after.vcpus !== before.vcpus || after.memoryMib !== before.memoryMib;
    if (changes) told.push("It has its old CPU and memory.");
  } else if (parts.cpuAndMemory === "now") told.push("CPU and memory are set.");
  else if (size !== undefined) {
    told.push(
      `It runs with ${size.vcpus} vCPU and ${describeMemory(size.memoryMib)} until it is stopped and started.`,
    );
  }
  return told.join(" ");
}

/** A smaller plan is paid from now on, so it counts from now on. */
function refuseLaterShrinking(
  principal: Principal,
  { server, size, input }: { server: ServerRow; size: TargetSize; input: ResizeInput },
): void {
  const shrinks = size.vcpus < server.vcpus || size.memoryMib < server.memoryMib;
  if (principal.kind !== "customer" || input.restart !== "later" || !shrinks) return;
  throw new ServiceError("invalid_input", "A smaller size counts at once: leave restart:later out.", {
    facts: { option: "restart" },
  });
}

async function planResize(context: ActionContext, input: ResizeInput): Promise<ChangePlan> {
  const server = await findServer(context.database, context.principal, input.server);
  const cloud = context.engine.clouds.get(server.cloudName);
  requireState(server, "resized", allowedIn.resize);
  requirePossible(cloud, input);
  const { size, asOf, planCode } = await target(context, cloud, server, input);
  refuseNonsense(server, size, input);
  requireEvenSockets(size.vcpus, input.sockets);
  refuseLaterShrinking(context.principal, { server, size, input });
  const before = sizesOf(server);
  const order: ResizeOrder = {
    externalId: externalIdOf(server),
    before,
    after: size,
    ...(input.sockets === undefined ? {} : { sockets: input.sockets }),
    ...(input.restart === undefined ? {} : { restart: input.restart }),
  };
  const planChange = planCode === null ? {} : { plan: planCode };
  const inParts = !cloud.usesFlavors;
  const diskAlone =
    inParts &&
    size.vcpus === before.vcpus &&
    size.memoryMib === before.memoryMib &&
    size.diskGib !== before.diskGib;
  const restarts = !inParts || !(diskAlone || server.state === "stopped" || input.restart === "later");
  return {
    ...changeOf(server, "Resize"),
    before: { ...(planCode === null ? {} : { plan: server.planCode }), ...before },
    after: { ...planChange, ...sizesOf(size) },
    downtime: restarts ? "The server restarts once, usually for less than a minute." : null,
    irreversible:
      size.diskGib > server.diskGib ? ["A disk that has grown cannot be made smaller again."] : [],
    notes:
      input.restart === "later" && !diskAlone && server.state === "active"
        ? ["New CPU and memory count only when the server has been stopped and started."]
        : [],
    dataAsOf: asOf ?? server.syncedAt,
    details: { order, planCode, publicId: server.publicId, inParts } satisfies Details,
  };
}

/** A flavor brings its own sockets, and Nova restarts the server at once. */
function requirePossible(cloud: Cloud, { sockets, restart }: ResizeInput): void {
  if (!cloud.usesFlavors) return;
  if (sockets !== undefined) {
    throw new ServiceError("unsupported", `${cloud.name} takes no sockets: leave it out.`, {
      facts: { option: "sockets" },
    });
  }
  if (restart === "later") {
    throw new ServiceError(
      "unsupported",
      "This server's cloud restarts a server when it resizes it. Leave restart: out.",
      { facts: { option: "restart" } },
    );
  }
}

async function target(context: ActionContext, cloud: Cloud, server: ServerRow, input: ResizeInput) {
  if (input.plan !== undefined) {
    const sold = await findPlan(context.database, input.plan);
    return { ...(await sizeOfPlan(context.database, cloud, sold)), planCode: sold.code };
  }
  requireWithinLimits(context.principal, input);
  const wanted = {
    vcpus: input.vcpus ?? server.vcpus,
    memoryMib: input.memoryMib ?? server.memoryMib,
    diskGib: input.diskGib ?? server.diskGib,
  };
  refuseNonsense(server, wanted, input);
  return { ...(await exactFlavor(context.database, cloud, wanted)), planCode: null };
}

function refuseNonsense(server: ServerRow, size: TargetSize, { sockets }: ResizeInput): void {
  const name = named(server);
  if (size.diskGib < server.diskGib) {
    throw new ServiceError(
      "invalid_input",
      `A disk cannot shrink: ${name} has ${server.diskGib} GiB and this would be ${size.diskGib} GiB.`,
      { facts: { option: "disk" } },
    );
  }
  // A new size that waits for a restart can be taken back by asking for the one that it has.
  if (sockets !== undefined || server.sizeWaits) return;
  if (size.vcpus === server.vcpus && size.memoryMib === server.memoryMib && size.diskGib === server.diskGib) {
    throw new ServiceError(
      "nothing_to_change",
      `Nothing to change: ${name} has ${describeSize(size)} already.`,
    );
  }
}

/** Fixed addresses of servers that are there. */
import { z } from "zod";
import { type ActionContext, type ChangePlan, defineOperation, type EndEffects } from "../action.ts";
import type { Cloud } from "../cloud.ts";
import { preflightServer } from "../operations/preflight.ts";
import type { PlannedStep, StepDefinition } from "../operations/step.ts";
import { fixedAddress, versionOf, withoutPrefix } from "../servers/address.ts";
import { allowedIn, requireState } from "../servers/allowed.ts";
import { changeOf, externalIdOf } from "../servers/change.ts";
import { claimAddress, requireFreeAddress, settleClaims } from "../servers/claims.ts";
import { findServer, type ServerRow } from "../servers/find.ts";
import { requireProcedure } from "../servers/procedure.ts";
import { serverOption } from "./options.ts";

/** cloud-init alone decides, and PVE cannot tell. */
const AT_NEXT_BOOT = "The guest takes it at its next boot, if its cloud-init does.";

const Settlement = z.object({
  kept: z.string().nullable(),
  versions: z.array(z.union([z.literal(4), z.literal(6)])),
});

/** Only in our rows: what the server no longer has is free for others. */
const settleStep: StepDefinition = {
  name: "ip.settle",
  deadlineMs: 5 * 60_000,
  callTimeoutMs: 60_000,
  evidence: "none",
  async issue({ database, operation, input }) {
    await settleClaims(database, { operationId: operation.id, ...Settlement.parse(input) });
    return { kind: "done" };
  },
};

function planSettlement(input: z.infer<typeof Settlement>): PlannedStep {
  return { name: "ip.settle", label: "Note whose the address is", input };
}

function proceduresOf(cloud: Cloud) {
  return requireProcedure(
    cloud,
    "addresses",
    "This server's cloud gives its servers their addresses itself; we cannot assign one there.",
  );
}

/** `active`: when the change counts, as the cloud's procedure has handed it on. */
function endOf(server: string, active: unknown, text: string): Pick<EndEffects, "offers" | "note"> {
  const isOff = active === "at_next_start";
  const when = isOff ? "next start" : active === "after_restart" ? "next stop and start" : "next boot";
  return {
    offers: !isOff ? [{ action: "server.restart", input: { server } }] : [],
    note: `${text} from its ${when} on, if the guest's cloud-init takes it then; not before.`,
  };
}

const AssignInput = z.object({
  server: z.string(),
  ip: z.string().max(64),
  gateway: z.string().max(64).optional(),
});
type AssignInput = z.infer<typeof AssignInput>;

const AssignDetails = z.object({
  server: z.string(),
  order: z.object({ externalId: z.string(), cidr: z.string(), gateway: z.string().optional() }),
});
type AssignDetails = z.infer<typeof AssignDetails>;

export const ipAssign = defineOperation<AssignInput>({
  name: "ip.assign",
  summary: "Give a server a fixed address, from its next boot on",
  audience: ["staff"],
  permission: "server.change",
  risk: "change",
  specVersion: 1,
  input: AssignInput,
  options: [
    serverOption,
    {
      name: "ip",
      field: "ip",
      label: "Address",
      help: "With prefix length, IPv4 or IPv6: 192.0.2.10/24",
      type: "text",
      required: true,
    },
    {
      name: "gateway",
      field: "gateway",
      label: "Gateway",
      help: "Of its network: 192.0.2.1",
      type: "text",
    },
  ],
  definitions: [settleStep],
  plan: planAssign,
  async prepare({ database }, plan) {
    const { cidr } = AssignDetails.parse(plan.details).order;
    await claimAddress(database, {
      cloud: plan.cloud ?? "",
      address: withoutPrefix(cidr),
      serverId: plan.serverId ?? "",
      held: false,
    });
    return {};
  },
  steps(plan, clouds) {
    const { order } = AssignDetails.parse(plan.details);
    const address = withoutPrefix(order.cidr);
    return [
      preflightServer({ externalId: order.externalId, states: [...allowedIn.atNextBoot] }),
      ...proceduresOf(clouds.get(plan.cloud ?? "")).assign(order),
      planSettlement({ kept: address, versions: [versionOf(address)] }),
    ];
  },
  onEnd(end, { plan, output }) {
    if (end !== "succeeded") return {};
    const { server, order } = AssignDetails.parse(plan.details);
    const { cidr, gateway = null } = order;
    if (output["addressActive"] === "now") return { note: `It has the address ${cidr} already.` };
    const isNew = output["addressSame"] !== true;
    return {
      events: isNew ? [{ type: "server.ip.assigned", data: { address: cidr, gateway } }] : [],
      ...endOf(server, output["addressActive"], `It has the address ${cidr}`),
    };
  },
});

async function planAssign(context: ActionContext, input: AssignInput): Promise<ChangePlan> {
  const server = await findServer(context.database, context.principal, input.server);
  proceduresOf(context.engine.clouds.get(server.cloudName));
  requireState(server, "given another address", allowedIn.atNextBoot);
  const wanted = fixedAddress(input.ip, input.gateway);
  if (wanted === undefined) throw new Error("an assignment without an address");
  const address = withoutPrefix(wanted.cidr);
  await requireFreeAddress(context.database, { cloud: server.cloudName, address, serverId: server.id });
  const { cidr, gateway } = wanted;
  return {
    ...changeOf(server, `Assign ${cidr} to`),
    before: beforeOf(server, [versionOf(address)]),
    after: { address: cidr, ...(gateway === undefined ? {} : { gateway }) },
    notes: [AT_NEXT_BOOT],
    details: {
      server: server.publicId,
      order: { externalId: externalIdOf(server), ...wanted },
    } satisfies AssignDetails,
  };
}

function beforeOf(server: ServerRow, versions: readonly (4 | 6)[]): Record<string, unknown> {
  const had = server.addresses.filter((address) => versions.includes(versionOf(address)));
  return had.length === 0 ? {} : { address: had.join(", ") };
}

const ReleaseInput = z.object({ server: z.string(), version: z.enum(["4", "6"]).optional() });
type ReleaseInput = z.infer<typeof ReleaseInput>;

const ReleaseDetails = z.object({
  server: z.string(),
  externalId: z.string(),
  versions: Settlement.shape.versions,
});
type ReleaseDetails = z.infer<typeof ReleaseDetails>;

export const ipRelease = defineOperation<ReleaseInput>({
  name: "ip.release",
  summary: "Take a server's fixed address away: DHCP from its next boot on",
  audience: ["staff"],
  permission: "server.change",
  risk: "change",
  specVersion: 1,
  input: ReleaseInput,
  options: [
    serverOption,
    {
      name: "version",
      field: "version",
      label: "Version",
      help: "Only this one; both when left out",
      type: "text",
      choices: [
        { value: "4", label: "IPv4" },
        { value: "6", label: "IPv6" },
      ],
    },
  ],
  definitions: [settleStep],
  plan: planRelease,
  steps(plan, clouds) {
    const { externalId, versions } = ReleaseDetails.parse(plan.details);
    return [
      preflightServer({ externalId, states: [...allowedIn.atNextBoot] }),
      ...proceduresOf(clouds.get(plan.cloud ?? "")).release({ externalId, versions }),
      planSettlement({ kept: null, versions }),
    ];
  },
  onEnd(end, { plan, output }) {
    if (end !== "succeeded") return {};
    const { server, versions } = ReleaseDetails.parse(plan.details);
    const active = output["addressActive"];
    if (active === undefined) return { note: "It had no fixed address, so nothing was changed." };
    return {
      events: [{ type: "server.ip.released", data: { versions } }],
      ...endOf(server, active, versions.includes(4) ? "It asks DHCP" : "It has no fixed IPv6 address"),
    };
  },
});

async function planRelease(context: ActionContext, input: ReleaseInput): Promise<ChangePlan> {
  const server = await findServer(context.database, context.principal, input.server);
  proceduresOf(context.engine.clouds.get(server.cloudName));
  requireState(server, "given another address", allowedIn.atNextBoot);
  const versions: (4 | 6)[] = input.version === undefined ? [4, 6] : [input.version === "4" ? 4 : 6];
  const which = versions.length === 1 ? `IPv${versions[0] ?? ""} address` : "address";
  return {
    ...changeOf(server, `Release the fixed ${which} of`),
    before: beforeOf(server, versions),
    after: { address: versions.includes(4) ? "DHCP" : "none" },
    notes: [AT_NEXT_BOOT],
    details: {
      server: server.publicId,
      externalId: externalIdOf(server),
      versions,
    } satisfies ReleaseDetails,
  };
}

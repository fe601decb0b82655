// A fixed address of a VM that is there, or none any more: in its configuration at once, in the guest from a boot on.
import { z } from "zod";
import { ServiceError } from "../../../core/errors.ts";
import type { Issued, PlannedStep, StepContext, StepDefinition } from "../../../core/operations/step.ts";
import {
  fixedNow,
  isSameIpConfig,
  nextAddresses,
  withAddress,
  withAddressNote,
  withoutAddresses,
} from "../address.ts";
import { requireUnusedAddress } from "../address-holder.ts";
import type { PveClient } from "../client.ts";
import type { FoundVm } from "../cluster.ts";
import { hasCloudInit } from "../config.ts";
import { inDoubtForGood } from "../doubt.ts";
import { remoteServerOf } from "../server.ts";
import { getStatus } from "../vm.ts";
import { activeWhen, renewDrive } from "./cloud-init.ts";
import { isOff } from "./power.ts";
import { change, requireShown } from "./setting.ts";
import { getTarget, requireUnlocked } from "./target.ts";

const Input = z.object({
  externalId: z.string(),
  /** To have; absent: to have none of `versions`. */
  assign: z.object({ cidr: z.string(), gateway: z.string().optional() }).optional(),
  versions: z.array(z.union([z.literal(4), z.literal(6)])).default([]),
});
type Input = z.infer<typeof Input>;

export function planAssign({
  externalId,
  cidr,
  gateway,
}: {
  externalId: string;
  cidr: string;
  gateway?: string | undefined;
}): PlannedStep[] {
  const input = { externalId, assign: { cidr, ...(gateway === undefined ? {} : { gateway }) } };
  return [
    { name: "pve.address_check", label: "Check that no other server has the address", input },
    { name: "pve.address", label: "Set the address for its next boot", input: { ...input } },
  ];
}

export function planRelease({
  externalId,
  versions,
}: {
  externalId: string;
  versions: readonly (4 | 6)[];
}): PlannedStep[] {
  const input = { externalId, versions: [...versions] };
  return [
    { name: "pve.address_check", label: "See which address it has", input },
    { name: "pve.address", label: "Set it back to DHCP for its next boot", input: { ...input } },
  ];
}

export function addressSteps(client: PveClient): StepDefinition[] {
  return [
    {
      name: "pve.address_check",
      deadlineMs: 10 * 60_000,
      callTimeoutMs: 2 * 60_000,
      evidence: "none",
      issue: (context) => check(client, context),
    },
    inDoubtForGood({
      name: "pve.address",
      deadlineMs: 10 * 60_000,
      callTimeoutMs: 2 * 60_000,
      pointOfNoReturn: "The address is being set; /ip assign and /ip release set another one or none.",
      evidence: "repeatable",
      issue: (context) => set(client, context),
    }),
  ];
}

async function check(client: PveClient, context: StepContext): Promise<Issued> {
  const input = Input.parse(context.input);
  const { signal } = context;
  const vm = await getTarget(client, context);
  requireCard(client, vm);
  await requireUnlocked(client, vm, signal);
  if (input.assign !== undefined) {
    const address = input.assign.cidr.replace(/\/\d+$/u, "");
    await requireUnusedAddress(client, { address, except: vm.vmid }, signal);
  }
  const had = isSameIpConfig(vm.config["ipconfig0"], wantedOf(vm, input));
  return { kind: "done", output: { addressSame: had } };
}

function requireCard(client: PveClient, { vmid, config }: FoundVm): void {
  const lacks = hasCloudInit(config) ? "card" : "cloud-init drive";
  if (lacks === "card" && config["net0"] !== undefined) return;
  throw new ServiceError(
    "unsupported",
    `The cloud cannot hand an address to this server: it has no ${lacks === "card" ? "network card" : lacks}. Set it inside the server.`,
    { facts: { cloud: client.cloud }, staffDetail: `${client.cloud}: VM ${vmid} has no ${lacks}` },
  );
}

function wantedOf({ config }: FoundVm, { assign, versions }: Input): string {
  const now = config["ipconfig0"];
  return assign === undefined ? withoutAddresses(now, versions) : withAddress(now, assign);
}

/** All of it is absolute. The guest reads it at its next boot; which run of QEMU it was changed under is noted beside it. */
async function set(client: PveClient, context: StepContext): Promise<Issued> {
  const input = Input.parse(context.input);
  const { signal } = context;
  const vm = await getTarget(client, context);
  requireCard(client, vm);
  const wanted = wantedOf(vm, input);
  const isSame = context.operation.output["addressSame"] === true;
  if (isSame && input.assign === undefined) return { kind: "done", note: "it had none." };
  const after = isSameIpConfig(vm.config["ipconfig0"], wanted)
    ? vm
    : await write(client, context, { vm, wanted });
  const { isRenewed, ...notes } = await renewDrive(client, after, { signal });
  const off = await isOff(client, after, signal);
  const server = await remoteServerOf(client, after, signal);
  const status = await getStatus(client, after, signal);
  const waits = nextAddresses(after.config, status, fixedNow(after.config, status)).nextAddresses ?? [];
  const isNow = !off && isSame && waits.length === 0;
  const active = isNow ? "now" : activeWhen({ isOff: off, isRenewed });
  return {
    kind: "done",
    server,
    output: { addressActive: active },
    ...(isNow ? { note: "it has it already." } : {}),
    ...notes,
  };
}

async function write(
  client: PveClient,
  context: StepContext,
  { vm, wanted }: { vm: FoundVm; wanted: string },
): Promise<FoundVm> {
  const status = await getStatus(client, vm, context.signal);
  const description = withAddressNote(vm.config, status);
  const after = await change(client, context, vm, { ipconfig0: wanted, description });
  const shown = after.config["ipconfig0"];
  requireShown(
    client,
    after,
    "the address",
    isSameIpConfig(shown, wanted) ? [] : [`ipconfig0 ${shown ?? "none"}`],
  );
  return after;
}

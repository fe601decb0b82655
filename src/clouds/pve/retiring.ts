// The VM that a rebuild takes out of service: what was recorded of it before anything was changed, what of it stays with the
// server and not with its disk, and the proof that what has its number is it still.
import { z } from "zod";
import { ServiceError } from "../../core/errors.ts";
import type { StepContext } from "../../core/operations/step.ts";
import type { PveClient } from "./client.ts";
import { type FoundVm, findVm } from "./cluster.ts";
import { smbiosUuidOf } from "./config.ts";
import { holderOf } from "./reservation.ts";
import { VmConfig } from "./schema.ts";
import { vmidOf } from "./server.ts";
import { carries, goneSoon, isHusk } from "./steps/target.ts";

export const Retiring = z.object({
  externalId: z.string(),
  node: z.string(),
  smbiosUuid: z.string(),
  /** Before the rebuild; it is started again when the rebuild is undone. */
  running: z.boolean(),
  /** Its cards with their MAC addresses, its addresses, and what else stays with the server. */
  kept: VmConfig,
  sockets: z.number(),
  tags: z.array(z.string()),
  /** Without our marker. */
  description: z.string(),
});
export type Retiring = z.infer<typeof Retiring>;

/** What stays with a server when it gets another disk; its SSH keys too, unless the order brings others. */
const KEPT =
  /^(?:net\d+|ipconfig\d+|nameserver|searchdomain|sshkeys|onboot|startup|cpulimit|cpuunits|protection)$/u;

export function isKept(key: string): boolean {
  return KEPT.test(key);
}

export function keptOf(config: VmConfig): VmConfig {
  return Object.fromEntries(Object.entries(config).filter(([key]) => isKept(key)));
}

/** As pve.rebuild_check handed it on. */
export function retiringOf(context: Pick<StepContext, "operation">): Retiring {
  return Retiring.parse(context.operation.output["retiring"]);
}

/** Where the new system goes. The storage only when it is the old one's: else the room decides. */
export const RebuiltAt = z.object({ node: z.string(), keep: z.string().optional() });
export type RebuiltAt = z.infer<typeof RebuiltAt>;

/** As pve.rebuild_check found it; nothing for the first system of a server. */
export function rebuiltAt(
  client: PveClient,
  context: Pick<StepContext, "operation">,
): Partial<RebuiltAt & { since: number }> {
  const found = RebuiltAt.optional().parse(context.operation.output["rebuiltAt"]);
  // In place the room is what the old disk has just given back.
  return found === undefined ? {} : { ...found, since: client.recent.now() };
}

type FoundRetiring = { kind: "there"; vm: FoundVm } | { kind: "gone" } | { kind: "replaced"; vm: FoundVm };

/**
 * Its VMID must be one that we gave away, the VM must carry the marker of the operation that it was given to, and its SMBIOS
 * uuid must be the recorded one. When neither marker nor uuid agree, it is another VM under the number of one that is gone.
 * Throws `cloud_conflict` for anything between.
 */
export async function findRetiring(client: PveClient, context: StepContext): Promise<FoundRetiring> {
  const retiring = retiringOf(context);
  const vmid = vmidOf(retiring.externalId);
  const vm =
    vmid === null ? null : await findVm(client, vmid, { hint: retiring.node, signal: context.signal });
  if (vm === null || (isHusk(vm) && (await goneSoon(client, vm, context.signal)) === null)) {
    return { kind: "gone" };
  }
  const holder = await holderOf(client, context.database, vm.vmid);
  const isMarked = holder !== null && carries(vm, holder);
  const isSame = smbiosUuidOf(vm.config) === retiring.smbiosUuid;
  if (isMarked && isSame) return { kind: "there", vm };
  if (!isMarked && !isSame) return { kind: "replaced", vm };
  throw new ServiceError(
    "cloud_conflict",
    "What the cloud has under the old system's number is not provably the old system, so it was not touched. Our operators must look at it.",
    {
      facts: { cloud: client.cloud, foreign: true },
      staffDetail: `${client.cloud}: VM ${vm.vmid} on ${vm.node}: ${
        isMarked
          ? `its SMBIOS uuid is ${smbiosUuidOf(vm.config) ?? "none"}, recorded is ${retiring.smbiosUuid}`
          : `it does not carry our marker op:${holder ?? "(its VMID was never reserved by us)"}`
      }`,
    },
  );
}

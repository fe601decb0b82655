// Which VM a step may touch. Before each change three things must agree: our rows (the server's and the reservation of its
// VMID), our marker on the VM, and the SMBIOS uuid that was recorded when it was made. Anything else is somebody else's.
import type { RemoteServer } from "../../../core/cloud.ts";
import { reworded, ServiceError } from "../../../core/errors.ts";
import type { StepContext, StepOutcome } from "../../../core/operations/step.ts";
import type { Queryable } from "../../../database/client.ts";
import type { PveClient } from "../client.ts";
import { type FoundVm, findVm } from "../cluster.ts";
import { smbiosUuidOf } from "../config.ts";
import { markersIn } from "../marker.ts";
import { holderOf, reservedVmid } from "../reservation.ts";
import { isAtWork, remoteServerOf, stuckLockAdvice, vmidOf } from "../server.ts";
import { lockNoteOf, SAVED, workLockOf } from "../state.ts";

/** Of a step's context, what says which VM is meant; a look at its screen has as much. */
export type TargetContext = Pick<
  StepContext,
  "input" | "reference" | "externalId" | "serverData" | "signal"
> & {
  operation: Pick<StepContext["operation"], "id" | "output">;
  database: Queryable;
};

/**
 * How old what PVE has told us may be when a step is about to ask for a change: as the preflight or the step before has left
 * it. PVE looks for itself when it carries the change out, and what came of it is always looked at anew.
 */
const JUST_SEEN_MS = 2_000;

/**
 * Steps on a server name it in their input; steps that make one find it by their operation's reservation. `justSeen`: for an
 * `issue`, that reuses what this operation has read a moment ago, unless we have written to the VM since.
 */
export async function findTarget(
  client: PveClient,
  context: TargetContext,
  { justSeen = false } = {},
): Promise<FoundVm | null> {
  const externalId = context.input["externalId"];
  const { recent } = client;
  const lastLook = justSeen ? recent.lookOf(context.operation.id) : undefined;
  const now = recent.now();
  const since = lastLook !== undefined && lastLook > now - JUST_SEEN_MS ? lastLook : now;
  const found =
    typeof externalId === "string"
      ? await findServerVm(client, context, { externalId, since })
      : await findOwnVm(client, context, since);
  recent.looked(context.operation.id, since);
  return found;
}

/** What `issue` begins with. Throws `cloud_not_found` when it is gone. */
export async function getTarget(client: PveClient, context: TargetContext): Promise<FoundVm> {
  // With a reference something was asked for already, and its outcome is looked at.
  const found = await findTarget(client, context, { justSeen: context.reference === null });
  if (found !== null) return found;
  throw vanished(client);
}

export function vanished(client: PveClient): ServiceError {
  return new ServiceError(
    "cloud_not_found",
    "The server is no longer there: it was removed in the cloud meanwhile.",
    { facts: { cloud: client.cloud } },
  );
}

async function findServerVm(
  client: PveClient,
  context: TargetContext,
  { externalId, since }: { externalId: string; since: number },
): Promise<FoundVm | null> {
  // A VM that is gone proves nothing of a server that is another VM by now.
  if (context.externalId !== null && context.externalId !== externalId)
    throw replaced(client, context, externalId);
  const vmid = vmidOf(externalId);
  const found = vmid === null ? null : await findVm(client, vmid, { ...hintOf(context, vmid), since });
  if (found === null || isHusk(found)) return found === null ? null : goneSoon(client, found, context.signal);
  const holder = await holderOf(client, context.database, found.vmid);
  const differences = [
    context.externalId === externalId ? "" : `our row says ${context.externalId ?? "nothing"}`,
    holder === null ? "its VMID was never reserved by us" : "",
    holder === null || carries(found, holder) ? "" : `it does not carry our marker op:${holder}`,
    uuidDifference(context, found, { required: true }),
  ].filter((text) => text !== "");
  if (differences.length > 0) throw notOurs(client, found, differences);
  return found;
}

async function findOwnVm(client: PveClient, context: TargetContext, since: number): Promise<FoundVm | null> {
  const { operation } = context;
  const found = await findMade(client, context, { since });
  if (found === null || isHusk(found)) return found === null ? null : goneSoon(client, found, context.signal);
  const differences = [
    carries(found, operation.id) ? "" : `it does not carry our marker op:${operation.id}`,
    uuidDifference(context, found, { required: false }),
  ].filter((text) => text !== "");
  if (differences.length > 0) throw notOurs(client, found, differences);
  return found;
}

/** What is under the VMID that the operation has reserved; null without one, or when nothing is. It may be a stranger's. */
export async function findMade(
  client: PveClient,
  context: TargetContext,
  { operationId = context.operation.id, since }: { operationId?: string; since?: number } = {},
): Promise<FoundVm | null> {
  const vmid = await reservedVmid(client, { database: context.database, operationId });
  return vmid === null ? null : findVm(client, vmid, { ...hintOf(context, vmid), since });
}

/** PVE empties the configuration of a VM whose disks it has deleted to this lock, and then removes it. */
export function isHusk({ config }: FoundVm): boolean {
  return config["lock"] === "destroyed" && smbiosUuidOf(config) === null;
}

/** Null when it has gone meanwhile. Throws what is retryable while PVE is at it, and what to do when that was broken off. */
export async function goneSoon(client: PveClient, husk: FoundVm, signal: AbortSignal): Promise<null> {
  if (!(await isAtWork(client, husk, signal))) {
    const again = await findVm(client, husk.vmid, { hint: husk.node, signal });
    if (again === null) return null;
    if (isHusk(again)) await requireUnlocked(client, again, signal);
  }
  throw new ServiceError("cloud_conflict", "The server is just being deleted in the cloud.", {
    retryable: true,
    facts: { cloud: client.cloud },
    staffDetail: `${client.cloud}: VM ${husk.vmid} on ${husk.node} is being destroyed`,
  });
}

/** Being made to take the place of the VM that the server still is. */
function isReplacement({ externalId }: TargetContext, vmid: number): boolean {
  return externalId !== null && externalId !== String(vmid);
}

/** What was recorded of this VM: on the server's row, or in the operation's output while it is a replacement. */
export function recordOf(context: TargetContext, vmid: number): Record<string, unknown> {
  if (!isReplacement(context, vmid)) return context.serverData;
  const { replacement } = context.operation.output;
  return typeof replacement === "object" && replacement !== null ? { ...replacement } : {};
}

type Seen = Pick<StepOutcome, "server" | "output">;

/** What a step saw of the VM, for where it is recorded. */
export function outcomeFor(context: StepContext, server: RemoteServer): Seen {
  const isOwn = !isReplacement(context, Number(server.externalId));
  return isOwn ? { server } : { output: { replacement: server.data ?? {} } };
}

/** Without its addresses, which only a start can change. */
export async function seen(client: PveClient, context: StepContext, vm: FoundVm): Promise<Seen> {
  if (vm.since !== undefined) client.recent.looked(context.operation.id, vm.since);
  return outcomeFor(context, await remoteServerOf(client, vm, context.signal, { addresses: false }));
}

function hintOf(context: TargetContext, vmid: number) {
  const { node } = recordOf(context, vmid);
  return { signal: context.signal, hint: typeof node === "string" ? node : undefined };
}

export function carries(found: FoundVm, operationId: string): boolean {
  return markersIn(found.config["description"]).some((marker) => marker.operationId === operationId);
}

function uuidDifference(context: TargetContext, found: FoundVm, { required }: { required: boolean }): string {
  const kept = recordOf(context, found.vmid)["smbiosUuid"];
  const recorded = typeof kept === "string" ? kept : undefined;
  const uuid = smbiosUuidOf(found.config);
  if (recorded === undefined && !required) return "";
  return recorded === uuid ? "" : `its SMBIOS uuid is ${uuid ?? "none"}, recorded is ${recorded ?? "none"}`;
}

function replaced(client: PveClient, { externalId }: TargetContext, named: string): ServiceError {
  return new ServiceError(
    "cloud_conflict",
    "The server has got another system since this was asked for, so nothing was changed. Ask again.",
    {
      facts: { cloud: client.cloud },
      staffDetail: `${client.cloud}: asked for VM ${named}; the server is VM ${externalId ?? "none"} by now`,
    },
  );
}

function notOurs(client: PveClient, { node, vmid }: FoundVm, differences: readonly string[]): ServiceError {
  return new ServiceError(
    "cloud_conflict",
    "What the cloud has under this server's number is not provably this server, so it was not touched. Our operators must look at it.",
    {
      facts: { cloud: client.cloud, foreign: true },
      staffDetail: `${client.cloud}: VM ${vmid} on ${node}: ${differences.join("; ")}`,
    },
  );
}

/** "VM is locked" says by what, whether PVE is still at it, and what an operator must do when it is not. */
export async function withLockAdvice(
  client: PveClient,
  error: ServiceError,
  { vm, signal }: { vm: FoundVm; signal: AbortSignal },
): Promise<ServiceError> {
  const lock = error.facts["lock"];
  if (typeof lock !== "string") return error;
  if (lock === SAVED) {
    return reworded(
      error,
      "The server is suspended with its memory saved, so nothing was changed. Resume it first.",
      { code: "cloud_conflict" },
    );
  }
  if (await isAtWork(client, { ...vm, config: { ...vm.config, lock } }, signal)) {
    return reworded(
      error,
      `The cloud is at work on this server (${lockNoteOf(lock)}), so nothing was changed. Try again when it is done.`,
      { code: "cloud_conflict" },
    );
  }
  return new ServiceError(
    "cloud_conflict",
    `The server is locked in the cloud (${lock}) by work that was broken off, so nothing was changed. Our operators must unlock it.`,
    {
      cause: error,
      facts: { ...error.facts, stuckLock: true },
      staffDetail: `${client.cloud}: ${stuckLockAdvice(vm, lock)}`,
    },
  );
}

/** A locked VM is not asked for what PVE would refuse. */
export async function requireUnlocked(client: PveClient, vm: FoundVm, signal: AbortSignal): Promise<void> {
  const lock = workLockOf(vm.config);
  if (lock === null) return;
  const error = new ServiceError("cloud_conflict", "The server is locked in the cloud.", {
    facts: { cloud: client.cloud, lock },
    staffDetail: `${client.cloud}: VM ${vm.vmid} is locked (${lock})`,
  });
  throw await withLockAdvice(client, error, { vm, signal });
}

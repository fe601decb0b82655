import { z } from "zod";
import { ProvisionOrder } from "../../../core/cloud.ts";
import { ServiceError } from "../../../core/errors.ts";
import type {
  Issued,
  PlannedStep,
  Probe,
  StepContext,
  StepDefinition,
  Verdict,
} from "../../../core/operations/step.ts";
import { nodesInMaintenance } from "../../../core/servers/maintenance.ts";
import type { PveClient } from "../client.ts";
import { type FoundVm, findVm } from "../cluster.ts";
import { lookCondition } from "../condition.ts";
import { descriptionOf, markerLine } from "../marker.ts";
import { placeFor } from "../placement.ts";
import { CLONE, reservedVmid, spoil } from "../reservation.ts";
import { rebuiltAt } from "../retiring.ts";
import { remoteServerOf } from "../server.ts";
import { cloneVm } from "../vm.ts";
import { isBeingMade, reserveUsable } from "./reserve.ts";
import { carries, requireUnlocked, seen, vanished } from "./target.ts";
import { judgeTask, refusal, staffNoteOf, waitFor } from "./task.ts";

const Input = z.object({
  name: z.string(),
  imageId: z.string(),
  metadata: z.record(z.string(), z.string()),
  ...ProvisionOrder.pick({ node: true, storage: true, clone: true }).shape,
  size: z.object({ memoryMib: z.number(), diskGib: z.number() }).optional(),
});

export const DISCARD = "pve.discard";
const COPYING = "copying the disk";

type Order = Pick<ProvisionOrder, "name" | "imageId" | "metadata" | "size" | "node" | "storage" | "clone">;

export function planClone(order: Order): PlannedStep {
  const input: z.infer<typeof Input> = {
    name: order.name,
    imageId: order.imageId,
    metadata: order.metadata,
    size: { memoryMib: order.size.memoryMib, diskGib: order.size.diskGib },
    ...(order.node === undefined ? {} : { node: order.node }),
    ...(order.storage === undefined ? {} : { storage: order.storage }),
    ...(order.clone === undefined ? {} : { clone: order.clone }),
  };
  return { name: CLONE, label: "Copy the image", input };
}

/**
 * Makes one VM, only ever under the VMID that this operation has reserved: a second call meets the first one's VM there and
 * fails. PVE accepts two clones to one number and lets one of them fail in its task, so "it is there" is no proof that it is
 * ours: the marker in its description is.
 */
export function cloneStep(client: PveClient): StepDefinition {
  return {
    name: CLONE,
    // A full copy of a large disk over a network storage.
    deadlineMs: 2 * 60 * 60_000,
    callTimeoutMs: 2 * 60_000,
    evidence: "probe",
    issue: (context) => issue(client, context),
    probe: (context) => probe(client, context),
    verify: (context) => verify(client, context),
    compensation: ({ operation }) => ({
      name: DISCARD,
      label: "Remove the unfinished server",
      input: { operationId: operation.id },
    }),
  };
}

async function issue(client: PveClient, context: StepContext): Promise<Issued> {
  const input = Input.parse(context.input);
  const { vmid, there } = await reserveUsable(client, context);
  if (there !== null) {
    // Ours, or being made by an earlier call of ours: nothing is asked for twice.
    return {
      kind: "wait",
      reference: { vmid },
      condition: lookCondition(COPYING),
      note: "It is being made already.",
    };
  }
  // What is rebuilt stays where it is; only new ones keep off nodes that are being worked on.
  const avoid = await nodesInMaintenance(context.database, client.cloud);
  const rebuilt = rebuiltAt(client, context);
  const place = await placeFor(client, {
    ...input,
    ...(rebuilt.node === undefined ? { mayPlaceOn: (node) => !avoid.has(node) } : rebuilt),
    signal: context.signal,
  });
  const { template } = place;
  const upid = await cloneVm(
    client,
    template,
    {
      newid: vmid,
      name: input.name,
      description: descriptionOf(markerLine(context.marker), input.metadata),
      full: place.full,
      storage: place.storage,
      target: place.node === template.node ? undefined : place.node,
    },
    { signal: context.signal },
  );
  client.recent.saw({ node: place.node, vmid });
  if (upid === null) {
    throw new ServiceError(
      "unknown_outcome",
      "The cloud's answer cannot be understood, so it is not known yet whether the server was made.",
      { facts: { cloud: client.cloud } },
    );
  }
  return waitFor(upid, { more: { vmid }, note: "The cloud has taken the order." });
}

async function probe(client: PveClient, context: StepContext): Promise<Probe> {
  const { database, operation, signal } = context;
  const vmid = await reservedVmid(client, { database, operationId: operation.id });
  const found = vmid === null ? null : await findVm(client, vmid, { signal });
  // A stranger's: our call cannot succeed any more, and the next one takes another number.
  if (found === null || (!isBeingMade(found) && !carries(found, operation.id))) return { effect: "absent" };
  return {
    effect: "present",
    reference: { vmid },
    condition: lookCondition(COPYING, { soon: true }),
    note: "The cloud's answer was lost, but the server is there.",
  };
}

async function verify(client: PveClient, context: StepContext): Promise<Verdict> {
  const { database, operation, signal } = context;
  const vmid = await reservedVmid(client, { database, operationId: operation.id });
  const named = context.reference?.["externalId"];
  if (named !== undefined && (vmid === null || named !== String(vmid))) {
    return { kind: "failed", error: wrongNumber(client, vmid) };
  }
  // Found to be a stranger's by an earlier look, whose verdict was lost: nothing of ours is there.
  if (vmid === null) return { kind: "again", error: taken(client, null) };
  const judged = await judgeTask(client, context, "copy the image");
  if (judged.kind === "running") return judged.verdict;
  const found = await findVm(client, vmid, { signal });
  // "Already exists" may speak of what an earlier call of ours has made; any other failure is one.
  if (judged.kind === "failed" && judged.error.facts["taken"] !== true) {
    return failed(client, context, judged.error, found);
  }
  if (found === null) {
    if (judged.kind === "failed") return { kind: "again", error: judged.error };
    return { kind: "failed", error: vanished(client) };
  }
  if (carries(found, operation.id) && !isBeingMade(found)) {
    const { server, output } = await seen(client, context, found);
    return {
      kind: "done",
      ...(server === undefined ? {} : { server }),
      output: { ...output, vmid, node: found.node },
      ...(judged.kind === "ok" ? staffNoteOf(judged.warnings) : {}),
    };
  }
  if (isBeingMade(found)) return stillMaking(client, context, found);
  await spoil(client, { database, operationId: operation.id }, vmid);
  // The next call reserves another number.
  return { kind: "again", error: taken(client, found) };
}

/** Also an end that leaves the lock: whether anything is still at work is what the active tasks say. */
async function stillMaking(client: PveClient, context: StepContext, found: FoundVm): Promise<Verdict> {
  const remote = await remoteServerOf(client, found, context.signal, { addresses: false });
  if (remote.busy) return { kind: "pending", condition: lookCondition(COPYING) };
  // The lock goes a moment after the task.
  const again = await findVm(client, found.vmid, { hint: found.node, signal: context.signal });
  if (again === null || !isBeingMade(again))
    return { kind: "pending", condition: lookCondition(COPYING, { soon: true }) };
  try {
    await requireUnlocked(client, again, context.signal);
  } catch (error) {
    if (error instanceof ServiceError && error.facts["stuckLock"] === true) return { kind: "failed", error };
    if (!(error instanceof ServiceError) || error.code !== "cloud_conflict") throw error;
  }
  return { kind: "pending", condition: lookCondition(COPYING) };
}

async function failed(
  client: PveClient,
  context: StepContext,
  error: ServiceError,
  found: FoundVm | null,
): Promise<Verdict> {
  if (found === null) return error.retryable ? { kind: "again", error } : { kind: "failed", error };
  return refusal(client, context, { error, vm: found });
}

function wrongNumber(client: PveClient, vmid: number | null): ServiceError {
  return new ServiceError(
    "cloud_conflict",
    "The server that was named is not the one that this order reserved.",
    {
      facts: { cloud: client.cloud },
      staffDetail: `${client.cloud}: reserved is VMID ${vmid ?? "none"}`,
    },
  );
}

function taken(client: PveClient, found: FoundVm | null): ServiceError {
  const what =
    found === null
      ? "the reserved VMID was found to be a stranger's"
      : `VM ${found.vmid} on ${found.node} carries no marker of this order and was not touched`;
  return new ServiceError(
    "cloud_conflict",
    "Somebody else took the number that was reserved for this server, so it was not made. Order it again.",
    {
      facts: { cloud: client.cloud, taken: true },
      staffDetail: `${client.cloud}: ${what}`,
    },
  );
}

import { isServiceError } from "../../../core/errors.ts";
import type { PlannedStep, StepContext, StepDefinition } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import { type FoundVm, findVm, isFree } from "../cluster.ts";
import { reservedVmid, reserveVmid, spoil } from "../reservation.ts";
import { workLockOf } from "../state.ts";
import { carries } from "./target.ts";

export function planReserve(): PlannedStep {
  return { name: "pve.reserve", label: "Reserve a number for the server", input: {} };
}

/** Changes nothing in PVE. Done again it finds the number that it has taken. */
export function reserveStep(client: PveClient): StepDefinition {
  return {
    name: "pve.reserve",
    deadlineMs: 10 * 60_000,
    callTimeoutMs: 2 * 60_000,
    evidence: "repeatable",
    async issue(context) {
      const { vmid } = await reserveUsable(client, context);
      return { kind: "done", output: { vmid }, note: "done.", staffNote: `It becomes VM ${vmid}.` };
    },
  };
}

/**
 * The reserved number, or another one when somebody else has taken it meanwhile; and what this operation made or is making
 * under it.
 */
export async function reserveUsable(
  client: PveClient,
  context: StepContext,
): Promise<{ vmid: number; there: FoundVm | null }> {
  const { database, operation, signal } = context;
  const own = await reservedVmid(client, { database, operationId: operation.id });
  const there = own === null ? null : await ownUnder(client, context, own);
  if (own !== null && there !== "stranger") return { vmid: own, there };
  if (own !== null) await spoil(client, { database, operationId: operation.id }, own);
  return { vmid: await reserveVmid(client, { database, operationId: operation.id }, signal), there: null };
}

async function ownUnder(
  client: PveClient,
  context: StepContext,
  vmid: number,
): Promise<FoundVm | null | "stranger"> {
  if (await isFree(client, vmid, context.signal)) return null;
  let found: FoundVm | null;
  try {
    found = await findVm(client, vmid, { signal: context.signal });
  } catch (error) {
    // A container, or a VM that we may not even see.
    if (isServiceError(error, "cloud_conflict", "cloud_forbidden")) return "stranger";
    throw error;
  }
  const isOwn = found === null || isBeingMade(found) || carries(found, context.operation.id);
  return isOwn ? found : "stranger";
}

/** PVE writes the description of a clone only when its disks are copied; until then only the lock is there. */
export function isBeingMade(found: FoundVm): boolean {
  const lock = workLockOf(found.config);
  return lock === "clone" || lock === "create";
}

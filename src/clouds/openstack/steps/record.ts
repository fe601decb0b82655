// Nova's own log of what was done to a server (os-instance-actions): the only place that tells of a resize or a stop which was
// accepted and then given up, because the server just goes back to what it was, without a fault.
// https://docs.openstack.org/api-ref/compute/#servers-run-an-action-servers-action
import type { StepContext } from "../../../core/operations/step.ts";
import type { OpenStackClient } from "../client.ts";
import { findAction, listActions } from "../compute.ts";
import type { NovaAction } from "../schema.ts";

/** Nova truncates to seconds, and so does the Date header by which the clocks are compared. */
const CLOCK_TOLERANCE_MS = 5_000;

/** The request id of our call, which is what Nova calls the action. */
export function requestIdOf(reference: Record<string, unknown> | null): string | undefined {
  const id = reference?.["requestId"];
  return typeof id === "string" ? id : undefined;
}

/** The record of this step's call: by its request id when the answer came, else the first one since the intent. */
export async function findOwnAction(
  client: OpenStackClient,
  context: StepContext,
  { serverId, actions }: { serverId: string; actions: readonly string[] },
): Promise<NovaAction | null> {
  const requestId = requestIdOf(context.reference);
  if (requestId !== undefined) return findAction(client, serverId, requestId, context.signal);
  const rows = await listActions(client, serverId, context.signal);
  const earliest = context.issuedAt.getTime() + client.clockOffsetMs() - CLOCK_TOLERANCE_MS;
  const ours = rows
    .filter((row) => actions.includes(row.action) && startOf(row) >= earliest)
    .toSorted((a, b) => startOf(a) - startOf(b))
    .at(0);
  return ours === undefined ? null : findAction(client, serverId, ours.request_id, context.signal);
}

function startOf(action: NovaAction): number {
  // "2026-11-20T09:57:14.000000": UTC without saying so.
  const time = new Date(`${action.start_time ?? ""}Z`).getTime();
  return Number.isNaN(time) ? 0 : time;
}

/** The events of it that failed, or null when none did. The reasons themselves are shown to administrators only. */
export function failureOf(action: NovaAction | null): { events: string[] } | null {
  if (action === null) return null;
  const events = (action.events ?? [])
    .filter((event) => event.result === "Error")
    .map((event) => event.event);
  return action.message === "Error" || events.length > 0 ? { events } : null;
}

/** For staff: what to look for in Nova's logs. */
export function recordDetailOf(action: NovaAction | null): string {
  if (action === null) return "no record of the action";
  const failed = failureOf(action)?.events.join(", ") ?? "";
  return `action ${action.action} (request ${action.request_id})${failed === "" ? "" : `: failed in ${failed}`}`;
}

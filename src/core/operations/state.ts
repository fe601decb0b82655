/** The states of an operation and what each allows: one table for the engine, the cards and the actions. */
export const operationStates = [
  "awaiting_confirmation",
  "awaiting_approval",
  "queued",
  "running",
  "waiting",
  "compensating",
  "succeeded",
  "failed",
  "cancelled",
  "expired",
  "needs_attention",
] as const;
export type OperationState = (typeof operationStates)[number];

/** Hold the lock: the same list as the index operation_lock_live. */
export const liveStates = ["queued", "running", "waiting", "compensating", "needs_attention"] as const;
/** The same, written out for SQL: the planner takes that index only where it can see the states. */
export const liveStatesInSql = liveStates.map((state) => `'${state}'`).join(", ");
/** A worker may claim these when they are due. */
export const claimableStates = ["queued", "running", "waiting", "compensating"] as const;
export const finalStates = ["succeeded", "failed", "cancelled", "expired"] as const;

/** The stage decides which buttons a card offers (capabilities.offered_in). */
export type Stage = "awaiting" | "live" | "attention" | "ended_well" | "ended_badly";

export const stageOf: Record<OperationState, Stage> = {
  awaiting_confirmation: "awaiting",
  awaiting_approval: "awaiting",
  queued: "live",
  running: "live",
  waiting: "live",
  compensating: "live",
  succeeded: "ended_well",
  failed: "ended_badly",
  cancelled: "ended_badly",
  expired: "ended_badly",
  needs_attention: "attention",
};

export const stateLabels: Record<OperationState, string> = {
  awaiting_confirmation: "Waiting for confirmation",
  awaiting_approval: "Waiting for approval",
  queued: "Queued",
  running: "Running",
  waiting: "Waiting for the cloud",
  compensating: "Undoing",
  succeeded: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
  expired: "Expired",
  needs_attention: "Needs attention",
};

export function isFinal(state: OperationState): boolean {
  return (finalStates as readonly string[]).includes(state);
}

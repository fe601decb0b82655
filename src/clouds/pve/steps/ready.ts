import type { PlannedStep, StepContext, StepDefinition, Verdict } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import { lookCondition } from "../condition.ts";
import { hasAgent } from "../config.ts";
import { remoteServerOf } from "../server.ts";
import { getStatus } from "../vm.ts";
import { findTarget, outcomeFor, vanished } from "./target.ts";

/** How long a first boot may take until the guest's agent knows the address. */
const GUEST_UP_MS = 5 * 60_000;

export function planReady(): PlannedStep {
  return { name: "pve.verify", label: "Wait for the guest", input: {} };
}

/** Changes nothing. It ends without an address when the guest does not tell one, and says so. */
export function readyStep(client: PveClient): StepDefinition {
  return {
    name: "pve.verify",
    deadlineMs: 15 * 60_000,
    callTimeoutMs: 2 * 60_000,
    evidence: "repeatable",
    async issue(context) {
      const verdict = await look(client, context);
      if (verdict.kind === "pending") return { kind: "wait", reference: {}, condition: verdict.condition };
      if (verdict.kind === "again") throw verdict.error;
      return verdict;
    },
    verify: (context) => look(client, context),
  };
}

async function look(client: PveClient, context: StepContext): Promise<Verdict> {
  const vm = await findTarget(client, context, { justSeen: context.reference === null });
  if (vm === null) return { kind: "failed", error: vanished(client) };
  const server = await remoteServerOf(client, vm, context.signal, { justStarted: true });
  const outcome = outcomeFor(context, server);
  if (server.state !== "active") {
    return { kind: "pending", condition: lookCondition(`it is ${server.state}`) };
  }
  if ((server.addresses ?? []).length > 0) return { kind: "done", ...outcome };
  if (!hasAgent(vm.config)) {
    return {
      kind: "done",
      ...outcome,
      note: "it runs. Without a guest agent its address is not known here.",
    };
  }
  // By the VM's own clock: ours may be another machine's.
  const { uptime = 0 } = await getStatus(client, vm, context.signal);
  if (uptime * 1000 < GUEST_UP_MS)
    return { kind: "pending", condition: lookCondition("the guest is starting") };
  return {
    kind: "done",
    ...outcome,
    note: "it runs, but its guest agent does not answer, so its address is not known yet.",
  };
}

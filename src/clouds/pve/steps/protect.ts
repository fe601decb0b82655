// PVE's own protection: with it PVE deletes neither the VM nor its disks, whoever asks. Takes effect at once, running or not.
import { z } from "zod";
import type { Issued, PlannedStep, StepContext, StepDefinition } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import { isProtected } from "../config.ts";
import { change, requireShown } from "./setting.ts";
import { getTarget, seen } from "./target.ts";

const Input = z.object({ externalId: z.string(), on: z.boolean() });

export function planProtect(order: z.infer<typeof Input>): PlannedStep {
  const label = order.on ? "Protect it against deletion" : "Lift the protection";
  return { name: "pve.protect", label, input: { ...order } };
}

export function protectStep(client: PveClient): StepDefinition {
  return {
    name: "pve.protect",
    deadlineMs: 10 * 60_000,
    callTimeoutMs: 2 * 60_000,
    evidence: "repeatable",
    issue: (context) => issue(client, context),
  };
}

async function issue(client: PveClient, context: StepContext): Promise<Issued> {
  const { on } = Input.parse(context.input);
  const vm = await getTarget(client, context);
  if (isProtected(vm.config) === on) {
    return {
      kind: "done",
      ...(await seen(client, context, vm)),
      note: on ? "it was already." : "there was none.",
    };
  }
  const now = await change(client, context, vm, { protection: on });
  const differences = isProtected(now.config) === on ? [] : [`protection: ${on ? 0 : 1}`];
  requireShown(client, now, "the change of its protection", differences);
  return { kind: "done", ...(await seen(client, context, now)) };
}

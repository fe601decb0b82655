// PVE's own protection: with it PVE deletes neither the VM nor its disks, whoever asks. Takes effect at once, running or not.
import { z } from "zod";
import { ServiceError } from "../../../core/errors.ts";
import type { Issued, PlannedStep, StepContext, StepDefinition } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import { findVm } from "../cluster.ts";
import { isProtected } from "../config.ts";
import { setConfig } from "../vm.ts";
import { getTarget, requireUnlocked, seen, vanished } from "./target.ts";
import { explained } from "./task.ts";

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
  const { signal } = context;
  const vm = await getTarget(client, context);
  if (isProtected(vm.config) === on) {
    return {
      kind: "done",
      ...(await seen(client, context, vm)),
      note: on ? "it was already." : "there was none.",
    };
  }
  await requireUnlocked(client, vm, signal);
  await explained(client, { vm, signal }, () => setConfig(client, vm, { protection: on }, { signal }));
  const now = await findVm(client, vm.vmid, { hint: vm.node, signal });
  if (now === null) throw vanished(client);
  if (isProtected(now.config) === on) return { kind: "done", ...(await seen(client, context, now)) };
  throw new ServiceError(
    "cloud_failed",
    "The cloud accepted the change and shows the old setting. Our operators must look at it.",
    {
      facts: { cloud: client.cloud },
      staffDetail: `${client.cloud}: VM ${vm.vmid}: protection is not ${on ? 1 : 0}`,
    },
  );
}

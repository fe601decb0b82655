// A rebuilt server is another VM: built beside the old one, which goes when the new one runs; or, where there is no room for
// both, instead of it. A VMID is never used twice, so what is left over of either can always be told apart.
import type { RebuildOrder } from "../../core/cloud.ts";
import type { PlannedStep, StepDefinition } from "../../core/operations/step.ts";
import type { PveClient } from "./client.ts";
import { autostartBackStep, autostartStep, planAutostart } from "./steps/autostart.ts";
import { planClone } from "./steps/clone.ts";
import { planConfigure } from "./steps/configure.ts";
import { planDisk } from "./steps/disk.ts";
import { planReady } from "./steps/ready.ts";
import { planRebuildCheck, rebuildCheckStep } from "./steps/rebuild-check.ts";
import { planReserve } from "./steps/reserve.ts";
import { planRetire, planRetireHalt, retireHaltStep, retireStep } from "./steps/retire.ts";
import { planStartNew, reviveStep, startNewStep, stopNewStep } from "./steps/start-new.ts";
import { planSwitch, switchStep } from "./steps/switch.ts";
import { planTakeOver, takeOverStep } from "./steps/take-over.ts";

export function planRebuild(order: RebuildOrder): PlannedStep[] {
  // A range that is used up must show before the old one is deleted.
  const check = [planRebuildCheck(order), planReserve()];
  const build = [
    // What its description said of the order comes with pve.take_over.
    planClone({ ...order, metadata: {} }),
    planConfigure(order),
    planTakeOver({ vcpus: order.size.vcpus, newKeys: order.sshKeys !== undefined }),
    planDisk({ diskGib: order.size.diskGib }),
  ];
  const begin = [planAutostart(), planStartNew(), planReady(), planSwitch()];
  return order.inPlace
    ? [...check, planRetireHalt(), planRetire(), ...build, ...begin]
    : [...check, ...build, planRetireHalt(), ...begin, planRetire()];
}

export function rebuildSteps(client: PveClient): StepDefinition[] {
  return [
    rebuildCheckStep(client),
    takeOverStep(client),
    retireHaltStep(client),
    autostartStep(client),
    autostartBackStep(client),
    startNewStep(client),
    switchStep(client),
    retireStep(client),
    stopNewStep(client),
    reviveStep(client),
  ];
}

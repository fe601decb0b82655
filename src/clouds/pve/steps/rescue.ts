// Booting from rescue media and back: the settings, a real stop and start (a new drive of a running VM waits for one), a look.
// Settings are absolute and the way back is written down in the VM itself, so each step may be asked for again.
import type { RescueProcedures } from "../../../core/cloud.ts";
import type { StepDefinition } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import { enterSteps, planRescue } from "./rescue-enter.ts";
import { leaveSteps, planUnrescue } from "./rescue-leave.ts";
import { lookStep } from "./rescue-look.ts";

export function rescueSteps(client: PveClient): StepDefinition[] {
  return [...enterSteps(client), ...leaveSteps(client), lookStep(client)];
}

export function rescueProcedures(client: PveClient): RescueProcedures {
  return {
    enter: (order) => planRescue(client, order),
    leave: ({ externalId }) => planUnrescue(externalId),
  };
}

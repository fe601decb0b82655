// Which of a rebuild's two VMs starts by itself when their node does: never both, because they have the same MAC addresses. The
// old one is taken off before the new one may.
import type { Issued, PlannedStep, StepContext, StepDefinition } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import type { FoundVm } from "../cluster.ts";
import { startsWithNode } from "../config.ts";
import { inDoubtAfterEachWrite } from "../doubt.ts";
import { findRetiring, retiringOf } from "../retiring.ts";
import { change, requireShown } from "./setting.ts";
import { findOwnNew } from "./start-new.ts";
import { getTarget } from "./target.ts";

const TAKE_BACK = "pve.autostart_back";

export function planAutostart(): PlannedStep {
  return {
    name: "pve.autostart",
    label: "Let the new system start with its node, if the old one did",
    input: {},
  };
}

/** After the old one is off, and before the new one starts. Both settings are absolute, so they may be made again. */
export function autostartStep(client: PveClient): StepDefinition {
  // A refusal of the second half must not leave the first one.
  return inDoubtAfterEachWrite({
    name: "pve.autostart",
    deadlineMs: 10 * 60_000,
    callTimeoutMs: 2 * 60_000,
    evidence: "repeatable",
    async issue(context): Promise<Issued> {
      await setAutostart(client, context, await findOld(client, context), false);
      const retiring = retiringOf(context);
      const isWanted = startsWithNode(retiring.kept);
      await setAutostart(client, context, await getTarget(client, context), isWanted);
      if (!isWanted) return { kind: "done" };
      const staffNote = `VM ${retiring.externalId} does not start with its node any more. Whoever gives this up before the new system is the server switches that on again: qm set ${retiring.externalId} --onboot 1`;
      return { kind: "done", staffNote };
    },
    compensation: () => ({
      name: TAKE_BACK,
      label: "Let the old system start with its node again, if it did",
      input: {},
    }),
  });
}

/** Undoes it, in the other order. */
export function autostartBackStep(client: PveClient): StepDefinition {
  return {
    name: TAKE_BACK,
    deadlineMs: 10 * 60_000,
    callTimeoutMs: 2 * 60_000,
    evidence: "repeatable",
    async issue(context): Promise<Issued> {
      await setAutostart(client, context, await findOwnNew(client, context), false);
      const didBefore = startsWithNode(retiringOf(context).kept);
      await setAutostart(client, context, await findOld(client, context), didBefore);
      return { kind: "done" };
    },
  };
}

/** Null when it is gone, or its number is another VM's. */
async function findOld(client: PveClient, context: StepContext): Promise<FoundVm | null> {
  const old = await findRetiring(client, context);
  return old.kind === "there" ? old.vm : null;
}

async function setAutostart(
  client: PveClient,
  context: StepContext,
  vm: FoundVm | null,
  isOn: boolean,
): Promise<void> {
  if (vm === null || startsWithNode(vm.config) === isOn) return;
  const after = await change(client, context, vm, { onboot: isOn });
  const differences = startsWithNode(after.config) === isOn ? [] : [`onboot: ${isOn ? 0 : 1}`];
  requireShown(client, after, "whether it starts with its node", differences);
}

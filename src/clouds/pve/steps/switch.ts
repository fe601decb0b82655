import type { PlannedStep, StepDefinition } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import { retiringOf } from "../retiring.ts";
import { remoteServerOf } from "../server.ts";
import { getTarget } from "./target.ts";

export function planSwitch(): PlannedStep {
  return { name: "pve.switch", label: "Let the new system be the server", input: {} };
}

/** Changes nothing in PVE: from here on the server's row is the new VM. The snapshots were the old one's. */
export function switchStep(client: PveClient): StepDefinition {
  return {
    name: "pve.switch",
    deadlineMs: 10 * 60_000,
    callTimeoutMs: 2 * 60_000,
    pointOfNoReturn: "The new system has taken the server's place.",
    evidence: "repeatable",
    async issue(context) {
      const { externalId: replaces } = retiringOf(context);
      const vm = await getTarget(client, context);
      const server = await remoteServerOf(client, vm, context.signal);
      return {
        kind: "done",
        server,
        replaces,
        snapshots: [],
        output: { switched: true },
        note: "the new system has taken the server's place.",
        staffNote: `The server was VM ${replaces} and is VM ${vm.vmid} on ${vm.node} now. What names VM ${replaces} in PVE (backup jobs, replication, HA, pools, permissions) does not go with it: name the new one there.`,
      };
    },
  };
}

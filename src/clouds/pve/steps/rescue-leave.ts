// Out of the rescue media: back to what is written down in the VM itself.
import { ServiceError } from "../../../core/errors.ts";
import type { Issued, PlannedStep, StepContext, StepDefinition } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import type { Parameters } from "../form.ts";
import { bootOrder, type DriveNote, hasLine, slotAfter, withoutLine } from "../media.ts";
import { bootMedia, isTagged, rescueNoteIn, tagsWithout } from "../rescue.ts";
import type { VmConfig } from "../schema.ts";
import { remoteServerOf } from "../server.ts";
import { wantedConfig } from "../vm.ts";
import { requireBootSettings } from "./media.ts";
import { planPower } from "./power.ts";
import { planLook } from "./rescue-look.ts";
import { change } from "./setting.ts";
import { getTarget, seen } from "./target.ts";

const DEADLINE_MS = 10 * 60_000;
const CALL_TIMEOUT_MS = 2 * 60_000;

export function leaveSteps(client: PveClient): StepDefinition[] {
  return [unsetStep(client), clearStep(client)];
}

export function planUnrescue(externalId: string): PlannedStep[] {
  return [
    { name: "pve.rescue_unset", label: "Set it to boot from its own disk", input: { externalId } },
    planPower({ externalId, verb: "stop" }),
    planPower({ externalId, verb: "start" }),
    { name: "pve.rescue_clear", label: "Remove the notes of the rescue", input: { externalId } },
    planLook({ externalId, goal: "active" }),
  ];
}

function unsetStep(client: PveClient): StepDefinition {
  return {
    name: "pve.rescue_unset",
    deadlineMs: DEADLINE_MS,
    callTimeoutMs: CALL_TIMEOUT_MS,
    pointOfNoReturn: "The server is being switched back to its own disk.",
    evidence: "repeatable",
    issue: (context) => unset(client, context),
  };
}

async function unset(client: PveClient, context: StepContext): Promise<Issued> {
  const vm = await getTarget(client, context);
  const config = await wantedConfig(client, vm, context.signal);
  const note = rescueNoteIn(config) ?? withoutALine(config);
  if (note === null && !isTagged(config)) {
    const error = new ServiceError(
      "cloud_conflict",
      "The server does not boot from rescue media, so nothing was changed.",
      { facts: { cloud: client.cloud } },
    );
    return { kind: "failed", error, server: await remoteServerOf(client, vm, context.signal) };
  }
  const parameters = note === null ? {} : wayBack(config, note);
  if (note === null || Object.keys(parameters).length === 0) {
    return { kind: "done", note: "It is set to its own disk already." };
  }
  const after = await change(client, context, vm, parameters);
  const wanted = await wantedConfig(client, after, context.signal);
  requireBootSettings(client, after, wanted, {
    boot: (wanted["boot"] ?? "") === note.boot,
    [note.slot]: wanted[note.slot] === undefined || wanted[note.slot]?.startsWith("none,") === true,
  });
  return { kind: "done" };
}

/** Somebody removed our line, or went back to a snapshot of that time: what boots now is taken out of the order. */
function withoutALine(config: VmConfig): DriveNote | null {
  const slot = isTagged(config) ? bootMedia(config) : null;
  if (slot === null) return null;
  const rest = bootOrder(config["boot"]).filter((key) => key !== slot);
  return { slot, held: "", boot: rest.length === 0 ? "" : `order=${rest.join(";")}` };
}

/** Only what is not so yet. */
function wayBack(config: VmConfig, note: DriveNote): Parameters {
  const slot = slotAfter(config, note);
  const doomed: string[] = [];
  const parameters: Record<string, string> = {};
  if (slot !== undefined && config[note.slot]?.startsWith(slot) !== true) parameters[note.slot] = slot;
  if (slot === undefined && config[note.slot] !== undefined) doomed.push(note.slot);
  if (note.boot === "" && config["boot"] !== undefined) doomed.push("boot");
  // Removing a drive takes it out of the order, too; the order is set in the same call, after that.
  if (note.boot !== "" && (config["boot"] !== note.boot || doomed.length > 0)) parameters["boot"] = note.boot;
  return doomed.length === 0 ? parameters : { ...parameters, delete: doomed.join(",") };
}

/** Last: until it runs from its own disk, the line is the only place that knows how it did. */
function clearStep(client: PveClient): StepDefinition {
  return {
    name: "pve.rescue_clear",
    deadlineMs: DEADLINE_MS,
    callTimeoutMs: CALL_TIMEOUT_MS,
    evidence: "repeatable",
    async issue(context): Promise<Issued> {
      const vm = await getTarget(client, context);
      if (isTagged(vm.config) || hasLine(vm.config, "rescue")) {
        const tags = tagsWithout(vm.config);
        await change(client, context, vm, {
          description: withoutLine(vm.config, "rescue"),
          ...(tags === "" ? { delete: "tags" } : { tags }),
        });
      }
      const after = await getTarget(client, context);
      requireBootSettings(client, after, after.config, {
        tags: !isTagged(after.config),
        description: !hasLine(after.config, "rescue"),
      });
      return { kind: "done", ...(await seen(client, context, after)) };
    },
  };
}

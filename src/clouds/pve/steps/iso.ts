// An ISO in a server's CD drive, and out of it. A new drive, and another boot order, count after a real stop and start; another
// image in a drive that is there counts at once. What waits is read back from PVE and told.
import { z } from "zod";
import type { IsoProcedures } from "../../../core/cloud.ts";
import { ServiceError } from "../../../core/errors.ts";
import type {
  Issued,
  PlannedStep,
  StepContext,
  StepDefinition,
  StepOutcome,
} from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import type { FoundVm } from "../cluster.ts";
import type { Parameters } from "../form.ts";
import { bootFor, isoNoteIn, noteOfNow, slotOfOffered } from "../iso.ts";
import {
  type DriveNote,
  EMPTY_DRIVE,
  hasLine,
  isOnNode,
  lineIn,
  mediaIn,
  newNote,
  slotAfter,
  withLine,
  withoutLine,
} from "../media.ts";
import { isTagged, rescueNoteIn } from "../rescue.ts";
import type { VmConfig } from "../schema.ts";
import { pendingKeys, wantedConfig } from "../vm.ts";
import { mediaSetting, noteFor, requireBootSettings } from "./media.ts";
import { isOff } from "./power.ts";
import { change } from "./setting.ts";
import { getTarget, requireUnlocked, seen } from "./target.ts";

const MountInput = z.object({
  externalId: z.string(),
  iso: z.string(),
  media: z.string(),
  boot: z.boolean(),
});

/** What the first step of an unmount hands on. */
const SlotOutput = z.object({ isoSlot: z.string().default("") });

const TAKING_OUT = "The ISO is being taken out.";
const PUTTING_IN = "The ISO is being put in; /iso unmount takes it out again.";

export function isoProcedures(client: PveClient): IsoProcedures {
  const { isos = {} } = client.options;
  return {
    offered: Object.keys(isos),
    mount: (order) => planMount(order, isos[order.iso]),
    unmount: planUnmount,
  };
}

/** Throws `not_found` for what is offered no more. */
function planMount(
  order: { externalId: string; iso: string; boot: boolean },
  media: string | undefined,
): PlannedStep[] {
  if (media === undefined) {
    throw new ServiceError("not_found", `The ISO ${order.iso} is not offered any more. See /iso list.`, {
      facts: { option: "iso" },
    });
  }
  const input: z.infer<typeof MountInput> = { ...order, media };
  return [
    { name: "pve.iso_check", label: "Check the ISO and the CD drive", input },
    { name: "pve.iso_note", label: "Write down how it boots now", input: { ...input } },
    { name: "pve.iso_media", label: "Put the ISO in", input: { ...input } },
    {
      name: "pve.iso_boot",
      label: order.boot ? "Set it to boot from the ISO" : "See that it boots as before",
      input: { ...input },
    },
  ];
}

function planUnmount({ externalId }: { externalId: string }): PlannedStep[] {
  return [
    { name: "pve.iso_eject", label: "Take the ISO out", input: { externalId } },
    { name: "pve.iso_unset", label: "See that it boots as before", input: { externalId } },
    { name: "pve.iso_clear", label: "Remove the note of the ISO", input: { externalId } },
  ];
}

export function isoSteps(client: PveClient): StepDefinition[] {
  return [
    checkStep(client),
    noteStep(client),
    mediaStep(client),
    bootStep(client),
    unsetStep(client),
    {
      name: "pve.iso_eject",
      deadlineMs: 10 * 60_000,
      callTimeoutMs: 2 * 60_000,
      pointOfNoReturn: TAKING_OUT,
      evidence: "repeatable",
      issue: (context) => eject(client, context),
    },
    {
      name: "pve.iso_clear",
      deadlineMs: 10 * 60_000,
      callTimeoutMs: 2 * 60_000,
      evidence: "repeatable",
      issue: (context) => clear(client, context),
    },
  ];
}

function checkStep(client: PveClient): StepDefinition {
  return {
    name: "pve.iso_check",
    deadlineMs: 5 * 60_000,
    callTimeoutMs: 60_000,
    evidence: "none",
    async issue(context): Promise<Issued> {
      const { media, iso, boot } = MountInput.parse(context.input);
      const vm = await getTarget(client, context);
      await requireUnlocked(client, vm, context.signal);
      requireNoRescue(client, vm);
      const config = await wantedConfig(client, vm, context.signal);
      const note = noteOf(client, vm, config);
      if (await isOnNode(client, { node: vm.node, media }, context.signal)) {
        const isSame =
          mediaIn(config, note.slot) === media && (config["boot"] ?? "") === bootFor(config, note, boot);
        return { kind: "done", output: { isoSame: isSame } };
      }
      throw new ServiceError(
        "cloud_invalid",
        `The ISO ${iso} is not there where the server is, so nothing was changed. Our operators must put it there.`,
        {
          facts: { cloud: client.cloud },
          staffDetail: `${client.cloud}: node ${vm.node} has no ${media} (setting isos)`,
        },
      );
    },
  };
}

/** Both have a boot order to bring back, and each would take the other's for the original. */
function requireNoRescue(client: PveClient, { config }: FoundVm): void {
  if (!isTagged(config) && rescueNoteIn(config) === null) return;
  throw new ServiceError(
    "cloud_conflict",
    "The server boots rescue media, so nothing was changed. Leave the rescue first: /server unrescue.",
    { facts: { cloud: client.cloud } },
  );
}

function noteOf(client: PveClient, vm: FoundVm, config: VmConfig): DriveNote {
  return noteFor(client, vm, { config, written: isoNoteIn(config), what: "an ISO" });
}

/** As for a rescue, three calls in this order: the way back is written down first, and the boot order comes last. */
function noteStep(client: PveClient): StepDefinition {
  return mediaSetting(client, {
    name: "pve.iso_note",
    parse: (input) => MountInput.parse(input),
    parameters: (vm, config) => ({ description: withLine(config, "iso", noteOf(client, vm, config)) }),
    expected(config) {
      const note = isoNoteIn(config) ?? newNote(config);
      return {
        description: note !== null && config["description"]?.trimEnd() === withLine(config, "iso", note),
      };
    },
  });
}

/** By the step before. */
function writtenNote(client: PveClient, vm: FoundVm, config: VmConfig): DriveNote {
  return lineIn(config, "iso") ?? noteOf(client, vm, config);
}

function mediaStep(client: PveClient): StepDefinition {
  return mediaSetting(client, {
    name: "pve.iso_media",
    pointOfNoReturn: PUTTING_IN,
    parse: (input) => MountInput.parse(input),
    parameters: (vm, config, { media }) => ({
      [writtenNote(client, vm, config).slot]: `${media},media=cdrom`,
    }),
    expected(config, { media }) {
      const slot = lineIn(config, "iso")?.slot ?? "";
      return { [slot]: mediaIn(config, slot) === media };
    },
    outcome: () => ({ output: { isoIn: true } }),
  });
}

function bootStep(client: PveClient): StepDefinition {
  return mediaSetting(client, {
    name: "pve.iso_boot",
    pointOfNoReturn: PUTTING_IN,
    parse: (input) => MountInput.parse(input),
    parameters: (vm, config, { boot }) =>
      bootParameters(bootFor(config, writtenNote(client, vm, config), boot)),
    expected(config, { boot }) {
      const note = lineIn(config, "iso");
      return { boot: note !== null && (config["boot"] ?? "") === bootFor(config, note, boot) };
    },
    outcome: (context, vm) => outcomeOf(client, context, vm, lineIn(vm.config, "iso")?.slot ?? ""),
  });
}

function bootParameters(boot: string): Parameters {
  return boot === "" ? { delete: "boot" } : { boot };
}

/** What of the drive and the boot order waits for a stop and start. */
async function outcomeOf(
  client: PveClient,
  context: StepContext,
  vm: FoundVm,
  slot: string,
): Promise<StepOutcome> {
  const waiting = await pendingKeys(client, vm, context.signal);
  const off = await isOff(client, vm, context.signal);
  const waits = [...(waiting.includes(slot) ? ["drive"] : []), ...(waiting.includes("boot") ? ["boot"] : [])];
  const told = await seen(client, context, vm);
  return { ...told, output: { ...told.output, isoWaits: waits, ...(off ? { isoOff: true } : {}) } };
}

/**
 * Three calls, too: an empty drive first, whatever becomes of it, because PVE puts a CD drive that is set at the end of the
 * boot order; then the order as it was; and last the line that says how it was, with the drive where that can go.
 */
async function eject(client: PveClient, context: StepContext): Promise<Issued> {
  const vm = await getTarget(client, context);
  requireNoRescue(client, vm);
  const config = await wantedConfig(client, vm, context.signal);
  const slot = slotOf(client, config);
  if (slot === null) {
    // What is done already was us when it is asked for again.
    const isAgain = context.attempt > 1 && config[lineIn(config, "iso")?.slot ?? ""] === EMPTY_DRIVE;
    return isAgain ? { kind: "done", output: TAKEN } : { kind: "done", note: "there is no ISO in it." };
  }
  const after = await change(client, context, vm, { [slot]: EMPTY_DRIVE });
  const wanted = await wantedConfig(client, after, context.signal);
  requireBootSettings(client, after, wanted, { [slot]: mediaIn(wanted, slot) === null });
  return { kind: "done", output: { ...TAKEN, isoSlot: slot } };
}

const TAKEN = { isoTaken: true };

/** Also where somebody has removed our line, or a way back to a snapshot has put in again what was taken out. */
function slotOf(client: PveClient, config: VmConfig): string | null {
  const noted = lineIn(config, "iso")?.slot ?? "";
  return mediaIn(config, noted) === null ? slotOfOffered(config, client.options.isos ?? {}) : noted;
}

function unsetStep(client: PveClient): StepDefinition {
  const wantedBoot = (config: VmConfig, slot: string) => {
    const note = lineIn(config, "iso") ?? noteOfNow(config, slot);
    return bootFor(config, note, false);
  };
  return mediaSetting(client, {
    name: "pve.iso_unset",
    pointOfNoReturn: TAKING_OUT,
    parse: (_, { operation }) => SlotOutput.parse(operation.output),
    parameters: (_, config, { isoSlot }) => bootParameters(wantedBoot(config, isoSlot)),
    expected: (config, { isoSlot }) => ({ boot: (config["boot"] ?? "") === wantedBoot(config, isoSlot) }),
  });
}

async function clear(client: PveClient, context: StepContext): Promise<Issued> {
  const vm = await getTarget(client, context);
  const note = lineIn(vm.config, "iso");
  if (hasLine(vm.config, "iso")) {
    const off = await isOff(client, vm, context.signal);
    const wanted = await wantedConfig(client, vm, context.signal);
    // A running guest would lose the drive only when it is stopped: an empty one does no harm, and serves the next ISO.
    const isLive = !off && vm.config[note?.slot ?? ""] !== undefined;
    const isEmpty = note !== null && wanted[note.slot] === EMPTY_DRIVE;
    const goes = isEmpty && !isLive && slotAfter(wanted, note) === undefined;
    await change(client, context, vm, {
      description: withoutLine(vm.config, "iso"),
      delete: goes ? note.slot : undefined,
    });
  }
  const after = await getTarget(client, context);
  requireBootSettings(client, after, after.config, { description: !hasLine(after.config, "iso") });
  const { isoSlot } = SlotOutput.parse(context.operation.output);
  return { kind: "done", ...(await outcomeOf(client, context, after, isoSlot)) };
}

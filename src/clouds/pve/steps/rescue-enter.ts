// Into the rescue media: the settings, one kind of them at a time.
import { z } from "zod";
import { ServiceError } from "../../../core/errors.ts";
import type { Issued, PlannedStep, StepDefinition } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import type { FoundVm } from "../cluster.ts";
import { properties } from "../config.ts";
import { isoNoteIn } from "../iso.ts";
import { bootOrder, type DriveNote, ISO, isOnNode, lineIn, newNote, orderFrom, withLine } from "../media.ts";
import { isTagged, rescueNoteIn, tagsWith } from "../rescue.ts";
import type { VmConfig } from "../schema.ts";
import { wantedConfig } from "../vm.ts";
import { mediaSetting, noteFor } from "./media.ts";
import { planPower } from "./power.ts";
import { planLook } from "./rescue-look.ts";
import { getTarget, requireUnlocked } from "./target.ts";

const Input = z.object({ externalId: z.string(), media: z.string() });

/** A cancel would leave it half switched. */
const SWITCHING = "The server is being switched to the rescue system; /server unrescue brings it back.";

export function enterSteps(client: PveClient): StepDefinition[] {
  return [checkStep(client), noteStep(client), mediaStep(client), bootStep(client)];
}

/** Throws `unsupported` without media, `invalid_input` for what is no ISO image. */
export function planRescue(
  client: PveClient,
  { externalId, media = client.options.rescueIso }: { externalId: string; media?: string | undefined },
): PlannedStep[] {
  if (media === undefined) {
    throw new ServiceError(
      "unsupported",
      "This server's cloud has no rescue system yet. Our operators can set one up (rescueIso).",
      {
        facts: { cloud: client.cloud },
        staffDetail: `Set clouds.${client.cloud}.rescueIso in ratatosk.yaml to an ISO image that is on every node (local:iso/rescue.iso), or give iso: here.`,
      },
    );
  }
  if (!ISO.test(media)) {
    throw new ServiceError("invalid_input", "This is no ISO image: write it as local:iso/rescue.iso.", {
      facts: { option: "iso" },
    });
  }
  const input: z.infer<typeof Input> = { externalId, media };
  return [
    { name: "pve.rescue_check", label: "Check the rescue media", input },
    { name: "pve.rescue_note", label: "Write down how it boots now", input: { ...input } },
    { name: "pve.rescue_media", label: "Put the rescue media in", input: { ...input } },
    { name: "pve.rescue_set", label: "Set it to boot from the rescue media", input: { ...input } },
    planPower({ externalId, verb: "stop" }),
    planPower({ externalId, verb: "start" }),
    planLook({ externalId, goal: "rescue" }),
  ];
}

function checkStep(client: PveClient): StepDefinition {
  return {
    name: "pve.rescue_check",
    deadlineMs: 5 * 60_000,
    callTimeoutMs: 60_000,
    evidence: "none",
    async issue(context): Promise<Issued> {
      const { media } = Input.parse(context.input);
      const vm = await getTarget(client, context);
      await requireUnlocked(client, vm, context.signal);
      await requireNoIso(client, vm, context.signal);
      noteOf(client, vm, vm.config);
      if (await isOnNode(client, { node: vm.node, media }, context.signal)) return { kind: "done" };
      throw new ServiceError(
        "cloud_invalid",
        "The rescue media are not on the server's node, so nothing was changed. Our operators must put them there.",
        {
          facts: { cloud: client.cloud },
          staffDetail: `${client.cloud}: node ${vm.node} has no ${media} (setting rescueIso)`,
        },
      );
    },
  };
}

/** The one that is written down, so that asking again never takes the rescue's own order for the original. */
function noteOf(client: PveClient, vm: FoundVm, config: VmConfig): DriveNote {
  return noteFor(client, vm, { config, written: rescueNoteIn(config), what: "the rescue media" });
}

/** Both have a boot order to bring back, and each would take the other's for the original. */
async function requireNoIso(client: PveClient, vm: FoundVm, signal: AbortSignal): Promise<void> {
  if (isoNoteIn(await wantedConfig(client, vm, signal)) === null) return;
  throw new ServiceError(
    "cloud_conflict",
    "An ISO is in the server's CD drive, so nothing was changed. Take it out first: /iso unmount.",
    { facts: { cloud: client.cloud } },
  );
}

/**
 * Three calls, in this order. The way back is written down before anything else, because PVE changes the boot order by itself
 * when it gets a new CD drive; and the order comes last, because PVE takes the settings of one call in any order and would
 * append the new drive to the old order after it had taken ours (qemu-server, PVE/API2/Qemu.pm, update_vm_api).
 */
function noteStep(client: PveClient): StepDefinition {
  return mediaSetting(client, {
    ...shared,
    name: "pve.rescue_note",
    parameters(vm, config) {
      const note = noteOf(client, vm, config);
      return { tags: tagsWith(config), description: withLine(config, "rescue", note) };
    },
    expected(config) {
      const note = rescueNoteIn(config) ?? newNote(config);
      const isWritten =
        note !== null && config["description"]?.trimEnd() === withLine(config, "rescue", note);
      return { tags: isTagged(config), description: isWritten };
    },
  });
}

function mediaStep(client: PveClient): StepDefinition {
  return mediaSetting(client, {
    ...shared,
    name: "pve.rescue_media",
    parameters: (vm, config, { media }) => ({
      [writtenNote(client, vm, config).slot]: `${media},media=cdrom`,
    }),
    expected(config, { media }) {
      const slot = lineIn(config, "rescue")?.slot ?? "";
      return { [slot]: properties(config[slot] ?? "")[""] === media };
    },
  });
}

function bootStep(client: PveClient): StepDefinition {
  return mediaSetting(client, {
    ...shared,
    name: "pve.rescue_set",
    parameters: (vm, config) => ({ boot: orderFrom(config, writtenNote(client, vm, config)) }),
    expected: (config) => ({ boot: bootOrder(config["boot"])[0] === lineIn(config, "rescue")?.slot }),
    outcome: () => ({ output: { rescueSet: true } }),
  });
}

const shared = { pointOfNoReturn: SWITCHING, parse: (input: unknown) => Input.parse(input) };

/** By the step before. */
function writtenNote(client: PveClient, vm: FoundVm, config: VmConfig): DriveNote {
  return lineIn(config, "rescue") ?? noteOf(client, vm, config);
}

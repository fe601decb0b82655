// Into the rescue media: the settings, one kind of them at a time.
import { z } from "zod";
import { ServiceError } from "../../../core/errors.ts";
import type { Issued, PlannedStep, StepDefinition } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import type { FoundVm } from "../cluster.ts";
import { properties } from "../config.ts";
import type { Parameters } from "../form.ts";
import {
  bootOrder,
  isTagged,
  lineIn,
  newNote,
  noteIn,
  type RescueNote,
  rescueOrder,
  tagsWith,
  withNote,
} from "../rescue.ts";
import { StorageContent, type VmConfig } from "../schema.ts";
import { wantedConfig } from "../vm.ts";
import { planPower } from "./power.ts";
import { planLook, requireBootSettings } from "./rescue-look.ts";
import { change } from "./setting.ts";
import { getTarget, requireUnlocked } from "./target.ts";

const Input = z.object({ externalId: z.string(), media: z.string() });

/** A comma would begin another property of the drive. */
const ISO = /^([A-Za-z][\w.-]*):iso\/[^\s,;/]+$/u;

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
      noteFor(client, vm, vm.config);
      const images = await listIsoImages(client, { node: vm.node, media }, context.signal);
      if (images.includes(media)) return { kind: "done" };
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

async function listIsoImages(
  client: PveClient,
  { node, media }: { node: string; media: string },
  signal: AbortSignal,
): Promise<string[]> {
  const storage = encodeURIComponent(ISO.exec(media)?.[1] ?? "");
  const path = `/nodes/${encodeURIComponent(node)}/storage/${storage}/content`;
  const rows = await client.read({ path, parameters: { content: "iso" }, signal }, StorageContent);
  return rows.map(({ volid }) => volid);
}

/** The one that is written down, so that asking again never takes the rescue's own order for the original. */
function noteFor(client: PveClient, { vmid }: FoundVm, config: VmConfig): RescueNote {
  const note = noteIn(config) ?? newNote(config);
  if (note !== null) return note;
  throw new ServiceError(
    "unsupported",
    "The server has no free drive for the rescue media, so nothing was changed.",
    {
      facts: { cloud: client.cloud },
      staffDetail: `${client.cloud}: VM ${vmid} has no free or empty slot of ide0-3 and sata0-5`,
    },
  );
}

/**
 * Three calls, in this order. The way back is written down before anything else, because PVE changes the boot order by itself
 * when it gets a new CD drive; and the order comes last, because PVE takes the settings of one call in any order and would
 * append the new drive to the old order after it had taken ours (qemu-server, PVE/API2/Qemu.pm, update_vm_api).
 */
function noteStep(client: PveClient): StepDefinition {
  return setting(client, {
    name: "pve.rescue_note",
    parameters(vm, config) {
      const note = noteFor(client, vm, config);
      return { tags: tagsWith(config), description: withNote(config, note) };
    },
    expected(config) {
      const note = noteIn(config) ?? newNote(config);
      const isWritten = note !== null && config["description"]?.trimEnd() === withNote(config, note);
      return { tags: isTagged(config), description: isWritten };
    },
  });
}

function mediaStep(client: PveClient): StepDefinition {
  return setting(client, {
    name: "pve.rescue_media",
    parameters: (vm, config, media) => ({ [writtenNote(client, vm, config).slot]: `${media},media=cdrom` }),
    expected(config, media) {
      const slot = lineIn(config)?.slot ?? "";
      return { [slot]: properties(config[slot] ?? "")[""] === media };
    },
  });
}

function bootStep(client: PveClient): StepDefinition {
  return setting(client, {
    name: "pve.rescue_set",
    parameters: (vm, config) => ({ boot: rescueOrder(config, writtenNote(client, vm, config)) }),
    expected: (config) => ({ boot: bootOrder(config["boot"])[0] === lineIn(config)?.slot }),
    output: { rescueSet: true },
  });
}

interface Setting {
  name: string;
  parameters(vm: FoundVm, config: VmConfig, media: string): Parameters;
  /** Whether each of them is there, as PVE shows it then. */
  expected(config: VmConfig, media: string): Record<string, boolean>;
  output?: Record<string, unknown>;
}

/** A cancel would leave it half switched. */
function setting(client: PveClient, { name, parameters, expected, output = {} }: Setting): StepDefinition {
  return {
    name,
    deadlineMs: 10 * 60_000,
    callTimeoutMs: 2 * 60_000,
    pointOfNoReturn: "The server is being switched to the rescue system; /server unrescue brings it back.",
    evidence: "repeatable",
    async issue(context): Promise<Issued> {
      const { media } = Input.parse(context.input);
      const vm = await getTarget(client, context);
      const config = await wantedConfig(client, vm, context.signal);
      if (Object.values(expected(config, media)).every(Boolean)) return { kind: "done", output };
      const after = await change(client, context, vm, parameters(vm, config, media));
      const wanted = await wantedConfig(client, after, context.signal);
      requireBootSettings(client, after, wanted, expected(wanted, media));
      return { kind: "done", output };
    },
  };
}

/** By the step before. */
function writtenNote(client: PveClient, vm: FoundVm, config: VmConfig): RescueNote {
  return lineIn(config) ?? noteFor(client, vm, config);
}

// Booting from rescue media and back: the settings, a real stop and start (a new drive of a running VM waits for one), a look.
// Settings are absolute and the way back is written down in the VM itself, so each step may be asked for again.
import { z } from "zod";
import type { RescueProcedures } from "../../../core/cloud.ts";
import { ServiceError } from "../../../core/errors.ts";
import type { Issued, PlannedStep, StepContext, StepDefinition } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import type { FoundVm } from "../cluster.ts";
import { properties } from "../config.ts";
import type { Parameters } from "../form.ts";
import {
  bootMedia,
  bootOrder,
  hasLine,
  isTagged,
  lineIn,
  newNote,
  noteIn,
  type RescueNote,
  rescueOrder,
  slotAfter,
  tagsWith,
  tagsWithout,
  withNote,
  withoutNote,
} from "../rescue.ts";
import { StorageContent, type VmConfig } from "../schema.ts";
import { remoteServerOf } from "../server.ts";
import { pendingKeys, setConfig, wantedConfig } from "../vm.ts";
import { planPower } from "./power.ts";
import { getTarget, outcomeFor, requireUnlocked, seen } from "./target.ts";
import { explained } from "./task.ts";

const EnterInput = z.object({ externalId: z.string(), media: z.string() });
const LookInput = z.object({ externalId: z.string(), goal: z.enum(["rescue", "active"]) });

const DEADLINE_MS = 10 * 60_000;
const CALL_TIMEOUT_MS = 2 * 60_000;
/** A comma would begin another property of the drive. */
const ISO = /^([A-Za-z][\w.-]*):iso\/[^\s,;/]+$/u;

export function rescueSteps(client: PveClient): StepDefinition[] {
  return [
    checkStep(client),
    noteStep(client),
    mediaStep(client),
    bootStep(client),
    unsetStep(client),
    clearStep(client),
    verifyStep(client),
  ];
}

export function rescueProcedures(client: PveClient): RescueProcedures {
  return {
    enter: (order) => planRescue(client, order),
    leave: ({ externalId }) => planUnrescue(externalId),
  };
}

/** Throws `unsupported` without media, `invalid_input` for what is no ISO image. */
function planRescue(
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
  const input: z.infer<typeof EnterInput> = { externalId, media };
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

function planUnrescue(externalId: string): PlannedStep[] {
  return [
    { name: "pve.rescue_unset", label: "Set it to boot from its own disk", input: { externalId } },
    planPower({ externalId, verb: "stop" }),
    planPower({ externalId, verb: "start" }),
    { name: "pve.rescue_clear", label: "Remove the notes of the rescue", input: { externalId } },
    planLook({ externalId, goal: "active" }),
  ];
}

function planLook(input: z.infer<typeof LookInput>): PlannedStep {
  return { name: "pve.rescue_verify", label: "Check what it runs from", input };
}

function checkStep(client: PveClient): StepDefinition {
  return {
    name: "pve.rescue_check",
    deadlineMs: 5 * 60_000,
    callTimeoutMs: 60_000,
    evidence: "none",
    async issue(context): Promise<Issued> {
      const { media } = EnterInput.parse(context.input);
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
    deadlineMs: DEADLINE_MS,
    callTimeoutMs: CALL_TIMEOUT_MS,
    pointOfNoReturn: "The server is being switched to the rescue system; /server unrescue brings it back.",
    evidence: "repeatable",
    async issue(context): Promise<Issued> {
      const { media } = EnterInput.parse(context.input);
      const vm = await getTarget(client, context);
      const config = await wantedConfig(client, vm, context.signal);
      if (Object.values(expected(config, media)).every(Boolean)) return { kind: "done", output };
      await change(client, context, vm, parameters(vm, config, media));
      const after = await wantedConfig(client, vm, context.signal);
      requireThere(client, vm, after, expected(after, media));
      return { kind: "done", output };
    },
  };
}

/** By the step before. */
function writtenNote(client: PveClient, vm: FoundVm, config: VmConfig): RescueNote {
  return lineIn(config) ?? noteFor(client, vm, config);
}

async function change(
  client: PveClient,
  { signal }: StepContext,
  vm: FoundVm,
  parameters: Parameters,
): Promise<void> {
  await requireUnlocked(client, vm, signal);
  await explained(client, { vm, signal }, () => setConfig(client, vm, parameters, { signal }));
}

/** PVE may accept a setting and show another one, such as a boot order that it has changed by itself: then it is set again. */
function requireThere(
  client: PveClient,
  { vmid }: FoundVm,
  config: VmConfig,
  expected: Readonly<Record<string, boolean>>,
): void {
  const wrong = Object.keys(expected).filter((key) => expected[key] !== true);
  if (wrong.length === 0) return;
  throw new ServiceError(
    "cloud_failed",
    "The cloud accepted the settings of the server and shows other ones. Our operators must look at it.",
    {
      retryable: true,
      facts: { cloud: client.cloud },
      staffDetail: `${client.cloud}: VM ${vmid} shows ${wrong.map((key) => `${key}: ${config[key] ?? "none"}`).join(", ")}`,
    },
  );
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
  const note = noteIn(config) ?? withoutALine(config);
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
  await change(client, context, vm, parameters);
  const after = await wantedConfig(client, vm, context.signal);
  requireThere(client, vm, after, {
    boot: (after["boot"] ?? "") === note.boot,
    [note.slot]: after[note.slot] === undefined || after[note.slot]?.startsWith("none,") === true,
  });
  return { kind: "done" };
}

/** Somebody removed our line, or went back to a snapshot of that time: what boots now is taken out of the order. */
function withoutALine(config: VmConfig): RescueNote | null {
  const slot = isTagged(config) ? bootMedia(config) : null;
  if (slot === null) return null;
  const rest = bootOrder(config["boot"]).filter((key) => key !== slot);
  return { slot, held: "", boot: rest.length === 0 ? "" : `order=${rest.join(";")}` };
}

/** Only what is not so yet. */
function wayBack(config: VmConfig, note: RescueNote): Parameters {
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
      if (isTagged(vm.config) || hasLine(vm.config)) {
        const tags = tagsWithout(vm.config);
        await change(client, context, vm, {
          description: withoutNote(vm.config),
          ...(tags === "" ? { delete: "tags" } : { tags }),
        });
      }
      const after = await getTarget(client, context);
      requireThere(client, after, after.config, {
        tags: !isTagged(after.config),
        description: !hasLine(after.config),
      });
      return { kind: "done", ...(await seen(client, context, after)) };
    },
  };
}

function verifyStep(client: PveClient): StepDefinition {
  return {
    name: "pve.rescue_verify",
    deadlineMs: DEADLINE_MS,
    callTimeoutMs: 60_000,
    evidence: "none",
    async issue(context): Promise<Issued> {
      const { goal } = LookInput.parse(context.input);
      const vm = await getTarget(client, context);
      const server = await remoteServerOf(client, vm, context.signal);
      const waiting = (await pendingKeys(client, vm, context.signal)).filter((key) =>
        /^(?:boot|(?:ide|sata)\d+)$/u.test(key),
      );
      if (server.state === goal && waiting.length === 0) {
        return { kind: "done", ...outcomeFor(context, server) };
      }
      const where = goal === "rescue" ? "the rescue media" : "its own disk";
      const error = new ServiceError(
        "cloud_failed",
        `The server was restarted, but the cloud does not show it running from ${where}. Our operators must look at it.`,
        {
          facts: { cloud: client.cloud, state: server.state, pending: waiting },
          staffDetail: `${client.cloud}: VM ${vm.vmid} is ${server.providerStatus}, boot ${vm.config["boot"] ?? "none"}, pending: ${waiting.join(", ") || "nothing"}`,
        },
      );
      return { kind: "failed", error, server };
    },
  };
}

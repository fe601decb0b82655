// Everything that a rebuild could fail at is looked at before anything is changed, and what will be needed of the old VM is
// recorded. Reads only.
import { z } from "zod";
import type { RebuildOrder } from "../../../core/cloud.ts";
import { isServiceError, reworded, ServiceError } from "../../../core/errors.ts";
import type { Issued, PlannedStep, StepContext, StepDefinition } from "../../../core/operations/step.ts";
import { nodesInMaintenance } from "../../../core/servers/maintenance.ts";
import { isAddressLine } from "../address.ts";
import type { PveClient } from "../client.ts";
import { type FoundVm, listBridges, listResources, type Resources } from "../cluster.ts";
import {
  bootDiskOf,
  bridgeOf,
  coresOf,
  diskGibOf,
  disksOf,
  hasCloudInit,
  smbiosUuidOf,
  tagsOf,
} from "../config.ts";
import { markersIn } from "../marker.ts";
import { isMediaLine } from "../media.ts";
import { type Place, placeFor } from "../placement.ts";
import { tagsWithout } from "../rescue.ts";
import { isKept, keptOf, type RebuiltAt, type Retiring } from "../retiring.ts";
import { isFirewallOn, pendingKeys, wantedConfig } from "../vm.ts";
import { requireUnprotected } from "./delete.ts";
import { isOff } from "./power.ts";
import { getTarget, requireUnlocked } from "./target.ts";
import { SIZE_KEYS } from "./waiting-size.ts";

const Input = z.object({
  externalId: z.string(),
  imageId: z.string(),
  memoryMib: z.number(),
  diskGib: z.number(),
  inPlace: z.boolean(),
});
type Input = z.infer<typeof Input>;

const GIB = 2 ** 30;
const MIB = 2 ** 20;

export function planRebuildCheck(order: RebuildOrder): PlannedStep {
  const { memoryMib, diskGib } = order.size;
  const input: Input = {
    externalId: order.externalId,
    imageId: order.imageId,
    memoryMib,
    diskGib,
    inPlace: order.inPlace,
  };
  return { name: "pve.rebuild_check", label: "Check image, disk and room", input };
}

export function rebuildCheckStep(client: PveClient): StepDefinition {
  return {
    name: "pve.rebuild_check",
    deadlineMs: 5 * 60_000,
    callTimeoutMs: 60_000,
    evidence: "none",
    issue: (context) => issue(client, context),
  };
}

async function issue(client: PveClient, context: StepContext): Promise<Issued> {
  const input = Input.parse(context.input);
  const { signal } = context;
  const vm = await getTarget(client, context);
  requireUnprotected(client, vm);
  await requireUnlocked(client, vm, signal);
  await requireNoFirewall(client, vm, signal);
  await requireOneDisk(client, vm, signal);
  await requireNothingWaits(client, vm, signal);
  const avoid = await nodesInMaintenance(context.database, client.cloud);
  const since = client.recent.now();
  const resources = await listResources(client, signal, since);
  const { place, at } = await choosePlace(client, { input, vm, resources, avoid, since, signal });
  const running = !(await isOff(client, vm, signal));
  return {
    kind: "done",
    output: { retiring: retiringFrom(vm, running), rebuiltAt: at },
    note: "all that is needed is there.",
    ...staffNote(vm, { resources, place }),
  };
}

function retiringFrom(vm: FoundVm, running: boolean): Retiring {
  const { config, node, vmid } = vm;
  const uuid = smbiosUuidOf(config);
  // getTarget has compared it with the recorded one.
  if (uuid === null) throw new Error(`VM ${vmid} has no SMBIOS uuid`);
  const markers = markersIn(config["description"]);
  const isMarker = (line: string) => markers.length > 0 && markersIn(line).length > 0;
  return {
    externalId: String(vmid),
    node,
    smbiosUuid: uuid,
    running,
    kept: keptOf(config),
    sockets: coresOf(config).sockets,
    // A rescue that was switched off belongs to the old system, and so does a CD in its drive.
    tags: tagsOf(tagsWithout(config)),
    description: (config["description"] ?? "")
      .trimEnd()
      .split("\n")
      .filter((line) => !isMarker(line) && !isMediaLine(line) && !isAddressLine(line))
      .join("\n"),
  };
}

/** What names the VMID in PVE does not go with the server, and its operators must know. */
function staffNote(
  { vmid }: FoundVm,
  { resources, place }: { resources: Resources; place: Place },
): { staffNote?: string } {
  const row = resources.guests.find((guest) => guest.vmid === vmid);
  const named = [
    typeof row?.["pool"] === "string" && row["pool"] !== "" ? `the pool ${row["pool"]}` : "",
    typeof row?.["hastate"] === "string" && row["hastate"] !== "" ? "HA" : "",
  ].filter((text) => text !== "");
  const disk = place.storage === undefined ? "" : `, with its disk on ${place.storage}`;
  const moved = `VM ${vmid} is rebuilt as a new VM on ${place.node}${disk}.`;
  const lost =
    named.length === 0 ? "" : ` VM ${vmid} is in ${named.join(" and in ")}; the new one will not be.`;
  return { staffNote: `${moved}${lost}` };
}

/** A clone has its template's firewall: without the server's own rules it would be open to whom they kept out. */
async function requireNoFirewall(client: PveClient, vm: FoundVm, signal: AbortSignal): Promise<void> {
  if (!(await isFirewallOn(client, vm, signal))) return;
  throw new ServiceError(
    "unsupported",
    "The server has a firewall of its own in the cloud, which a rebuild would lose, so nothing was changed. Our operators must look at it.",
    {
      facts: { cloud: client.cloud },
      staffDetail: `${client.cloud}: the firewall of VM ${vm.vmid} is on; switch it off (Firewall, Options) to rebuild it, and set its rules again afterwards`,
    },
  );
}

/**
 * All that PVE calls the VM's goes with it, also what only waits for a restart and what is detached. The state of its firmware
 * belongs to the system.
 */
async function requireOneDisk(client: PveClient, vm: FoundVm, signal: AbortSignal): Promise<void> {
  const boot = bootDiskOf(vm.config);
  const all = { ...(await wantedConfig(client, vm, signal)), ...vm.config };
  const attached = disksOf(all).filter(({ key }) => key !== boot?.key);
  const detached = Object.entries(all).filter(([key]) => /^unused\d+$/u.test(key));
  const lost = [
    ...attached.map(({ key, volume }) => `${key} (${volume})`),
    ...detached.map(([key, text]) => `${key} (${text})`),
  ];
  if (lost.length === 0) return;
  throw new ServiceError(
    "unsupported",
    "The server has more disks than the one that it starts from, and a rebuild would destroy them, so nothing was changed. Our operators must look at it.",
    {
      facts: { cloud: client.cloud },
      staffDetail: `${client.cloud}: VM ${vm.vmid} has besides ${boot?.key ?? "no boot disk"}: ${lost.join(", ")}; give them to another VM (qm disk move --target-vmid) or delete them to rebuild it`,
    },
  );
}

/** What the old VM runs with and what stays with the server are taken over, not what would come with a restart. */
async function requireNothingWaits(client: PveClient, vm: FoundVm, signal: AbortSignal): Promise<void> {
  const keys = await pendingKeys(client, vm, signal);
  const waiting = keys.filter((key) => SIZE_KEYS.has(key) || isKept(key));
  if (waiting.length === 0) return;
  throw new ServiceError(
    "cloud_conflict",
    "A change of the server waits for its restart and a rebuild would lose it, so nothing was changed. Restart the server first (/server restart), then ask again.",
    {
      facts: { cloud: client.cloud, pending: waiting },
      staffDetail: `${client.cloud}: VM ${vm.vmid}: ${waiting.join(", ")} pending`,
    },
  );
}

interface Choice {
  input: Input;
  vm: FoundVm;
  resources: Resources;
  /** Other nodes than its own that take nothing new. */
  avoid: ReadonlySet<string>;
  /** Looked at anew: what it decides may be that a disk is deleted. */
  since: number;
  signal: AbortSignal;
}

interface Found {
  place: Place;
  at: RebuiltAt;
}

/** The old one's node and storage when that can be; in place there is no other. */
async function choosePlace(client: PveClient, choice: Choice): Promise<Found> {
  const { input, vm, resources, avoid } = choice;
  const roomy = resources.nodes
    .filter((row) => row.online && row.node !== vm.node && !avoid.has(row.node))
    .filter((row) => row.freeMemory === null || row.freeMemory >= input.memoryMib * MIB)
    .toSorted((a, b) => (b.freeMemory ?? 0) - (a.freeMemory ?? 0) || a.node.localeCompare(b.node));
  const keep = storageOf(bootDiskOf(vm.config)?.volume ?? "");
  const candidates = [{ node: vm.node, keep }, { node: vm.node }, ...roomy.map(({ node }) => ({ node }))];
  const problems: ServiceError[] = [];
  for (const at of candidates) {
    // oxlint-disable-next-line no-await-in-loop -- the next one only when this one does not do
    const place = await placeOn(client, choice, { ...at, diskGib: input.diskGib });
    if (!(place instanceof ServiceError)) return input.inPlace ? refuseInPlace(client, place) : { place, at };
    problems.push(place);
  }
  // Why the server's own place does not do says more than what is wrong with the others.
  const full = problems.find((problem) => problem.code === "capacity");
  if (full === undefined) throw problems[0];
  if (!input.inPlace) throw noRoomForBoth(full);
  return placeInstead(client, choice, { keep, full });
}

/** With what the old disks give back; only what is visible counts, and a disk on a template's base gives little. */
async function placeInstead(
  client: PveClient,
  choice: Choice,
  { keep, full }: { keep: string; full: ServiceError },
): Promise<Found> {
  const { input, vm } = choice;
  const freed = disksOf(vm.config)
    .filter(({ volume }) => storageOf(volume) === keep && !volume.includes("/base-"))
    .reduce((sum, disk) => sum + disk.bytes, 0);
  const diskGib = Math.max(0, input.diskGib - Math.floor(freed / GIB));
  const at = { node: vm.node, keep };
  const place = await placeOn(client, choice, { ...at, diskGib });
  if (!(place instanceof ServiceError)) return { place, at };
  if (place.code !== "capacity") throw place;
  throw reworded(
    full,
    "Even without the old system the cloud has no room for the new one, so nothing was changed. Our operators must make room.",
    { code: "capacity" },
  );
}

function refuseInPlace(client: PveClient, { node }: Place): never {
  throw new ServiceError(
    "cloud_invalid",
    "There is room for the new system beside the old one, so nothing was changed. Order it again without in_place: then the old system is deleted only when the new one runs.",
    {
      facts: { cloud: client.cloud, option: "in_place" },
      staffDetail: `${client.cloud}: there is room on ${node}`,
    },
  );
}

function noRoomForBoth(cause: ServiceError): ServiceError {
  return reworded(
    cause,
    "There is no room in the cloud for the new system beside the old one, so nothing was changed. Our team can order it again with in_place:yes, which deletes the old system first, or make room.",
    { code: "capacity" },
  );
}

/** Why this node does not do is an answer; that PVE could not be asked is thrown. */
async function placeOn(
  client: PveClient,
  { input, vm, since, signal }: Choice,
  { node, keep, diskGib }: RebuiltAt & { diskGib: number },
): Promise<Place | ServiceError> {
  try {
    const size = { memoryMib: input.memoryMib, diskGib };
    const place = await placeFor(client, { imageId: input.imageId, node, keep, size, since, signal });
    requireFit(client, place, input);
    if (node !== vm.node) await requireBridges(client, { node, vm, signal });
    return place;
  } catch (error) {
    if (isServiceError(error, "cloud_invalid", "capacity", "cloud_conflict")) return error;
    // A node that is away.
    if (isServiceError(error, "unreachable") && !error.retryable) return error;
    throw error;
  }
}

function requireFit(client: PveClient, { template }: Place, { diskGib }: Input): void {
  const detail = `template ${template.vmid} on ${template.node}`;
  if (!hasCloudInit(template.config)) {
    throw invalid(
      client,
      "The image has no cloud-init drive, so neither password nor network could be set. Our operators must add one.",
      detail,
    );
  }
  const needed = diskGibOf(template.config);
  if (needed <= diskGib) return;
  throw invalid(
    client,
    `The image needs a disk of at least ${needed} GiB; the server has ${diskGib} GiB. Choose another image, or give the server a bigger disk first.`,
    detail,
  );
}

async function requireBridges(
  client: PveClient,
  { node, vm, signal }: { node: string; vm: FoundVm; signal: AbortSignal },
): Promise<void> {
  const bridges = await listBridges(client, node, signal);
  const missing = Object.entries(vm.config)
    .filter(([key]) => /^net\d+$/u.test(key))
    .map(([, card]) => bridgeOf(card))
    .filter((bridge) => bridge !== undefined && !bridges.includes(bridge));
  if (missing.length === 0) return;
  throw invalid(
    client,
    "The server's network is not there on the node that its new system would be on. Our operators must look at it.",
    `node ${node} has no ${missing.join(", ")}`,
  );
}

function storageOf(volume: string): string {
  return volume.split(":")[0] ?? "";
}

function invalid(client: PveClient, message: string, detail: string): ServiceError {
  return new ServiceError("cloud_invalid", message, {
    facts: { cloud: client.cloud },
    staffDetail: `${client.cloud}: ${detail}`,
  });
}

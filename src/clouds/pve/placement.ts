// Where a new VM goes: the node that was asked for, else the one with the most free memory among those that can have it. An
// image is reached from its own node, from every node when its disks are on shared storage, and wherever a template of the
// same name stands: that is how operators keep one image on several nodes.
import { isServiceError, ServiceError } from "../../core/errors.ts";
import { getTemplate, TEMPLATE_MS } from "./catalogue.ts";
import type { PveClient } from "./client.ts";
import { type FoundVm, findVm, listResources, listResourcesLately, type Resources } from "./cluster.ts";
import { disksOf } from "./config.ts";
import { requireActive, storageFor } from "./storages.ts";

const MIB = 2 ** 20;

export interface Place {
  /** What is copied. */
  template: FoundVm;
  node: string;
  full: boolean;
  /** Only for full clones; a linked one stays where the template is. */
  storage?: string;
}

export interface PlaceRequest {
  imageId: string;
  /** The node that was asked for. */
  node?: string | undefined;
  /** The storage that was asked for; the cloud's when absent, else one with room. */
  storage?: string | undefined;
  /** The storage that the server is on, which goes before the cloud's. */
  keep?: string | undefined;
  /** The cloud's setting when absent. */
  clone?: "full" | "linked" | undefined;
  /** What has to fit; pinned steps of earlier releases do not say it. */
  size?: { memoryMib: number; diskGib: number } | undefined;
  /** False for a node that takes nothing new, because work on it was announced. */
  mayPlaceOn?: ((node: string) => boolean) | undefined;
  /** Only what PVE answers from this moment on (client.recent.now()) counts; else seconds do not matter. */
  since?: number | undefined;
  signal: AbortSignal;
}

/**
 * Throws `cloud_invalid` for an image, a node or a storage that is not there, `unreachable` when no node that can have it
 * is up, `cloud_conflict` when those that are up take nothing new, `capacity` when it fits nowhere.
 */
export async function placeFor(client: PveClient, request: PlaceRequest): Promise<Place> {
  const { imageId, since, signal } = request;
  const full = (request.clone ?? client.options.clone ?? "full") === "full";
  if (!full && request.storage !== undefined) throw linkedElsewhere(client);
  const resources =
    since === undefined
      ? await listResourcesLately(client, signal)
      : await listResources(client, signal, since);
  const named = await getTemplate(client, imageId, signal, since);
  const templates = [named, ...(await twinsOf(client, { named, resources, since, signal }))];
  // A copy within its node is cheaper than one across the network.
  const templateFor = (node: string) =>
    templates.find((template) => template.node === node) ??
    templates.find((template) => storagesOf(template).every((id) => resources.sharedStorages.has(id)));
  const canHave = (node: string) => templateFor(node) !== undefined;
  let problem: unknown;
  for (const node of nodesFor(client, { request, resources, canHave, named })) {
    const template = templateFor(node) ?? named;
    try {
      // oxlint-disable-next-line no-await-in-loop -- the next node only when this one has no room
      const target = await storageOn(client, { request, template, node, full });
      return { template, node, full, ...(target === undefined ? {} : { storage: target }) };
    } catch (error) {
      if (!isServiceError(error, "capacity", "cloud_invalid")) throw error;
      problem ??= error;
    }
  }
  throw problem;
}

async function storageOn(
  client: PveClient,
  place: { request: PlaceRequest; template: FoundVm; node: string; full: boolean },
): Promise<string | undefined> {
  const { request, template, node, full } = place;
  const { since, signal } = request;
  const [own] = storagesOf(template);
  if (!full) {
    if (own !== undefined) await requireActive(client, { node, storage: own, since, signal });
    return undefined;
  }
  return storageFor(client, {
    node,
    asked: request.storage,
    configured: request.keep ?? client.options.storage,
    own,
    sharedOnly: node !== template.node,
    diskGib: request.size?.diskGib,
    since,
    signal,
  });
}

async function twinsOf(
  client: PveClient,
  {
    named,
    resources,
    since = client.recent.now() - TEMPLATE_MS,
    signal,
  }: { named: FoundVm; resources: Resources; since: number | undefined; signal: AbortSignal },
): Promise<FoundVm[]> {
  const rows = resources.guests.filter(
    (row) =>
      row.type === "qemu" &&
      row.template === true &&
      row.vmid !== named.vmid &&
      row.name === named.config["name"] &&
      resources.nodes.some((node) => node.node === row.node && node.online),
  );
  const found = await Promise.all(
    rows.map((row) => findVm(client, row.vmid, { hint: row.node, since, signal })),
  );
  return found.filter((twin) => twin !== null);
}

function storagesOf(template: FoundVm): string[] {
  return disksOf(template.config).map((disk) => disk.volume.split(":")[0] ?? "");
}

interface Choice {
  request: PlaceRequest;
  resources: Resources;
  canHave(node: string): boolean;
  named: FoundVm;
}

/** Those that can have it, best first; never none. */
function nodesFor(client: PveClient, choice: Choice): string[] {
  const { request, resources, canHave, named } = choice;
  if (request.node !== undefined) return [namedNode(client, choice, request.node)];
  const up = resources.nodes.filter((row) => row.online && canHave(row.node));
  if (up.length === 0) throw away(client, named.node);
  const open = up.filter((row) => mayPlaceOn(request, row.node));
  if (open.length === 0) throw inMaintenance(client, up.map((row) => row.node).join(", "));
  const neededBytes = (request.size?.memoryMib ?? 0) * MIB;
  const fitting = open.filter((row) => row.freeMemory >= neededBytes);
  if (fitting.length === 0) throw noMemory(client, neededBytes, open);
  return fitting
    .toSorted((a, b) => b.freeMemory - a.freeMemory || a.node.localeCompare(b.node))
    .map((row) => row.node);
}

function namedNode(
  client: PveClient,
  { request, resources, canHave, named }: Choice,
  wanted: string,
): string {
  const { nodes } = resources;
  const row = nodes.find((one) => one.node.toLowerCase() === wanted.toLowerCase());
  if (row === undefined) {
    const names = nodes.map((one) => one.node).join(", ");
    throw new ServiceError("cloud_invalid", "The cloud has no such node. Staff see which ones it has.", {
      facts: { cloud: client.cloud, option: "node" },
      staffDetail: `${client.cloud}: no node ${wanted}; it has ${names}`,
    });
  }
  if (!row.online) throw away(client, row.node);
  if (!mayPlaceOn(request, row.node)) throw inMaintenance(client, row.node);
  if (canHave(row.node)) return row.node;
  throw new ServiceError(
    "cloud_invalid",
    "The image cannot be copied to that node: its disk is on a storage of another one alone. Choose the image's own node, or put a template of the same name on this one.",
    {
      facts: { cloud: client.cloud, option: "node" },
      staffDetail: `${client.cloud}: template ${named.vmid} is on ${named.node}, ${row.node} does not reach its disk`,
    },
  );
}

function mayPlaceOn({ mayPlaceOn: may }: PlaceRequest, node: string): boolean {
  return may?.(node) ?? true;
}

function linkedElsewhere(client: PveClient): ServiceError {
  return new ServiceError(
    "cloud_invalid",
    "A linked clone stays on the storage of its template. Leave storage: out, or ask for clone:full.",
    { facts: { cloud: client.cloud, option: "storage" } },
  );
}

function inMaintenance(client: PveClient, nodes: string): ServiceError {
  return new ServiceError(
    "cloud_conflict",
    "The node for this server is in maintenance and takes no new ones, so nothing was changed. Try again later.",
    {
      facts: { cloud: client.cloud, maintenance: true },
      staffDetail: `${client.cloud}: in maintenance: ${nodes}`,
    },
  );
}

function noMemory(client: PveClient, neededBytes: number, rows: Resources["nodes"]): ServiceError {
  const free = rows.map((row) => `${row.node} has ${Math.floor(row.freeMemory / MIB)} MiB free`);
  return new ServiceError(
    "capacity",
    "The cloud has no room for this server's memory. Try a smaller size, or have our operators make room.",
    {
      facts: { cloud: client.cloud },
      staffDetail: `${client.cloud}: ${free.join(", ")}; ${neededBytes / MIB} MiB are needed. With node: it is built all the same.`,
    },
  );
}

function away(client: PveClient, node: string): ServiceError {
  return new ServiceError(
    "unreachable",
    "The node for this server is away, so nothing was changed. Try again later.",
    {
      facts: { cloud: client.cloud },
      staffDetail: `${client.cloud}: node ${node} is offline`,
    },
  );
}

// Where a new VM goes: the node that was asked for, else the one with the most free memory among those that can have it. An
// image is reached from its own node, from every node when its disks are on shared storage, and wherever a template of the
// same name stands: that is how operators keep one image on several nodes.
import { ServiceError } from "../../core/errors.ts";
import { getTemplate } from "./catalogue.ts";
import type { PveClient } from "./client.ts";
import { type FoundVm, findVm, listResources, type Resources } from "./cluster.ts";
import { disksOf } from "./config.ts";

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
  signal: AbortSignal;
}

/** Throws `cloud_invalid` for an image or a node that is not there, `unreachable` when no node that can have it is up. */
export async function placeFor(client: PveClient, request: PlaceRequest): Promise<Place> {
  const { imageId, signal } = request;
  const resources = await listResources(client, signal);
  const named = await getTemplate(client, imageId, signal);
  const templates = [named, ...(await twinsOf(client, { named, resources, signal }))];
  const { storage, clone = "full" } = client.options;
  const full = clone === "full";
  const reaches = (template: FoundVm, node: string) =>
    template.node === node || isShared(client, template, { resources, full });
  // A copy within its node is cheaper than one across the network.
  const templateFor = (node: string) =>
    templates.find((template) => template.node === node) ??
    templates.find((template) => reaches(template, node));
  const node = chooseNode(client, {
    request,
    resources,
    canHave: (name) => templateFor(name) !== undefined,
    named,
  });
  const template = templateFor(node) ?? named;
  return { template, node, full, ...(full && storage !== undefined ? { storage } : {}) };
}

async function twinsOf(
  client: PveClient,
  { named, resources, signal }: { named: FoundVm; resources: Resources; signal: AbortSignal },
): Promise<FoundVm[]> {
  const rows = resources.guests.filter(
    (row) =>
      row.type === "qemu" &&
      row.template === true &&
      row.vmid !== named.vmid &&
      row.name === named.config["name"] &&
      resources.nodes.some((node) => node.node === row.node && node.online),
  );
  const found = await Promise.all(rows.map((row) => findVm(client, row.vmid, { hint: row.node, signal })));
  return found.filter((twin) => twin !== null);
}

function isShared(
  client: PveClient,
  template: FoundVm,
  { resources, full }: { resources: Resources; full: boolean },
): boolean {
  const { storage } = client.options;
  const own = disksOf(template.config).map((disk) => disk.volume.split(":")[0] ?? "");
  const used = full && storage !== undefined ? [...own, storage] : own;
  return used.every((id) => resources.sharedStorages.has(id));
}

interface Choice {
  request: PlaceRequest;
  resources: Resources;
  canHave(node: string): boolean;
  named: FoundVm;
}

function chooseNode(client: PveClient, { request, resources, canHave, named }: Choice): string {
  const { nodes } = resources;
  const wanted = request.node?.toLowerCase();
  if (wanted === undefined) {
    const [roomiest] = nodes
      .filter((row) => row.online && canHave(row.node))
      .toSorted((a, b) => b.freeMemory - a.freeMemory || a.node.localeCompare(b.node));
    if (roomiest === undefined) throw away(client, named.node);
    return roomiest.node;
  }
  const row = nodes.find((one) => one.node.toLowerCase() === wanted);
  if (row === undefined) {
    const names = nodes.map((one) => one.node).join(", ");
    throw new ServiceError("cloud_invalid", `The cloud has no node ${request.node}. It has ${names}.`, {
      facts: { cloud: client.cloud, option: "node" },
    });
  }
  if (!row.online) throw away(client, row.node);
  if (canHave(row.node)) return row.node;
  throw new ServiceError(
    "cloud_invalid",
    `The image cannot be copied to ${row.node}: its disk is on a storage of ${named.node} alone. Choose that node, or put a template of the same name on ${row.node}.`,
    { facts: { cloud: client.cloud, option: "node" } },
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

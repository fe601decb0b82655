// Where disks can go. A storage without a right of ours on it is not listed at all.
import { z } from "zod";
import { ServiceError } from "../../core/errors.ts";
import type { PveClient } from "./client.ts";
import { LISTED_MS } from "./cluster.ts";

const GIB = 2 ** 30;

const flag = z.union([z.boolean(), z.coerce.number()]).transform(Boolean);
const Storages = z.array(
  z.looseObject({
    storage: z.string(),
    active: flag.default(true),
    enabled: flag.default(true),
    shared: flag.default(false),
    avail: z.coerce.number().optional(),
  }),
);
type Storage = z.infer<typeof Storages>[number];

/** Those of a node that take disks of VMs. */
async function listStorages(
  client: PveClient,
  node: string,
  { since = client.recent.now() - LISTED_MS, signal }: { since?: number | undefined; signal: AbortSignal },
): Promise<Storage[]> {
  const path = `/nodes/${encodeURIComponent(node)}/storage`;
  return client.read({ path, parameters: { content: "images" }, signal, since }, Storages);
}

interface StorageRequest {
  node: string;
  /** By the order. */
  asked: string | undefined;
  /** By the configuration. */
  configured: string | undefined;
  /** The template's own. */
  own: string | undefined;
  /** The copy goes to another node, and PVE copies there only onto what both reach. */
  sharedOnly: boolean;
  /** Unknown for orders of earlier releases. */
  diskGib: number | undefined;
  /** What PVE answered before does not count; else some seconds do not matter. */
  since?: number | undefined;
  signal: AbortSignal;
}

/**
 * The storage for a full clone's disk: the one that was asked for or configured, else the one with the most room.
 * Undefined where none is visible: then it stays with PVE, which asks for rights of its own.
 * Throws `cloud_invalid` for one that is not there or not active, `capacity` when the disk does not fit.
 */
export async function storageFor(client: PveClient, request: StorageRequest): Promise<string | undefined> {
  const rows = await listStorages(client, request.node, request);
  const named = request.asked ?? request.configured;
  if (rows.length === 0) return named;
  if (named !== undefined) return requireStorage(client, { request, named, rows });
  const usable = rows.filter((row) => isUp(row) && (row.shared || !request.sharedOnly));
  const [roomiest] = usable
    .filter((row) => fits(row, request.diskGib))
    .toSorted(
      (a, b) =>
        availOf(b) - availOf(a) ||
        Number(b.storage === request.own) - Number(a.storage === request.own) ||
        a.storage.localeCompare(b.storage),
    );
  if (roomiest !== undefined) return roomiest.storage;
  throw noRoom(client, request, usable);
}

/** A linked clone's disk is where its template's is. */
export async function requireActive(
  client: PveClient,
  {
    node,
    storage,
    since,
    signal,
  }: { node: string; storage: string; since?: number | undefined; signal: AbortSignal },
): Promise<void> {
  const rows = await listStorages(client, node, { since, signal });
  const found = rows.find((row) => row.storage === storage);
  if (found !== undefined && !isUp(found)) throw notActive(client, node, storage);
}

function requireStorage(
  client: PveClient,
  { request, named, rows }: { request: StorageRequest; named: string; rows: readonly Storage[] },
): string {
  const { node, asked, diskGib } = request;
  const found = rows.find((row) => row.storage === named);
  if (found === undefined) {
    const names = rows.map((row) => row.storage).join(", ");
    throw new ServiceError(
      "cloud_invalid",
      asked === undefined
        ? "The storage that is configured for this cloud is not there. Our operators must correct it."
        : "The node has no such storage for servers, or our credential may not use it. Staff see which ones it has.",
      {
        facts: { cloud: client.cloud, ...(asked === undefined ? {} : { option: "storage" }) },
        staffDetail: `${client.cloud}: ${node} has ${names}, not ${named}`,
      },
    );
  }
  if (!isUp(found)) throw notActive(client, node, named);
  if (request.sharedOnly && !found.shared) throw onlyThere(client, request, named);
  if (!fits(found, diskGib)) throw noRoom(client, request, [found]);
  return named;
}

function onlyThere(client: PveClient, { node }: StorageRequest, named: string): ServiceError {
  return new ServiceError(
    "cloud_invalid",
    "The image cannot be copied to there: PVE copies to another node only onto a storage that both nodes reach. Choose the image's own node, or put a template of the same name on the other one.",
    {
      facts: { cloud: client.cloud, option: "node" },
      staffDetail: `${client.cloud}: ${named} is not shared, and the template is not on ${node}`,
    },
  );
}

function isUp(row: Storage): boolean {
  return row.enabled && row.active;
}

function availOf(row: Storage): number {
  return row.avail ?? Number.POSITIVE_INFINITY;
}

function fits(row: Storage, diskGib = 0): boolean {
  return availOf(row) >= diskGib * GIB;
}

function notActive(client: PveClient, node: string, storage: string): ServiceError {
  return new ServiceError(
    "cloud_invalid",
    "The storage for the server is not active at the moment. Our operators must look at it.",
    { facts: { cloud: client.cloud }, staffDetail: `${client.cloud}: ${storage} on ${node}` },
  );
}

function noRoom(client: PveClient, request: StorageRequest, rows: readonly Storage[]): ServiceError {
  const { node, diskGib = 0, sharedOnly } = request;
  const free = rows.map((row) => `${row.storage} has ${Math.floor(availOf(row) / GIB)} GiB free`).join(", ");
  const none = sharedOnly ? "no active storage that both nodes reach" : "no active storage for disks";
  return new ServiceError(
    "capacity",
    "The cloud has no room for this server's disk. Try a smaller size, or have our operators make room.",
    {
      facts: { cloud: client.cloud },
      staffDetail: `${client.cloud}: ${node}: ${free === "" ? none : free}; ${diskGib} GiB are needed`,
    },
  );
}

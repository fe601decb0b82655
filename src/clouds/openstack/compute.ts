// Nova's calls, one function each.
import type { RemoteFlavor, RemoteServer } from "../../core/cloud.ts";
import { isServiceError } from "../../core/errors.ts";
import type { Answer, OpenStackClient } from "./client.ts";
import {
  type NovaAction,
  NovaActionAnswer,
  NovaAction as NovaActionSchema,
  NovaFlavor,
  NovaFlavorAnswer,
  NovaLimits,
  NovaServer,
  NovaServerAnswer,
} from "./schema.ts";
import { isBusy, stateOf, statusOf, taskOf } from "./state.ts";

/** The copy of the marker in the metadata: what a person sees in Horizon, where tags are not shown. */
export const MARKER_KEY = "ratatosk_operation";
const MARKER = /^op=.+\.\d+$/u;
export function getServer(client: OpenStackClient, id: string, signal?: AbortSignal): Promise<NovaServer> {
  return client
    .read({ service: "compute", path: `/servers/${encodeURIComponent(id)}`, signal }, NovaServerAnswer)
    .then((answer) => answer.server);
}

/** Null when Nova answers 404. */
export async function findServer(
  client: OpenStackClient,
  id: string,
  signal?: AbortSignal,
): Promise<NovaServer | null> {
  try {
    return await getServer(client, id, signal);
  } catch (error) {
    if (isServiceError(error, "cloud_not_found")) return null;
    throw error;
  }
}

/**
 * All servers of the project. Without limit, filter and sort: only then does Nova show servers of an unreachable cell (as
 * UNKNOWN) instead of leaving them out, https://docs.openstack.org/api-guide/compute/down_cells.html
 */
export async function listServers(client: OpenStackClient, signal?: AbortSignal): Promise<NovaServer[]> {
  const { rows } = await client.list({
    service: "compute",
    path: "/servers/detail",
    key: "servers",
    item: NovaServer,
    signal,
  });
  return rows;
}

export function listChanges(client: OpenStackClient, since: Date, signal?: AbortSignal) {
  return client.list({
    service: "compute",
    path: "/servers/detail",
    // Nova's resolution is a second and its comparison is >=.
    query: { "changes-since": `${since.toISOString().slice(0, 19)}Z` },
    key: "servers",
    item: NovaServer,
    signal,
  });
}

/**
 * Both are put on a server at its creation: Nova's filter compares whole tags, so the one without the attempt finds the
 * servers of all attempts with one look, however many there were.
 */
export function tagsOf(operationId: string, marker: string): string[] {
  return [operationTag(operationId), marker];
}

function operationTag(operationId: string): string {
  return `op=${operationId}`;
}

/** Every server that carries a tag of this operation; oldest first. The tag is there before the POST has answered. */
export async function findMarked(
  client: OpenStackClient,
  operationId: string,
  signal?: AbortSignal,
): Promise<NovaServer[]> {
  const { rows } = await client.list({
    service: "compute",
    path: "/servers/detail",
    query: { tags: operationTag(operationId) },
    key: "servers",
    item: NovaServer,
    signal,
  });
  // Checked again in the answer: a Nova that ignores a filter would hand us everybody's.
  return rows
    .filter((server) => carriesMarker(server, operationId))
    .toSorted((a, b) => (a.created ?? "").localeCompare(b.created ?? "") || a.id.localeCompare(b.id));
}

export function carriesMarker(server: NovaServer, operationId: string): boolean {
  return server.tags?.includes(operationTag(operationId)) ?? false;
}

export function createServer(
  client: OpenStackClient,
  server: Record<string, unknown>,
  options: { timeoutMs: number; signal: AbortSignal; secrets: readonly string[] },
): Promise<Answer> {
  return client.call({ service: "compute", method: "POST", path: "/servers", body: { server }, ...options });
}

export function actOnServer(
  client: OpenStackClient,
  id: string,
  action: Record<string, unknown>,
  options: { timeoutMs: number; signal: AbortSignal; secrets?: readonly string[] },
): Promise<Answer> {
  return client.call({
    service: "compute",
    method: "POST",
    path: `/servers/${encodeURIComponent(id)}/action`,
    body: action,
    ...options,
  });
}

export function deleteServer(
  client: OpenStackClient,
  id: string,
  options: { timeoutMs: number; signal: AbortSignal },
): Promise<Answer> {
  return client.call({
    service: "compute",
    method: "DELETE",
    path: `/servers/${encodeURIComponent(id)}`,
    ...options,
  });
}

/** The record of one action, by the request id of the call that began it. Null when there is none. */
export async function findAction(
  client: OpenStackClient,
  serverId: string,
  requestId: string,
  signal?: AbortSignal,
): Promise<NovaAction | null> {
  const path = `/servers/${encodeURIComponent(serverId)}/os-instance-actions/${encodeURIComponent(requestId)}`;
  try {
    const answer = await client.read({ service: "compute", path, signal }, NovaActionAnswer);
    return answer.instanceAction;
  } catch (error) {
    if (isServiceError(error, "cloud_not_found")) return null;
    throw error;
  }
}

/** Newest first, without their events. */
export async function listActions(
  client: OpenStackClient,
  serverId: string,
  signal?: AbortSignal,
): Promise<NovaAction[]> {
  const { rows } = await client.list({
    service: "compute",
    path: `/servers/${encodeURIComponent(serverId)}/os-instance-actions`,
    key: "instanceActions",
    item: NovaActionSchema,
    signal,
  });
  return rows;
}

export async function getFlavor(
  client: OpenStackClient,
  id: string,
  signal?: AbortSignal,
): Promise<NovaFlavor> {
  const answer = await client.read(
    { service: "compute", path: `/flavors/${encodeURIComponent(id)}`, signal },
    NovaFlavorAnswer,
  );
  return answer.flavor;
}

export async function listFlavors(client: OpenStackClient, signal?: AbortSignal): Promise<RemoteFlavor[]> {
  const { rows } = await client.list({
    service: "compute",
    path: "/flavors/detail",
    key: "flavors",
    item: NovaFlavor,
    signal,
  });
  return rows
    .filter((flavor) => flavor["OS-FLV-DISABLED:disabled"] !== true)
    .map((flavor) => ({
      externalId: flavor.id,
      name: flavor.name,
      vcpus: flavor.vcpus,
      memoryMib: flavor.ram,
      diskGib: flavor.disk,
      isPublic: flavor["os-flavor-access:is_public"] ?? true,
    }));
}

export async function getLimits(client: OpenStackClient, signal?: AbortSignal) {
  const answer = await client.read({ service: "compute", path: "/limits", signal }, NovaLimits);
  return answer.limits.absolute;
}

export function remoteServerOf(server: NovaServer): RemoteServer {
  const task = taskOf(server);
  const remote: RemoteServer = {
    externalId: server.id,
    name: server.name ?? "",
    state: stateOf(server),
    providerStatus: task === null ? statusOf(server) : `${statusOf(server)}/${task}`,
    busy: isBusy(server),
    vcpus: server.flavor?.vcpus ?? 0,
    memoryMib: server.flavor?.ram ?? 0,
    diskGib: server.flavor?.disk ?? 0,
    addresses: addressesOf(server),
    markers: markersOf(server),
  };
  if (server.fault?.message !== undefined) remote.fault = server.fault.message.trim();
  return remote;
}

function addressesOf(server: NovaServer): string[] {
  const all = Object.values(server.addresses ?? {}).flatMap((list) => list.map((address) => address.addr));
  return [...new Set(all)];
}

function markersOf(server: NovaServer): string[] {
  const copy = server.metadata?.[MARKER_KEY];
  const all = [...(server.tags ?? []), ...(copy === undefined ? [] : [copy])];
  return [...new Set(all.filter((tag) => MARKER.test(tag)))];
}

// The cluster as a whole: which VM is where, which nodes are there, which tasks run.
import { isServiceError, ServiceError } from "../../core/errors.ts";
import { storable } from "../../database/storable.ts";
import type { PveClient } from "./client.ts";
import {
  type ClusterResource,
  ClusterResources,
  Interfaces,
  type Task,
  TaskLog,
  TaskStatus,
  Tasks,
  type VmConfig,
} from "./schema.ts";
import { findConfig, type VmAddress } from "./vm.ts";

export interface Resources {
  /** QEMU VMs and templates; containers too, which hold VMIDs as well. */
  guests: (ClusterResource & { vmid: number; node: string })[];
  /** Free memory in bytes; without Sys.Audit PVE does not tell it, and it counts as enough: infinite. */
  nodes: { node: string; online: boolean; freeMemory: number }[];
  /** Storages that every node reaches. */
  sharedStorages: ReadonlySet<string>;
}

/** Its states are some seconds old and its rows only those that the credential may see. */
export async function listResources(
  client: PveClient,
  signal?: AbortSignal,
  since?: number,
): Promise<Resources> {
  const rows = await client.read({ path: "/cluster/resources", signal, since }, ClusterResources);
  return {
    guests: rows.flatMap((row) => {
      const { vmid, node, type } = row;
      const isGuest = type === "qemu" || type === "lxc";
      return isGuest && vmid !== undefined && node !== undefined ? [{ ...row, vmid, node }] : [];
    }),
    nodes: rows.flatMap((row) =>
      row.type === "node" && row.node !== undefined
        ? [
            {
              node: row.node,
              online: row.status === "online",
              freeMemory: row.maxmem === undefined ? Number.POSITIVE_INFINITY : row.maxmem - (row.mem ?? 0),
            },
          ]
        : [],
    ),
    sharedStorages: new Set(
      rows.flatMap((row) => (row.storage !== undefined && row.shared === true ? [row.storage] : [])),
    ),
  };
}

/** PVE's own list is up to ten seconds old (pvestatd). */
export const LISTED_MS = 3_000;

/** A list for a choice that PVE itself looks at again when it is carried out. */
export function listResourcesLately(client: PveClient, signal?: AbortSignal): Promise<Resources> {
  return listResources(client, signal, client.recent.now() - LISTED_MS);
}

export interface FoundVm extends VmAddress {
  config: VmConfig;
}

/**
 * Looks on the hinted node first: VMs seldom move. Null only when the whole cluster has no guest of this number: what the
 * credential does not see is not taken for gone. Throws `cloud_forbidden` for one that it may not see, `cloud_conflict` for
 * a container, `unreachable` for one on a node that is away.
 */
export async function findVm(
  client: PveClient,
  vmid: number,
  {
    hint,
    since = client.recent.now(),
    signal,
  }: { hint?: string | undefined; since?: number | undefined; signal?: AbortSignal | undefined } = {},
): Promise<FoundVm | null> {
  const found = await lookFor(client, { vmid, since }, { hint: hint ?? client.recent.nodeOf(vmid), signal });
  if (found === null) client.recent.forget(vmid);
  else client.recent.saw(found);
  return found;
}

async function lookFor(
  client: PveClient,
  { vmid, since }: { vmid: number; since: number },
  { hint, signal }: { hint: string | undefined; signal: AbortSignal | undefined },
): Promise<FoundVm | null> {
  if (hint !== undefined) {
    const config = await findConfigOn(client, { node: hint, vmid, since }, signal);
    if (config !== null) return { node: hint, vmid, since, config };
    if (await isFree(client, vmid, signal)) return null;
  }
  let isListed = false;
  // A list that is some seconds old tells as well where to look; the second look is for a VM that has moved since.
  for (const listedSince of [client.recent.now() - LISTED_MS, client.recent.now()]) {
    // oxlint-disable-next-line no-await-in-loop
    const { guests, nodes } = await listResources(client, signal, listedSince);
    const row = guests.find((guest) => guest.vmid === vmid);
    if (row === undefined) {
      // oxlint-disable-next-line no-await-in-loop
      if (await isFree(client, vmid, signal)) return null;
      continue;
    }
    isListed = true;
    if (row.type !== "qemu") throw isContainer(client, vmid);
    if (nodes.some((node) => node.node === row.node && !node.online)) throw nodeAway(client, row.node, vmid);
    // oxlint-disable-next-line no-await-in-loop
    const config = await findConfig(client, { node: row.node, vmid, since }, signal);
    if (config !== null) return { node: row.node, vmid, since, config };
  }
  if (!isListed) throw notVisible(client, vmid);
  throw new ServiceError("unreachable", "The server is on the move between two nodes. Try again later.", {
    retryable: true,
    facts: { cloud: client.cloud },
    staffDetail: `${client.cloud}: VM ${vmid} is listed on a node that does not have it`,
  });
}

/** A node that is away, or no longer exists, says nothing about where the VM is now. */
async function findConfigOn(
  client: PveClient,
  at: VmAddress,
  signal?: AbortSignal,
): Promise<VmConfig | null> {
  try {
    return await findConfig(client, at, signal);
  } catch (error) {
    if (isServiceError(error, "unreachable", "cloud_invalid") && signal?.aborted !== true) return null;
    throw error;
  }
}

/** Asks the whole cluster, whatever the credential may see: /cluster/nextid knows every number that is taken. */
export async function isFree(client: PveClient, vmid: number, signal?: AbortSignal): Promise<boolean> {
  try {
    await client.call({ method: "GET", path: "/cluster/nextid", parameters: { vmid }, signal });
    return true;
  } catch (error) {
    if (isServiceError(error, "cloud_conflict") && error.facts["taken"] === true) return false;
    throw error;
  }
}

function notVisible(client: PveClient, vmid: number): ServiceError {
  return new ServiceError(
    "cloud_forbidden",
    "Our credential may not see this server in the cloud. The operators must give it the privilege.",
    {
      facts: { cloud: client.cloud },
      staffDetail: `${client.cloud}: VM ${vmid} exists, but the credential lacks VM.Audit on /vms/${vmid}`,
    },
  );
}

function isContainer(client: PveClient, vmid: number): ServiceError {
  return new ServiceError("cloud_conflict", "This number belongs to a container, which is none of ours.", {
    facts: { cloud: client.cloud },
    staffDetail: `${client.cloud}: ${vmid} is a container`,
  });
}

function nodeAway(client: PveClient, node: string, vmid: number): ServiceError {
  return new ServiceError("unreachable", "The node that this server is on is away. Try again later.", {
    retryable: true,
    facts: { cloud: client.cloud },
    staffDetail: `${client.cloud}: node ${node} of VM ${vmid} is offline`,
  });
}

/** Bridges of one node; only those that the credential may use. */
export async function listBridges(client: PveClient, node: string, signal?: AbortSignal): Promise<string[]> {
  const path = `/nodes/${encodeURIComponent(node)}/network`;
  const since = client.recent.now() - LISTED_MS;
  const rows = await client.read({ path, parameters: { type: "any_bridge" }, signal, since }, Interfaces);
  return rows.map((row) => row.iface);
}

const TASK_PAGE = 500;

/** All tasks of one node that began at or after this second (by its clock), running ones included; every page of them. */
export async function listTasks(
  client: PveClient,
  node: string,
  { since, vmid, signal }: { since: number; vmid?: number; signal?: AbortSignal | undefined },
): Promise<Task[]> {
  const path = `/nodes/${encodeURIComponent(node)}/tasks`;
  const tasks = new Map<string, Task>();
  for (let start = 0; ; start += TASK_PAGE) {
    const parameters = {
      source: "all",
      since,
      limit: TASK_PAGE,
      start,
      ...(vmid === undefined ? {} : { vmid }),
    };
    // oxlint-disable-next-line no-await-in-loop -- page by page
    const page = await client.read({ path, parameters, signal }, Tasks);
    for (const task of page) tasks.set(task.upid, task);
    if (page.length < TASK_PAGE) return [...tasks.values()];
  }
}

/** What runs on a node now, and a few that have just ended. */
export function listActiveTasks(client: PveClient, node: string, signal?: AbortSignal): Promise<Task[]> {
  const path = `/nodes/${encodeURIComponent(node)}/tasks`;
  return client.read({ path, parameters: { source: "active", limit: TASK_PAGE }, signal }, Tasks);
}

export function isRunning(task: Task): boolean {
  return task.endtime === undefined && (task.status === undefined || task.status === "RUNNING");
}

/** `null` while it runs or is not visible yet (right after it began PVE may not know it). */
type TaskEnd = { ok: boolean; exitStatus: string } | null | "unknown";

/** PVE::UPID status_is_error: OK and WARNINGS are success. */
export function isGoodExit(exitStatus: string): boolean {
  return exitStatus === "OK" || exitStatus.startsWith("WARNINGS");
}

export async function taskEnd(
  client: PveClient,
  task: { upid: string; node: string },
  signal?: AbortSignal,
): Promise<TaskEnd> {
  const path = `/nodes/${encodeURIComponent(task.node)}/tasks/${encodeURIComponent(task.upid)}/status`;
  try {
    const known = client.recent.endOf(task.upid);
    if (known !== undefined) return { ok: isGoodExit(known), exitStatus: known };
    const { status, exitstatus = "" } = await client.read({ path, signal }, TaskStatus);
    if (status !== "stopped") return null;
    return { ok: isGoodExit(exitstatus), exitStatus: exitstatus };
  } catch (error) {
    if (isServiceError(error, "cloud_not_found")) return "unknown";
    throw error;
  }
}

const MOST_WARNINGS = 100;
const LONGEST_WARNING = 300;

/** The first lines of a task's log that begin so, for staff. They may quote a guest. */
export async function taskWarnings(
  client: PveClient,
  task: { upid: string; node: string },
  signal?: AbortSignal,
): Promise<string[]> {
  const path = `/nodes/${encodeURIComponent(task.node)}/tasks/${encodeURIComponent(task.upid)}/log`;
  // limit=0 is the whole log; PVE's default is its first 50 lines.
  const lines = await client.read({ path, parameters: { limit: 0 }, signal }, TaskLog);
  const warnings = lines.map((line) => line.t).filter((line) => /^WARN(?:ING)?:/u.test(line));
  return warnings.slice(0, MOST_WARNINGS).map((line) => storable(line.slice(0, LONGEST_WARNING)));
}

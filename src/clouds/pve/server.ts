// A VM as core/cloud.ts wants it.
import type { RemoteServer, RemoteSnapshot, ServerState } from "../../core/cloud.ts";
import { isServiceError, ServiceError } from "../../core/errors.ts";
import { fixedNow, hasAddressNote, nextAddresses, usableAddresses } from "./address.ts";
import { agentAddresses } from "./agent.ts";
import { inBatches } from "./batches.ts";
import type { PveClient } from "./client.ts";
import {
  type FoundVm,
  findVm,
  isRunning,
  listActiveTasks,
  listResources,
  listResourcesLately,
  type Resources,
} from "./cluster.ts";
import {
  bootDiskOf,
  coresOf,
  diskGibOf,
  hasAgent,
  isProtected,
  macAddressesOf,
  memoryMibOf,
  smbiosUuidOf,
  staticAddressesOf,
  tagsOf,
} from "./config.ts";
import { mountedIso } from "./iso.ts";
import { markersIn, markerText } from "./marker.ts";
import { isInRescue } from "./rescue.ts";
import type { VmConfig, VmStatus } from "./schema.ts";
import { listSnapshots, remoteSnapshots } from "./snapshots.ts";
import { lockAdviceOf, providerStatusOf, stateOf, workLockOf } from "./state.ts";
import { getStatus } from "./vm.ts";

/** On every VM of ours, so that one list shows which are. */
export const TAG = "ratatosk";
const MIB = 2 ** 20;
const GIB = 2 ** 30;
/** How many VMs are asked for their details at a time. */
const AT_ONCE = 8;

/** Our external id is the VMID; it is unique in the cluster and never used again by us. Null for anything else. */
export function vmidOf(externalId: string): number | null {
  return /^[1-9]\d{2,8}$/u.test(externalId) ? Number(externalId) : null;
}

export async function inspect(
  client: PveClient,
  externalId: string,
  { before, signal }: { before?: string | undefined; signal?: AbortSignal | undefined } = {},
): Promise<RemoteServer> {
  const vm = await getVm(client, externalId, signal);
  if (before !== undefined) client.recent.looked(before, vm.since ?? client.recent.now());
  return remoteServerOf(client, vm, signal, { addresses: before === undefined });
}

/** All that it has. Throws `cloud_not_found`. */
export async function snapshotsOf(
  client: PveClient,
  externalId: string,
  signal?: AbortSignal,
): Promise<RemoteSnapshot[]> {
  return remoteSnapshots(await listSnapshots(client, await getVm(client, externalId, signal), signal));
}

async function getVm(client: PveClient, externalId: string, signal?: AbortSignal): Promise<FoundVm> {
  const vmid = vmidOf(externalId);
  const found = vmid === null ? null : await findVm(client, vmid, { signal });
  if (found !== null) return found;
  throw new ServiceError("cloud_not_found", "The cloud no longer has this server.", {
    facts: { cloud: client.cloud },
    staffDetail: `${client.cloud}: no VM ${externalId} on any node`,
  });
}

/**
 * `addresses: false` leaves them out: asking the guest for them is a call of its own. `justStarted`: the guest is asked first,
 * because one that answers runs, and PVE need not be asked for that.
 */
export async function remoteServerOf(
  client: PveClient,
  found: FoundVm,
  signal?: AbortSignal,
  { addresses = true, justStarted = false } = {},
): Promise<RemoteServer> {
  const { config, node, vmid } = found;
  const { isos } = client.options;
  const asksFirst = addresses && justStarted && asksGuest(config) && config["lock"] === undefined;
  const told = asksFirst ? await askGuest(client, found, signal) : null;
  const status = told === null ? await getStatus(client, found, signal) : ANSWERING;
  const markers = markersIn(config["description"]).map(markerText);
  const uuid = smbiosUuidOf(config);
  const disk = bootDiskOf(config);
  const askedFirst = told ?? (asksFirst ? usableAddresses(fixedNow(config, status)) : null);
  const known = addresses ? (askedFirst ?? (await addressesOf(client, found, { status, signal }))) : null;
  const remote: RemoteServer = {
    externalId: String(vmid),
    name: config["name"] ?? status.name ?? `VM ${vmid}`,
    state: stateIn(status, config),
    providerStatus: providerStatusOf(status),
    busy: await isBusy(client, found, { status, signal }),
    // What runs is what counts: a new size may wait in the configuration for a restart.
    vcpus: status.cpus ?? coresOf(config).cores * coresOf(config).sockets,
    memoryMib: status.maxmem === undefined ? memoryMibOf(config) : Math.round(status.maxmem / MIB),
    diskGib: diskGibOf(config),
    ...(known === null ? {} : { addresses: known }),
    markers,
    deleteProtected: isProtected(config),
    identity: uuid ?? "",
    // Of a VM without our marker nothing is recorded: it may be a stranger's that got the number.
    data:
      markers.length === 0
        ? { node }
        : {
            node,
            ...(uuid === null ? {} : { smbiosUuid: uuid }),
            ...(disk === null ? {} : { bootDisk: disk.key }),
            ...(known === null ? {} : nextAddresses(config, status, known)),
            ...(isos === undefined ? {} : { iso: mountedIso(config, isos) }),
          },
  };
  const lock = workLockOf(status);
  if (lock !== null && !remote.busy) remote.fault = stuckLockAdvice(found, lock);
  else if (remote.state === "error") remote.fault = `QEMU says ${status.qmpstatus ?? "nothing"}`;
  return remote;
}

/** What runs may run from other media than its own disk. */
function stateIn(status: VmStatus, config: VmConfig): ServerState {
  const state = stateOf(status);
  return state === "active" && isInRescue(config) ? "rescue" : state;
}

interface Circumstances {
  status: VmStatus;
  signal?: AbortSignal | undefined;
}

/** A lock without a task that holds it was left by a task that died: nothing is at work then. */
async function isBusy(
  client: PveClient,
  found: FoundVm,
  { status, signal }: Circumstances,
): Promise<boolean> {
  if (workLockOf(status) === null) return false;
  return isAtWork(client, found, signal);
}

/** A clone runs under its source's number, so any running one of the node may be this VM's. */
export async function isAtWork(client: PveClient, at: FoundVm, signal?: AbortSignal): Promise<boolean> {
  const { nodes } = await listResourcesLately(client, signal);
  const lock = workLockOf(at.config);
  // A backup job and a clone to another node run elsewhere.
  const everywhere = lock === "clone" || lock === "create";
  const asked = everywhere ? nodes.filter((node) => node.online).map((node) => node.node) : [at.node];
  const lists = await Promise.all(asked.map((node) => listActiveTasks(client, node, signal)));
  return lists.flat().some((task) => isRunning(task) && mayHold(task, at.vmid));
}

function mayHold(task: { type: string; id?: string | null | undefined }, vmid: number): boolean {
  // A backup job of many VMs has no id.
  if (["qmclone", "qmcreate", "qmrestore", "vzdump", "qmigrateall"].includes(task.type)) return true;
  return task.id === String(vmid);
}

export function stuckLockAdvice({ node, vmid }: { node: string; vmid: number }, lock: string): string {
  const unlock = `VM ${vmid} is locked (${lock}) and no task of PVE is at work on it. On ${node}, after a look at its disks, run: qm unlock ${vmid}`;
  const then = lockAdviceOf(lock, vmid);
  return then === "" ? unlock : `${unlock}. ${then}`;
}

async function addressesOf(
  client: PveClient,
  found: FoundVm,
  { status, signal }: Circumstances,
): Promise<string[]> {
  const { config } = found;
  const told =
    asksGuest(config) && stateIn(status, config) === "active" ? await askGuest(client, found, signal) : null;
  return told ?? usableAddresses(fixedNow(config, status));
}

/** What QEMU says of a guest whose agent has answered. */
const ANSWERING: VmStatus = { status: "running", qmpstatus: "running" };

/** Only one whose configuration does not say its addresses, or has said others. */
function asksGuest(config: VmConfig): boolean {
  return (staticAddressesOf(config).length === 0 || hasAddressNote(config)) && hasAgent(config);
}

/** Null when its agent does not answer. */
function askGuest(client: PveClient, found: FoundVm, signal?: AbortSignal): Promise<string[] | null> {
  return agentAddresses(client, found, { macs: macAddressesOf(found.config), signal });
}

/**
 * Every VM that the credential sees, templates left out; details only of those that may be ours. What cannot be told of one
 * VM makes that one `unknown` and the list no shorter; what is wrong with the credential or with the way to PVE is thrown.
 */
export async function listServers(client: PveClient, signal?: AbortSignal): Promise<RemoteServer[]> {
  const resources = await listResources(client, signal);
  const rows = resources.guests.filter((row) => row.type === "qemu" && row.template !== true);
  const looks: Looks = { told: 0, failed: [], late: new Map() };
  const servers = await inBatches(rows, AT_ONCE, async (row) => {
    if (isAway(resources, row.node)) return [fromRow(row, { away: true })];
    return mayBeOurs(client, row) ? look(client, row, { looks, signal }) : [fromRow(row)];
  });
  const [first, second] = looks.failed;
  // All of them: that is not one VM's trouble.
  if (looks.told === 0 && first !== undefined && second !== undefined) throw first;
  return servers.flat();
}

/** Of one list. */
interface Looks {
  told: number;
  failed: ServiceError[];
  /** How often nothing was heard of a VM in time, by node. */
  late: Map<string, number>;
}

/** Then no more of a node's VMs are asked for: each may take half a minute. */
const MOST_LATE = 3;

async function look(
  client: PveClient,
  row: Resources["guests"][number],
  { looks, signal }: { looks: Looks; signal: AbortSignal | undefined },
): Promise<RemoteServer[]> {
  const { vmid, node } = row;
  const late = looks.late.get(node) ?? 0;
  if (late >= MOST_LATE) return [fromRow(row, { fault: `node ${node} has not answered for others either` })];
  try {
    const found = await findVm(client, vmid, { hint: node, signal });
    const servers = found === null ? [] : [await withSnapshots(client, found, signal)];
    looks.told += 1;
    // Without one it was deleted since the list was made.
    return servers;
  } catch (error) {
    if (!isOfOneVm(error) || signal?.aborted === true) throw error;
    looks.failed.push(error);
    if (isServiceError(error, "timeout", "unreachable")) {
      looks.late.set(node, (looks.late.get(node) ?? 0) + 1);
    }
    const fault = error.staffDetail ?? error.message;
    client.log.warn({ cloud: client.cloud, vmid, reason: fault }, "what a VM is could not be told");
    return [fromRow(row, { fault })];
  }
}

/** An answer of PVE about it. A refused credential, or no connection after all tries, is the same for all of them. */
function isOfOneVm(error: unknown): error is ServiceError {
  if (!isServiceError(error) || error.code === "unauthorized") return false;
  return error.code !== "unreachable" || error.facts["call"] === undefined;
}

/** `parent` says that there are some; a list without it says nothing. */
async function withSnapshots(
  client: PveClient,
  found: FoundVm,
  signal: AbortSignal | undefined,
): Promise<RemoteServer> {
  const server = await remoteServerOf(client, found, signal);
  if (found.config["parent"] === undefined) return server;
  try {
    return { ...server, snapshots: remoteSnapshots(await listSnapshots(client, found, signal)) };
  } catch (error) {
    // Deleted since, as any may be that is listed.
    if (isServiceError(error, "cloud_not_found")) return server;
    throw error;
  }
}

export async function findByMarker(
  client: PveClient,
  operationId: string,
  signal?: AbortSignal,
): Promise<RemoteServer[]> {
  const { guests } = await listResources(client, signal);
  const rows = guests.filter((row) => row.type === "qemu" && row.template !== true && mayBeOurs(client, row));
  const found = await inBatches(rows, AT_ONCE, async (row) => {
    const vm = await findVm(client, row.vmid, { hint: row.node, signal });
    const isMarked =
      vm !== null && markersIn(vm.config["description"]).some((marker) => marker.operationId === operationId);
    return isMarked ? [vm] : [];
  });
  return inBatches(found.flat(), AT_ONCE, (vm) => remoteServerOf(client, vm, signal));
}

export function mayBeOurs(
  client: PveClient,
  row: Pick<Resources["guests"][number], "vmid" | "tags">,
): boolean {
  const [from, to] = client.options.vmidRange;
  return (row.vmid >= from && row.vmid <= to) || tagsOf(row.tags).includes(TAG);
}

function isAway({ nodes }: Resources, node: string): boolean {
  return nodes.some((row) => row.node === node && !row.online);
}

/** `fault`: why no more could be told of it. */
function fromRow(
  row: Resources["guests"][number],
  { away = false, fault }: { away?: boolean; fault?: string } = {},
): RemoteServer {
  const isKnown = !away && fault === undefined && (row.status === "running" || row.status === "stopped");
  return {
    externalId: String(row.vmid),
    name: row.name ?? `VM ${row.vmid}`,
    state: isKnown ? stateOf({ status: row.status ?? "", lock: row.lock }) : "unknown",
    providerStatus: away
      ? `${row.status ?? "unknown"} (node ${row.node} is away)`
      : (row.status ?? "unknown"),
    busy: false,
    vcpus: row.maxcpu ?? 0,
    memoryMib: Math.round((row.maxmem ?? 0) / MIB),
    diskGib: Math.ceil((row.maxdisk ?? 0) / GIB),
    addresses: [],
    markers: [],
    data: { node: row.node },
    ...(fault === undefined ? {} : { fault }),
  };
}

import { pause } from "../pace.ts";
import { allocateAddress, bindPort, type Cloud, createPort, inSubnet, releasePorts } from "./cloud.ts";
import { knobsOf } from "./knobs.ts";
import { fault, fits, inBackground, POWER_RUNNING, setState, work } from "./lifecycle.ts";
import { type Actor, finishEvent, startAction, startEvent } from "./nova-records.ts";
import type { ActionRecord, NetworkRequest, Server } from "./types.ts";

/** BUILD: scheduling, (none), networking, spawning; then ACTIVE or ERROR. */
export function buildServer(cloud: Cloud, server: Server, actor: Actor): void {
  const startedAt = Date.now();
  inBackground(server, async (alive) => {
    await pause(cloud, 150);
    if (!alive()) return;
    // Only now does Nova know the action: before, the server is a mere build request.
    const record = startAction(server, "create", actor, startedAt);
    const knobs = knobsOf(cloud, server);
    if (knobs.noCapacity || knobs.dead || !fits(server)) {
      const event = startEvent(record, server, "conductor_schedule_and_build_instances", "conductor");
      failBuild(cloud, server, "No valid host was found. ");
      finishEvent(record, event, "Error");
      return;
    }
    cloud.nextHost = 1 - cloud.nextHost;
    server.host = cloud.nextHost;
    setState(server, { taskState: null });
    await pause(cloud, 100);
    if (alive()) await buildOnHost(cloud, server, record, alive, 1);
  });
}

async function buildOnHost(
  cloud: Cloud,
  server: Server,
  record: ActionRecord,
  alive: () => boolean,
  attempt: number,
): Promise<void> {
  const event = startEvent(record, server, "compute__do_build_and_run_instance");
  setState(server, { taskState: "networking" });
  await pause(cloud, 300);
  if (!alive()) return;
  const trouble = allocateNetworks(cloud, server);
  if (trouble !== undefined) {
    failBuild(cloud, server, `Build of instance ${server.id} aborted: ${trouble}`);
    // The compute's own function ends well: it has handled the failure.
    finishEvent(record, event, "Success");
    return;
  }
  setState(server, { taskState: "block_device_mapping" });
  await pause(cloud, 50);
  if (!alive()) return;
  setState(server, { taskState: "spawning" });
  await work(cloud, server, 2400);
  if (!alive()) return;
  const { fail } = knobsOf(cloud, server);
  if (fail === "abort") {
    failBuild(cloud, server, `Build of instance ${server.id} aborted: osr: build aborted on request`);
    finishEvent(record, event, "Success");
    return;
  }
  if (fail === "spawn") {
    finishEvent(record, event, "Success");
    await reschedule(cloud, server, record, alive, attempt);
    return;
  }
  const now = Date.now();
  server.launchedAt = now;
  setState(server, { vmState: "active", taskState: null, powerState: POWER_RUNNING });
  finishEvent(record, event, "Success");
}

/** Two hosts: after the second one the retries are exhausted, and the last event is never finished (measured). */
async function reschedule(
  cloud: Cloud,
  server: Server,
  record: ActionRecord,
  alive: () => boolean,
  attempt: number,
): Promise<void> {
  if (attempt >= 2) {
    const last = record.events.at(-1);
    if (last) Object.assign(last, { finishedAt: null, result: null });
    failBuild(
      cloud,
      server,
      `Exceeded maximum number of retries. Exhausted all hosts available for retrying build failures for instance ${server.id}.`,
    );
    return;
  }
  releasePorts(cloud, server.id);
  setState(server, { taskState: "scheduling" });
  await pause(cloud, 100);
  if (!alive()) return;
  server.host = server.host === 0 ? 1 : 0;
  await buildOnHost(cloud, server, record, alive, attempt + 1);
}

function failBuild(cloud: Cloud, server: Server, message: string): void {
  releasePorts(cloud, server.id);
  server.host = null;
  server.fault = fault(message);
  setState(server, { vmState: "error", taskState: null });
}

const NO_NETWORK = "Failed to allocate the network(s), not rescheduling.";

/** Undefined when every port is there; else the reason as Nova's fault tells it. */
function allocateNetworks(cloud: Cloud, server: Server): string | undefined {
  for (const request of server.networkRequests) {
    const trouble =
      request.portId === null ? makePort(cloud, server, request) : takePort(cloud, server, request.portId);
    if (trouble !== undefined) return trouble;
  }
  return undefined;
}

function makePort(cloud: Cloud, server: Server, request: NetworkRequest): string | undefined {
  const network = cloud.networks.get(request.networkId ?? "");
  const subnet = network && cloud.subnets.get(network.subnetId);
  // A tenant may not plug into an external network; Nova's API does not look, so the build fails.
  if (!network || !subnet || (network.external && !network.shared)) return NO_NETWORK;
  const address = request.fixedIp ?? allocateAddress(cloud, subnet);
  if (address === undefined)
    return `Failed to allocate the network(s) with error No fixed IP addresses available for network: ${network.id}, not rescheduling.`;
  if (!inSubnet(subnet, address))
    return `Invalid input received: Fixed IP ${address} is not a valid ip address for network ${network.id}.`;
  const port = createPort(cloud, {
    network,
    projectId: server.projectId,
    address,
    securityGroupIds: groupIds(cloud, server),
    preexisting: false,
  });
  bindPort(port, server.id);
  return undefined;
}

/**
 * Two servers asked for the same free port and both were accepted: the later one fails here,
 * and its clean-up takes the port from the winner, which stays ACTIVE without its address (measured).
 */
function takePort(cloud: Cloud, server: Server, portId: string): string | undefined {
  const port = cloud.ports.get(portId);
  if (!port) return NO_NETWORK;
  if (port.deviceId !== "" && port.deviceId !== server.id) {
    bindPort(port, "");
    return NO_NETWORK;
  }
  bindPort(port, server.id);
  return undefined;
}

function groupIds(cloud: Cloud, server: Server): string[] {
  const groups = [...cloud.securityGroups.values()].filter(({ projectId }) => projectId === server.projectId);
  const names = server.securityGroups.length > 0 ? server.securityGroups : ["default"];
  return groups.filter(({ id, name }) => names.includes(id) || names.includes(name)).map(({ id }) => id);
}

/** A server somebody else made, running at once. */
export function adoptRunning(cloud: Cloud, server: Server, actor: Actor): void {
  const record = startAction(server, "create", actor, server.createdAt);
  cloud.nextHost = 1 - cloud.nextHost;
  server.host = cloud.nextHost;
  allocateNetworks(cloud, server);
  const event = startEvent(record, server, "compute__do_build_and_run_instance");
  server.launchedAt = Date.now();
  setState(server, { vmState: "active", taskState: null, powerState: POWER_RUNNING });
  finishEvent(record, event, "Success");
}

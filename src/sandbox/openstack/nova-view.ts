import { type Cloud, computeHostId, serverPorts } from "./cloud.ts";
import { links, type NovaCall } from "./nova-call.ts";
import { isoMicros, isoSeconds } from "./time.ts";
import type { Server } from "./types.ts";
import { words } from "./words.ts";

type Fields = Record<string, unknown>;

/** Status is a function of vm_state and task_state (nova/api/openstack/common.py, _STATE_MAP). */
export function statusOf(server: Pick<Server, "vmState" | "taskState">): string {
  const task = server.taskState ?? "";
  const resizing = ["resize_prep", "resize_migrating", "resize_migrated", "resize_finish"].includes(task);
  switch (server.vmState) {
    case "building":
      return "BUILD";
    case "active":
      if (resizing) return "RESIZE";
      if (["rebooting", "reboot_pending", "reboot_started"].includes(task)) return "REBOOT";
      if (["rebooting_hard", "reboot_pending_hard", "reboot_started_hard"].includes(task))
        return "HARD_REBOOT";
      return task === "updating_password" ? "PASSWORD" : "ACTIVE";
    case "stopped":
      return resizing ? "RESIZE" : "SHUTOFF";
    case "resized":
      return task === "resize_reverting" ? "REVERT_RESIZE" : "VERIFY_RESIZE";
    case "error":
      return "ERROR";
    case "deleted":
      return "DELETED";
    case "soft-delete":
    default:
      return "SOFT_DELETED";
  }
}

const STATUSES = words(
  "ACTIVE BUILD DELETED ERROR HARD_REBOOT MIGRATING PASSWORD PAUSED REBOOT REBUILD RESCUE RESIZE REVERT_RESIZE",
  "SHELVED SHELVED_OFFLOADED SHUTOFF SOFT_DELETED SUSPENDED VERIFY_RESIZE",
);

export function isStatus(value: string): boolean {
  return STATUSES.has(value.toUpperCase());
}

// nova/api/openstack/compute/views/servers.py: _progress_statuses, _fault_statuses
const WITH_PROGRESS = words("ACTIVE BUILD REBUILD RESIZE VERIFY_RESIZE MIGRATING");
const WITH_FAULT = words("ERROR DELETED");

export function basicServer(call: NovaCall, server: Server): Fields {
  return { id: server.id, name: server.name, links: links(call, `/servers/${server.id}`) };
}

export function detailedServer(call: NovaCall, server: Server): Fields {
  const { version, cloud } = call;
  const status = statusOf(server);
  const groups = securityGroupNames(cloud, server);
  return {
    id: server.id,
    name: server.name,
    status,
    tenant_id: server.projectId,
    user_id: server.userId,
    metadata: server.deletedAt === null ? server.metadata : {},
    hostId: computeHostId(server),
    image: {
      id: server.imageId,
      links: [{ rel: "bookmark", href: `${call.bookmarkBase}/images/${server.imageId}` }],
    },
    flavor: flavorField(call, server),
    created: isoSeconds(server.createdAt),
    updated: isoSeconds(server.updatedAt),
    addresses: addresses(cloud, server, true),
    accessIPv4: "",
    accessIPv6: "",
    links: links(call, `/servers/${server.id}`),
    "OS-DCF:diskConfig": "MANUAL",
    ...(WITH_FAULT.has(status) && server.fault ? { fault: faultField(server) } : {}),
    ...(WITH_PROGRESS.has(status) ? { progress: 0 } : {}),
    "OS-EXT-AZ:availability_zone": server.host === null ? "" : server.availabilityZone,
    config_drive: server.configDrive ? "True" : "",
    key_name: server.keyName,
    "OS-SRV-USG:launched_at": server.launchedAt === null ? null : isoMicros(server.launchedAt),
    "OS-SRV-USG:terminated_at": server.terminatedAt === null ? null : isoMicros(server.terminatedAt),
    ...(groups.length > 0 ? { security_groups: groups } : {}),
    "OS-EXT-STS:task_state": server.taskState,
    "OS-EXT-STS:vm_state": server.vmState,
    "OS-EXT-STS:power_state": server.powerState,
    "os-extended-volumes:volumes_attached": [],
    ...(version >= 9 ? { locked: server.locked } : {}),
    ...(version >= 73 ? { locked_reason: server.lockedReason } : {}),
    ...(version >= 19 ? { description: server.description } : {}),
    ...(version >= 26 ? { tags: server.tags } : {}),
    ...(version >= 63 ? { trusted_image_certificates: null } : {}),
    ...(version >= 90 ? { "OS-EXT-SRV-ATTR:hostname": server.hostname } : {}),
  };
}

function flavorField(call: NovaCall, server: Server): Fields {
  const { flavor } = server;
  if (call.version < 47) {
    const href = `${call.bookmarkBase}/flavors/${flavor.id}`;
    return { id: flavor.id, links: [{ rel: "bookmark", href }] };
  }
  // From 2.47 on there is no id any more: a plan can only be recognised by its name.
  return {
    vcpus: flavor.vcpus,
    ram: flavor.ramMib,
    disk: flavor.diskGib,
    ephemeral: 0,
    swap: 0,
    original_name: flavor.name,
    extra_specs: flavor.extraSpecs,
  };
}

function faultField(server: Server): Fields | undefined {
  if (!server.fault) return undefined;
  const { code, createdAt, message } = server.fault;
  return { code, created: isoSeconds(createdAt), message };
}

export function addresses(cloud: Cloud, server: Server, extended: boolean): Record<string, Fields[]> {
  const result: Record<string, Fields[]> = {};
  for (const port of serverPorts(cloud, server.id)) {
    const network = cloud.networks.get(port.networkId);
    if (!network) continue;
    const row = (addr: string, type: string): Fields =>
      extended
        ? { version: 4, addr, "OS-EXT-IPS:type": type, "OS-EXT-IPS-MAC:mac_addr": port.macAddress }
        : { version: 4, addr };
    const rows = (result[network.name] ??= []);
    rows.push(row(port.ipAddress, "fixed"));
    for (const floating of cloud.floatingIps.values()) {
      if (floating.portId === port.id) rows.push(row(floating.address, "floating"));
    }
  }
  return result;
}

/** Read from the ports, so there is none before networking, and one entry per port. */
function securityGroupNames(cloud: Cloud, server: Server): { name: string }[] {
  const names = serverPorts(cloud, server.id).flatMap((port) =>
    port.securityGroupIds.map((id) => cloud.securityGroups.get(id)?.name),
  );
  return names.filter((name) => name !== undefined).map((name) => ({ name }));
}

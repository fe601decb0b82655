import { UpdateBody } from "./bodies.ts";
import { serverPorts } from "./cloud.ts";
import type { Answer } from "./http.ts";
import { parseTime } from "./json-schema.ts";
import { deleteServer } from "./lifecycle.ts";
import {
  findServer,
  type NovaCall,
  nextLink,
  page,
  parameter,
  policyRefusal,
  refuse,
  requireBody,
  requireQuery,
} from "./nova-call.ts";
import { listServers, updateServer } from "./nova-schemas.ts";
import { addresses, basicServer, detailedServer, isStatus, statusOf } from "./nova-view.ts";
import type { Server } from "./types.ts";

export function listServersBasic(call: NovaCall): Answer {
  return list(call, "index", basicServer);
}

export function listServersDetailed(call: NovaCall): Answer {
  return list(call, "detail", detailedServer);
}

function list(
  call: NovaCall,
  kind: "index" | "detail",
  view: (call: NovaCall, server: Server) => Record<string, unknown>,
): Answer {
  requireQuery(call, listServers(call.version));
  const allTenants = ["1", "true", "yes", ""].includes((parameter(call, "all_tenants") ?? "0").toLowerCase());
  if (allTenants && !call.token.admin) throw policyRefusal(`servers:${kind}:get_all_tenants`);
  const statuses = call.exchange.query.getAll("status");
  if (statuses.length > 0 && !statuses.some(isStatus)) {
    if (call.version >= 38) throw refuse(400, "Invalid status value");
    return { status: 200, body: { servers: [] } };
  }
  if (statuses.some((status) => status.toLowerCase() === "deleted") && !call.token.admin)
    throw refuse(403, "Only administrators may list deleted instances");
  const mine = [...call.cloud.servers.values()].filter(
    (server) => allTenants || server.projectId === call.projectId,
  );
  const ordered = sortServers(call, mine);
  const selected = ordered.filter((server) => wanted(call, server, statuses));
  const paged = page(call, selected, ({ id }) => id, {
    missing: (marker) => refuse(400, `marker [${marker}] not found`),
    // The marker may be deleted or not match the filter any more: its place in the order counts.
    start: (marker) => {
      const index = ordered.findIndex(({ id }) => id === marker);
      const passed = new Set(ordered.slice(0, index + 1));
      return index < 0 ? -1 : selected.filter((server) => passed.has(server)).length;
    },
  });
  const path = kind === "index" ? "/servers" : "/servers/detail";
  return {
    status: 200,
    body: {
      servers: paged.items.map((server) => view(call, server)),
      ...(paged.nextMarker === undefined ? {} : { servers_links: nextLink(call, path, paged.nextMarker) }),
    },
  };
}

type SortValue = string | number;

const SORT_FIELDS: Record<string, (server: Server) => SortValue> = {
  created_at: (server) => Math.floor(server.createdAt / 1000),
  updated_at: (server) => Math.floor(server.updatedAt / 1000),
  launched_at: (server) => server.launchedAt ?? 0,
  terminated_at: (server) => server.terminatedAt ?? 0,
  display_name: (server) => server.name,
  uuid: (server) => server.id,
  vm_state: (server) => server.vmState,
  task_state: (server) => server.taskState ?? "",
  power_state: (server) => server.powerState,
  key_name: (server) => server.keyName ?? "",
  image_ref: (server) => server.imageId,
  hostname: (server) => server.hostname,
  locked: (server) => Number(server.locked),
};

function sortServers(call: NovaCall, servers: Server[]): Server[] {
  const keys = call.exchange.query.getAll("sort_key");
  const directions = call.exchange.query.getAll("sort_dir").map((direction) => direction.toLowerCase());
  if (directions.some((direction) => direction !== "asc" && direction !== "desc"))
    throw refuse(400, "Invalid input received: Unknown sort direction, must be 'desc' or 'asc'");
  const sortKeys = keys.length > 0 ? keys : ["created_at"];
  const order = new Map(servers.map((server, index) => [server, index]));
  const sign = (index: number): number => ((directions[index] ?? directions[0] ?? "desc") === "asc" ? 1 : -1);
  return servers.toSorted((left, right) => {
    for (const [index, key] of sortKeys.entries()) {
      const value = SORT_FIELDS[key];
      if (!value) continue;
      const [a, b] = [value(left), value(right)];
      if (a !== b) return (a < b ? -1 : 1) * sign(index);
    }
    return ((order.get(left) ?? 0) - (order.get(right) ?? 0)) * sign(0);
  });
}

/** The filters a member may use; Nova ignores the others silently. */
function wanted(call: NovaCall, server: Server, statuses: string[]): boolean {
  const since = parameter(call, "changes-since");
  const before = parameter(call, "changes-before");
  const updated = Math.floor(server.updatedAt / 1000) * 1000;
  if (since === undefined && before === undefined) {
    if (server.deletedAt !== null) return false;
  } else {
    if (since !== undefined && updated < parseTime(since)) return false;
    if (before !== undefined && updated > parseTime(before)) return false;
  }
  if (server.listedAt > Date.now()) return false;
  if (statuses.length === 0 && server.vmState === "soft-delete" && since === undefined) return false;
  if (statuses.length > 0 && !statuses.some((status) => status.toUpperCase() === statusOf(server)))
    return false;
  return matchesText(call, server) && matchesTags(call, server) && matchesAddress(call, server);
}

function matchesText(call: NovaCall, server: Server): boolean {
  const exact: [string, string | null][] = [
    ["image", server.imageId],
    ["flavor", server.flavor.id],
  ];
  for (const [name, value] of exact) {
    const filter = parameter(call, name);
    if (filter !== undefined && filter !== value) return false;
  }
  // key_name and availability_zone are among the filters members got in 2.83.
  const expressions: [string, string | null, number][] = [
    ["name", server.name, 1],
    ["key_name", server.keyName, 83],
    ["availability_zone", server.availabilityZone, 83],
  ];
  for (const [name, value, from] of expressions) {
    const filter = parameter(call, name);
    // The database compares without regard to case (MariaDB's REGEXP).
    if (filter !== undefined && call.version >= from && !new RegExp(filter, "i").test(value ?? ""))
      return false;
  }
  const locked = call.version >= 73 ? parameter(call, "locked") : undefined;
  return locked === undefined || server.locked === ["1", "true", "yes", "on"].includes(locked.toLowerCase());
}

function matchesTags(call: NovaCall, server: Server): boolean {
  if (call.version < 26) return true;
  const asked = (name: string): string[] | undefined => parameter(call, name)?.split(",");
  const has = (tag: string): boolean => server.tags.includes(tag);
  if (asked("tags")?.every(has) === false) return false;
  if (asked("tags-any")?.some(has) === false) return false;
  if (asked("not-tags")?.every(has) === true) return false;
  return asked("not-tags-any")?.some(has) !== true;
}

function matchesAddress(call: NovaCall, server: Server): boolean {
  const filter = parameter(call, "ip");
  if (filter === undefined) return true;
  const expression = new RegExp(filter);
  return serverPorts(call.cloud, server.id).some((port) => expression.test(port.ipAddress));
}

export function showServer(call: NovaCall, id: string): Answer {
  const server = findServer(call, id);
  const groups = call.version >= 71 ? { server_groups: [] } : {};
  return { status: 200, body: { server: { ...detailedServer(call, server), ...groups } } };
}

export function changeServer(call: NovaCall, id: string): Answer {
  const { server: input } = requireBody(call, updateServer(call.version), UpdateBody);
  const server = findServer(call, id);
  if (input.name !== undefined) server.name = input.name;
  if (input.description !== undefined) server.description = input.description;
  if (input.hostname !== undefined) server.hostname = input.hostname;
  server.updatedAt = Date.now();
  return showServer(call, id);
}

export function removeServer(call: NovaCall, id: string): Answer {
  const server = findServer(call, id);
  if (server.locked && !call.token.admin) throw refuse(409, `Instance ${id} is locked`);
  deleteServer(call.cloud, server, {
    requestId: call.exchange.requestId,
    userId: call.token.userId,
    force: false,
  });
  return { status: 204 };
}

export function listInterfaces(call: NovaCall, id: string): Answer {
  const server = findServer(call, id);
  const interfaceAttachments = serverPorts(call.cloud, server.id).map((port) => ({
    net_id: port.networkId,
    port_id: port.id,
    mac_addr: port.macAddress,
    port_state: port.status,
    fixed_ips: [{ subnet_id: port.subnetId, ip_address: port.ipAddress }],
    tag: call.version >= 70 ? null : undefined,
  }));
  return { status: 200, body: { interfaceAttachments } };
}

export function listAddresses(call: NovaCall, id: string): Answer {
  const server = findServer(call, id);
  return { status: 200, body: { addresses: addresses(call.cloud, server, false) } };
}

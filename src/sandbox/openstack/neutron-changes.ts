import { randomUUID } from "node:crypto";
import { JsonObject } from "./bodies.ts";
import { allocateAddress, type Cloud, createPort, networksOf } from "./cloud.ts";
import { type Answer, type Exchange, header, neutronError } from "./http.ts";
import { type Fields, floatingIpView, portView } from "./neutron-views.ts";
import type { FloatingIp, Port, Token } from "./types.ts";

const FLOATING_IP_QUOTA = 2;

/** The resource inside the body, its attributes checked against what Neutron knows. */
export function readResource(exchange: Exchange, key: string, known: string[]): Fields | Answer {
  let body: unknown;
  try {
    body = JSON.parse(exchange.rawBody === "" ? "{}" : exchange.rawBody);
  } catch {
    return neutronError(400, "HTTPBadRequest", "Body contains invalid data");
  }
  const resource = JsonObject.safeParse(JsonObject.safeParse(body).data?.[key]).data;
  if (!resource) return neutronError(400, "HTTPBadRequest", "Resource body required");
  const strange = Object.keys(resource).filter((name) => !known.includes(name));
  if (strange.length > 0)
    return neutronError(400, "HTTPBadRequest", `Unrecognized attribute(s) '${strange.join(", ")}'`);
  return resource;
}

export function isAnswer(value: Fields | Answer): value is Answer {
  return typeof value["status"] === "number" && "body" in value;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

const PORT_FIELDS = ["network_id", "name", "description", "security_groups", "fixed_ips", "admin_state_up"];

export function makePort(cloud: Cloud, exchange: Exchange, token: Token): Answer {
  const input = readResource(exchange, "port", PORT_FIELDS);
  if (isAnswer(input)) return input;
  if (input["network_id"] === undefined)
    return neutronError(
      400,
      "HTTPBadRequest",
      "Failed to parse request. Required attribute 'network_id' not specified",
    );
  const projectId = token.projectId ?? "";
  const network = networksOf(cloud, projectId).find(({ id }) => id === input["network_id"]);
  if (!network)
    return neutronError(404, "NetworkNotFound", `Network ${text(input["network_id"])} could not be found.`);
  const subnet = cloud.subnets.get(network.subnetId);
  const address = subnet && allocateAddress(cloud, subnet);
  if (address === undefined)
    return neutronError(
      409,
      "IpAddressGenerationFailure",
      `No more IP addresses available on network ${network.id}.`,
    );
  const groups = input["security_groups"];
  const fallback = [...cloud.securityGroups.values()].filter(
    (group) => group.projectId === projectId && group.name === "default",
  );
  const port = createPort(cloud, {
    network,
    projectId,
    address,
    securityGroupIds: Array.isArray(groups) ? groups.map(String) : fallback.map(({ id }) => id),
    name: text(input["name"]),
    description: text(input["description"]),
    preexisting: true,
  });
  return { status: 201, body: { port: portView(port) } };
}

/** Optimistic lock: `If-Match: revision_number=N`. */
function staleRevision(exchange: Exchange, revision: number): Answer | undefined {
  const expected = /revision_number=(\d+)/.exec(header(exchange, "if-match") ?? "")?.[1];
  if (expected === undefined || Number(expected) === revision) return undefined;
  return neutronError(
    412,
    "RevisionNumberConstraintFailed",
    `Constrained to ${expected}, but current revision is ${revision}`,
  );
}

export function changePort(exchange: Exchange, port: Port): Answer {
  const input = readResource(exchange, "port", ["name", "description", "security_groups", "admin_state_up"]);
  if (isAnswer(input)) return input;
  const stale = staleRevision(exchange, port.revision);
  if (stale) return stale;
  if (input["name"] !== undefined) port.name = text(input["name"]);
  if (input["description"] !== undefined) port.description = text(input["description"]);
  port.revision += 1;
  port.updatedAt = Date.now();
  return { status: 200, body: { port: portView(port) } };
}

const FLOATING_FIELDS = ["floating_network_id", "port_id", "description", "floating_ip_address"];

export function makeFloatingIp(cloud: Cloud, exchange: Exchange, token: Token): Answer {
  const input = readResource(exchange, "floatingip", FLOATING_FIELDS);
  if (isAnswer(input)) return input;
  const networkId = input["floating_network_id"];
  if (networkId === undefined)
    return neutronError(
      400,
      "HTTPBadRequest",
      "Failed to parse request. Required attribute 'floating_network_id' not specified",
    );
  const network = cloud.networks.get(text(networkId));
  if (!network?.external)
    return neutronError(
      400,
      "BadRequest",
      `Bad floatingip request: Network ${text(networkId)} is not a valid external network.`,
    );
  const projectId = token.projectId ?? "";
  const own = [...cloud.floatingIps.values()].filter((floating) => floating.projectId === projectId);
  // Neutron's quota is a 409, Nova's a 403, Cinder's a 413.
  if (own.length >= FLOATING_IP_QUOTA)
    return neutronError(409, "OverQuota", "Quota exceeded for resources: ['floatingip'].");
  const portId = typeof input["port_id"] === "string" ? input["port_id"] : null;
  if (portId !== null && cloud.ports.get(portId)?.projectId !== projectId)
    return neutronError(404, "PortNotFound", `Port ${portId} could not be found.`);
  const subnet = cloud.subnets.get(network.subnetId);
  const address = subnet && allocateAddress(cloud, subnet);
  if (address === undefined)
    return neutronError(
      409,
      "IpAddressGenerationFailure",
      `No more IP addresses available on network ${network.id}.`,
    );
  const now = Date.now();
  const floating: FloatingIp = {
    id: randomUUID(),
    address,
    networkId: network.id,
    projectId,
    portId,
    description: text(input["description"]),
    revision: 0,
    createdAt: now,
    updatedAt: now,
  };
  cloud.floatingIps.set(floating.id, floating);
  return { status: 201, body: { floatingip: floatingIpView(cloud, floating) } };
}

export function changeFloatingIp(cloud: Cloud, exchange: Exchange, floating: FloatingIp): Answer {
  const input = readResource(exchange, "floatingip", ["port_id", "description"]);
  if (isAnswer(input)) return input;
  const stale = staleRevision(exchange, floating.revision);
  if (stale) return stale;
  const portId = input["port_id"];
  if (typeof portId === "string" && cloud.ports.get(portId)?.projectId !== floating.projectId)
    return neutronError(404, "PortNotFound", `Port ${portId} could not be found.`);
  if (portId !== undefined) floating.portId = typeof portId === "string" ? portId : null;
  if (input["description"] !== undefined) floating.description = text(input["description"]);
  floating.revision += 1;
  floating.updatedAt = Date.now();
  return { status: 200, body: { floatingip: floatingIpView(cloud, floating) } };
}

import { createHash, randomUUID } from "node:crypto";
import type { ArmedFault } from "../faults.ts";
import type {
  Flavor,
  FloatingIp,
  Image,
  KeyPair,
  Network,
  OpenStackSimulatorOptions,
  Port,
  Project,
  Quota,
  SecurityGroup,
  Server,
  Subnet,
  Token,
  Traps,
  User,
} from "./types.ts";

export interface RequestLogEntry {
  at: string;
  method: string;
  path: string;
  /** 0: never answered, or cut. */
  status: number;
  requestId: string;
  /** Kind or preset of the fault that hit it. */
  fault?: string;
}

/** Everything the simulated cloud knows. One process, one event loop: no locks needed. */
export interface Cloud {
  options: Required<Pick<OpenStackSimulatorOptions, "speed" | "tokenTtlSeconds" | "maxLimit">> & {
    projectIdInComputeUrl: boolean;
  };
  quota: Quota;
  traps: Traps;
  faults: ArmedFault[];
  projects: Map<string, Project>;
  users: Map<string, User>;
  applicationCredential: { id: string; name: string; secret: string; userId: string; projectId: string };
  tokens: Map<string, Token>;
  flavors: Flavor[];
  images: Map<string, Image>;
  networks: Map<string, Network>;
  subnets: Map<string, Subnet>;
  ports: Map<string, Port>;
  floatingIps: Map<string, FloatingIp>;
  securityGroups: Map<string, SecurityGroup>;
  keyPairs: KeyPair[];
  router: { id: string; projectId: string };
  /** In order of creation, deleted ones included. */
  servers: Map<string, Server>;
  requests: RequestLogEntry[];
  counts: Map<string, number>;
  /** Next free address per subnet, so that allocation does not scan the pool from its start. */
  nextAddress: Map<string, number>;
  /** Names that `sim-429` has already refused once. */
  refusedNames: Set<string>;
  nextHost: number;
  timers: Set<NodeJS.Timeout>;
  closed: boolean;
}

/** Nova shows a host to its tenant only as this hash. */
export function hostId(projectId: string, host: string): string {
  return createHash("sha224")
    .update(projectId + host)
    .digest("hex");
}

export function computeHostId(server: Server): string {
  return server.host === null ? "" : hostId(server.projectId, `compute${server.host + 1}`);
}

export function liveServers(cloud: Cloud, projectId: string): Server[] {
  return [...cloud.servers.values()].filter(
    (server) => server.projectId === projectId && server.deletedAt === null,
  );
}

export function usage(cloud: Cloud, projectId: string): Quota {
  const used = { instances: 0, cores: 0, ramMib: 0 };
  for (const server of liveServers(cloud, projectId)) {
    used.instances += 1;
    used.cores += server.flavor.vcpus;
    used.ramMib += server.flavor.ramMib;
  }
  return used;
}

export function serverPorts(cloud: Cloud, serverId: string): Port[] {
  return [...cloud.ports.values()].filter((port) => port.deviceId === serverId);
}

export function networksOf(cloud: Cloud, projectId: string): Network[] {
  return [...cloud.networks.values()].filter(
    (network) => network.external || network.shared || network.projectId === projectId,
  );
}

export function formatAddress(value: number): string {
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join(".");
}

export function parseAddress(text: string): number {
  return text.split(".").reduce((value, part) => value * 256 + Number(part), 0);
}

export function inSubnet(subnet: Subnet, address: string): boolean {
  const [base = "", bits = "24"] = subnet.cidr.split("/");
  const offset = parseAddress(address) - parseAddress(base);
  return offset > 0 && offset < 2 ** (32 - Number(bits)) - 1;
}

/** A free address of the subnet, or undefined when the pool is exhausted. */
export function allocateAddress(cloud: Cloud, subnet: Subnet): string | undefined {
  const taken = new Set<string>([subnet.gatewayIp]);
  for (const port of cloud.ports.values()) {
    if (port.subnetId === subnet.id) taken.add(port.ipAddress);
  }
  for (const floating of cloud.floatingIps.values()) {
    if (floating.networkId === subnet.networkId) taken.add(floating.address);
  }
  const size = subnet.pool.end - subnet.pool.start + 1;
  const first = cloud.nextAddress.get(subnet.id) ?? subnet.pool.start;
  for (let step = 0; step < size; step += 1) {
    const value = subnet.pool.start + ((first - subnet.pool.start + step) % size);
    const address = formatAddress(value);
    if (taken.has(address)) continue;
    cloud.nextAddress.set(subnet.id, value + 1);
    return address;
  }
  return undefined;
}

let portCount = 0;

export function createPort(
  cloud: Cloud,
  input: {
    network: Network;
    projectId: string;
    address: string;
    securityGroupIds: string[];
    name?: string;
    description?: string;
    deviceId?: string;
    deviceOwner?: string;
    preexisting: boolean;
  },
): Port {
  portCount += 1;
  const now = Date.now();
  const mac = [16, 8, 0].map((shift) => ((portCount >>> shift) & 255).toString(16).padStart(2, "0"));
  const port: Port = {
    id: randomUUID(),
    name: input.name ?? "",
    description: input.description ?? "",
    networkId: input.network.id,
    subnetId: input.network.subnetId,
    projectId: input.projectId,
    macAddress: `fa:16:3e:${mac.join(":")}`,
    ipAddress: input.address,
    deviceId: input.deviceId ?? "",
    deviceOwner: input.deviceOwner ?? "",
    securityGroupIds: input.securityGroupIds,
    status: "DOWN",
    preexisting: input.preexisting,
    revision: 1,
    createdAt: now,
    updatedAt: now,
  };
  cloud.ports.set(port.id, port);
  return port;
}

export function bindPort(port: Port, deviceId: string): void {
  port.deviceId = deviceId;
  port.deviceOwner = deviceId === "" ? "" : "compute:nova";
  port.status = deviceId === "" ? "DOWN" : "ACTIVE";
  port.revision += 1;
  port.updatedAt = Date.now();
}

/** What happens to a server's ports when it goes: Nova's own are deleted, the tenant's are only unbound. */
export function releasePorts(cloud: Cloud, serverId: string): void {
  for (const port of serverPorts(cloud, serverId)) {
    if (port.preexisting) bindPort(port, "");
    else cloud.ports.delete(port.id);
    for (const floating of cloud.floatingIps.values()) {
      if (floating.portId === port.id && !port.preexisting) floating.portId = null;
    }
  }
}

import { type Cloud, formatAddress } from "./cloud.ts";
import { isoSeconds } from "./time.ts";
import type { FloatingIp, Network, Port, SecurityGroup, Subnet } from "./types.ts";

export type Fields = Record<string, unknown>;

function stamps(createdAt: number, updatedAt: number, revision: number): Fields {
  return {
    tags: [],
    revision_number: revision,
    created_at: isoSeconds(createdAt),
    updated_at: isoSeconds(updatedAt),
  };
}

export function networkView(network: Network): Fields {
  return {
    id: network.id,
    name: network.name,
    tenant_id: network.projectId,
    admin_state_up: true,
    mtu: network.mtu,
    status: "ACTIVE",
    subnets: [network.subnetId],
    shared: network.shared,
    availability_zone_hints: [],
    availability_zones: [],
    ipv4_address_scope: null,
    ipv6_address_scope: null,
    "router:external": network.external,
    description: "",
    port_security_enabled: true,
    ...stamps(network.createdAt, network.createdAt, 2),
    ...(network.external ? { is_default: false } : {}),
    project_id: network.projectId,
  };
}

export function subnetView(subnet: Subnet): Fields {
  return {
    id: subnet.id,
    name: subnet.name,
    tenant_id: subnet.projectId,
    network_id: subnet.networkId,
    ip_version: 4,
    subnetpool_id: null,
    enable_dhcp: subnet.enableDhcp,
    ipv6_ra_mode: null,
    ipv6_address_mode: null,
    gateway_ip: subnet.gatewayIp,
    cidr: subnet.cidr,
    allocation_pools: [{ start: formatAddress(subnet.pool.start), end: formatAddress(subnet.pool.end) }],
    host_routes: [],
    dns_nameservers: subnet.dnsNameservers,
    description: "",
    service_types: [],
    ...stamps(subnet.createdAt, subnet.createdAt, 0),
    project_id: subnet.projectId,
  };
}

export function portView(port: Port): Fields {
  return {
    id: port.id,
    name: port.name,
    network_id: port.networkId,
    tenant_id: port.projectId,
    mac_address: port.macAddress,
    admin_state_up: true,
    status: port.status,
    device_id: port.deviceId,
    device_owner: port.deviceOwner,
    fixed_ips: [{ subnet_id: port.subnetId, ip_address: port.ipAddress }],
    allowed_address_pairs: [],
    extra_dhcp_opts: [],
    security_groups: port.securityGroupIds,
    description: port.description,
    "binding:vnic_type": "normal",
    port_security_enabled: port.deviceOwner !== "network:router_interface",
    ...stamps(port.createdAt, port.updatedAt, port.revision),
    project_id: port.projectId,
  };
}

export function floatingIpView(cloud: Cloud, floating: FloatingIp): Fields {
  const port = floating.portId === null ? undefined : cloud.ports.get(floating.portId);
  return {
    id: floating.id,
    tenant_id: floating.projectId,
    floating_ip_address: floating.address,
    floating_network_id: floating.networkId,
    router_id: port ? cloud.router.id : null,
    port_id: floating.portId,
    fixed_ip_address: port?.ipAddress ?? null,
    status: "DOWN",
    description: floating.description,
    port_details: port
      ? {
          name: port.name,
          network_id: port.networkId,
          mac_address: port.macAddress,
          admin_state_up: true,
          status: port.status,
          device_id: port.deviceId,
          device_owner: port.deviceOwner,
        }
      : null,
    ...stamps(floating.createdAt, floating.updatedAt, floating.revision),
    project_id: floating.projectId,
  };
}

export function securityGroupView(group: SecurityGroup): Fields {
  return {
    id: group.id,
    name: group.name,
    stateful: true,
    tenant_id: group.projectId,
    description: group.description,
    shared: false,
    security_group_rules: [],
    ...stamps(0, 0, 1),
    project_id: group.projectId,
  };
}

export function routerView(cloud: Cloud): Fields {
  const external = [...cloud.networks.values()].find((network) => network.external);
  return {
    id: cloud.router.id,
    name: "edge",
    tenant_id: cloud.router.projectId,
    admin_state_up: true,
    status: "ACTIVE",
    external_gateway_info: {
      network_id: external?.id,
      external_fixed_ips: [{ subnet_id: external?.subnetId, ip_address: "203.0.113.30" }],
      enable_snat: true,
    },
    description: "",
    availability_zones: [],
    availability_zone_hints: [],
    routes: [],
    flavor_id: null,
    ...stamps(external?.createdAt ?? 0, external?.createdAt ?? 0, 4),
    project_id: cloud.router.projectId,
  };
}

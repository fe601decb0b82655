import type { RemoteNetwork } from "../../core/cloud.ts";
import type { OpenStackClient } from "./client.ts";
import { NeutronFloatingIp, NeutronNetwork, NeutronNetworkAnswer, NeutronPort } from "./schema.ts";

export async function getNetwork(
  client: OpenStackClient,
  id: string,
  signal?: AbortSignal,
): Promise<NeutronNetwork> {
  const path = `/networks/${encodeURIComponent(id)}`;
  const answer = await client.read({ service: "network", path, signal }, NeutronNetworkAnswer);
  return answer.network;
}

export async function listNetworks(client: OpenStackClient, signal?: AbortSignal): Promise<RemoteNetwork[]> {
  const { rows } = await client.list({
    service: "network",
    path: "/networks",
    key: "networks",
    item: NeutronNetwork,
    signal,
  });
  return rows.map((network) => ({
    externalId: network.id,
    name: network.name ?? network.id,
    status: network.status ?? "unknown",
    isExternal: network["router:external"] ?? false,
    isShared: network.shared ?? false,
  }));
}

export async function listPorts(client: OpenStackClient, serverId: string, signal?: AbortSignal) {
  const { rows } = await client.list({
    service: "network",
    path: "/ports",
    query: { device_id: serverId },
    key: "ports",
    item: NeutronPort,
    signal,
  });
  return rows;
}

export async function findPort(client: OpenStackClient, id: string, signal?: AbortSignal) {
  const { rows } = await client.list({
    service: "network",
    path: "/ports",
    query: { id },
    key: "ports",
    item: NeutronPort,
    signal,
  });
  return rows[0] ?? null;
}

export async function listFloatingIps(client: OpenStackClient, portId: string, signal?: AbortSignal) {
  const { rows } = await client.list({
    service: "network",
    path: "/floatingips",
    query: { port_id: portId },
    key: "floatingips",
    item: NeutronFloatingIp,
    signal,
  });
  return rows;
}

import { randomUUID } from "node:crypto";
import { pause } from "../pace.ts";
import { CreateBody, type CreateInput } from "./bodies.ts";
import { networksOf, usage } from "./cloud.ts";
import { computeFault, faultPresets } from "./faults.ts";
import { type Answer, Refusal } from "./http.ts";
import { sentinelOf } from "./knobs.ts";
import { buildServer } from "./lifecycle-build.ts";
import { links, type NovaCall, policyRefusal, refuse, requireBody } from "./nova-call.ts";
import { createServer } from "./nova-schemas.ts";
import { normalTags, requireMetadataQuota } from "./nova-tags.ts";
import { newPassword } from "./time.ts";
import type { Flavor, Image, NetworkRequest, Quota, Server } from "./types.ts";

export async function createServers(call: NovaCall): Promise<Answer> {
  const { server: input } = requireBody(call, createServer(call.version), CreateBody);
  const count = counts(input);
  requireZone(call, input.availability_zone);
  if (input.block_device_mapping_v2 !== undefined && input.block_device_mapping_v2.length > 0)
    throw refuse(501, "The simulator does not play boot from volume.");
  if ((input.imageRef ?? "") === "") throw refuse(400, "Missing imageRef attribute");
  requireNetworkFormat(input);
  await requireBackends(call);
  const flavorId = flavorIdOf(input.flavorRef);
  const flavor = call.cloud.flavors.find(({ id }) => id === flavorId);
  if (!flavor) throw refuse(400, `Flavor ${flavorId} could not be found.`);
  const image = requireImage(call, input.imageRef ?? "", flavor);
  requireMetadataQuota(input.metadata ?? {});
  requireKeyAndGroups(call, input);
  const networkRequests = requireNetworks(call, input);
  beforeCreate(call, input.name);
  const made = quotaCount(call, flavor, count);
  const servers = Array.from({ length: made }, (_, index) => {
    const name = made > 1 ? `${input.name}-${index + 1}` : input.name;
    return newServer(call, { ...input, name }, flavor, image, networkRequests);
  });
  for (const server of servers) {
    call.cloud.servers.set(server.id, server);
    buildServer(call.cloud, server, { requestId: call.exchange.requestId, userId: call.token.userId });
  }
  const [first] = servers;
  if (!first) throw refuse(400, "Nothing to create.");
  return afterCreate(call, input, first);
}

function counts(input: CreateInput): { min: number; max: number } {
  const min = Number(input.min_count ?? 1);
  const max = Number(input.max_count ?? min);
  if (min > max) throw refuse(400, "min_count must be <= max_count");
  return { min, max };
}

function requireZone(call: NovaCall, zone: string | undefined): void {
  if (zone === undefined || zone === "nova") return;
  if (zone.includes(":") && !call.token.admin) throw policyRefusal("servers:create:forced_host");
  throw refuse(400, "The requested availability zone is not available");
}

/** Nova takes an id, a number, or the URL of a flavor. */
export function flavorIdOf(flavorRef: string | number): string {
  return String(flavorRef).split("/").at(-1) ?? "";
}

function requireNetworkFormat(input: CreateInput): void {
  if (!Array.isArray(input.networks)) return;
  for (const { uuid, port } of input.networks) {
    if ((uuid ?? "") === "" && (port ?? null) === null)
      throw refuse(400, "Bad network format: missing 'uuid'");
  }
}

/** With Neutron or Glance gone Nova answers 500 with a Python class name, after its client gave up. */
async function requireBackends(call: NovaCall): Promise<void> {
  const { neutronDown, glanceDown } = call.cloud.traps;
  if (glanceDown !== true && neutronDown !== true) return;
  await pause(call.cloud, 3500);
  const className =
    glanceDown === true
      ? "nova.exception.GlanceConnectionFailed"
      : "keystoneauth1.exceptions.connection.ConnectFailure";
  throw new Refusal({ status: 500, body: computeFault(className) });
}

function requireImage(call: NovaCall, id: string, flavor: Flavor): Image {
  const image = call.cloud.images.get(id);
  if (!image || (image.visibility === "private" && image.ownerId !== call.projectId))
    throw refuse(400, "Can not find requested image");
  if (image.status !== "active") throw refuse(400, `Image ${id} is not active.`);
  if (flavor.ramMib < image.minRamMib) throw refuse(400, "Flavor's memory is too small for requested image.");
  if (flavor.diskGib < image.minDiskGib) {
    const [size, minimum] = [flavor.diskGib, image.minDiskGib].map((gib) => gib * 1024 ** 3);
    throw refuse(
      400,
      `Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is ${size} bytes, minimum size is ${minimum} bytes.`,
    );
  }
  return image;
}

function requireKeyAndGroups(call: NovaCall, input: CreateInput): void {
  const { cloud, token, projectId } = call;
  if (input.key_name !== undefined) {
    const key = cloud.keyPairs.find(({ name, userId }) => name === input.key_name && userId === token.userId);
    if (!key) throw refuse(400, "Invalid key_name provided.");
  }
  for (const { name = "default" } of input.security_groups ?? []) {
    const known = [...cloud.securityGroups.values()].some(
      (group) => group.projectId === projectId && (group.id === name || group.name === name),
    );
    if (!known) throw refuse(400, `Unable to find security_group with name or id '${name}'`);
  }
}

function requireNetworks(call: NovaCall, input: CreateInput): NetworkRequest[] {
  const { cloud, projectId } = call;
  const reachable = networksOf(cloud, projectId);
  if (input.networks === "none") return [];
  if (!Array.isArray(input.networks) || input.networks.length === 0) {
    const candidates = reachable.filter(({ external }) => !external);
    if (candidates.length > 1)
      throw refuse(409, "Multiple possible networks found, use a Network ID to be more specific.");
    return candidates.map(({ id }) => ({ networkId: id, portId: null, fixedIp: null }));
  }
  return input.networks.map(({ uuid, port, fixed_ip: fixedIp }) => {
    if (port !== undefined && port !== null) {
      const found = cloud.ports.get(port);
      if (found?.projectId !== projectId) throw refuse(400, `Port id ${port} could not be found.`);
      if (found.deviceId !== "") throw refuse(409, `Port ${port} is still in use.`);
      return { networkId: found.networkId, portId: port, fixedIp: null };
    }
    const network = reachable.find(({ id }) => id === uuid);
    if (!network) throw refuse(400, `Network ${uuid} could not be found.`);
    const holder = [...cloud.ports.values()].find(
      (candidate) => candidate.networkId === network.id && candidate.ipAddress === fixedIp,
    );
    if (holder)
      throw refuse(400, `Fixed IP address ${fixedIp} is already in use on instance ${holder.deviceId}.`);
    return { networkId: network.id, portId: null, fixedIp: fixedIp ?? null };
  });
}

const QUOTA_NAMES = [
  ["cores", "cores"],
  ["instances", "instances"],
  ["ram", "ramMib"],
] as const;

/** Refuses with Nova's text when the project would exceed its quota. */
export function requireQuota(call: NovaCall, more: Quota, shownInstances = String(more.instances)): void {
  const used = usage(call.cloud, call.projectId);
  const over = QUOTA_NAMES.filter(
    ([, key]) => more[key] > 0 && used[key] + more[key] > call.cloud.quota[key],
  );
  if (over.length === 0) return;
  const names = over.map(([name]) => name).join(", ");
  const wanted = over.map(([name, key]) => (name === "instances" ? shownInstances : more[key])).join(", ");
  const taken = over.map(([, key]) => used[key]).join(", ");
  const allowed = over.map(([, key]) => call.cloud.quota[key]).join(", ");
  throw refuse(
    403,
    `Quota exceeded for ${names}: Requested ${wanted}, but already used ${taken} of ${allowed} ${names}`,
  );
}

/** As many as the quota allows between min_count and max_count. */
function quotaCount(call: NovaCall, flavor: Flavor, { min, max }: { min: number; max: number }): number {
  const { quota } = call.cloud;
  const used = usage(call.cloud, call.projectId);
  const room = Math.min(
    quota.instances - used.instances,
    Math.floor((quota.cores - used.cores) / flavor.vcpus),
    Math.floor((quota.ramMib - used.ramMib) / flavor.ramMib),
  );
  if (room >= max) return max;
  if (room >= min) return room;
  const more = { instances: min, cores: min * flavor.vcpus, ramMib: min * flavor.ramMib };
  requireQuota(call, more, min === max ? String(min) : `${min}-${max}`);
  return min;
}

function newServer(
  call: NovaCall,
  input: CreateInput,
  flavor: Flavor,
  image: Image,
  networkRequests: NetworkRequest[],
): Server {
  const id = randomUUID();
  const now = Date.now();
  const groups = (input.security_groups ?? []).map(({ name }) => name ?? "default");
  return {
    id,
    projectId: call.projectId,
    userId: call.token.userId,
    name: input.name,
    // Before 2.19 the description was a copy of the name.
    description: call.version >= 19 ? (input.description ?? null) : input.name,
    hostname: input.hostname ?? hostnameFor(input.name, id),
    flavor: structuredClone(flavor),
    previousFlavor: null,
    imageId: image.id,
    metadata: { ...input.metadata },
    tags: normalTags(input.tags ?? []),
    keyName: input.key_name ?? null,
    securityGroups: groups,
    configDrive: ["true", "1", "on", "yes"].includes(String(input.config_drive ?? false).toLowerCase()),
    availabilityZone: "nova",
    vmState: "building",
    taskState: "scheduling",
    powerState: 0,
    vmStateBeforeResize: "active",
    createdAt: now,
    updatedAt: now,
    launchedAt: null,
    terminatedAt: null,
    deletedAt: null,
    listedAt: now + (call.cloud.traps.listLagMs ?? 0),
    fault: null,
    locked: false,
    lockedReason: null,
    host: null,
    adminPassword: input.adminPass ?? newPassword(),
    actions: [],
    networkRequests,
    generation: 0,
    stranger: false,
  };
}

function hostnameFor(name: string, id: string): string {
  const safe = name
    .toLowerCase()
    .replaceAll(/[ _]/g, "-")
    .replaceAll(/[^\p{L}\p{N}.-]/gu, "")
    .replaceAll(/^[.-]+|[.-]+$/g, "");
  return safe === "" ? `server-${id}` : safe.slice(0, 63);
}

/** Sentinel names that stop a create before anything was made. */
function beforeCreate(call: NovaCall, name: string): void {
  const { cloud } = call;
  switch (sentinelOf(name) ?? "") {
    case "sim-quota": {
      const { instances } = cloud.quota;
      throw refuse(
        403,
        `Quota exceeded for instances: Requested 1, but already used ${instances} of ${instances} instances`,
      );
    }
    case "sim-429": {
      if (cloud.refusedNames.has(name)) return;
      cloud.refusedNames.add(name);
      throw new Refusal(presetAnswer("gateway_429"));
    }
    case "sim-drop":
      throw new Refusal({ status: 0, drop: true });
    case "sim-messaging-timeout":
      throw new Refusal(presetAnswer("messaging_timeout"));
    default:
      return;
  }
}

function presetAnswer(name: string): Answer {
  const preset = faultPresets[name];
  return { status: preset?.status ?? 500, body: preset?.body, headers: { ...preset?.headers } };
}

/** Sentinel names whose server exists although the client does not hear of it. */
function afterCreate(call: NovaCall, input: CreateInput, server: Server): Answer {
  const sentinel = sentinelOf(input.name);
  if (sentinel === "sim-lost-answer") return { status: 0, drop: true };
  if (sentinel === "sim-gateway-timeout") return presetAnswer("gateway_504");
  if (["true", "1", "on", "yes"].includes(String(input.return_reservation_id ?? false).toLowerCase()))
    return { status: 202, body: { reservation_id: `r-${server.id.slice(0, 8)}` } };
  return {
    status: 202,
    headers: { Location: `${call.base}/servers/${server.id}` },
    body: {
      server: {
        id: server.id,
        links: links(call, `/servers/${server.id}`),
        "OS-DCF:diskConfig": "MANUAL",
        security_groups: input.security_groups ?? [{ name: "default" }],
        adminPass: server.adminPassword,
      },
    },
  };
}

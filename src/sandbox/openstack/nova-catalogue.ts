import { usage } from "./cloud.ts";
import type { Answer } from "./http.ts";
import {
  links,
  type NovaCall,
  nextLink,
  page,
  parameter,
  policyRefusal,
  refuse,
  requireQuery,
} from "./nova-call.ts";
import { listFlavors, listKeyPairs, showLimits } from "./nova-schemas.ts";
import { isoMicros } from "./time.ts";
import type { Flavor, KeyPair } from "./types.ts";

type Fields = Record<string, unknown>;

export function listFlavorsBasic(call: NovaCall): Answer {
  return flavorPage(call, "/flavors", basicFlavor);
}

export function listFlavorsDetailed(call: NovaCall): Answer {
  return flavorPage(call, "/flavors/detail", detailedFlavor);
}

const FLAVOR_FIELDS: Record<string, (flavor: Flavor) => string | number> = {
  flavorid: ({ id }) => id,
  id: ({ id }) => id,
  name: ({ name }) => name,
  memory_mb: ({ ramMib }) => ramMib,
  root_gb: ({ diskGib }) => diskGib,
  vcpus: ({ vcpus }) => vcpus,
};

function flavorPage(call: NovaCall, path: string, view: (call: NovaCall, flavor: Flavor) => Fields): Answer {
  requireQuery(call, listFlavors(call.version));
  const minimum = (name: string): number => {
    const value = parameter(call, name);
    if (value !== undefined && !/^-?\d+$/.test(value)) throw refuse(400, `Invalid ${name} filter [${value}]`);
    return Number(value ?? 0);
  };
  const [minRam, minDisk] = [minimum("minRam"), minimum("minDisk")];
  const field = FLAVOR_FIELDS[parameter(call, "sort_key") ?? "flavorid"] ?? (({ id }: Flavor) => id);
  const sign = parameter(call, "sort_dir") === "desc" ? -1 : 1;
  const flavors = call.cloud.flavors
    .filter(({ ramMib, diskGib }) => ramMib >= minRam && diskGib >= minDisk)
    .toSorted((left, right) => {
      const [a, b] = [field(left), field(right)];
      return a === b ? (left.id < right.id ? -1 : 1) : (a < b ? -1 : 1) * sign;
    });
  const paged = page(call, flavors, ({ id }) => id, {
    missing: (marker) => refuse(400, `marker [${marker}] not found`),
  });
  const next = paged.nextMarker;
  return {
    status: 200,
    body: {
      flavors: paged.items.map((flavor) => view(call, flavor)),
      ...(next === undefined ? {} : { flavors_links: nextLink(call, path, next) }),
    },
  };
}

function basicFlavor(call: NovaCall, flavor: Flavor): Fields {
  return {
    id: flavor.id,
    name: flavor.name,
    links: links(call, `/flavors/${flavor.id}`),
    ...(call.version >= 55 ? { description: null } : {}),
  };
}

function detailedFlavor(call: NovaCall, flavor: Flavor): Fields {
  return {
    id: flavor.id,
    name: flavor.name,
    ram: flavor.ramMib,
    disk: flavor.diskGib,
    // An empty string where a number belongs, until 2.75.
    swap: call.version >= 75 ? 0 : "",
    "OS-FLV-EXT-DATA:ephemeral": 0,
    "OS-FLV-DISABLED:disabled": false,
    vcpus: flavor.vcpus,
    "os-flavor-access:is_public": true,
    rxtx_factor: 1,
    links: links(call, `/flavors/${flavor.id}`),
    ...(call.version >= 55 ? { description: null } : {}),
    ...(call.version >= 61 ? { extra_specs: flavor.extraSpecs } : {}),
  };
}

function findFlavor(call: NovaCall, id: string): Flavor {
  const flavor = call.cloud.flavors.find((candidate) => candidate.id === id);
  if (!flavor) throw refuse(404, `Flavor ${id} could not be found.`);
  return flavor;
}

export function showFlavor(call: NovaCall, id: string): Answer {
  return { status: 200, body: { flavor: detailedFlavor(call, findFlavor(call, id)) } };
}

export function showExtraSpecs(call: NovaCall, id: string): Answer {
  return { status: 200, body: { extra_specs: findFlavor(call, id).extraSpecs } };
}

export function limits(call: NovaCall): Answer {
  requireQuery(call, showLimits(call.version));
  const { quota } = call.cloud;
  const used = usage(call.cloud, call.projectId);
  const old = call.version < 36;
  const absolute = {
    maxTotalInstances: quota.instances,
    maxTotalCores: quota.cores,
    maxTotalRAMSize: quota.ramMib,
    maxServerMeta: 128,
    ...(call.version < 39 ? { maxImageMeta: 128 } : {}),
    ...(call.version < 57 ? { maxPersonality: 5, maxPersonalitySize: 10_240 } : {}),
    maxTotalKeypairs: 20,
    maxServerGroups: 10,
    maxServerGroupMembers: 10,
    ...(old ? { maxTotalFloatingIps: -1, maxSecurityGroups: -1, maxSecurityGroupRules: -1 } : {}),
    totalRAMUsed: used.ramMib,
    totalCoresUsed: used.cores,
    totalInstancesUsed: used.instances,
    ...(old ? { totalFloatingIpsUsed: 0, totalSecurityGroupsUsed: 0 } : {}),
    totalServerGroupsUsed: 0,
  };
  return { status: 200, body: { limits: { rate: [], absolute } } };
}

function quotaLimits(call: NovaCall): Record<string, number> {
  const { quota } = call.cloud;
  const old = call.version < 36;
  const files = call.version < 57;
  return {
    cores: quota.cores,
    ...(old ? { fixed_ips: -1, floating_ips: -1 } : {}),
    ...(files
      ? { injected_file_content_bytes: 10_240, injected_file_path_bytes: 255, injected_files: 5 }
      : {}),
    instances: quota.instances,
    key_pairs: 20,
    metadata_items: 128,
    ram: quota.ramMib,
    ...(old ? { security_group_rules: -1, security_groups: -1 } : {}),
    server_group_members: 10,
    server_groups: 10,
  };
}

function requireOwnProject(call: NovaCall, projectId: string, policy: string): void {
  if (projectId !== call.projectId && !call.token.admin) throw policyRefusal(`os-quota-sets:${policy}`);
}

export function showQuota(call: NovaCall, projectId: string): Answer {
  requireOwnProject(call, projectId, "show");
  return { status: 200, body: { quota_set: { id: projectId, ...quotaLimits(call) } } };
}

export function showQuotaDetail(call: NovaCall, projectId: string): Answer {
  requireOwnProject(call, projectId, "detail");
  const used = usage(call.cloud, projectId);
  const inUse: Record<string, number> = { cores: used.cores, instances: used.instances, ram: used.ramMib };
  const rows = Object.entries(quotaLimits(call)).map(([name, limit]) => [
    name,
    { limit, in_use: inUse[name] ?? 0, reserved: 0 },
  ]);
  return { status: 200, body: { quota_set: { id: projectId, ...Object.fromEntries(rows) } } };
}

export function refuseQuotaUpdate(): Answer {
  throw policyRefusal("os-quota-sets:update");
}

export function listKeys(call: NovaCall): Answer {
  requireQuery(call, listKeyPairs(call.version));
  const own = call.cloud.keyPairs.filter(({ userId }) => userId === call.token.userId);
  const paged = page(call, own, ({ name }) => name, {
    missing: (marker) => refuse(400, `Marker ${marker} could not be found.`),
  });
  const next = call.version >= 35 ? paged.nextMarker : undefined;
  return {
    status: 200,
    body: {
      keypairs: paged.items.map((key) => ({ keypair: keyView(call, key) })),
      ...(next === undefined ? {} : { keypairs_links: nextLink(call, "/os-keypairs", next) }),
    },
  };
}

function keyView(call: NovaCall, key: KeyPair): Fields {
  return {
    name: key.name,
    public_key: key.publicKey,
    fingerprint: key.fingerprint,
    ...(call.version >= 2 ? { type: "ssh" } : {}),
  };
}

export function showKey(call: NovaCall, name: string): Answer {
  const { userId } = call.token;
  const key = call.cloud.keyPairs.find((candidate) => candidate.name === name && candidate.userId === userId);
  if (!key) throw refuse(404, `Keypair ${name} not found for user ${userId}`);
  const dates = {
    created_at: isoMicros(key.createdAt),
    deleted: false,
    deleted_at: null,
    id: 1,
    updated_at: null,
  };
  return { status: 200, body: { keypair: { ...keyView(call, key), user_id: userId, ...dates } } };
}

export function listZones(): Answer {
  const zone = { zoneName: "nova", zoneState: { available: true }, hosts: null };
  return { status: 200, body: { availabilityZoneInfo: [zone] } };
}

export function forOperators(policy: string): () => Answer {
  return () => {
    throw policyRefusal(policy);
  };
}

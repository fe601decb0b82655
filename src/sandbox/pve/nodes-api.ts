/** The cluster, its nodes and their storages, as lists. */
import { login, may, permissionsOf } from "./access.ts";
import { type Cluster, isOffline, isTemplate, type Node, nodeOf } from "./cluster.ts";
import * as format from "./formats.ts";
import { statusOf } from "./qemu.ts";
import { type Call, type Method, method } from "./router.ts";
import { boolean, needed, oneOf, string } from "./schema.ts";
import { needStorage, usedBytes } from "./storage.ts";
import { figuresListed } from "./traffic.ts";
import type { Storage, Vm } from "./types.ts";
import { needText, number, PveError, paramError, splitList, text } from "./wire.ts";

const node = needed(format.node());
const VERSIONS = {
  "8.4": { release: "8.4", version: "8.4.21", repoid: "2606ac850d46da29" },
  "9.2": { release: "9.2", version: "9.2.11", repoid: "14a22df35955d97d" },
} as const;

export const clusterMethods: Method[] = [
  method("GET", "/version", {
    permission: "all",
    schema: {},
    handler: ({ cluster }) => VERSIONS[cluster.options.version],
  }),
  method("POST", "/access/ticket", {
    permission: "world",
    schema: {
      username: needed(string({ maxLength: 64 })),
      password: needed(string()),
      "new-format": boolean(),
      otp: string(),
      path: string({ maxLength: 64, requires: "privs" }),
      privs: string({ maxLength: 64, requires: "path" }),
      realm: string({ maxLength: 32 }),
      "tfa-challenge": string(),
    },
    handler: ({ cluster, params }) => {
      const name = needText(params, "username");
      const realm = text(params, "realm");
      const username = name.includes("@") || realm === undefined ? name : `${name}@${realm}`;
      return login(cluster, username, needText(params, "password"));
    },
  }),
  method("GET", "/access/permissions", {
    permission: "all",
    schema: { path: string(), userid: string() },
    handler: ({ who, params }) => {
      const all = permissionsOf(who.account);
      const path = text(params, "path");
      return path === undefined ? all : { [path]: all[path] ?? {} };
    },
  }),
  method("GET", "/cluster/status", {
    permission: { path: "/", privileges: ["Sys.Audit"] },
    protected: true,
    schema: {},
    handler: ({ cluster }) => clusterStatus(cluster),
  }),
  method("GET", "/cluster/resources", {
    permission: "all",
    schema: { type: oneOf("vm", "storage", "node", "sdn") },
    handler: resources,
  }),
  method("GET", "/cluster/nextid", {
    permission: "all",
    schema: { vmid: format.vmid() },
    handler: nextId,
  }),
  method("GET", "/nodes", {
    permission: "all",
    schema: {},
    handler: ({ cluster, who }) =>
      [...cluster.nodes.values()].map((each) => {
        const audited = may(who.account, `/nodes/${each.name}`, ["Sys.Audit"]);
        return Object.assign(nodeRow(cluster, each, audited), { ssl_fingerprint: each.fingerprint });
      }),
  }),
  method("GET", "/nodes/{node}/status", {
    permission: { path: "/nodes/{node}", privileges: ["Sys.Audit"] },
    schema: { node },
    handler: ({ cluster, node: name }) => nodeStatus(cluster, nodeOf(cluster, name)),
  }),
  method("GET", "/nodes/{node}/version", {
    permission: "all",
    schema: { node },
    handler: ({ cluster }) => VERSIONS[cluster.options.version],
  }),
  method("GET", "/nodes/{node}/time", {
    permission: { path: "/nodes/{node}", privileges: ["Sys.Audit"] },
    schema: { node },
    handler: () => {
      const time = Math.floor(Date.now() / 1000);
      return { timezone: "UTC", time, localtime: time };
    },
  }),
  method("GET", "/nodes/{node}/network", {
    permission: "all",
    schema: {
      node,
      type: oneOf(
        "bridge",
        "bond",
        "eth",
        "alias",
        "vlan",
        "fabric",
        "OVSBridge",
        "OVSBond",
        "OVSPort",
        "OVSIntPort",
        "vnet",
        "any_bridge",
        "any_local_bridge",
        "include_sdn",
      ),
    },
    handler: interfaces,
  }),
  method("GET", "/nodes/{node}/storage", {
    permission: "all",
    protected: true,
    schema: {
      node,
      content: string(),
      enabled: boolean(),
      format: boolean(),
      storage: format.storage(),
      target: format.node(),
    },
    handler: storages,
  }),
  method("GET", "/nodes/{node}/storage/{storage}/status", {
    permission: {
      path: "/storage/{storage}",
      privileges: ["Datastore.Audit", "Datastore.AllocateSpace"],
      any: true,
    },
    protected: true,
    schema: { node, storage: needed(format.storage()) },
    handler: ({ cluster, node: name, params }) =>
      storageRow(cluster, needStorage(cluster, needText(params, "storage"), name), name),
  }),
];

function clusterStatus(cluster: Cluster): object[] {
  const nodes = [...cluster.nodes.values()];
  const rows = nodes.map((each, index) => ({
    id: `node/${each.name}`,
    name: each.name,
    type: "node",
    nodeid: index + 1,
    ip: `10.0.0.${index + 1}`,
    level: "",
    local: each.name === cluster.localNode ? 1 : 0,
    online: isOffline(cluster, each.name) ? 0 : 1,
  }));
  const quorate = cluster.traps.noQuorum === true ? 0 : 1;
  return [
    { id: "cluster", name: "sim", type: "cluster", nodes: nodes.length, quorate, version: nodes.length },
    ...rows,
  ];
}

function nodeRow(cluster: Cluster, each: Node, audited: boolean): Record<string, unknown> {
  const online = !isOffline(cluster, each.name);
  const stats = {
    uptime: Math.floor((Date.now() - each.bootedAt) / 1000),
    cpu: 0.02,
    mem: usedMemory(cluster, each),
    disk: 4e9,
  };
  return {
    id: `node/${each.name}`,
    node: each.name,
    type: "node",
    status: online ? "online" : "offline",
    level: "",
    ...(audited && online ? stats : {}),
    ...(audited ? { maxcpu: each.cpus, maxmem: each.memoryBytes, maxdisk: 1e11 } : {}),
  };
}

function usedMemory(cluster: Cluster, each: Node): number {
  const used = [...cluster.vms.values()]
    .filter((vm) => vm.node === each.name && vm.run)
    .reduce((sum, vm) => sum + Number(statusOf(cluster, vm)["maxmem"]), 0);
  return Math.min(each.memoryBytes, 2e9 + used);
}

function nodeStatus(cluster: Cluster, each: Node): object {
  const used = usedMemory(cluster, each);
  return {
    uptime: Math.floor((Date.now() - each.bootedAt) / 1000),
    pveversion: `pve-manager/${VERSIONS[cluster.options.version].version}/${VERSIONS[cluster.options.version].repoid}`,
    kversion: "Linux 6.14.0-1-pve",
    loadavg: ["0.10", "0.10", "0.10"],
    cpu: 0.02,
    wait: 0,
    idle: 0,
    cpuinfo: { cpus: each.cpus, cores: each.cpus, sockets: 1, model: "Simulated CPU", mhz: "3000.000" },
    memory: {
      total: each.memoryBytes,
      used,
      free: each.memoryBytes - used,
      available: each.memoryBytes - used,
    },
    swap: { total: 0, used: 0, free: 0 },
    rootfs: { total: 1e11, used: 4e9, free: 9.6e10, avail: 9.6e10 },
  };
}

/** From a cache that lags: good for finding a VM's node, not for its state. */
function resources({ cluster, who, params }: Call): object[] {
  const type = text(params, "type");
  const rows: object[] = [];
  if (type === undefined || type === "vm") {
    const seen = [...cluster.vms.values()].toSorted((a, b) => a.vmid - b.vmid);
    rows.push(
      ...seen
        .filter((vm) => may(who.account, `/vms/${vm.vmid}`, ["VM.Audit"]))
        .map((vm) => vmResource(cluster, vm)),
    );
  }
  const nodes = [...cluster.nodes.values()];
  if (type === undefined || type === "node") {
    rows.push(
      ...nodes.map((each) => ({
        ...nodeRow(cluster, each, may(who.account, `/nodes/${each.name}`, ["Sys.Audit"])),
        "cgroup-mode": 2,
      })),
    );
  }
  if (type === undefined || type === "storage") {
    for (const storage of cluster.storages.values()) {
      const sees = may(who.account, `/storage/${storage.id}`, ["Datastore.Audit"]);
      const homes = nodes.filter(({ name }) => storage.nodes?.includes(name) ?? true);
      if (sees) rows.push(...homes.map(({ name }) => storageResource(cluster, storage, name)));
    }
  }
  return rows;
}

function vmResource(cluster: Cluster, vm: Vm): object {
  const head = { id: `qemu/${vm.vmid}`, vmid: vm.vmid, node: vm.node, type: "qemu", status: "unknown" };
  const lag = (cluster.traps.resourcesLagMs ?? 5000) * cluster.options.speed;
  if (isOffline(cluster, vm.node) || Date.now() - vm.createdAt < lag) return head;
  const { cpus, pid: _, serial: _serial, template: _template, ...stats } = statusOf(cluster, vm);
  return { ...head, ...stats, ...figuresListed(cluster, vm), maxcpu: cpus, template: isTemplate(vm) ? 1 : 0 };
}

function storageResource(cluster: Cluster, storage: Storage, name: string): object {
  const up = storage.enabled && !isOffline(cluster, name);
  return {
    id: `storage/${name}/${storage.id}`,
    storage: storage.id,
    node: name,
    type: "storage",
    plugintype: storage.type,
    content: storage.content.join(","),
    shared: storage.shared ? 1 : 0,
    status: up ? "available" : "unknown",
    ...(up ? { disk: usedBytes(cluster, storage.id, name), maxdisk: storage.totalBytes } : {}),
  };
}

/** Reserves nothing: the next call says the same. */
function nextId({ cluster, params }: Call): string {
  const wanted = number(params, "vmid");
  if (wanted !== undefined) {
    if (cluster.vms.has(wanted)) throw paramError({ vmid: `VM ${wanted} already exists` });
    return String(wanted);
  }
  for (let vmid = 100; vmid < 1_000_000; vmid += 1) {
    if (!cluster.vms.has(vmid)) return String(vmid);
  }
  throw new PveError(500, "unable to get any free VMID in range [100, 999999]\n");
}

function storages({ cluster, who, node: name, params }: Call): object[] {
  const contents = splitList(text(params, "content"));
  const only = text(params, "storage");
  const rights = ["Datastore.Audit", "Datastore.AllocateSpace"];
  return [...cluster.storages.values()]
    .filter((storage) => only === undefined || storage.id === only)
    .filter((storage) => storage.nodes?.includes(name) ?? true)
    .filter((storage) => may(who.account, `/storage/${storage.id}`, rights, true))
    .filter((storage) => contents.every((kind) => storage.content.includes(kind)))
    .filter((storage) => text(params, "enabled") !== "1" || storage.enabled)
    .map((storage) => Object.assign(storageRow(cluster, storage, name), { storage: storage.id }));
}

function storageRow(cluster: Cluster, storage: Storage, name: string): Record<string, unknown> {
  const used = usedBytes(cluster, storage.id, name);
  const total = storage.totalBytes;
  const room = storage.enabled
    ? { total, used, avail: Math.max(0, total - used), used_fraction: used / total }
    : { total: 0, used: 0, avail: 0 };
  return {
    type: storage.type,
    content: storage.content.join(","),
    shared: storage.shared ? 1 : 0,
    enabled: storage.enabled ? 1 : 0,
    active: storage.enabled ? 1 : 0,
    ...room,
  };
}

/** Bridges that the caller may use; every node has the same two. */
function interfaces({ params, who }: Call): object[] {
  const type = text(params, "type");
  if (type !== undefined && !["bridge", "any_bridge", "any_local_bridge", "include_sdn"].includes(type))
    return [];
  return ["vmbr0", "vmbr1"]
    .filter((iface) => may(who.account, `/sdn/zones/localnetwork/${iface}`, ["SDN.Audit", "SDN.Use"], true))
    .map((iface, index) => ({
      iface,
      type: "bridge",
      active: 1,
      autostart: 1,
      bridge_ports: `eno${index + 1}`,
      families: ["inet"],
      method: "manual",
      method6: "manual",
      priority: index + 3,
    }));
}

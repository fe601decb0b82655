import { createHash, randomUUID } from "node:crypto";
import { armFault } from "../faults.ts";
import { type Cloud, createPort, parseAddress } from "./cloud.ts";
import { newHexId } from "./time.ts";
import type { Flavor, Image, Network, OpenStackSimulatorOptions, Project, User } from "./types.ts";

/** Not a secret: the same in every sandbox, and on the real cloud of the tests. */
export const SEED_PASSWORD = "osr-not-a-secret";
export const SEED_APPLICATION_CREDENTIAL_SECRET = "osr-appcred-secret";
export const SEED_REGION = "RegionOne";

const flavors: Flavor[] = [
  { id: "1", name: "m1.tiny", vcpus: 1, ramMib: 512, diskGib: 1, extraSpecs: {} },
  { id: "2", name: "m1.small", vcpus: 1, ramMib: 2048, diskGib: 10, extraSpecs: {} },
  { id: "3", name: "m1.medium", vcpus: 2, ramMib: 4096, diskGib: 20, extraSpecs: {} },
  { id: "4", name: "m1.huge", vcpus: 64, ramMib: 1_048_576, diskGib: 10, extraSpecs: {} },
  {
    id: "c1",
    name: "c1.pinned",
    vcpus: 2,
    ramMib: 2048,
    diskGib: 10,
    extraSpecs: { "hw:cpu_policy": "shared", "hw_rng:allowed": "True" },
  },
];

/** The cloud as `real-openstack/seed-lib.sh` makes it, so that one ratatosk.yaml fits both. */
export function createCloud(options: OpenStackSimulatorOptions): Cloud {
  const quota = { instances: 12, cores: 200, ramMib: 4_194_304, ...options.quota };
  const admin: Project = { id: newHexId(), name: "admin" };
  const hostops: Project = { id: newHexId(), name: "hostops" };
  const customerB: Project = { id: newHexId(), name: "customer-b" };
  const projects = [admin, hostops, customerB];
  const bot = createUser("bot", hostops, false);
  const users = [createUser("admin", admin, true), bot, createUser("other", customerB, false)];
  const cloud: Cloud = {
    options: {
      speed: options.speed ?? 1,
      tokenTtlSeconds: options.tokenTtlSeconds ?? 3600,
      maxLimit: options.maxLimit ?? 1000,
      projectIdInComputeUrl: options.projectIdInComputeUrl ?? false,
    },
    quota,
    traps: { ...options.traps },
    faults: (options.faults ?? []).map(armFault),
    projects: new Map(projects.map((project) => [project.id, project])),
    users: new Map(users.map((user) => [user.id, user])),
    applicationCredential: {
      id: newHexId(),
      name: "chatops",
      secret: SEED_APPLICATION_CREDENTIAL_SECRET,
      userId: bot.id,
      projectId: hostops.id,
    },
    tokens: new Map(),
    flavors: structuredClone(flavors),
    images: new Map(),
    networks: new Map(),
    subnets: new Map(),
    ports: new Map(),
    floatingIps: new Map(),
    securityGroups: new Map(),
    keyPairs: [
      {
        name: "bot-key",
        userId: bot.id,
        publicKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE0f4mJm5l9v8Yd8o3kq0xkqvYJ6nC1b2r1l0bW3kq8T bot",
        fingerprint: "d3:ea:8c:e5:87:89:c3:42:4b:2e:57:ba:cc:6d:ac:17",
        createdAt: Date.now(),
      },
    ],
    router: { id: randomUUID(), projectId: hostops.id },
    servers: new Map(),
    requests: [],
    counts: new Map(),
    nextAddress: new Map(),
    refusedNames: new Set(),
    nextHost: 0,
    timers: new Set(),
    closed: false,
  };
  seedImages(cloud, admin.id);
  seedNetworks(cloud, admin.id, hostops.id, options.privateCidr);
  for (const project of [hostops, customerB]) {
    addSecurityGroup(cloud, project.id, "default", "Default security group");
    addSecurityGroup(cloud, project.id, "web", "ssh and web");
  }
  return cloud;
}

function createUser(name: string, project: Project, admin: boolean): User {
  return {
    id: newHexId(),
    name,
    password: SEED_PASSWORD,
    projectIds: [project.id],
    defaultProjectId: project.id,
    admin,
  };
}

function seedImages(cloud: Cloud, ownerId: string): void {
  const qcow2 = { diskFormat: "qcow2", sizeBytes: 1552, virtualSizeBytes: 65_536 };
  const raw = { diskFormat: "raw", sizeBytes: 4096, virtualSizeBytes: 4096 };
  const seeds: (Pick<Image, "name" | "diskFormat" | "sizeBytes" | "virtualSizeBytes"> &
    Pick<Image, "minDiskGib" | "minRamMib" | "properties">)[] = [
    {
      ...qcow2,
      name: "debian-12",
      minDiskGib: 1,
      minRamMib: 512,
      properties: { os_distro: "debian", os_version: "12", hw_qemu_guest_agent: "yes" },
    },
    {
      ...qcow2,
      name: "ubuntu-24.04",
      minDiskGib: 5,
      minRamMib: 1024,
      properties: { os_distro: "ubuntu", os_version: "24.04", os_admin_user: "ubuntu" },
    },
    { ...raw, name: "cirros-tiny", minDiskGib: 0, minRamMib: 0, properties: {} },
  ];
  // A second apart: Glance sorts by whole seconds, and the order must not depend on the machine.
  const now = Date.now() - 10_000;
  seeds.forEach((seed, index) => {
    const createdAt = now + index * 1000;
    const image: Image = {
      ...seed,
      id: randomUUID(),
      ownerId,
      visibility: "public",
      status: "active",
      checksum: createHash("md5").update(seed.diskFormat).digest("hex"),
      hash: createHash("sha512").update(seed.diskFormat).digest("hex"),
      createdAt,
      updatedAt: createdAt,
    };
    cloud.images.set(image.id, image);
  });
}

function seedNetworks(cloud: Cloud, adminId: string, hostopsId: string, privateCidr?: string): void {
  // A /24 ends at 253 servers; a load test with a higher quota must meet the quota, not the pool.
  const cidr = privateCidr ?? (cloud.quota.instances > 200 ? "10.20.0.0/16" : "10.20.0.0/24");
  const external = addNetwork(cloud, {
    name: "public",
    projectId: adminId,
    cidr: "203.0.113.0/24",
    external: true,
    pool: ["203.0.113.20", "203.0.113.60"],
  });
  const own = addNetwork(cloud, { name: "private", projectId: hostopsId, cidr, mtu: 1450, dns: ["9.9.9.9"] });
  addNetwork(cloud, { name: "direct", projectId: adminId, cidr: "198.51.100.0/24", shared: true });
  const subnet = cloud.subnets.get(own.subnetId);
  if (!subnet) return;
  createPort(cloud, {
    network: own,
    projectId: hostopsId,
    address: subnet.gatewayIp,
    securityGroupIds: [],
    deviceId: cloud.router.id,
    deviceOwner: "network:router_interface",
    preexisting: true,
  });
  cloud.nextAddress.set(external.subnetId, parseAddress("203.0.113.31"));
}

function addNetwork(
  cloud: Cloud,
  seed: {
    name: string;
    projectId: string;
    cidr: string;
    mtu?: number;
    external?: boolean;
    shared?: boolean;
    pool?: [string, string];
    dns?: string[];
  },
): Network {
  const [base = "", bits = "24"] = seed.cidr.split("/");
  const first = parseAddress(base);
  const size = 2 ** (32 - Number(bits));
  const network: Network = {
    id: randomUUID(),
    name: seed.name,
    projectId: seed.projectId,
    external: seed.external ?? false,
    shared: seed.shared ?? false,
    mtu: seed.mtu ?? 1500,
    subnetId: randomUUID(),
    createdAt: Date.now(),
  };
  cloud.networks.set(network.id, network);
  cloud.subnets.set(network.subnetId, {
    id: network.subnetId,
    name: `${seed.name}-v4`,
    networkId: network.id,
    projectId: seed.projectId,
    cidr: seed.cidr,
    gatewayIp: base.replace(/\d+$/, "1"),
    enableDhcp: !network.external,
    pool: {
      start: seed.pool ? parseAddress(seed.pool[0]) : first + 2,
      end: seed.pool ? parseAddress(seed.pool[1]) : first + size - 2,
    },
    dnsNameservers: seed.dns ?? [],
    createdAt: network.createdAt,
  });
  return network;
}

function addSecurityGroup(cloud: Cloud, projectId: string, name: string, description: string): void {
  const id = randomUUID();
  cloud.securityGroups.set(id, { id, name, projectId, description });
}

import type { Fault } from "../faults.ts";

/** Ways in which a whole cloud can be difficult. All off (or at their harmless default) unless asked for. */
export interface Traps {
  /** Nova's `resize_confirm_window`: VERIFY_RESIZE confirms itself after this long. */
  resizeConfirmWindowMs?: number;
  /** Gap between Nova's state check and its compare-and-set: of several resizes inside it one is 202, the others 500. */
  resizeRaceMs?: number;
  /** A new server shows up in lists only this much later (GET by id finds it at once). */
  listLagMs?: number;
  /** Nova's `reclaim_instance_interval` > 0: DELETE makes SOFT_DELETED. */
  softDelete?: boolean;
  /** nova-compute is dead: stop hangs in powering-off, changePassword blocks and then is 500, delete is local. */
  deadCompute?: boolean;
  /** How long the blocked changePassword of a dead compute takes at speed 1 (rpc_response_timeout). */
  rpcTimeoutMs?: number;
  /** No host has room: builds end in ERROR "No valid host was found. ", resizes fall back silently. */
  noCapacity?: boolean;
  /** Neutron refuses connections; Nova's create answers 500 computeFault. */
  neutronDown?: boolean;
  /** Glance refuses connections; Nova's create answers 500 computeFault. */
  glanceDown?: boolean;
  /** "503": Keystone answers 503, and so do Nova and Neutron. "hang": nobody answers at all. */
  keystone?: "up" | "503" | "hang";
  /** A revoked token keeps working this long on Nova, Glance and Neutron (keystonemiddleware's cache). */
  tokenCacheMs?: number;
  /** Nova's links carry this origin instead of ours, as behind a misconfigured proxy. */
  linkOrigin?: string;
}

export interface Quota {
  instances: number;
  cores: number;
  ramMib: number;
}

export interface OpenStackSimulatorOptions {
  /** Default 127.0.0.1. */
  host?: string;
  /** Default 0: any free port. */
  port?: number;
  /** Multiplies every delay: 1 shows builds of ~3 s, 0 is as fast as possible yet still asynchronous. Default 1. */
  speed?: number;
  log?: (line: string) => void;
  faults?: Fault[];
  traps?: Traps;
  /** Default 12 instances, 200 cores, 4 TiB: the seed of the real cloud. */
  quota?: Partial<Quota>;
  /** Default 3600. */
  tokenTtlSeconds?: number;
  /** Nova's `[api]max_limit`; default 1000. */
  maxLimit?: number;
  /** Put the project id into the compute URL of the catalogue, as many clouds do. */
  projectIdInComputeUrl?: boolean;
  /** Default 10.20.0.0/24, or 10.20.0.0/16 when the quota allows more servers than a /24 holds. */
  privateCidr?: string;
}

export interface Flavor {
  id: string;
  name: string;
  vcpus: number;
  ramMib: number;
  diskGib: number;
  extraSpecs: Record<string, string>;
}

export interface Image {
  id: string;
  name: string;
  ownerId: string;
  visibility: "public" | "private";
  status: "active" | "queued" | "deleted";
  diskFormat: string;
  sizeBytes: number;
  virtualSizeBytes: number;
  checksum: string;
  hash: string;
  minRamMib: number;
  minDiskGib: number;
  properties: Record<string, string>;
  createdAt: number;
  updatedAt: number;
}

export interface Subnet {
  id: string;
  name: string;
  networkId: string;
  projectId: string;
  cidr: string;
  gatewayIp: string;
  enableDhcp: boolean;
  pool: { start: number; end: number };
  dnsNameservers: string[];
  createdAt: number;
}

export interface Network {
  id: string;
  name: string;
  projectId: string;
  external: boolean;
  shared: boolean;
  mtu: number;
  subnetId: string;
  createdAt: number;
}

export interface Port {
  id: string;
  name: string;
  description: string;
  networkId: string;
  subnetId: string;
  projectId: string;
  macAddress: string;
  ipAddress: string;
  deviceId: string;
  deviceOwner: string;
  securityGroupIds: string[];
  status: "ACTIVE" | "DOWN";
  /** Made by the tenant beforehand: outlives the server. */
  preexisting: boolean;
  revision: number;
  createdAt: number;
  updatedAt: number;
}

export interface FloatingIp {
  id: string;
  address: string;
  networkId: string;
  projectId: string;
  portId: string | null;
  description: string;
  revision: number;
  createdAt: number;
  updatedAt: number;
}

export interface SecurityGroup {
  id: string;
  name: string;
  projectId: string;
  description: string;
}

export interface KeyPair {
  name: string;
  userId: string;
  publicKey: string;
  fingerprint: string;
  createdAt: number;
}

export interface User {
  id: string;
  name: string;
  password: string;
  projectIds: string[];
  defaultProjectId: string;
  admin: boolean;
}

export interface Project {
  id: string;
  name: string;
}

export interface Token {
  id: string;
  userId: string;
  projectId: string | null;
  admin: boolean;
  methods: string[];
  auditIds: string[];
  issuedAt: number;
  expiresAt: number;
  revokedAt: number | null;
  applicationCredentialId: string | null;
}

export type VmState = "building" | "active" | "stopped" | "resized" | "error" | "deleted" | "soft-delete";

export interface ActionEvent {
  event: string;
  startedAt: number;
  finishedAt: number | null;
  result: "Success" | "Error" | null;
  hostId: string;
}

export interface ActionRecord {
  action: string;
  requestId: string;
  userId: string;
  projectId: string;
  startedAt: number;
  updatedAt: number;
  message: string | null;
  /** Oldest first; the API shows the newest first. */
  events: ActionEvent[];
}

export interface ServerFault {
  code: number;
  message: string;
  createdAt: number;
}

export interface NetworkRequest {
  networkId: string | null;
  portId: string | null;
  fixedIp: string | null;
}

export interface Server {
  id: string;
  projectId: string;
  userId: string;
  name: string;
  description: string | null;
  hostname: string;
  flavor: Flavor;
  previousFlavor: Flavor | null;
  imageId: string;
  metadata: Record<string, string>;
  tags: string[];
  keyName: string | null;
  securityGroups: string[];
  configDrive: boolean;
  availabilityZone: string;
  vmState: VmState;
  taskState: string | null;
  powerState: number;
  /** What the server returns to when a resize ends. */
  vmStateBeforeResize: VmState;
  createdAt: number;
  updatedAt: number;
  launchedAt: number | null;
  terminatedAt: number | null;
  deletedAt: number | null;
  listedAt: number;
  fault: ServerFault | null;
  locked: boolean;
  lockedReason: string | null;
  /** Index of the compute host, or null while it has none. */
  host: number | null;
  adminPassword: string;
  actions: ActionRecord[];
  networkRequests: NetworkRequest[];
  /** Raised by delete, so that a transition still under way stops. */
  generation: number;
  /** Made by `POST /_sim/servers`: somebody else's work. */
  stranger: boolean;
}

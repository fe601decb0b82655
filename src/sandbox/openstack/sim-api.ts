import { randomUUID } from "node:crypto";
import { z } from "zod";
import { withoutUndefined } from "../defined.ts";
import { readFaults, shownFault } from "../faults.ts";
import type { Cloud } from "./cloud.ts";
import { faultPresets } from "./faults.ts";
import type { Answer, Exchange } from "./http.ts";
import { sentinelNames } from "./knobs.ts";
import { adoptRunning } from "./lifecycle-build.ts";
import { normalTags } from "./nova-tags.ts";
import { statusOf } from "./nova-view.ts";
import { isoSeconds, newPassword, newRequestId } from "./time.ts";
import type { Server } from "./types.ts";

/** A server as a test wants to see it: everything, past Nova's API. */
export interface SimulatedServer {
  id: string;
  name: string;
  projectId: string;
  status: string;
  vmState: string;
  taskState: string | null;
  flavor: string;
  imageId: string;
  tags: string[];
  metadata: Record<string, string>;
  deleted: boolean;
  createdAt: string;
  deletedAt: string | null;
  fault: string | null;
  locked: boolean;
  addresses: string[];
  adminPassword: string;
  stranger: boolean;
  actions: { action: string; requestId: string; message: string | null }[];
}

export function describeServer(cloud: Cloud, server: Server): SimulatedServer {
  return {
    id: server.id,
    name: server.name,
    projectId: server.projectId,
    status: statusOf(server),
    vmState: server.vmState,
    taskState: server.taskState,
    flavor: server.flavor.name,
    imageId: server.imageId,
    tags: [...server.tags],
    metadata: { ...server.metadata },
    deleted: server.deletedAt !== null,
    createdAt: new Date(server.createdAt).toISOString(),
    deletedAt: server.deletedAt === null ? null : isoSeconds(server.deletedAt),
    fault: server.fault?.message ?? null,
    locked: server.locked,
    addresses: [...cloud.ports.values()]
      .filter((port) => port.deviceId === server.id)
      .map((port) => port.ipAddress),
    adminPassword: server.adminPassword,
    stranger: server.stranger,
    actions: server.actions.map(({ action, requestId, message }) => ({ action, requestId, message })),
  };
}

/** What somebody else may make, past the API: `POST /_sim/servers`. */
export const StrangerInput = z.strictObject({
  name: z.string().optional(),
  /** By name or id; default m1.tiny. */
  flavor: z.string().optional(),
  /** By name or id; default debian-12. */
  image: z.string().optional(),
  tags: z.array(z.string()).optional(),
  metadata: z.record(z.string(), z.string()).optional(),
  /** By name; default hostops. */
  project: z.string().optional(),
});
export type StrangerInput = z.infer<typeof StrangerInput>;

const TrapsInput = z.strictObject({
  resizeConfirmWindowMs: z.number().optional(),
  resizeRaceMs: z.number().optional(),
  listLagMs: z.number().optional(),
  softDelete: z.boolean().optional(),
  deadCompute: z.boolean().optional(),
  rpcTimeoutMs: z.number().optional(),
  noCapacity: z.boolean().optional(),
  neutronDown: z.boolean().optional(),
  glanceDown: z.boolean().optional(),
  keystone: z.enum(["up", "503", "hang"]).optional(),
  tokenCacheMs: z.number().optional(),
  linkOrigin: z.string().optional(),
});

const QuotaInput = z.strictObject({
  instances: z.number().optional(),
  cores: z.number().optional(),
  ramMib: z.number().optional(),
});

export function revokeAllTokens(cloud: Cloud): void {
  for (const token of cloud.tokens.values()) token.revokedAt ??= Date.now();
}

export function makeStranger(cloud: Cloud, input: StrangerInput): Server {
  const named = <T extends { id: string; name: string }>(rows: Iterable<T>, wanted: string): T => {
    const found = [...rows].find(({ id, name }) => id === wanted || name === wanted);
    if (!found) throw new TypeError(`the simulated cloud has no ${wanted}`);
    return found;
  };
  const flavor = named(cloud.flavors, input.flavor ?? "m1.tiny");
  const image = named(cloud.images.values(), input.image ?? "debian-12");
  const project = named(cloud.projects.values(), input.project ?? "hostops");
  const user = [...cloud.users.values()].find(({ projectIds }) => projectIds.includes(project.id));
  const network = [...cloud.networks.values()].find(
    ({ projectId, shared }) => projectId === project.id || shared,
  );
  const now = Date.now();
  const server: Server = {
    id: randomUUID(),
    projectId: project.id,
    userId: user?.id ?? "",
    name: input.name ?? "stranger",
    description: null,
    hostname: "stranger",
    flavor: structuredClone(flavor),
    previousFlavor: null,
    imageId: image.id,
    metadata: { ...input.metadata },
    tags: normalTags(input.tags ?? []),
    keyName: null,
    securityGroups: [],
    configDrive: false,
    availabilityZone: "nova",
    vmState: "building",
    taskState: null,
    powerState: 0,
    vmStateBeforeResize: "active",
    createdAt: now,
    updatedAt: now,
    launchedAt: null,
    terminatedAt: null,
    deletedAt: null,
    listedAt: now,
    fault: null,
    locked: false,
    lockedReason: null,
    host: null,
    adminPassword: newPassword(),
    actions: [],
    networkRequests: network ? [{ networkId: network.id, portId: null, fixedIp: null }] : [],
    generation: 0,
    stranger: true,
  };
  cloud.servers.set(server.id, server);
  adoptRunning(cloud, server, { requestId: newRequestId(), userId: server.userId });
  return server;
}

/** Our own door into the simulator, for tests whose simulator lives in another process. No token needed. */
export function simApi(cloud: Cloud, exchange: Exchange, path: string): Answer {
  try {
    return dispatch(cloud, `${exchange.method} ${path}`, exchange);
  } catch (error) {
    return { status: 400, body: { error: error instanceof Error ? error.message : String(error) } };
  }
}

function dispatch(cloud: Cloud, call: string, exchange: Exchange): Answer {
  const read = (): unknown => JSON.parse(exchange.rawBody === "" ? "{}" : exchange.rawBody);
  switch (call) {
    case "GET /servers":
      return {
        status: 200,
        body: { servers: [...cloud.servers.values()].map((server) => describeServer(cloud, server)) },
      };
    case "POST /servers":
      return {
        status: 201,
        body: { server: describeServer(cloud, makeStranger(cloud, StrangerInput.parse(read()))) },
      };
    case "GET /requests":
      return { status: 200, body: { requests: cloud.requests, counts: Object.fromEntries(cloud.counts) } };
    case "DELETE /requests":
      cloud.requests.length = 0;
      cloud.counts.clear();
      return { status: 204 };
    case "GET /faults":
      return { status: 200, body: { faults: cloud.faults, presets: faultPresets, sentinels: sentinelNames } };
    case "POST /faults":
      return { status: 201, body: { faults: addFaults(cloud, read()) } };
    case "DELETE /faults":
      cloud.faults.length = 0;
      return { status: 204 };
    case "GET /traps":
      return { status: 200, body: { traps: cloud.traps } };
    case "PUT /traps":
      cloud.traps = withoutUndefined(TrapsInput.parse(read()));
      return { status: 200, body: { traps: cloud.traps } };
    case "PUT /quota":
      cloud.quota = { ...cloud.quota, ...withoutUndefined(QuotaInput.parse(read())) };
      return { status: 200, body: { quota: cloud.quota } };
    case "DELETE /tokens":
      revokeAllTokens(cloud);
      return { status: 204 };
    default:
      return { status: 404, body: { error: `the simulator has no ${call}` } };
  }
}

function addFaults(cloud: Cloud, input: unknown): object[] {
  const armed = readFaults(input, faultPresets);
  cloud.faults.push(...armed);
  return armed.map(shownFault);
}

// A PVE cluster as core/cloud.ts wants it.
import { readFileSync } from "node:fs";
import {
  buildOptions,
  type Cloud,
  type ConnectionCheck,
  powerVerbs,
  type SnapshotProcedures,
} from "../../core/cloud.ts";
import { ServiceError } from "../../core/errors.ts";
import { checkInTurn } from "../check.ts";
import { createHttpClient } from "../http.ts";
import { createNetworkList, listImages } from "./catalogue.ts";
import { createClient, type PveClient } from "./client.ts";
import { listResources } from "./cluster.ts";
import { openConsole } from "./console.ts";
import { inDoubtAfterWrites } from "./doubt.ts";
import { examine } from "./examine.ts";
import type { PveCloudOptions, PveRuntime } from "./options.ts";
import { preflightProvision } from "./preflight.ts";
import { planRebuild, rebuildSteps } from "./rebuild.ts";
import { Permissions, Version } from "./schema.ts";
import { findByMarker, inspect, listServers, snapshotsOf } from "./server.ts";
import { addressSteps, planAssign, planRelease } from "./steps/address.ts";
import { cloneStep, planClone } from "./steps/clone.ts";
import { configureStep, planConfigure } from "./steps/configure.ts";
import { destroyStep, haltStep, planDelete } from "./steps/delete.ts";
import { discardStep } from "./steps/discard.ts";
import { diskStep, growthStep, planDisk } from "./steps/disk.ts";
import { isoProcedures, isoSteps } from "./steps/iso.ts";
import { keysStep, planKeys } from "./steps/keys.ts";
import { passwordStep, planPassword } from "./steps/password.ts";
import { planPower, powerStep, rebootStep } from "./steps/power.ts";
import { planProtect, protectStep } from "./steps/protect.ts";
import { purgeStep } from "./steps/purge.ts";
import { planReady, readyStep } from "./steps/ready.ts";
import { rescueProcedures, rescueSteps } from "./steps/rescue.ts";
import { planReserve, reserveStep } from "./steps/reserve.ts";
import { applySizeStep, checkSizeStep, planResize, planRestart, setSizeStep } from "./steps/resize.ts";
import { planRollback, rollbackSteps } from "./steps/rollback.ts";
import { planSnapshot, planSnapshotDelete, snapshotSteps } from "./steps/snapshot.ts";
import { listTraffic } from "./traffic.ts";
import { createWatch } from "./watch.ts";

/** Throws ServiceError `configuration` when the CA file cannot be read. */
export function createPveCloud(options: PveCloudOptions, runtime: PveRuntime): Cloud {
  const now = runtime.now ?? Date.now;
  const client = createClient(options, httpFor(options, runtime, now), { log: runtime.log, now });

  return {
    name: options.name,
    provider: "pve",
    // pveproxy gives up after 30 s on a daemon that hangs, and the daemon does the work when it comes back.
    settleMs: 60_000,
    watchEveryMs: 2_000,
    usesFlavors: false,
    hasNodes: true,
    buildOptions,
    steps: [
      reserveStep(client),
      cloneStep(client),
      configureStep(client),
      diskStep(client),
      growthStep(client),
      powerStep(client),
      readyStep(client),
      discardStep(client),
      rebootStep(client),
      setSizeStep(client),
      applySizeStep(client),
      checkSizeStep(client),
      passwordStep(client),
      keysStep(client),
      ...addressSteps(client),
      ...snapshotSteps(client),
      ...rollbackSteps(client),
      ...rescueSteps(client),
      ...isoSteps(client),
      haltStep(client),
      purgeStep(client),
      destroyStep(client),
      ...rebuildSteps(client),
      protectStep(client),
    ].map(inDoubtAfterWrites),
    powerVerbs,

    provision: (order) => [
      planReserve(),
      planClone(order),
      planConfigure(order),
      planDisk({ diskGib: order.size.diskGib }),
      ...(order.start === false ? [] : [planPower({ verb: "start" }), planReady()]),
    ],
    resize: planResize,
    keys: planKeys,
    addresses: { assign: planAssign, release: planRelease },
    restart: planRestart,
    power: ({ externalId, verb }) => [planPower({ externalId, verb })],
    console: (order) => openConsole(client, order),
    passwordAtBoot: true,
    password: ({ externalId, secretId }) => [planPassword(externalId, secretId)],
    remove: planDelete,
    rebuild: planRebuild,
    snapshots: snapshotProcedures(client),
    rescue: rescueProcedures(client),
    isos: isoProcedures(client),
    survivesRemoval: ["Backups of it in the cloud's storages stay."],
    goesWithRemoval: ["Its snapshots and its entries in backup jobs, replication and HA go, too."],
    removesBackups: true,
    protect: (order) => [planProtect(order)],

    preflightProvision: (order, signal, { avoid } = { avoid: new Set() }) =>
      preflightProvision(client, order, signal, (node) => !avoid.has(node)),
    inspect: (externalId, signal, { before } = {}) => inspect(client, externalId, { before, signal }),
    findByMarker: (operationId, signal) => findByMarker(client, operationId, signal),
    listServers: (signal) => listServers(client, signal),
    // Sizes apply directly.
    listFlavors: () => Promise.resolve([]),
    listImages: (signal) => listImages(client, signal),
    listNetworks: createNetworkList(client),
    traffic: (signal) => listTraffic(client, signal),
    watch: createWatch(client, runtime.lookEveryMs ?? 3_000),
    check: () => check(client),
    examine: () => examine(client),
    close: () => client.close(),
  };
}

function httpFor(options: PveCloudOptions, runtime: PveRuntime, now: () => number) {
  return createHttpClient({
    cloud: options.name,
    connectTimeoutMs: options.connectTimeoutMs ?? 5_000,
    timeoutMs: options.timeoutMs ?? 30_000,
    verifyTls: options.verifyTls ?? true,
    ...(options.caFile === undefined ? {} : { ca: readCa(options.name, options.caFile) }),
    ...(options.fingerprint === undefined ? {} : { fingerprint: options.fingerprint }),
    log: runtime.log,
    now,
    ...(runtime.sleep === undefined ? {} : { sleep: runtime.sleep }),
  });
}

function snapshotProcedures(client: PveClient): SnapshotProcedures {
  return {
    create: planSnapshot,
    rollback: planRollback,
    remove: planSnapshotDelete,
    list: (externalId, signal) => snapshotsOf(client, externalId, signal),
  };
}

function readCa(cloud: string, path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new ServiceError(
      "configuration",
      `The CA file of cloud ${cloud} cannot be read: ${path}. Check its path and its permissions.`,
      { cause: error, facts: { cloud, path } },
    );
  }
}

/** For addresses and passwords by the guest agent: 9.x, and 8.x. */
const AGENT_PRIVILEGES = ["VM.GuestAgent.Unrestricted", "VM.Monitor"] as const;
/** docs/pve.md says what each is for. */
const PRIVILEGES = [
  "VM.Allocate",
  "VM.Audit",
  "VM.Clone",
  "VM.Config.CPU",
  "VM.Config.Cloudinit",
  "VM.Config.Disk",
  "VM.Config.Memory",
  "VM.Config.Network",
  "VM.Config.Options",
  "VM.Console",
  "VM.PowerMgmt",
  "VM.Snapshot",
] as const;

async function check(client: PveClient): Promise<ConnectionCheck[]> {
  const checks: readonly (readonly [string, () => Promise<string>])[] = [
    ["api", async () => `PVE ${(await client.read({ path: "/version", anyway: true }, Version)).version}`],
    ["privileges", () => checkPrivileges(client)],
    [
      "nodes",
      async () => {
        const { nodes, guests } = await listResources(client);
        const online = nodes.filter((node) => node.online).length;
        return `${online} of ${nodes.length} nodes online, ${guests.length} guests visible`;
      },
    ],
  ];
  return checkInTurn(checks, "not tried, because the API did not answer");
}

function usesMedia({ options }: PveClient): boolean {
  return options.rescueIso !== undefined || Object.keys(options.isos ?? {}).length > 0;
}

/** On /vms, with which a guest that is gone can be told from one that may not be seen. */
async function checkPrivileges(client: PveClient): Promise<string> {
  const paths = await client.read({ path: "/access/permissions" }, Permissions);
  const granted = new Set(Object.keys(paths["/vms"] ?? paths["/"] ?? {}));
  const needed = [...PRIVILEGES, ...(usesMedia(client) ? ["VM.Config.CDROM"] : [])];
  const missing: string[] = needed.filter((privilege) => !granted.has(privilege));
  if (!AGENT_PRIVILEGES.some((privilege) => granted.has(privilege)))
    missing.push(AGENT_PRIVILEGES.join(" or "));
  if (missing.length === 0) return "all that is needed on /vms";
  throw new ServiceError(
    "cloud_forbidden",
    `The credential lacks ${missing.join(", ")} on /vms. Give it a role that has them.`,
    { facts: { cloud: client.cloud }, staffDetail: `lacks ${missing.join(", ")} on /vms (docs/pve.md)` },
  );
}

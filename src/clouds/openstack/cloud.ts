// An OpenStack project as core/cloud.ts wants it.
import { readFileSync } from "node:fs";
import type { Cloud, ConnectionCheck } from "../../core/cloud.ts";
import { ServiceError } from "../../core/errors.ts";
import { checkInTurn } from "../check.ts";
import { createHttpClient } from "../http.ts";
import { createClient, type OpenStackClient } from "./client.ts";
import { findMarked, getLimits, getServer, listFlavors, listServers, remoteServerOf } from "./compute.ts";
import { listImages } from "./image.ts";
import { listNetworks } from "./network.ts";
import type { OpenStackCloudOptions, OpenStackRuntime } from "./options.ts";
import { flavorIdOf, preflightProvision } from "./preflight.ts";
import { createStep, planCreate } from "./steps/create.ts";
import { deleteStep, planDelete } from "./steps/delete.ts";
import { discardStep } from "./steps/discard.ts";
import { passwordStep, planPassword } from "./steps/password.ts";
import { openStackPowerVerbs, planPower, powerStep, rebootStep } from "./steps/power.ts";
import { confirmResizeStep, planResize, resizeStep } from "./steps/resize.ts";
import { createWatch } from "./watch.ts";

/** Throws ServiceError `configuration` when the CA file cannot be read. */
export function createOpenStackCloud(options: OpenStackCloudOptions, runtime: OpenStackRuntime): Cloud {
  const now = runtime.now ?? Date.now;
  const http = createHttpClient({
    cloud: options.name,
    connectTimeoutMs: options.connectTimeoutMs ?? 5_000,
    timeoutMs: options.timeoutMs ?? 30_000,
    verifyTls: options.verifyTls ?? true,
    ...(options.caFile === undefined ? {} : { ca: readCa(options.name, options.caFile) }),
    log: runtime.log,
    now,
    ...(runtime.sleep === undefined ? {} : { sleep: runtime.sleep }),
  });
  const client = createClient(options, http, { log: runtime.log, now });

  return {
    name: options.name,
    provider: "openstack",
    // A proxy may hold a request that long after its client has gone.
    settleMs: 60_000,
    watchEveryMs: 2_000,
    usesFlavors: true,
    steps: [
      createStep(client),
      discardStep(client),
      resizeStep(client),
      confirmResizeStep(client),
      powerStep(client),
      rebootStep(client),
      passwordStep(client),
      deleteStep(client),
    ],
    powerVerbs: openStackPowerVerbs,

    provision: (order) => [planCreate(order, flavorIdOf(order.size))],
    resize: (order) => planResize(order, flavorIdOf(order.after)),
    power: ({ externalId, verb }) => [planPower(externalId, verb)],
    password: ({ externalId, secretId }) => [planPassword(externalId, secretId)],
    remove: ({ externalId }) => [planDelete(externalId)],
    survivesRemoval: ["Images that were made of it stay, and volumes that were attached to it."],

    preflightProvision: (order, signal) => preflightProvision(client, order, signal),
    inspect: async (externalId, signal) => remoteServerOf(await getServer(client, externalId, signal)),
    findByMarker: async (operationId, signal) =>
      (await findMarked(client, operationId, signal)).map(remoteServerOf),
    listServers: async (signal) => (await listServers(client, signal)).map(remoteServerOf),
    listFlavors: (signal) => listFlavors(client, signal),
    listImages: (signal) => listImages(client, signal),
    listNetworks: (signal) => listNetworks(client, signal),
    watch: createWatch(client, now),
    check: () => check(client),
    close: () => client.close(),
  };
}

function readCa(cloud: string, path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new ServiceError(
      "configuration",
      `The CA file of cloud ${cloud} cannot be read: ${path}. Check its path and its permissions.`,
      {
        cause: error,
        facts: { cloud, path },
      },
    );
  }
}

async function check(client: OpenStackClient): Promise<ConnectionCheck[]> {
  const checks: readonly (readonly [string, () => Promise<string>])[] = [
    ["identity", async () => `project ${(await client.session()).projectId ?? "unknown"}`],
    [
      "compute",
      async () => {
        const limits = await getLimits(client);
        return `microversion ${await client.microversion()}, ${limits.totalInstancesUsed ?? "?"} of ${limits.maxTotalInstances ?? "?"} servers in use`;
      },
    ],
    ["image", async () => `${(await listImages(client)).length} images`],
    ["network", async () => `${(await listNetworks(client)).length} networks`],
  ];
  return checkInTurn(checks, "not tried, because identity failed");
}

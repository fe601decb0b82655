import { createOpenStackCloud } from "../../../src/clouds/openstack/cloud.ts";
import type { OpenStackCloudOptions } from "../../../src/clouds/openstack/options.ts";
import type { Cloud, ProvisionOrder } from "../../../src/core/cloud.ts";
import {
  type OpenStackSimulator,
  type OpenStackSimulatorOptions,
  startOpenStackSimulator,
} from "../../../src/sandbox/openstack/index.ts";
import type { CloudUnderTest } from "../contract.ts";
import { recordingLog } from "../recording-log.ts";

export interface Opened {
  cloud: Cloud;
  simulator: OpenStackSimulator;
  order: ProvisionOrder;
  logged(): string;
  close(): Promise<void>;
}

export function optionsOf(simulator: OpenStackSimulator): OpenStackCloudOptions {
  const { applicationCredentialId, applicationCredentialSecret, region } = simulator.credentials;
  return {
    name: "sim",
    region,
    auth: { authUrl: simulator.authUrl, applicationCredentialId, applicationCredentialSecret },
  };
}

/** Fast: a build takes some milliseconds, and a repeated read does not pause. */
export async function openSimulator(
  options: OpenStackSimulatorOptions = {},
  overrides: Partial<OpenStackCloudOptions> = {},
): Promise<Opened> {
  const simulator = await startOpenStackSimulator({ speed: 0.01, ...options });
  const { log, logged } = recordingLog();
  const cloud = createOpenStackCloud(
    { ...optionsOf(simulator), ...overrides },
    { log, sleep: () => Promise.resolve() },
  );
  const [images, networks] = await Promise.all([cloud.listImages(), cloud.listNetworks()]);
  return {
    cloud,
    simulator,
    order: orderOf({
      imageId: images.find((image) => image.name === "debian-12")?.externalId,
      networkId: networks.find((network) => network.name === "private")?.externalId,
    }),
    logged,
    async close() {
      await cloud.close();
      await simulator.close();
    },
  };
}

export function orderOf(ids: { imageId: string | undefined; networkId: string | undefined }): ProvisionOrder {
  if (ids.imageId === undefined || ids.networkId === undefined) throw new Error("the cloud lacks its seed");
  return {
    name: "web-1",
    size: { vcpus: 1, memoryMib: 512, diskGib: 1, flavorId: "1" },
    imageId: ids.imageId,
    networkId: ids.networkId,
    metadata: {},
    passwordSecretId: "secret",
    defaultUser: "debian",
  };
}

export const SMALL = { vcpus: 1, memoryMib: 2048, diskGib: 10, flavorId: "2" };

export async function underTest(): Promise<CloudUnderTest> {
  const { cloud, simulator, order, logged, close } = await openSimulator({ maxLimit: 2 });
  return {
    cloud,
    order,
    bigger: SMALL,
    pace: { everyMs: 15, limitMs: 10_000 },
    makeStranger: () => Promise.resolve(simulator.addStranger({ name: "web-1" }).id),
    // src/sandbox/openstack/nova-actions.ts answers 501 to these two.
    unplayed: ["suspend", "resume"],
    failingBuild: { osr_fail: "spawn" },
    faults: {
      loseAnswerOfCreate: () => {
        simulator.addFault({ method: "POST", path: "/servers$", kind: "drop_after" });
      },
      cutCreate: () => {
        simulator.addFault({ method: "POST", path: "/servers$", kind: "drop" });
      },
      answerNext: (what, status, headers) => {
        simulator.addFault({
          method: what === "read" ? "GET" : "POST",
          path: "/compute/",
          kind: "status",
          status,
          body: "<html><body>gateway</body></html>",
          headers: { "Content-Type": "text/html", ...headers },
        });
      },
      breakSecondPage: () => {
        simulator.addFault({ path: "/servers/detail\\?.*marker=", kind: "status", status: 502, times: 0 });
      },
      clear: () => simulator.clearFaults(),
    },
    logged,
    cleanup: close,
  };
}

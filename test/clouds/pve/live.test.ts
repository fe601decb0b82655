/**
 * The contract on a real node: TEST_PVE_URL (https://host:8006), TEST_PVE_TOKEN (user@realm!id=uuid), TEST_PVE_CA (PEM file),
 * TEST_PVE_NODE, TEST_PVE_TEMPLATE (VMID of a template with a cloud-init drive and the guest agent). Without them a simulator
 * sets the very same variables, so that what a stranger runs on a node of theirs is what runs here.
 */
import { randomUUID } from "node:crypto";
import { createPveCloud } from "../../../src/clouds/pve/cloud.ts";
import type { RemoteImage } from "../../../src/core/cloud.ts";
import { startPveSimulator } from "../../../src/sandbox/pve/index.ts";
import { testDatabase } from "../../support/database.ts";
import { type CloudUnderTest, cloudContract } from "../contract.ts";
import { recordingLog } from "../recording-log.ts";
import { type RunOptions, runAll } from "../run-step.ts";
import { addCloudRow, caFileOf } from "./open-simulator.ts";

const isReal = process.env["TEST_PVE_URL"] !== undefined;
/** Far from what people number by hand; what is there already is gone round. */
const RANGE = [990_000, 990_999] as const;

cloudContract({
  name: isReal ? "Proxmox VE, TEST_PVE_URL" : "Proxmox VE, the simulator by the TEST_PVE_ variables",
  timeoutMs: isReal ? 900_000 : 20_000,
  open,
});

interface Variables {
  TEST_PVE_URL: string;
  TEST_PVE_TOKEN: string;
  TEST_PVE_CA: string;
  TEST_PVE_NODE: string;
  TEST_PVE_TEMPLATE: string;
  stop(): Promise<void>;
}

async function variables(): Promise<Variables> {
  if (isReal) {
    const read = (name: string) => {
      const value = process.env[name];
      if (value === undefined) throw new Error(`TEST_PVE_URL is set, so ${name} must be set too`);
      return value;
    };
    return {
      TEST_PVE_URL: read("TEST_PVE_URL"),
      TEST_PVE_TOKEN: read("TEST_PVE_TOKEN"),
      TEST_PVE_CA: read("TEST_PVE_CA"),
      TEST_PVE_NODE: read("TEST_PVE_NODE"),
      TEST_PVE_TEMPLATE: read("TEST_PVE_TEMPLATE"),
      stop: () => Promise.resolve(),
    };
  }
  const simulator = await startPveSimulator({ speed: 0, nodes: ["pve1"] });
  return {
    TEST_PVE_URL: simulator.url,
    TEST_PVE_TOKEN: `${simulator.tokenId}=${simulator.tokenSecret}`,
    TEST_PVE_CA: caFileOf(simulator),
    TEST_PVE_NODE: "pve1",
    TEST_PVE_TEMPLATE: "9000",
    stop: () => simulator.close(),
  };
}

async function open(): Promise<CloudUnderTest> {
  const { TEST_PVE_URL, TEST_PVE_TOKEN, TEST_PVE_CA, TEST_PVE_NODE, TEST_PVE_TEMPLATE, stop } =
    await variables();
  const [tokenId = "", tokenSecret = ""] = TEST_PVE_TOKEN.split("=");
  const { log, logged } = recordingLog();
  const cloud = createPveCloud(
    {
      name: "live",
      url: TEST_PVE_URL,
      credential: { kind: "token", tokenId, tokenSecret },
      caFile: TEST_PVE_CA,
      vmidRange: RANGE,
    },
    isReal ? { log } : { log, lookEveryMs: 10, sleep: () => Promise.resolve() },
  );
  const database = await testDatabase();
  await addCloudRow(database, cloud.name);
  const imageId = `${TEST_PVE_NODE}/${TEST_PVE_TEMPLATE}`;
  const [images, networks] = await Promise.all([cloud.listImages(), cloud.listNetworks()]);
  const image = images.find((one) => one.externalId === imageId);
  const [network] = networks;
  if (image === undefined || network === undefined) throw new Error(`no template ${imageId}, or no bridge`);
  const order = orderOf(image, network.externalId, TEST_PVE_NODE);
  const before = new Set((await cloud.listServers()).map((server) => server.externalId));
  const pace = isReal ? { everyMs: 1_000, limitMs: 600_000 } : { everyMs: 10, limitMs: 15_000 };
  const options = (): RunOptions => ({ operationId: randomUUID(), database, rows: new Map(), ...pace });
  return {
    cloud,
    order,
    bigger: { ...order.size, vcpus: 2, memoryMib: order.size.memoryMib * 2, diskGib: order.size.diskGib + 1 },
    database,
    pace,
    async makeStranger() {
      const runs = await runAll(cloud, cloud.provision({ ...order, name: "stranger" }), options());
      const verdict = runs.at(-1)?.verdict;
      if (verdict?.kind !== "done" || verdict.server === undefined) throw new Error("no stranger was made");
      return verdict.server.externalId;
    },
    logged,
    async cleanup() {
      const made = (await cloud.listServers()).filter(
        ({ externalId, markers }) => !before.has(externalId) && markers.length > 0,
      );
      for (const { externalId, data } of made) {
        const rows = new Map([[externalId, data ?? {}]]);
        await runAll(cloud, cloud.remove({ externalId }), { ...options(), rows });
      }
      await cloud.close();
      await database.close();
      await stop();
    },
  };
}

/** As small as the template allows: a node that lends itself to a test may be somebody's. */
function orderOf(image: RemoteImage, networkId: string, node: string): CloudUnderTest["order"] {
  return {
    name: "web-1",
    size: { vcpus: 1, memoryMib: 512, diskGib: Math.max(1, image.minDiskGib) },
    imageId: image.externalId,
    networkId,
    metadata: {},
    passwordSecretId: "secret",
    defaultUser: image.defaultUser,
    node,
  };
}

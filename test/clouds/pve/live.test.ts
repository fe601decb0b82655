/** The contract on the node of the TEST_PVE_ variables (live-variables.ts). */
import { randomUUID } from "node:crypto";
import { createPveCloud } from "../../../src/clouds/pve/cloud.ts";
import type { RemoteImage } from "../../../src/core/cloud.ts";
import { testDatabase } from "../../support/database.ts";
import { type CloudUnderTest, cloudContract } from "../contract.ts";
import { recordingLog } from "../recording-log.ts";
import { type RunOptions, runAll } from "../run-step.ts";
import { isReal, variables } from "./live-variables.ts";
import { addCloudRow } from "./open-simulator.ts";

/** Far from what people number by hand; what is there already is gone round. The other half is live-road.test.ts's. */
const RANGE = [990_000, 990_499] as const;

cloudContract({
  name: isReal ? "Proxmox VE, TEST_PVE_URL" : "Proxmox VE, the simulator by the TEST_PVE_ variables",
  timeoutMs: isReal ? 900_000 : 20_000,
  open,
});

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
        ({ externalId, markers }) =>
          !before.has(externalId) && markers.length > 0 && Number(externalId) <= RANGE[1],
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

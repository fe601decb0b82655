/** The contract on a real OpenStack: TEST_OPENSTACK_CLOUD names an entry of clouds.yaml (OS_CLIENT_CONFIG_FILE). */
import { readFileSync } from "node:fs";
import { parse } from "yaml";
import { createOpenStackCloud } from "../../../src/clouds/openstack/cloud.ts";
import type { OpenStackCloudOptions } from "../../../src/clouds/openstack/options.ts";
import { type CloudUnderTest, cloudContract } from "../contract.ts";
import { recordingLog } from "../recording-log.ts";
import { runAll } from "../run-step.ts";
import { orderOf, SMALL } from "./open-simulator.ts";

const name = process.env["TEST_OPENSTACK_CLOUD"];

cloudContract({
  name: `OpenStack, TEST_OPENSTACK_CLOUD=${name ?? ""}`,
  skip: name === undefined,
  timeoutMs: 180_000,
  open,
});

async function open(): Promise<CloudUnderTest> {
  const { log, logged } = recordingLog();
  const cloud = createOpenStackCloud(liveOptions(), { log });
  const [images, networks] = await Promise.all([cloud.listImages(), cloud.listNetworks()]);
  const order = orderOf({
    imageId: images.find((image) => image.name === "debian-12")?.externalId,
    networkId: networks.find((network) => network.name === "private")?.externalId,
  });
  const before = new Set((await cloud.listServers()).map((server) => server.externalId));
  const pace = { everyMs: 300, limitMs: 60_000 };
  return {
    cloud,
    order,
    bigger: SMALL,
    pace,
    makeStranger: async () => {
      const steps = cloud.provision({ ...order, name: "stranger" });
      const [run] = await runAll(cloud, steps, { operationId: crypto.randomUUID(), ...pace });
      const verdict = run?.verdict;
      if (verdict?.kind !== "done" || verdict.server === undefined) throw new Error("no stranger was made");
      return verdict.server.externalId;
    },
    // Of the test cloud's own driver (real-openstack/README.md).
    failingBuild: { osr_fail: "spawn", osr_delay: "1" },
    logged,
    async cleanup() {
      const made = (await cloud.listServers()).filter((server) => !before.has(server.externalId));
      for (const { externalId } of made) {
        await runAll(cloud, cloud.remove({ externalId }), { operationId: crypto.randomUUID(), ...pace });
      }
      await cloud.close();
    },
  };
}

function liveOptions(): OpenStackCloudOptions {
  const file = process.env["OS_CLIENT_CONFIG_FILE"];
  if (file === undefined || name === undefined)
    throw new Error("set OS_CLIENT_CONFIG_FILE to the clouds.yaml");
  const entry = parse(readFileSync(file, "utf8")).clouds[name];
  const { auth, region_name: region } = entry;
  const texts = {
    username: auth.username,
    password: auth.password,
    projectName: auth.project_name,
    userDomainName: auth.user_domain_name,
    projectDomainName: auth.project_domain_name,
    applicationCredentialId: auth.application_credential_id,
    applicationCredentialSecret: auth.application_credential_secret,
  };
  const given = Object.fromEntries(Object.entries(texts).filter(([, value]) => value !== undefined));
  return { name, region, auth: { authUrl: auth.auth_url, ...given } };
}

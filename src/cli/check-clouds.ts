/** Do the clouds let us in, and do they have what the configuration speaks of. */
import type { CloudSettings, Settings } from "../config/settings.ts";
import type { Cloud } from "../core/cloud.ts";
import { problemOf } from "../core/errors.ts";
import { checkCloud } from "./connection.ts";
import { openClouds } from "./settings.ts";
import type { Report, Terminal } from "./terminal.ts";

export async function checkClouds(terminal: Terminal, settings: Settings, report: Report): Promise<void> {
  if (settings.clouds.length === 0) {
    report.result(null, "clouds", "none configured: npm start plays with simulated ones");
    return;
  }
  let clouds: ReturnType<typeof openClouds>;
  try {
    clouds = openClouds(settings.clouds, terminal);
  } catch (error) {
    report.result(false, "clouds", reasonOf(error));
    return;
  }
  try {
    for (const cloudSettings of settings.clouds) {
      const cloud = clouds.get(cloudSettings.name);
      report.line(report.paint("bold", `${cloud.name} (${cloud.provider})`));
      // oxlint-disable-next-line no-await-in-loop -- cloud by cloud, to be read from the top
      await examine(cloud, cloudSettings, report);
    }
  } finally {
    await clouds.close();
  }
}

async function examine(cloud: Cloud, settings: CloudSettings, report: Report): Promise<void> {
  const isIn = await checkCloud(report, cloud);
  if (!isIn) {
    report.advice(
      `Look at clouds.${cloud.name} in ratatosk.yaml (docs/configuration.md): address, credential, certificate, privileges.`,
    );
    return;
  }
  await checkNetwork(cloud, settings, report);
  for (const { service, ok, detail } of (await cloud.examine?.()) ?? []) report.result(ok, service, detail);
}

async function checkNetwork(cloud: Cloud, { network }: CloudSettings, report: Report): Promise<void> {
  if (network === undefined) {
    report.result(null, "network", "not set; each plan must name one for this cloud, or there is only one");
    return;
  }
  try {
    const networks = await cloud.listNetworks();
    const isThere = networks.some(({ name, externalId }) => [name, externalId].includes(network));
    const names = networks.map(({ name }) => name).join(", ");
    report.result(
      isThere,
      "network",
      isThere
        ? network
        : `there is no "${network}"; there are ${names}\nCorrect clouds.${cloud.name}.network, or give our credential the right to use it.`,
    );
  } catch (error) {
    report.result(false, "network", `not looked at: ${reasonOf(error)}`);
  }
}

function reasonOf(error: unknown): string {
  const { message, staffDetail } = problemOf(error);
  return staffDetail ?? message;
}

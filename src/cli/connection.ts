/** `connection test`: does a cloud let us in, and what do we see there. */
import type { CloudSettings } from "../config/settings.ts";
import type { Cloud } from "../core/cloud.ts";
import { problemOf } from "../core/errors.ts";
import { chosenClouds, openClouds, settingsOf } from "./settings.ts";
import { createReport, type Report, type Terminal } from "./terminal.ts";

/** Exit code 1 when a service of a cloud does not answer as it should. */
export async function testConnection(
  terminal: Terminal,
  options: { cloud: string | undefined; verbose: boolean },
): Promise<number> {
  const chosen = chosenClouds(settingsOf(terminal), options.cloud);
  const clouds = openClouds(chosen, terminal);
  const report = createReport(terminal);
  try {
    for (const [index, settings] of chosen.entries()) {
      if (index > 0) report.line("");
      report.line(report.paint("bold", `${settings.name} (${settings.type})`));
      if (options.verbose) showSettings(report, settings);
      await checkCloud(report, clouds.get(settings.name));
      if (options.verbose) await countResources(report, clouds.get(settings.name));
    }
  } finally {
    await clouds.close();
  }
  return report.ok() ? 0 : 1;
}

/** Whether all is well. */
export async function checkCloud(report: Report, cloud: Cloud): Promise<boolean> {
  const checks = await cloud.check();
  for (const { service, ok, detail } of checks) report.result(ok, service, detail);
  return checks.every(({ ok }) => ok);
}

/** Keys whose values let somebody in. */
const secretKey = /password|secret|token/i;

function showSettings(report: Report, { name: _name, type: _type, ...settings }: CloudSettings): void {
  const entries = Object.entries(settings).flatMap(([key, value]): [string, unknown][] =>
    typeof value === "object" && value !== null
      ? Object.entries(value).map(([inner, text]) => [`${key}.${inner}`, text])
      : [[key, value]],
  );
  const width = Math.max(...entries.map(([key]) => key.length));
  for (const [key, value] of entries) {
    const shown = secretKey.test(key) ? "••••••••" : String(value);
    report.line(`  ${report.paint("dim", key.padEnd(width))}  ${shown}`);
  }
}

async function countResources(report: Report, cloud: Cloud): Promise<void> {
  const lists = {
    flavors: () => cloud.listFlavors(),
    images: () => cloud.listImages(),
    networks: () => cloud.listNetworks(),
    servers: () => cloud.listServers(),
  };
  for (const [what, list] of Object.entries(lists)) {
    try {
      report.result(true, what, String((await list()).length));
    } catch (error) {
      const { message, staffDetail } = problemOf(error);
      report.result(false, what, staffDetail === undefined ? message : `${message}\n${staffDetail}`);
    }
  }
}

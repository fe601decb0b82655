/** `sync run`: reads catalogue and servers of the clouds now, in this process. */
import { isServiceError } from "../core/errors.ts";
import { syncPeople } from "../core/people/sync.ts";
import { type SyncReport, type SyncResource, syncResources } from "../core/sync/pass.ts";
import { runSync } from "../core/sync/run.ts";
import { openDatabase } from "../database/client.ts";
import { chosenClouds, logOf, openClouds, settingsOf } from "./settings.ts";
import { createReport, type Terminal } from "./terminal.ts";

export interface SyncOptions {
  /** Empty: everything. */
  types: readonly SyncResource[];
  cloud: string | undefined;
  force: boolean;
}

/** Exit code 1 when a list could not be read, was not believed, or is being read by somebody else. */
export async function runSyncs(terminal: Terminal, options: SyncOptions): Promise<number> {
  const settings = settingsOf(terminal);
  const chosen = chosenClouds(settings, options.cloud);
  const log = logOf(terminal);
  const report = createReport(terminal);
  const database = await openDatabase({
    url: settings.databaseUrl,
    dataDirectory: settings.dataDir,
    onError: (error) => log.error({ err: error }, "database"),
  });
  const clouds = openClouds(chosen, terminal);
  try {
    await database.transaction((tx) => syncPeople(tx, settings));
    for (const cloud of clouds.list()) {
      report.line(report.paint("bold", cloud.name));
      for (const resource of options.types.length === 0 ? syncResources : options.types) {
        try {
          const run = await runSync({
            database,
            cloud,
            resource,
            requester: "cli",
            log,
            force: options.force,
          });
          report.result(run.state === "completed", resource, countsOf(run));
        } catch (error) {
          if (!isServiceError(error)) throw error;
          report.result(false, resource, error.message);
        }
      }
    }
  } finally {
    await clouds.close();
    await database.close();
  }
  return report.ok() ? 0 : 1;
}

function countsOf({ state, seen, created, updated, missing, errors, lateTwins }: SyncReport): string {
  const counts = `${state}: ${seen} seen, ${created} new, ${updated} changed, ${missing} missing, ${errors.length} errors`;
  const twins = lateTwins.map(
    (twin) => `${twin.name} ${twin.externalId} carries our marker ${twin.marker} and belongs to no order`,
  );
  return [counts, ...errors.slice(0, 5), ...twins].join("\n");
}

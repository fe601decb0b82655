/** Every cloud, at start and then regularly. */
import type { Logger } from "pino";
import type { Database } from "../../database/client.ts";
import type { Cloud, Clouds } from "../cloud.ts";
import { isServiceError } from "../errors.ts";
import { type SyncReport, syncResources } from "./pass.ts";
import { runSync } from "./run.ts";

export interface SyncScheduleOptions {
  database: Database;
  clouds: Clouds;
  log: Logger;
  /** OPENSTACK_SYNC_ENABLED. */
  enabled: boolean;
  /** OPENSTACK_SYNC_INTERVAL, in milliseconds. */
  intervalMs: number;
  /** From jobs/: runs `run` in one of all processes every so often; it may not throw. */
  schedule(name: string, everyMs: number, run: () => Promise<void>): void;
}

/** Resolves when the first synchronisation, in so far as one is due, is through. Never throws because of a cloud. */
export async function scheduleSync(options: SyncScheduleOptions): Promise<void> {
  const { database, clouds, log, enabled, intervalMs, schedule } = options;
  if (!enabled) {
    log.warn("clouds are not synchronised: OPENSTACK_SYNC_ENABLED is false");
    return;
  }
  const first = clouds.list().map(async (cloud) => {
    const run = () => syncCloud({ database, cloud, requester: "system", log }).then(() => {});
    schedule(`sync:${cloud.name}`, intervalMs, run);
    if (await isDue(database, cloud, intervalMs)) await run();
  });
  await Promise.all(first);
}

/** All resources of one cloud. What is being synchronised by somebody else already is left out of the answer. */
export async function syncCloud(options: {
  database: Database;
  cloud: Cloud;
  requester: string;
  log: Logger;
  force?: boolean;
}): Promise<SyncReport[]> {
  const reports: SyncReport[] = [];
  for (const resource of syncResources) {
    try {
      const report = await runSync({ ...options, resource });
      reports.push(report);
      // The cloud does not answer: the next three lists would only wait for their timeouts.
      if (report.state === "failed") break;
    } catch (error) {
      if (!isServiceError(error, "busy")) {
        options.log.error({ err: error, cloud: options.cloud.name, resource }, "could not synchronise");
        break;
      }
    }
  }
  return reports;
}

/** So that a rolling restart of many processes is not as many synchronisations. */
async function isDue(database: Database, cloud: Cloud, intervalMs: number): Promise<boolean> {
  const fresh = await database.sql<{ resource: string }>(
    `SELECT DISTINCT r.resource FROM sync_runs r JOIN clouds c ON c.id = r.cloud_id
      WHERE c.name = $1 AND r.state IN ('completed', 'partial')
        AND r.started_at > clock() - $2::float8 * interval '1 millisecond'`,
    [cloud.name, intervalMs],
  );
  return fresh.length < syncResources.length;
}

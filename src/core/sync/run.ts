/**
 * One synchronisation of one resource of one cloud: list it (outside any transaction), write it in batches, judge what is
 * missing. A list is only believed to be complete when it plausibly is: an empty or shrunken one removes nothing.
 */
import type { Logger } from "pino";
import type { Database } from "../../database/client.ts";
import { isUniqueViolation } from "../../database/errors.ts";
import { newId } from "../../database/id.ts";
import { storable } from "../../database/storable.ts";
import type { Cloud } from "../cloud.ts";
import { type Problem, problemOf, ServiceError } from "../errors.ts";
import { syncCatalogue } from "./catalogue.ts";
import {
  Aborted,
  LEASE_MS,
  ListFailed,
  LOST,
  noteHealth,
  type SyncPass,
  type SyncReport,
  type SyncResource,
} from "./pass.ts";
import { syncServers } from "./servers.ts";

export interface SyncOptions {
  database: Database;
  cloud: Cloud;
  resource: SyncResource;
  /** Who asked for it: "system", "staff:sam". */
  requester: string;
  log: Logger;
  /** A person has looked: believe a list that is much shorter than before. */
  force?: boolean;
}

/**
 * Never throws because of the cloud: that is in the report. Throws ServiceError `busy` while the same resource is being
 * synchronised, `not_found` for a cloud that the database does not know.
 */
export async function runSync(options: SyncOptions): Promise<SyncReport> {
  const { database, cloud, resource, log } = options;
  const begun = await begin(options);
  const counts: SyncPass["counts"] = {
    seen: 0,
    created: 0,
    updated: 0,
    missing: 0,
    errors: [],
    lateTwins: [],
  };
  const pass: SyncPass = { database, cloud, ...begun, force: options.force ?? false, counts };
  const end = await attempt(pass, resource, log);
  const state = await finish(pass, end, log);
  const report: SyncReport = { runId: begun.runId, cloud: cloud.name, resource, state, ...counts };
  for (const twin of counts.lateTwins) {
    log.warn({ cloud: cloud.name, ...twin }, "a server carries our marker but belongs to no row of ours");
  }
  const { errors, lateTwins, ...figures } = report;
  const level = state === "completed" ? "debug" : "warn";
  log[level]({ ...figures, errors: errors.slice(0, 5), lateTwins: lateTwins.length }, "synchronised");
  return report;
}

async function begin({ database, cloud, resource, requester }: SyncOptions) {
  const runId = newId();
  try {
    return await database.transaction(async (tx) => {
      const [row] = await tx.sql<{ id: string }>("SELECT id FROM clouds WHERE name = $1", [cloud.name]);
      if (row === undefined) {
        throw new ServiceError(
          "not_found",
          `The database does not know the cloud ${cloud.name} yet. Restart to read the settings again.`,
        );
      }
      await tx.sql(
        `UPDATE sync_runs SET state = 'failed', finished_at = clock(), errors = errors || $3::jsonb
          WHERE cloud_id = $1 AND resource = $2 AND state = 'running' AND lease_until < clock()`,
        [row.id, resource, JSON.stringify(["The process that ran it went away."])],
      );
      const [run] = await tx.sql<{ startedAt: Date }>(
        `INSERT INTO sync_runs (id, cloud_id, resource, state, requester, started_at, lease_until)
         VALUES ($1, $2, $3, 'running', $4, clock(), clock() + $5::float8 * interval '1 millisecond')
         RETURNING started_at AS "startedAt"`,
        [runId, row.id, resource, requester, LEASE_MS],
      );
      return { runId, cloudId: row.id, listedAt: run?.startedAt ?? new Date() };
    });
  } catch (error) {
    if (!isUniqueViolation(error, "sync_no_overlap")) throw error;
    throw new ServiceError(
      "busy",
      `The ${resource} of ${cloud.name} are being synchronised already. See /sync status.`,
      {
        retryable: true,
        cause: error,
      },
    );
  }
}

async function attempt(
  pass: SyncPass,
  resource: SyncResource,
  log: Logger,
): Promise<"ended" | "aborted" | "failed"> {
  try {
    if (resource === "servers") await syncServers(pass);
    else await syncCatalogue(pass, resource);
    return "ended";
  } catch (error) {
    if (error instanceof Aborted) {
      pass.counts.errors.push(error.message);
      return "aborted";
    }
    const problem = problemOf(error);
    log.warn({ err: error, cloud: pass.cloud.name, resource }, "could not synchronise");
    pass.counts.errors.push(sentenceOf(problem));
    if (error instanceof ListFailed) await noteHealth(pass.database, pass.cloudId, problem);
    return "failed";
  }
}

async function finish(
  pass: SyncPass,
  end: "ended" | "aborted" | "failed",
  log: Logger,
): Promise<SyncReport["state"]> {
  const { counts } = pass;
  counts.errors = counts.errors.map(shortened);
  const ended = counts.errors.length > 0 ? "partial" : "completed";
  const state = end === "ended" ? ended : end;
  const twins = counts.lateTwins.map(
    (twin) =>
      `The server ${twin.externalId} (${twin.name}) carries the marker ${twin.marker} but belongs to no row of ours.`,
  );
  const written = await pass.database.sql(
    `UPDATE sync_runs SET state = $2, seen = $3, created = $4, updated = $5, missing = $6, errors = $7::jsonb,
       finished_at = clock() WHERE id = $1 AND state = 'running' RETURNING id`,
    [
      pass.runId,
      state,
      counts.seen,
      counts.created,
      counts.updated,
      counts.missing,
      JSON.stringify([...counts.errors, ...twins].slice(0, MOST_ERRORS)),
    ],
  );
  if (written.length > 0) return state;
  log.warn({ cloud: pass.cloud.name, run: pass.runId }, "the run's row was taken over by another run");
  if (!counts.errors.includes(LOST)) counts.errors.push(LOST);
  return "aborted";
}

const MOST_ERRORS = 50;
const LONGEST_ERROR = 1_000;

/** Clouds name servers, and quote them. */
function shortened(sentence: string): string {
  return storable(sentence.length > LONGEST_ERROR ? `${sentence.slice(0, LONGEST_ERROR)}…` : sentence);
}

function sentenceOf({ message, staffDetail }: Problem): string {
  return staffDetail === undefined ? message : `${message} (${staffDetail})`;
}

/** What the parts of a synchronisation share: a pass, its counts, and when a list is believed. */
import type { Database, Queryable, Transaction } from "../../database/client.ts";
import { sqlState } from "../../database/errors.ts";
import type { Cloud } from "../cloud.ts";
import { type Problem, ServiceError } from "../errors.ts";

export const syncResources = ["flavors", "images", "networks", "servers"] as const;
export type SyncResource = (typeof syncResources)[number];

/** A server that carries our marker although no row of ours refers to it: something was made twice, or forgotten. */
export interface LateTwin {
  externalId: string;
  name: string;
  operationId: string;
  marker: string;
}

export interface SyncReport {
  runId: string;
  cloud: string;
  resource: SyncResource;
  /** `partial`: some rows could not be used. `aborted`: the list was not believed. `failed`: there was no list. */
  state: "completed" | "partial" | "aborted" | "failed";
  seen: number;
  created: number;
  updated: number;
  /** Not in the list; they are not taken away at the first time. */
  missing: number;
  /** One sentence each, for staff. */
  errors: string[];
  lateTwins: LateTwin[];
}

/** What a resource's part gets and fills in. */
export interface SyncPass {
  database: Database;
  cloud: Cloud;
  cloudId: string;
  runId: string;
  /** When the list was asked for, by the database's clock: what was written later is newer than the list. */
  listedAt: Date;
  force: boolean;
  counts: Pick<SyncReport, "seen" | "created" | "updated" | "missing" | "errors" | "lateTwins">;
}

export const LEASE_MS = 5 * 60_000;
export const LOST = "The run took too long and another one may have begun, so this one stopped.";
/** Rows written in one transaction. */
export const BATCH = 100;

/** Thrown by a part that does not believe the list. */
export class Aborted extends Error {}

/** The cloud could not be listed: the problem is the cloud's, not ours. */
export class ListFailed extends ServiceError {}

/** The cloud's complete list, or ListFailed. */
export async function listed<Item>(pass: SyncPass, list: () => Promise<Item[]>): Promise<Item[]> {
  let items: Item[];
  try {
    items = await list();
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    const { code, message, facts, retryable, staffDetail } = error;
    throw new ListFailed(code, message, { cause: error, facts, retryable, staffDetail });
  }
  await noteHealth(pass.database, pass.cloudId, null);
  return items;
}

export async function noteHealth(
  database: Queryable,
  cloudId: string,
  problem: Problem | null,
): Promise<void> {
  await database.sql(
    `UPDATE clouds SET last_problem = $2::jsonb, last_ok_at = CASE WHEN $2::jsonb IS NULL THEN clock() ELSE last_ok_at END
      WHERE id = $1`,
    [cloudId, problem],
  );
}

/** Writes one batch, unless the lease was lost to another run meanwhile. */
export async function writeBatch<T>(pass: SyncPass, write: (tx: Transaction) => Promise<T>): Promise<T> {
  return await pass.database.transaction(async (tx) => {
    const mine = await tx.sql(
      `UPDATE sync_runs SET lease_until = clock() + $2::float8 * interval '1 millisecond'
        WHERE id = $1 AND state = 'running' RETURNING id`,
      [pass.runId, LEASE_MS],
    );
    if (mine.length === 0) throw new Aborted(LOST);
    return await write(tx);
  });
}

/** What the database does not take as a value, whoever writes it: class 22, NULL, a CHECK, an index entry that is too long. */
const REFUSED_VALUE = /^(?:22...|23502|23514|54000)$/u;

/**
 * Writes all of them, a batch at a time. What the database refuses of one server's costs no other's: the halves of the batch
 * are tried by themselves, and that one is reported. `write` returns how many it has changed; so does this.
 */
export async function writeServers<Server extends { externalId: string }>(
  pass: SyncPass,
  servers: readonly Server[],
  write: (tx: Transaction, some: readonly Server[]) => Promise<number>,
): Promise<number> {
  if (servers.length > BATCH) {
    const first = await writeServers(pass, servers.slice(0, BATCH), write);
    return first + (await writeServers(pass, servers.slice(BATCH), write));
  }
  const [one, ...others] = servers;
  if (one === undefined) return 0;
  try {
    return await writeBatch(pass, (tx) => write(tx, servers));
  } catch (error) {
    const state = sqlState(error) ?? "";
    if (!REFUSED_VALUE.test(state)) throw error;
    if (others.length === 0) {
      pass.counts.errors.push(
        `What the cloud says of the server ${one.externalId} cannot be stored (SQLSTATE ${state}), so its row stays as it was.`,
      );
      return 0;
    }
    const middle = Math.ceil(servers.length / 2);
    const first = await writeServers(pass, servers.slice(0, middle), write);
    return first + (await writeServers(pass, servers.slice(middle), write));
  }
}

/** Throws Aborted when the list cannot be the whole truth. `known` are the rows that it should contain. */
export function believe(pass: SyncPass, sizes: { listed: number; known: number; missing: number }): void {
  const { listed: count, known, missing } = sizes;
  if (count === 0 && known > 0) {
    throw new Aborted(
      `The list was empty although ${known} are known, so nothing was taken away. Check the cloud's credential and project.`,
    );
  }
  if (!pass.force && missing >= 5 && missing > known * 0.2) {
    throw new Aborted(
      `${missing} of ${known} were missing from the list, which is too many at once, so none was taken away. ` +
        "If that is right, synchronise again with force.",
    );
  }
}

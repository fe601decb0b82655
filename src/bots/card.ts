/** The rows of cards as the projector reads and writes them. Time is the database's. */
import type { Platform } from "../core/bot.ts";
import { finalStates } from "../core/operations/state.ts";
import type { Queryable } from "../database/client.ts";

export interface DueCard {
  id: string;
  operationId: string;
  platform: Platform;
  workspace: string;
  channel: string;
  userId: string | null;
  audience: "staff" | "customer";
  messageRef: string | null;
  shownVersion: number;
  shownLog: number;
  announced: boolean;
  failures: number;
  problem: string | null;
  /** The operation's, when it was looked at. */
  version: number;
  isFinal: boolean;
}

/** How long after its end an announced card is still kept in step (a button pressed late, a line added). */
const KEPT_IN_STEP = "1 day";

const columns = `c.id, c.operation_id AS "operationId", c.platform, c.workspace, c.channel, c.user_id AS "userId",
  c.audience, c.message_ref AS "messageRef", c.shown_version AS "shownVersion", c.shown_log AS "shownLog", c.announced,
  c.failures, c.problem, o.version, (o.state = ANY ($1::text[])) AS "isFinal"`;

/**
 * Cards that do not show what is true now, the most urgent first: ends, then new cards, then those that wait longest.
 * An end does not wait until the last progress has settled.
 * At most `perWorkspace` of each workspace, so that one that is stuck does not hide the others.
 */
export async function dueCards(
  queryable: Queryable,
  options: {
    platforms: readonly Platform[];
    perWorkspace: number;
    /** Platforms of which only these workspaces are ours to show. */
    only?: ReadonlyMap<Platform, readonly string[]>;
  },
): Promise<DueCard[]> {
  const only = options.only ?? new Map<Platform, readonly string[]>();
  return queryable.sql<DueCard>(
    `SELECT * FROM (
       SELECT ${columns},
         row_number() OVER (
           PARTITION BY c.platform, c.workspace
           ORDER BY (o.state = ANY ($1::text[])) DESC, (c.message_ref IS NULL) DESC, c.lease_until NULLS FIRST, c.id
         ) AS place
       FROM cards c JOIN operations o ON o.id = c.operation_id
       WHERE c.platform = ANY ($2::text[])
         AND (c.platform <> ALL ($4::text[]) OR c.platform || '/' || c.workspace = ANY ($5::text[]))
         AND (NOT c.announced OR o.finished_at > clock() - interval '${KEPT_IN_STEP}')
         AND (c.next_try_at IS NULL OR c.next_try_at <= clock() OR (c.failures = 0 AND NOT c.announced AND o.state = ANY ($1::text[])))
         AND (c.lease_until IS NULL OR c.lease_until <= clock())
         AND (c.shown_version < o.version
           OR (NOT c.announced AND o.state = ANY ($1::text[]))
           OR EXISTS (SELECT 1 FROM operation_log l WHERE l.operation_id = o.id AND l.seq > c.shown_log
                        AND (c.audience = 'staff' OR l.audience = 'everyone')))
     ) due
     WHERE place <= $3
     ORDER BY place`,
    [
      [...finalStates],
      [...options.platforms],
      options.perWorkspace,
      [...only.keys()],
      [...only].flatMap(([platform, names]) => names.map((name) => `${platform}/${name}`)),
    ],
  );
}

/** The ids of those that are ours now, for `leaseMs`; the others were faster or are being written. */
export async function claimCards(
  queryable: Queryable,
  ids: readonly string[],
  lease: { by: string; leaseMs: number },
): Promise<Set<string>> {
  const rows = await queryable.sql<{ id: string }>(
    `UPDATE cards SET lease_by = $2, lease_until = clock() + make_interval(secs => $3::float8 / 1000)
     WHERE id IN (SELECT id FROM cards WHERE id = ANY ($1::uuid[]) AND (lease_until IS NULL OR lease_until <= clock())
                  FOR UPDATE SKIP LOCKED)
     RETURNING id`,
    [[...ids], lease.by, lease.leaseMs],
  );
  return new Set(rows.map(({ id }) => id));
}

/** What is on the platform now. Written at once after each send, before anything else can fail. */
export interface Shown {
  messageRef?: string | null;
  shownVersion?: number;
  shownLog?: number;
  announced?: boolean;
}

/** False when the lease was lost: somebody else writes this card now. */
export async function recordShown(
  queryable: Queryable,
  id: string,
  by: string,
  shown: Shown,
): Promise<boolean> {
  const rows = await queryable.sql(
    `UPDATE cards SET
       message_ref = CASE WHEN $3 THEN $4 ELSE message_ref END,
       shown_version = COALESCE($5, shown_version),
       shown_log = COALESCE($6, shown_log),
       announced = COALESCE($7, announced)
     WHERE id = $1 AND lease_by = $2 RETURNING id`,
    [
      id,
      by,
      shown.messageRef !== undefined,
      shown.messageRef ?? null,
      shown.shownVersion ?? null,
      shown.shownLog ?? null,
      shown.announced ?? null,
    ],
  );
  return rows.length > 0;
}

/**
 * Ends the lease. lease_until stays as the time of the last turn, by which the ones that wait longest come first.
 * `waitMs`: not before that.
 */
export async function releaseCard(
  queryable: Queryable,
  id: string,
  by: string,
  end: { waitMs?: number | undefined; failures?: number; problem?: string | null } = {},
): Promise<void> {
  await queryable.sql(
    `UPDATE cards SET lease_by = NULL, lease_until = date_trunc('milliseconds', clock()),
       next_try_at = CASE WHEN $3::float8 IS NULL THEN NULL ELSE clock() + make_interval(secs => $3::float8 / 1000) END,
       failures = COALESCE($4, failures),
       problem = CASE WHEN $5 THEN $6 ELSE problem END
     WHERE id = $1 AND lease_by = $2`,
    [id, by, end.waitMs ?? null, end.failures ?? null, end.problem !== undefined, end.problem ?? null],
  );
}

/** The handle of an operation's card on a platform, for links to it; the requester's own when there are several. */
export async function cardOf(
  queryable: Queryable,
  operationId: string,
  platform: Platform,
): Promise<string | null> {
  const rows = await queryable.sql<{ messageRef: string }>(
    `SELECT message_ref AS "messageRef" FROM cards
     WHERE operation_id = $1 AND platform = $2 AND message_ref IS NOT NULL
     ORDER BY (user_id IS NOT NULL) DESC, created_at LIMIT 1`,
    [operationId, platform],
  );
  return rows[0]?.messageRef ?? null;
}

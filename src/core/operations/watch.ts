/**
 * One watcher per cloud asks once for all open waits. It writes only a wait's note and result and the operation's
 * next_run_at; what a result means is decided by the fenced claimer, who asks the cloud itself.
 */
import type { Cloud, Observation, OpenWait } from "../cloud.ts";
import { problemOf } from "../errors.ts";
import type { Engine } from "./engine.ts";

const watcherLeaseMs = 15_000;
const problemPauseMs = 5_000;
/** A look with no news is noted this seldom: noting each would write every row of thousands of waits every two seconds. */
const noteLookEveryMs = 30_000;

export interface Watcher {
  /** One look at every cloud that has something to wait for and is due. Returns how many waits were settled. */
  tick(): Promise<number>;
}

export function createWatcher(engine: Engine, now: () => number = Date.now): Watcher {
  const notBefore = new Map<string, number>();
  return {
    async tick() {
      const looks = engine.clouds.list().map(async (cloud) => {
        if ((notBefore.get(cloud.name) ?? 0) > now()) return 0;
        const began = now();
        const look = await watchCloud(engine, cloud);
        // From its begin: a look that takes its time does not make the next one later.
        notBefore.set(cloud.name, look.ok ? began + cloud.watchEveryMs : now() + problemPauseMs);
        return look.settled;
      });
      const settled = await Promise.all(looks);
      return settled.reduce((sum, count) => sum + count, 0);
    },
  };
}

interface WaitRow extends OpenWait {
  note: string | null;
  /** The last look is to be noted, news or not. */
  isStale: boolean;
}

async function watchCloud(engine: Engine, cloud: Cloud): Promise<{ ok: boolean; settled: number }> {
  // One to two times noteLookEveryMs by the id's last, random byte: not all of them in the same look.
  const waits = await engine.database.sql<WaitRow>(
    `SELECT w.id, w.condition, w.since, w.observed_at AS "observedAt", w.note,
       w.observed_at IS NULL OR w.observed_at < clock()
         - make_interval(secs => $2::float8 / 1000 * (1 + get_byte(uuid_send(w.id), 15) / 255.0)) AS "isStale"
     FROM waits w JOIN clouds c ON c.id = w.cloud_id WHERE c.name = $1 AND w.resolved_at IS NULL ORDER BY w.since`,
    [cloud.name, noteLookEveryMs],
  );
  if (waits.length === 0 || !(await takeWatch(engine, cloud))) return { ok: true, settled: 0 };
  let observations: Observation[];
  try {
    observations = await cloud.watch(waits);
  } catch (error) {
    const problem = problemOf(error);
    engine.log.warn({ err: error, cloud: cloud.name }, "could not look at the cloud");
    await engine.database.sql(`UPDATE clouds SET last_problem = $2::jsonb WHERE name = $1`, [
      cloud.name,
      problem,
    ]);
    return { ok: false, settled: 0 };
  }
  const known = new Map(waits.map((wait) => [wait.id, wait]));
  const news = observations.filter((observation) => isNews(observation, known.get(observation.waitId)));
  if (news.length > 0) await store(engine, news);
  await engine.database.sql(`UPDATE clouds SET last_ok_at = clock(), last_problem = NULL WHERE name = $1`, [
    cloud.name,
  ]);
  return { ok: true, settled: news.filter(({ result }) => result !== undefined).length };
}

function isNews({ note, result }: Observation, wait: WaitRow | undefined): boolean {
  if (wait === undefined || wait.isStale || result !== undefined) return true;
  return note !== undefined && note !== wait.note;
}

async function takeWatch(engine: Engine, cloud: Cloud): Promise<boolean> {
  const taken = await engine.database.sql(
    `UPDATE clouds SET watcher = $2, watcher_until = clock() + make_interval(secs => $3::float8 / 1000)
     WHERE name = $1 AND (watcher = $2 OR watcher_until IS NULL OR watcher_until < clock()) RETURNING id`,
    [cloud.name, engine.worker, watcherLeaseMs],
  );
  return taken.length > 0;
}

/** In the order operations → waits, which is the order of the claimer's own transactions. */
async function store(engine: Engine, observations: readonly Observation[]): Promise<void> {
  await engine.database.transaction(async (tx) => {
    const all = JSON.stringify(
      observations.map(({ waitId, note, result }) => ({
        waitId,
        note: note ?? null,
        result: result ?? null,
      })),
    );
    // Locking in id order keeps two of these, or one and a claimer, from waiting for each other.
    await tx.sql(
      `SELECT o.id FROM operations o JOIN waits w ON w.operation_id = o.id
       WHERE w.id IN (SELECT (x->>'waitId')::uuid FROM jsonb_array_elements($1::jsonb) x) ORDER BY o.id FOR UPDATE OF o`,
      [all],
    );
    const changed = await tx.sql<{ operationId: string; done: boolean; moved: boolean }>(
      `UPDATE waits w SET observed_at = clock(), note = COALESCE(x->>'note', w.note),
         result = NULLIF(x->'result', 'null'::jsonb),
         resolved_at = CASE WHEN x->'result' = 'null'::jsonb THEN NULL ELSE clock() END
       FROM jsonb_array_elements($1::jsonb) x, waits old
       WHERE w.id = (x->>'waitId')::uuid AND old.id = w.id AND w.resolved_at IS NULL
       RETURNING w.operation_id AS "operationId", w.resolved_at IS NOT NULL AS done,
         (w.note IS DISTINCT FROM old.note) AS moved`,
      [all],
    );
    const moved = changed.filter((row) => row.done || row.moved);
    await tx.sql(
      `UPDATE operations o SET version = o.version + 1,
         next_run_at = CASE WHEN x.done AND o.next_run_at IS NOT NULL THEN clock() ELSE o.next_run_at END
       FROM unnest($1::uuid[], $2::bool[]) AS x(id, done) WHERE o.id = x.id`,
      [moved.map((row) => row.operationId), moved.map((row) => row.done)],
    );
    tx.afterCommit(() => {
      if (changed.some((row) => row.done)) engine.wake.nudge("operations");
      if (moved.length > 0) engine.wake.nudge("cards");
    });
  });
}

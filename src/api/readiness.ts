/** What `/readyz` looks at. */
import type { Bot } from "../core/bot.ts";
import type { Clouds } from "../core/cloud.ts";
import type { Queryable } from "../database/client.ts";
import type { ReadinessCheck } from "./server.ts";

export interface ReadinessOptions {
  database: Queryable;
  /** Rejects while the queue is away. */
  pingQueue: () => Promise<void>;
  clouds: Clouds;
  bots: readonly Bot[];
}

/**
 * Only the database is required: without the queue wake-ups are late, and a cloud or chat platform that is away is no
 * reason to take this process out of service.
 */
export function readinessChecks({ database, pingQueue, clouds, bots }: ReadinessOptions): ReadinessCheck[] {
  return [
    {
      name: "database",
      required: true,
      async check() {
        await database.sql("SELECT 1");
        return { ok: true, detail: "answers" };
      },
    },
    {
      name: "queue",
      required: false,
      async check() {
        await pingQueue();
        return { ok: true, detail: "answers" };
      },
    },
    ...clouds.list().map((cloud) => ({
      name: `cloud:${cloud.name}`,
      required: false,
      check: () => cloudHealth(database, cloud.name),
    })),
    ...bots.map((bot) => ({
      name: `bot:${bot.platform}`,
      required: false,
      check: () => Promise.resolve(bot.status()),
    })),
  ];
}

/** From the database: asking the cloud at every probe would be a load of its own. */
async function cloudHealth(database: Queryable, name: string) {
  const [row] = await database.sql<{ code: string | null; lastOkAt: Date | null; agoSeconds: number | null }>(
    `SELECT last_problem ->> 'code' AS code, last_ok_at AS "lastOkAt",
            extract(epoch FROM clock() - last_ok_at)::int AS "agoSeconds" FROM clouds WHERE name = $1`,
    [name],
  );
  if (row === undefined) return { ok: false, detail: "not in the database yet" };
  const last = row.agoSeconds === null ? "has not answered yet" : `last answered ${row.agoSeconds} s ago`;
  return row.code === null
    ? { ok: row.lastOkAt !== null, detail: last }
    : { ok: false, detail: `${row.code}; ${last}` };
}

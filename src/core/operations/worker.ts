/** The loop that claims and runs, the watcher's loop and the sweep. Woken by nudges; looks by itself every second. */
import { claimNext } from "./claim.ts";
import { endOperation } from "./end.ts";
import type { Engine } from "./engine.ts";
import { type OperationRow, operationColumns } from "./rows.ts";
import { runOperation } from "./run.ts";
import { createWatcher, type Watcher } from "./watch.ts";

const sweepEveryMs = 1_000;
const watchTickMs = 250;

export interface Worker {
  start(): void;
  /** No new claims; waits for what runs to reach a boundary. */
  stop(): Promise<void>;
  /** Claims and runs until nothing is due. Tests drive the engine with this. */
  tick(): Promise<void>;
  watcher: Watcher;
}

export function createWorker(engine: Engine, options: { concurrency: number; now?: () => number }): Worker {
  const stopping = new AbortController();
  const running = new Set<Promise<void>>();
  const rounds = new Set<Promise<void>>();
  const watcher = createWatcher(engine, options.now);
  const ends: (() => void)[] = [];
  let filling: Promise<void> | null = null;
  let again = false;

  async function fill(): Promise<void> {
    do {
      again = false;
      while (running.size < options.concurrency && !stopping.signal.aborted) {
        const claim = await claimNext(engine.database, engine.worker);
        if (claim === null) break;
        const run = runOperation(engine, claim, stopping.signal).finally(() => {
          running.delete(run);
          wake();
        });
        running.add(run);
      }
    } while (again && !stopping.signal.aborted);
  }

  function wake(): void {
    if (stopping.signal.aborted) return;
    again = true;
    filling ??= fill()
      .catch((error: unknown) => engine.log.error({ err: error }, "could not claim"))
      .finally(() => {
        filling = null;
      });
  }

  function every(ms: number, what: string, work: () => Promise<unknown>): void {
    let busy = false;
    const timer = setInterval(() => {
      if (busy || stopping.signal.aborted) return;
      busy = true;
      const done = work()
        .catch((error: unknown) => engine.log.error({ err: error }, `${what} failed`))
        .finally(() => {
          busy = false;
          rounds.delete(tracked);
        });
      const tracked = done.then(() => undefined);
      rounds.add(tracked);
    }, ms);
    ends.push(() => clearInterval(timer));
  }

  return {
    watcher,
    start() {
      ends.push(engine.wake.onNudge("operations", wake));
      every(sweepEveryMs, "the sweep", async () => {
        await expireAwaiting(engine);
        wake();
      });
      every(watchTickMs, "watching", () => watcher.tick());
      wake();
    },
    async stop() {
      stopping.abort();
      for (const end of ends) end();
      await filling;
      await Promise.allSettled([...running, ...rounds]);
    },
    async tick() {
      await expireAwaiting(engine);
      for (;;) {
        const claim = await claimNext(engine.database, engine.worker);
        if (claim === null) return;
        await runOperation(engine, claim, stopping.signal);
      }
    },
  };
}

/** Nobody confirmed or approved in time. */
async function expireAwaiting(engine: Engine): Promise<void> {
  const due = await engine.database.sql<{ id: string }>(
    `SELECT id FROM operations WHERE state IN ('awaiting_confirmation', 'awaiting_approval') AND expires_at < clock()`,
  );
  for (const { id } of due) {
    await engine.database.transaction(async (tx) => {
      const rows = await tx.sql<OperationRow>(
        `SELECT ${operationColumns} FROM operations o
         WHERE o.id = $1 AND o.state IN ('awaiting_confirmation', 'awaiting_approval') AND o.expires_at < clock() FOR UPDATE`,
        [id],
      );
      const operation = rows[0];
      if (operation === undefined) return;
      await endOperation(engine, tx, operation, {
        end: "expired",
        problem: { code: "expired", message: "Nobody confirmed it in time; nothing was done." },
      });
    });
  }
}

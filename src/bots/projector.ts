/**
 * Keeps the cards and threads of all platforms in step with their operations.
 *
 * Nothing is queued: a card is due when its row says that less is shown than is true, so whatever happened in between is
 * shown at once (the latest wins), and a restart forgets nothing. A lease on the row lets one process write a card at a
 * time. What is on the platform is recorded after each send; when an answer is lost in between, the send is repeated,
 * which platforms with idempotent posts do not show and Slack shows as one card too many.
 */
import type { Logger } from "pino";
import type { Messenger, Platform } from "../core/bot.ts";
import type { Wake } from "../core/wake.ts";
import type { Database } from "../database/client.ts";
import { newId } from "../database/id.ts";
import { createBudgets } from "./budget.ts";
import { claimCards, type DueCard, dueCards } from "./card.ts";
import {
  type CardSource,
  firstMethod,
  type Refusal,
  refund,
  runTurn,
  sendKey,
  type Tools,
  type Turn,
} from "./turn.ts";

/** Longer than the slowest turn: two sends, each with the messenger's own time limit. */
const LEASE_MS = 30_000;
const SWEEP_MS = 1_000;
const CARDS_PER_WORKSPACE = 50;
const SENDS_PER_PLATFORM = 8;
const STOP_TIMEOUT_MS = 12_000;

export interface ProjectorOptions {
  database: Database;
  messengers: ReadonlyMap<Platform, Messenger>;
  source: CardSource;
  wake: Wake;
  log: Logger;
  now?: () => number;
  /** Unique among the processes. */
  workerId?: string;
  /** Told once when a card cannot be shown and a person must repair something. */
  onRefused?: (refusal: Refusal) => void;
}

export interface Projector {
  start(): void;
  /** Ends what is being sent, but waits at most 12 s for it. */
  stop(): Promise<void>;
  /** Brings everything up to date that the budgets allow now; resolves when it is sent. */
  tick(): Promise<void>;
}

export function createProjector(options: ProjectorOptions): Projector {
  const { database, messengers, source, wake, log, now = Date.now, onRefused } = options;
  const worker = options.workerId ?? newId();
  const tools: Tools = { database, source, budgets: createBudgets(now), now, log, onRefused };
  const running = new Map<Promise<void>, Platform>();
  const loop = createLoop(sweep, log);
  let unsubscribe: (() => void) | undefined;

  /** Claims what is due and affordable, and starts sending it. */
  async function sweep(): Promise<void> {
    const free = [...messengers.keys()].filter((platform) => inFlight(platform) < SENDS_PER_PLATFORM);
    if (free.length === 0) return;
    const room = new Map(free.map((platform) => [platform, SENDS_PER_PLATFORM - inFlight(platform)]));
    const turns: Turn[] = [];
    for (const card of await dueCards(database, {
      platforms: free,
      perWorkspace: CARDS_PER_WORKSPACE,
      only: ownWorkspaces(),
    })) {
      const left = room.get(card.platform) ?? 0;
      const turn = left > 0 ? affordable(card) : undefined;
      if (turn === undefined) continue;
      turns.push(turn);
      room.set(card.platform, left - 1);
    }
    if (turns.length === 0) return;

    const by = `${worker}:${newId()}`;
    const ids = turns.map(({ card }) => card.id);
    const claimed = await claimCards(database, ids, { by, leaseMs: LEASE_MS });
    for (const turn of turns) {
      if (!claimed.has(turn.card.id)) {
        refund(tools, turn);
        continue;
      }
      const work = runTurn(tools, { ...turn, by }).finally(() => {
        running.delete(work);
        loop.wakeUp();
      });
      running.set(work, turn.card.platform);
    }
  }

  function ownWorkspaces(): Map<Platform, readonly string[]> {
    return new Map(
      [...messengers].flatMap(([platform, messenger]) => {
        const names = messenger.workspaces?.();
        return names === undefined ? [] : [[platform, names] as const];
      }),
    );
  }

  function inFlight(platform: Platform): number {
    return [...running.values()].filter((other) => other === platform).length;
  }

  /** Pays for the first send of a card's turn, or leaves the card for later. */
  function affordable(card: DueCard): Turn | undefined {
    const messenger = messengers.get(card.platform);
    if (messenger === undefined) return undefined;
    const key = sendKey(card, firstMethod(card));
    const isUrgent = card.isFinal || card.messageRef === null;
    if (!tools.budgets.take(key, messenger.budget, isUrgent ? "final" : "step").ok) return undefined;
    return { card, messenger, by: "", paid: key, method: key.method };
  }

  return {
    start() {
      unsubscribe = wake.onNudge("cards", loop.wakeUp);
      loop.start();
    },
    async stop() {
      unsubscribe?.();
      const timeout = AbortSignal.timeout(STOP_TIMEOUT_MS);
      const late = new Promise<void>((resolve) =>
        timeout.addEventListener("abort", () => resolve(), { once: true }),
      );
      await Promise.race([loop.stop().then(() => Promise.allSettled(running.keys())), late]);
    },
    async tick() {
      await sweep();
      await Promise.all(running.keys());
    },
  };
}

/** Runs `sweep` at each nudge and each second, never twice at a time. */
function createLoop(
  sweep: () => Promise<void>,
  log: Logger,
): { wakeUp(): void; start(): void; stop(): Promise<void> } {
  let started = false;
  let sweeping: Promise<void> | undefined;
  let again = false;
  let timer: NodeJS.Timeout | undefined;

  function wakeUp(): void {
    if (!started) return;
    again = sweeping !== undefined;
    if (again) return;
    sweeping = sweep()
      .catch((error: unknown) => log.error({ err: error }, "the projector could not look for cards"))
      .finally(() => {
        sweeping = undefined;
        if (again) wakeUp();
      });
  }
  return {
    wakeUp,
    start() {
      started = true;
      timer = setInterval(wakeUp, SWEEP_MS);
      wakeUp();
    },
    async stop() {
      started = false;
      clearInterval(timer);
      await sweeping;
    },
  };
}

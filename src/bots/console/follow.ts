/** Piped commands: each one's operation is followed to its end before the next line is run. */
import { setTimeout as sleep } from "node:timers/promises";
import { type OperationState, type Stage, stageOf, stateLabels } from "../../core/operations/state.ts";
import type { View } from "../../core/view.ts";
import { isUnavailable } from "../../database/errors.ts";
import type { Cards } from "./cards.ts";
import type { Screen } from "./screen.ts";

interface Followed {
  operationId: string;
  publicId: string;
  channel: string;
  /** Its card is shown in this channel. */
  hasCard: boolean;
}

export interface Follower {
  follow(operation: Followed): void;
  /** A button of this channel's card was pressed: its operation may move again. */
  again(channel: string): void;
  /** Waits until each has ended or waits for a person; whether all that ended did so well. */
  settle(): Promise<boolean>;
  /** The public ids of those that wait for a person's decision. */
  open(): Promise<string[]>;
}

export interface FollowerOptions {
  cards: Cards;
  screen: Screen;
  stateOf: (operationId: string) => Promise<OperationState | null>;
}

/** The card tells of every change; this is for a change that has no card here. */
const pollMs = 200;
/** How long the database may be away before its absence is told; the operation itself goes on meanwhile. */
const awayMs = 60_000;
/** How long the card may be behind the row. */
const lastCardMs = 5_000;
const lastLinesMs = 1_000;

export function createFollower({ cards, screen, ...options }: FollowerOptions): Follower {
  const known = new Map<string, Followed>();
  let moving = new Set<Followed>();

  async function stateOf(operationId: string): Promise<OperationState | null> {
    const giveUpAt = Date.now() + awayMs;
    for (;;) {
      try {
        return await options.stateOf(operationId);
      } catch (error) {
        if (!isUnavailable(error) || Date.now() > giveUpAt) throw error;
        await sleep(pollMs);
      }
    }
  }

  async function settleOne(one: Followed): Promise<boolean> {
    for (;;) {
      const changed = cards.changed();
      const state = await stateOf(one.operationId);
      const stage = state === null ? "ended_badly" : stageOf[state];
      if (stage !== "live") {
        if (!one.hasCard || !(await shown(one.channel, stage))) await tell(one, state);
        return stage === "awaiting" || stage === "ended_well";
      }
      await Promise.race([changed, sleep(pollMs)]);
    }
  }

  /** What it came to must be on the screen, with its buttons, before the next line is run; false when it does not come. */
  async function shown(channel: string, stage: Stage): Promise<boolean> {
    const giveUp = AbortSignal.timeout(lastCardMs);
    while (!giveUp.aborted) {
      const changed = cards.changed();
      const view = cards.inChannel(channel)?.view;
      if (view !== undefined && fits(view, stage)) return stage === "awaiting" || lastLines(channel);
      await Promise.race([changed, sleep(pollMs)]);
    }
    return false;
  }

  /** The thread's lines follow the card; without them nothing is lost but their order. */
  async function lastLines(channel: string): Promise<true> {
    const giveUp = AbortSignal.timeout(lastLinesMs);
    while (!giveUp.aborted && cards.inChannel(channel)?.mentioned !== true) {
      await Promise.race([cards.changed(), sleep(pollMs)]);
    }
    return true;
  }

  async function tell(one: Followed, state: OperationState | null): Promise<void> {
    const well = state !== null && stageOf[state] === "ended_well";
    const label = state === null ? "is no longer kept" : stateLabels[state].toLowerCase();
    await screen.say(`${one.publicId}: ${label}`, well ? "success" : "warning");
  }

  return {
    follow(operation) {
      known.set(operation.channel, operation);
      moving.add(operation);
    },
    again(channel) {
      const operation = known.get(channel);
      if (operation !== undefined) moving.add(operation);
    },
    async settle() {
      const all = moving;
      moving = new Set();
      let well = true;
      for (const one of all) well = (await settleOne(one)) && well;
      return well;
    },
    async open() {
      const found: string[] = [];
      for (const one of known.values()) {
        const state = await stateOf(one.operationId);
        if (state !== null && stageOf[state] === "awaiting") found.push(one.publicId);
      }
      return found;
    },
  };
}

/** Whether a card shows this stage, as far as a view tells. */
function fits(view: View, stage: Stage): boolean {
  if (view.tone === "progress") return false;
  if (stage === "ended_well") return view.tone === "success";
  if (stage === "awaiting") return (view.buttons ?? []).length > 0;
  return view.tone !== "success";
}

/** One turn of a card: what is shown is brought in step with what is true, and a failure is judged. */
import type { Logger } from "pino";
import { ChatError, type Messenger, type Platform, type ThreadLine } from "../core/bot.ts";
import type { View } from "../core/view.ts";
import type { Database, Queryable } from "../database/client.ts";
import type { Budgets, Method, SendKey } from "./budget.ts";
import { type DueCard, recordShown, releaseCard, type Shown } from "./card.ts";

/** So that steps that follow each other quickly make one edit. */
const SETTLE_MS = 800;
const FIRST_BACKOFF_MS = 1_000;
const MAX_BACKOFF_MS = 60_000;
/** A refusal is for a person to repair (invite the bot, unarchive the channel); then the card catches up. */
const REFUSED_RETRY_MS = 15 * 60_000;
/** A card that disappears again and again is being deleted on purpose. */
const MAX_REPOSTS = 3;

export interface RenderedCard {
  version: number;
  /** The last line that exists, whoever may read it. */
  logSeq: number;
  final: boolean;
  /** Staff must act before it goes on: worth a mention, although it is not the end. */
  needsPerson?: boolean;
  view: View;
}

/** Operation → what to show of it (core/operations/card.ts). */
export interface CardSource {
  renderCard(
    queryable: Queryable,
    operationId: string,
    audience: "staff" | "customer",
  ): Promise<RenderedCard>;
  /** The lines after `afterSeq` that this audience may read, in order. */
  readLines(
    queryable: Queryable,
    operationId: string,
    afterSeq: number,
    audience: "staff" | "customer",
  ): Promise<(ThreadLine & { seq: number })[]>;
}

/** A card that cannot be shown until a person repairs something. */
export interface Refusal {
  operationId: string;
  platform: Platform;
  channel: string;
  problem: string;
}

export interface Tools {
  database: Database;
  source: CardSource;
  budgets: Budgets;
  now: () => number;
  log: Logger;
  onRefused: ((refusal: Refusal) => void) | undefined;
}

export interface Turn {
  card: DueCard;
  messenger: Messenger;
  /** Of this claim: a process that lost its lease writes nothing. */
  by: string;
  /** What was taken from the budgets and not yet used. */
  paid: SendKey | null;
  /** The one being sent, for a platform's "slow down". */
  method: Method;
}

/** Never throws: what goes wrong is recorded on the card, or left to the lease that runs out. */
export async function runTurn(tools: Tools, turn: Turn): Promise<void> {
  const { database, log } = tools;
  const { card, by } = turn;
  try {
    const { complete, waitMs } = await showCard(tools, turn);
    await releaseCard(database, card.id, by, complete ? { failures: 0, problem: null, waitMs } : { waitMs });
  } catch (error) {
    try {
      await fail(tools, turn, error);
    } catch (recording) {
      log.error({ err: recording, card: card.id }, "a card's failure could not be recorded");
    }
  } finally {
    refund(tools, turn);
  }
}

export function refund({ budgets }: Tools, { paid }: Turn): void {
  if (paid !== null) budgets.giveBack(paid);
}

async function fail(tools: Tools, turn: Turn, error: unknown): Promise<void> {
  const { database, budgets, log } = tools;
  const { card, by, method } = turn;
  const chat = error instanceof ChatError ? error : undefined;
  if (chat === undefined) log.error({ err: error, card: card.id }, "a card could not be made");
  const failures = card.failures + 1;
  const problem = chat?.message ?? "The card could not be made; the log has the details.";
  const backoffMs = Math.min(MAX_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** Math.min(card.failures, 10));
  const context = { card: card.id, operation: card.operationId, platform: card.platform, problem };

  if (chat?.kind === "rate_limited") {
    budgets.pause(sendKey(card, method), chat.retryAfterMs ?? backoffMs);
    log.debug({ ...context, method, retryAfterMs: chat.retryAfterMs }, "a platform asked us to slow down");
    await releaseCard(database, card.id, by);
  } else if (chat?.kind === "refused") {
    await refuse(tools, turn, problem);
  } else if (chat?.kind === "gone" && failures > MAX_REPOSTS) {
    await refuse(tools, turn, "The card was deleted again and again, so it is no longer posted.");
  } else if (chat?.kind === "gone") {
    log.info(context, "a card is gone and is posted anew");
    await recordShown(database, card.id, by, { messageRef: null, shownVersion: 0 });
    await releaseCard(database, card.id, by, { failures, waitMs: backoffMs });
  } else {
    log.warn({ ...context, failures }, "a card was not sent and is tried again");
    await releaseCard(database, card.id, by, { failures, problem, waitMs: backoffMs });
  }
}

async function refuse(
  { database, log, onRefused }: Tools,
  { card, by }: Turn,
  problem: string,
): Promise<void> {
  const { operationId, platform, channel } = card;
  const isNews = card.problem !== problem;
  await releaseCard(database, card.id, by, {
    failures: card.failures + 1,
    problem,
    waitMs: REFUSED_RETRY_MS,
  });
  if (!isNews) return;
  log.error({ card: card.id, operation: operationId, platform, channel, problem }, "a card cannot be shown");
  onRefused?.({ operationId, platform, channel, problem });
}

/** How a turn ended. `complete`: everything that was true when it began is on the platform now. */
interface TurnEnd {
  complete: boolean;
  waitMs?: number;
}

/** One turn of a card: post or edit it, then tell the thread what is new. */
async function showCard(tools: Tools, turn: Turn): Promise<TurnEnd> {
  const { database, source } = tools;
  const { card, messenger } = turn;
  const rendered = await source.renderCard(database, card.operationId, card.audience);
  let messageRef = card.messageRef;

  if (messageRef === null || card.shownVersion < rendered.version) {
    const method = messageRef === null ? "post" : "edit";
    if (!pay(tools, turn, method, rendered.final || messageRef === null)) return { complete: false };
    if (messageRef === null) messageRef = await messenger.postCard(card, rendered.view, card.id);
    else await messenger.editCard(card, messageRef, rendered.view);
    if (!(await record(tools, turn, { messageRef, shownVersion: rendered.version })))
      return { complete: false };
  }

  const all = await source.readLines(database, card.operationId, card.shownLog, card.audience);
  // The end may have come in between: its last line belongs to the post that mentions the requester.
  const lines = all.filter(({ seq }) => seq <= rendered.logSeq);
  const announces = rendered.final && !card.announced;
  const mention = announces || (rendered.needsPerson === true && card.audience === "staff");
  const shownLog = Math.max(card.shownLog, lines.at(-1)?.seq ?? rendered.logSeq);
  if (lines.length > 0 || announces) {
    if (!pay(tools, turn, "post", rendered.final)) return { complete: false };
    // Without a line of its own the end would be a bare mention.
    const told = lines.length > 0 ? lines : [lastWord(rendered.view, tools.now())];
    await messenger.postLines(card, messageRef, told, {
      mention: mention && card.userId !== null,
      // Names these lines, so that a platform with idempotent posts shows them once.
      key: `${card.id}:${shownLog}${announces ? ":end" : ""}`,
    });
  }
  if (announces || shownLog > card.shownLog) {
    await record(tools, turn, { shownLog, ...(announces ? { announced: true } : {}) });
  }
  return { complete: true, waitMs: SETTLE_MS };
}

/** Uses what the turn has paid, or pays now; false when the budget is used up. */
function pay({ budgets }: Tools, turn: Turn, method: Method, urgent: boolean): boolean {
  turn.method = method;
  if (turn.paid?.method === method) {
    turn.paid = null;
    return true;
  }
  return budgets.take(sendKey(turn.card, method), turn.messenger.budget, urgent ? "final" : "step").ok;
}

function record({ database, log }: Tools, { card, by }: Turn, shown: Shown): Promise<boolean> {
  return recordShown(database, card.id, by, shown).then((ours) => {
    if (!ours) log.warn({ card: card.id }, "a card was taken over while it was being sent");
    return ours;
  });
}

export function firstMethod(card: DueCard): Method {
  return card.messageRef !== null && card.shownVersion < card.version ? "edit" : "post";
}

export function sendKey({ platform, workspace, channel }: DueCard, method: Method): SendKey {
  return { platform, workspace, channel, method };
}

const levels = {
  success: "success",
  error: "error",
  warning: "warning",
  progress: "info",
  neutral: "info",
} as const;

function lastWord(view: View, at: number): ThreadLine {
  return { at: new Date(at), level: levels[view.tone], text: view.title };
}

/** What a person in a chat program does and sees: one interface, a driver for each platform and way in. */
import type { Logger } from "pino";
import type { Bot, Platform } from "../../../src/core/bot.ts";
import type { Entrance } from "../../../src/core/request.ts";

export interface Typed {
  /** "server.list" */
  action: string;
  options?: Record<string, string>;
}

/** What came of it, for this person's eyes alone. */
export interface Seen {
  /** Everything that can be read in it; empty when there is nothing. */
  text: string;
  /** The names of the fields, when a form is open. */
  form: string[] | null;
}

export interface CardSeen {
  id: string;
  text: string;
  /** Of the thread or the replies, in order. */
  thread: string[];
}

export interface ChatDriver {
  platform: Platform;
  people: { staff: string; customer: string; stranger: string };
  /** How a mention of a person looks in a message. */
  mention(user: string): string;
  /** Cards after one post whose answer was lost; where posts are not idempotent, one too many. */
  mostCopiesAfterLostAnswer: number;
  /** Connected, and ready for commands. */
  open(parts: { entrance: Entrance; log: Logger }): Promise<Bot>;
  close(): Promise<void>;
  command(user: string, typed: Typed): Promise<Seen>;
  /** The suggestions for one option while a command, or its form, is filled in. */
  suggest(user: string, typed: Typed, option: string): Promise<string[]>;
  /** Fills in the form that is open; after an error, the same form again. */
  submit(user: string, values: Record<string, string>): Promise<Seen>;
  /** The bot's messages in the channel that everybody there can see. */
  cards(): Promise<CardSeen[]>;
  /** In the person's direct conversation with the bot. */
  directCards(user: string): Promise<CardSeen[]>;
  /** All that somebody can read in the channel, their own answers included. */
  readable(viewer: string): Promise<string>;
  /** Presses a card's button; where the platform asks back, says yes. */
  press(user: string, card: CardSeen, button: string): Promise<Seen>;
  /** The next post of a card: refused with 429, or done with its answer lost. */
  fault(kind: "slow_down" | "lost_answer"): Promise<void>;
  violations(): Promise<unknown[]>;
}

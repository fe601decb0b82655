/** What every chat platform must do for the projector (bots/projector.ts) and the composition root (app.ts). */
import type { RequestListener } from "node:http";
import type { View } from "./view.ts";

export type Platform = "slack" | "discord" | "console";

/** Where an operation was asked for, and so where its card goes. */
export interface Origin {
  platform: Platform;
  /** Slack team id, Discord guild id (or "dm"), whose hands a console is in ("staff:sam"). */
  workspace: string;
  channel: string;
  /** The platform's id of the person; mentioned at the end. */
  userId: string;
}

export interface CardTarget {
  workspace: string;
  channel: string;
  userId: string | null;
}

export interface ThreadLine {
  at: Date;
  level: "info" | "warning" | "error" | "success";
  text: string;
}

/** How a send failed, so that the projector can decide. */
export class ChatError extends Error {
  readonly kind: "rate_limited" | "unavailable" | "gone" | "refused";
  /** For `rate_limited`. */
  readonly retryAfterMs: number | undefined;

  constructor(
    kind: "rate_limited" | "unavailable" | "gone" | "refused",
    message: string,
    options: { retryAfterMs?: number; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "ChatError";
    this.kind = kind;
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** How much a platform lets us send. The projector keeps these per workspace. */
export interface Budget {
  editsPerMinute: number;
  postsPerMinute: number;
  /** Least time between two posts into the same channel. */
  channelPostGapMs: number;
}

/** Sending only. Each method makes one attempt and throws ChatError; retries and pacing are the projector's. */
export interface Messenger {
  readonly platform: Platform;
  readonly budget: Budget;
  /** The workspaces whose cards this process may show, asked at every look; absent: all of the platform. */
  workspaces?(): readonly string[];
  /** Posts the card and returns its handle (Slack `channel:ts`). `key` makes the post idempotent where the platform can. */
  postCard(target: CardTarget, card: View, key: string): Promise<string>;
  /** `gone` when the message was deleted: the projector posts a new one. */
  editCard(target: CardTarget, handle: string, card: View): Promise<void>;
  /** Posts the lines into the card's thread, in order, as one message; mentions the person when asked. */
  postLines(
    target: CardTarget,
    handle: string,
    lines: ThreadLine[],
    options: { mention: boolean; key: string },
  ): Promise<void>;
}

export interface Bot {
  readonly platform: Platform;
  readonly messenger: Messenger;
  /** HTTP receiver to be mounted before any body parser, when the platform talks to us over HTTP. */
  readonly http?: { path: string; listener: RequestListener };
  /** Must not throw because the platform is down: it reports through `status` and keeps trying. */
  start(): Promise<void>;
  stop(): Promise<void>;
  status(): { ok: boolean; detail: string };
}

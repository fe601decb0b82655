/**
 * How much may be sent: a token bucket for each workspace and method, and a least gap between posts into one channel.
 * In no minute does a bucket give more than its limit: it holds a third and is refilled with the other two.
 */
import type { Budget } from "../core/bot.ts";

export type Method = "edit" | "post";
/** `final` may use all there is; `step` leaves a reserve, so that the end of something is never stuck behind progress. */
export type Priority = "final" | "step";

export interface SendKey {
  platform: string;
  workspace: string;
  method: Method;
  channel: string;
}

export interface Budgets {
  /** Takes one send, or answers in how many milliseconds to ask again. */
  take(key: SendKey, budget: Budget, priority: Priority): { ok: true } | { ok: false; waitMs: number };
  /** Gives back a send that was not made. */
  giveBack(key: SendKey): void;
  /** The platform said when it takes this method again for this workspace; others go on. */
  pause(key: SendKey, forMs: number): void;
}

interface Bucket {
  tokens: number;
  filledAt: number;
  pausedUntil: number;
}

const RESERVE_SHARE = 0.25;
const MINUTE_MS = 60_000;

export function createBudgets(now: () => number): Budgets {
  const buckets = new Map<string, Bucket>();
  const lastPosts = new Map<string, number>();

  function filled(key: SendKey, limits: { capacity: number; perMs: number }): Bucket {
    const id = bucketOf(key);
    const at = now();
    const bucket = buckets.get(id) ?? { tokens: limits.capacity, filledAt: at, pausedUntil: 0 };
    bucket.tokens = Math.min(
      limits.capacity,
      bucket.tokens + Math.max(0, at - bucket.filledAt) * limits.perMs,
    );
    bucket.filledAt = at;
    buckets.set(id, bucket);
    return bucket;
  }

  return {
    take(key, budget, priority) {
      const limits = limitsOf(key.method === "edit" ? budget.editsPerMinute : budget.postsPerMinute);
      const bucket = filled(key, limits);
      const at = now();
      const need = priority === "final" ? 1 : 1 + Math.floor(limits.capacity * RESERVE_SHARE);
      const lastPost = key.method === "post" ? lastPosts.get(channelOf(key)) : undefined;
      const waitMs = Math.ceil(
        Math.max(
          bucket.pausedUntil - at,
          (need - bucket.tokens) / limits.perMs,
          lastPost === undefined ? 0 : lastPost + budget.channelPostGapMs - at,
        ),
      );
      if (waitMs > 0) return { ok: false, waitMs };
      bucket.tokens -= 1;
      if (key.method === "post") {
        forgetOld(lastPosts, at - budget.channelPostGapMs);
        lastPosts.set(channelOf(key), at);
      }
      return { ok: true };
    },
    giveBack(key) {
      const bucket = buckets.get(bucketOf(key));
      if (bucket !== undefined) bucket.tokens += 1;
      if (key.method === "post") lastPosts.delete(channelOf(key));
    },
    pause(key, forMs) {
      const bucket = buckets.get(bucketOf(key));
      if (bucket !== undefined) bucket.pausedUntil = Math.max(bucket.pausedUntil, now() + forMs);
    },
  };
}

function limitsOf(perMinute: number): { capacity: number; perMs: number } {
  const capacity = Math.max(1, Math.floor(perMinute / 3));
  return { capacity, perMs: Math.max(1, perMinute - capacity) / MINUTE_MS };
}

function bucketOf({ platform, workspace, method }: SendKey): string {
  return [platform, workspace, method].join("|");
}

function channelOf({ platform, workspace, channel }: SendKey): string {
  return [platform, workspace, channel].join("|");
}

function forgetOld(posts: Map<string, number>, before: number): void {
  for (const [channel, at] of posts) {
    if (at > before) break;
    posts.delete(channel);
  }
}

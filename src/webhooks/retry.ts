/** When to try again. */
const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

/** After the first attempt, the second, …; about three days in all. */
export const RETRY_DELAYS_MS: readonly number[] = [
  5 * SECOND,
  5 * MINUTE,
  30 * MINUTE,
  2 * HOUR,
  5 * HOUR,
  10 * HOUR,
  14 * HOUR,
  20 * HOUR,
  24 * HOUR,
];
const JITTER = 0.2;
export const MAX_RETRY_AFTER_MS = 24 * HOUR;
const DEFAULT_PAUSE_MS = MINUTE;
// HTTP-date, the one form that must be sent (RFC 9110 §5.6.7).
const HTTP_DATE = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/u;

/**
 * How long after the `attempt`-th attempt (from 1) the next one is due, or null when it was the last. Never earlier than
 * our own schedule, later if the receiver asked for it.
 */
export function retryDelayMs(
  attempt: number,
  options: { random: () => number; retryAfterMs: number | null },
): number | null {
  const base = RETRY_DELAYS_MS[attempt - 1];
  if (base === undefined) return null;
  const jittered = base * (1 - JITTER + 2 * JITTER * options.random());
  return Math.round(Math.max(jittered, options.retryAfterMs ?? 0));
}

/** How long nothing goes to a throttled endpoint. */
export function pauseMs(retryAfterMs: number | null): number {
  return retryAfterMs ?? DEFAULT_PAUSE_MS;
}

/** RFC 9110 §10.2.3: seconds or an HTTP date. At most a day; null for what is neither or lies in the past. */
export function parseRetryAfter(value: string | undefined, now: Date): number | null {
  const text = value?.trim() ?? "";
  let waitMs: number;
  if (/^\d+(\.\d+)?$/u.test(text)) waitMs = Math.ceil(Number(text) * SECOND);
  else if (HTTP_DATE.test(text)) waitMs = Date.parse(text) - now.getTime();
  else return null;
  return waitMs > 0 ? Math.min(waitMs, MAX_RETRY_AFTER_MS) : null;
}

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  MAX_RETRY_AFTER_MS,
  parseRetryAfter,
  RETRY_DELAYS_MS,
  retryDelayMs,
} from "../../src/webhooks/retry.ts";

const now = new Date("2026-11-20T12:00:00.000Z");

describe("the schedule", () => {
  it("ends after ten attempts and lasts about three days", () => {
    const delays = RETRY_DELAYS_MS.map((_, index) =>
      retryDelayMs(index + 1, { random: () => 0.5, retryAfterMs: null }),
    );
    expect(delays.map((delay) => (delay ?? 0) / 1000)).toEqual([
      5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400,
    ]);
    expect(retryDelayMs(10, { random: () => 0.5, retryAfterMs: 5 })).toBeNull();
  });

  it("strays by at most a fifth, and is never earlier than the receiver asked", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 9 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.option(fc.integer({ min: 1, max: MAX_RETRY_AFTER_MS })),
        (attempt, random, retryAfterMs) => {
          const base = RETRY_DELAYS_MS[attempt - 1] ?? 0;
          const delay = retryDelayMs(attempt, { random: () => random, retryAfterMs }) ?? 0;
          expect(delay).toBeGreaterThanOrEqual(Math.max(base * 0.8, retryAfterMs ?? 0) - 1);
          expect(delay).toBeLessThanOrEqual(Math.max(base * 1.2, retryAfterMs ?? 0) + 1);
        },
      ),
    );
  });
});

describe("Retry-After", () => {
  it.each([
    ["120", 120_000],
    [" 7 ", 7_000],
    ["1.5", 1_500],
    ["0", null],
    ["-5", null],
    ["", null],
    ["soon", null],
    ["1e9", null],
    ["0x10", null],
    ["99999999999", MAX_RETRY_AFTER_MS],
    ["Fri, 20 Nov 2026 12:00:30 GMT", 30_000],
    ["Fri, 20 Nov 2026 11:59:00 GMT", null],
    ["Fri, 31 Dec 9999 23:59:59 GMT", MAX_RETRY_AFTER_MS],
    ["Fri, 99 Nov 2026 12:00:30 GMT", null],
    ["2026-11-20T12:00:30Z", null],
    ["Fri, 20 Nov 2026 12:00:30 +0000", null],
  ])("%j", (text, expected) => {
    expect(parseRetryAfter(text, now)).toBe(expected);
  });

  it("survives anything", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        const wait = parseRetryAfter(text, now);
        expect(wait === null || (wait > 0 && wait <= MAX_RETRY_AFTER_MS)).toBe(true);
      }),
    );
    expect(parseRetryAfter(undefined, now)).toBeNull();
  });
});

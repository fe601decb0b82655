/** Tells people about endpoints that need them, without a message per delivery. */
import type { AttemptRecord } from "./attempt.ts";
import type { Recorded } from "./record.ts";

/** One message an endpoint in this time; what happens meanwhile is counted and told with the next. */
const QUIET_MS = 5 * 60_000;

export interface Alerts {
  /** The texts that are due after this group. */
  after(recorded: Recorded): string[];
}

interface Tally {
  quietUntilMs: number;
  dead: number;
}

export function createAlerts(): Alerts {
  const tallies = new Map<string, Tally>();
  return {
    after({ written, disabled, at }) {
      const texts = disabled.map(
        (name) =>
          `Webhook endpoint ${name} answered 410 Gone and is disabled. What it has not received waits. ` +
          "Remove it from the configuration, or correct the receiver and restart Ratatosk.",
      );
      const lastDead = new Map<string, AttemptRecord>();
      for (const record of written) {
        if (record.state !== "dead" || record.outcome === "gone") continue;
        const { name } = record.claimed.endpoint;
        const tally = tallies.get(name) ?? { quietUntilMs: 0, dead: 0 };
        tally.dead += 1;
        tallies.set(name, tally);
        lastDead.set(name, record);
      }
      for (const [name, record] of lastDead) {
        const tally = tallies.get(name);
        if (tally === undefined || at.getTime() < tally.quietUntilMs) continue;
        texts.push(textOf(record, tally.dead));
        tallies.set(name, { quietUntilMs: at.getTime() + QUIET_MS, dead: 0 });
      }
      return texts;
    },
  };
}

function textOf(record: AttemptRecord, dead: number): string {
  const { endpoint, event, attemptCount } = record.claimed;
  const count = dead === 1 ? "1 delivery" : `${dead} deliveries`;
  const why =
    record.outcome === "permanent"
      ? `refused for good (${record.error ?? ""})`
      : `failed ${attemptCount + 1} times (${record.error ?? ""})`;
  return `Webhook endpoint ${endpoint.name}: ${count} given up; the last, ${event.type}, ${why}. Check the receiver.`;
}

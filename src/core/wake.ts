/**
 * A nudge wakes somebody up who would have looked anyway: losing every nudge costs at most one sweep (1 s).
 * jobs/ carries it across processes with BullMQ; `localWake` serves one process and the tests.
 */
export const wakeTopics = ["operations", "waits", "cards", "events"] as const;
export type WakeTopic = (typeof wakeTopics)[number];

export interface Wake {
  /** Never throws and never waits. */
  nudge(topic: WakeTopic): void;
  /** Returns the function that ends the subscription. */
  onNudge(topic: WakeTopic, listener: () => void): () => void;
}

export function localWake(): Wake {
  const listeners = new Map<WakeTopic, Set<() => void>>();
  return {
    nudge(topic) {
      for (const listener of listeners.get(topic) ?? []) listener();
    },
    onNudge(topic, listener) {
      const set = listeners.get(topic) ?? new Set();
      listeners.set(topic, set);
      set.add(listener);
      return () => set.delete(listener);
    },
  };
}

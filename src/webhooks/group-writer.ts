/** Group commit: one transaction for all that comes within a moment, or while the group before is being written. */
import { setTimeout } from "node:timers/promises";

// Too short to matter to anybody, long enough for the answers that are on their way: the embedded database would otherwise
// finish each group before the next answer is read, and every group would be of one.
const GATHER_MS = 2;

export interface GroupWriter<Item> {
  /** Resolves when the item was handed to `write`, whether that succeeded or not. */
  add(item: Item): Promise<void>;
}

/** `write` must not throw. */
export function groupWriter<Item>(write: (items: Item[]) => Promise<void>): GroupWriter<Item> {
  let waiting: Item[] = [];
  let writing: Promise<void> | undefined;
  let next: Promise<void> | undefined;

  async function writeWaiting(): Promise<void> {
    await setTimeout(GATHER_MS);
    await writing;
    const items = waiting;
    waiting = [];
    next = undefined;
    writing = write(items);
    await writing;
  }

  return {
    add(item) {
      waiting.push(item);
      next ??= writeWaiting();
      return next;
    },
  };
}

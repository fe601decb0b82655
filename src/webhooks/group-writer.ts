/**
 * Group commit: whatever has come while one group is being written is the next group. One transaction for many, without
 * waiting for more.
 */
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

/** Some at a time, in order; the first failure ends it. */
export async function inBatches<Item, Result>(
  items: readonly Item[],
  size: number,
  work: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  for (let from = 0; from < items.length; from += size) {
    // oxlint-disable-next-line no-await-in-loop -- that is what it is for
    results.push(...(await Promise.all(items.slice(from, from + size).map(work))));
  }
  return results;
}

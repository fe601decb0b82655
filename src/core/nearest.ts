/** "Did you mean": the candidate a mistyped word most likely stands for. */

/**
 * The nearest candidate by Damerau-Levenshtein distance (swapped neighbours count once), ignoring case; a candidate
 * that the word begins is near whatever its length. Undefined when all are too far to be a typing error; the first
 * of equals wins.
 */
export function nearest(word: string, candidates: Iterable<string>): string | undefined {
  const typed = word.toLowerCase();
  let best: { candidate: string; distance: number } | undefined;
  for (const candidate of candidates) {
    const wanted = candidate.toLowerCase();
    const allowed = Math.min(3, Math.floor(Math.max(typed.length, wanted.length) / 3) + 1);
    const limit = best === undefined ? allowed : Math.min(allowed, best.distance - 1);
    const distance =
      typed.length >= 2 && wanted.startsWith(typed) ? Math.min(1, limit) : distanceOf(typed, wanted, limit);
    // One letter is within one edit of any other letter: only a word that keeps something is a guess.
    if (distance <= limit && distance < Math.max(typed.length, wanted.length)) best = { candidate, distance };
    if (best?.distance === 0) break;
  }
  return best?.candidate;
}

/** Optimal string alignment distance, or limit + 1 as soon as it must be greater than the limit. */
function distanceOf(a: string, b: string, limit: number): number {
  if (limit < 0 || Math.abs(a.length - b.length) > limit) return limit + 1;
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const same = a[i - 1] === b[j - 1];
      let cost = Math.min(at(row, j - 1) + 1, at(last, j) + 1, at(last, j - 1) + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        cost = Math.min(cost, at(beforeLast, j - 2) + 1);
      }
      row.push(cost);
    }
    if (Math.min(...row) > limit) return limit + 1;
    beforeLast = last;
    last = row;
  }
  return at(last, b.length);
}

function at(row: readonly number[], index: number): number {
  return row[index] ?? Number.POSITIVE_INFINITY;
}

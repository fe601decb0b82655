/** Everything that is wrong with the settings, told at once, each as "what — how to fix it". Never a value: it may be a secret. */
export class ConfigurationError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    const count = problems.length === 1 ? "One setting is" : `${problems.length} settings are`;
    super(`${count} wrong:\n${problems.map((problem) => `  - ${problem}`).join("\n")}`);
    this.name = "ConfigurationError";
    this.problems = problems;
  }
}

/** Collects problems while the rest is still being read. */
export interface Problems {
  add(what: string, fix: string): void;
  list(): readonly string[];
}

export function collectProblems(): Problems {
  const problems: string[] = [];
  return {
    add(what, fix) {
      const problem = `${what} — ${fix}`;
      if (!problems.includes(problem)) problems.push(problem);
    },
    list: () => problems,
  };
}

/** `did you mean "memory"?`, or what else to do. */
export function adviceFor(word: string, candidates: readonly string[], otherwise: string): string {
  const guess = nearestName(word, candidates);
  return guess === undefined ? otherwise : `did you mean "${guess}"?`;
}

/** The candidate that the word begins, or that is within a third of its length in edits, ignoring case; the first of equals. */
export function nearestName(word: string, candidates: readonly string[]): string | undefined {
  let best: { candidate: string; distance: number } | undefined;
  for (const candidate of candidates) {
    const typed = word.toLowerCase();
    const wanted = candidate.toLowerCase();
    const isBeginning = typed.length >= 3 && wanted.startsWith(typed);
    const distance = isBeginning ? Math.min(1, wanted.length - typed.length) : editDistance(typed, wanted);
    const limit = Math.min(3, Math.ceil(Math.max(typed.length, wanted.length) / 3));
    if (distance <= limit && distance < (best?.distance ?? Number.POSITIVE_INFINITY))
      best = { candidate, distance };
  }
  return best?.candidate;
}

/** Swapped neighbours count as one edit. */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const replaced = (last[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped =
        a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? (beforeLast[j - 2] ?? 0) + 1 : replaced;
      row.push(Math.min(replaced, swapped, (row[j - 1] ?? 0) + 1, (last[j] ?? 0) + 1));
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length] ?? 0;
}

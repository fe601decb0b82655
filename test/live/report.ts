/** What the run prints: what a person did, what they saw, and whether it was what had to be. */
export interface Report {
  title(text: string): void;
  /** "Alice  /server list": what a person does. */
  did(who: string, what: string): void;
  /** What stands on the screen, indented, as it stands there. */
  saw(text: string): void;
  note(text: string): void;
  /** A regular expression has to be found in what was shown; anything else has to be equal to it. */
  check(what: string, expected: RegExp | string | number | boolean, shown: unknown): boolean;
  time(what: string, ms: number): void;
  times: readonly { what: string; ms: number }[];
  passed: number;
  failures: readonly string[];
}

export function createReport(write: (line: string) => void): Report {
  const times: { what: string; ms: number }[] = [];
  const failures: string[] = [];
  const indented = (text: string) => text.split("\n").forEach((line) => write(`          | ${line}`));
  return {
    times,
    failures,
    passed: 0,
    title: (text) => write(`\n=== ${text}`),
    did: (who, what) => write(`${who.padEnd(9)} ${what}`),
    saw: indented,
    note: (text) => write(`          ${text}`),
    check(what, expected, shown) {
      const seen = typeof shown === "string" ? shown : JSON.stringify(shown);
      const holds = expected instanceof RegExp ? expected.test(seen) : String(expected) === seen;
      if (holds) this.passed += 1;
      else failures.push(what);
      write(
        `${holds ? "ok  " : "FAIL"}      ${what}: expected ${String(expected)} ${holds ? "=" : "≠"} shown ${oneLine(seen)}`,
      );
      return holds;
    },
    time(what, ms) {
      times.push({ what, ms });
    },
  };
}

function oneLine(text: string): string {
  const flat = text.replaceAll(/\s*\n\s*/g, " ⏎ ");
  return flat.length > 300 ? `${flat.slice(0, 299)}…` : flat;
}

/** Asks again every 100 ms until the answer is neither undefined nor false. Throws after `withinMs`. */
export async function until<T>(
  what: string,
  withinMs: number,
  ask: () => Promise<T | undefined | false>,
): Promise<T> {
  const end = performance.now() + withinMs;
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- polling
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer;
    if (performance.now() > end) throw new Error(`${what}: not within ${withinMs / 1000} s`);
    // oxlint-disable-next-line no-await-in-loop -- polling
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

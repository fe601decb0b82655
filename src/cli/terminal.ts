/** What a command of the command line works with, so that tests can hand in their own. */
import { type Paint, painter, wantsColor } from "../bots/console/text.ts";

export interface Terminal {
  env: Readonly<Record<string, string | undefined>>;
  cwd: string;
  stdin: NodeJS.ReadableStream & { isTTY?: boolean };
  stdout: NodeJS.WritableStream & { isTTY?: boolean; columns?: number };
  stderr: NodeJS.WritableStream;
}

export interface Report {
  paint: Paint;
  line(text: string): void;
  /** "✓ database  PostgreSQL 17.2": one result, aligned. */
  result(ok: boolean | null, what: string, detail: string): void;
  /** Below the last result: what to do about it. */
  advice(text: string): void;
  /** Whether no result was bad. */
  ok(): boolean;
}

const whatColumns = 16;

/** `null` is neither good nor bad: something that isn't used. */
export function createReport(terminal: Terminal): Report {
  const paint = painter(wantsColor(terminal.stdout, terminal.env));
  let ok = true;
  const line = (text: string) => void terminal.stdout.write(`${text}\n`);
  return {
    paint,
    line,
    result(good, what, detail) {
      if (good === false) ok = false;
      const mark = good === null ? paint("dim", "–") : good ? paint("green", "✓") : paint("red", "✗");
      const [first = "", ...more] = detail.split("\n");
      line(`${mark} ${what.padEnd(whatColumns)} ${first}`.trimEnd());
      for (const text of more) line(`${" ".repeat(whatColumns + 3)}${text}`);
    },
    advice(text) {
      line(`${" ".repeat(whatColumns + 3)}${text}`);
    },
    ok: () => ok,
  };
}

/** The terminal's output: whatever is printed while a line is being typed goes above that line, which stays whole. */
import readline from "node:readline";
import { ChatError } from "../../core/bot.ts";
import type { Tone } from "../../core/view.ts";
import { toneMarks } from "./render.ts";
import { type Paint, painter, printable, wrapped } from "./text.ts";

export interface ConsoleOutput extends NodeJS.WritableStream {
  isTTY?: boolean;
  columns?: number;
}

export interface Screen {
  readonly paint: Paint;
  look(): { width: number; color: boolean };
  /** One or more whole lines. Resolves when the terminal has taken them; throws ChatError `unavailable` when it is gone. */
  print(text: string): Promise<void>;
  /** Prose, broken at spaces; the mark of the tone before it when there is one. */
  say(text: string, tone?: Tone): Promise<void>;
  /** While set, this interface's prompt and line are what is kept below. */
  typing(prompt: readline.Interface | null): void;
}

const widthOfNoTerminal = 100;
const leastWidth = 20;

export function createScreen(output: ConsoleOutput, color: boolean): Screen {
  let typed: readline.Interface | null = null;
  const screen: Screen = {
    paint: painter(color),
    look: () => ({ width: output.columns ?? widthOfNoTerminal, color }),
    say(text, tone) {
      const lines = wrapped(printable(text), Math.max(leastWidth, screen.look().width - 3));
      if (tone === undefined) return screen.print(lines.map((line) => `  ${line}`).join("\n"));
      const { mark, style } = toneMarks[tone];
      return screen.print(`${screen.paint(style, mark)} ${lines.join("\n  ")}`);
    },
    typing(prompt) {
      typed = prompt;
    },
    print(text) {
      if (typed === null) return write(output, `${text}\n`);
      // A long line fills several rows, and the cursor may be on any of them.
      const { rows } = typed.getCursorPos();
      readline.moveCursor(output, 0, -rows);
      readline.cursorTo(output, 0);
      readline.clearScreenDown(output);
      // readline would move up by these rows once more when it paints the line again below.
      Object.assign(typed, { prevRows: 0 });
      const written = write(output, `${text}\n`);
      // At once, not when it is written: the next print has to find the prompt where readline believes it is.
      typed.prompt(true);
      return written;
    },
  };
  return screen;
}

function write(output: ConsoleOutput, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    if (!output.writable) {
      reject(new ChatError("unavailable", "The terminal is closed."));
      return;
    }
    output.write(text, (error) => {
      if (error)
        reject(new ChatError("unavailable", "The terminal does not take text any more.", { cause: error }));
      else resolve();
    });
  });
}

/** Lines as they are typed or piped in, one at a time, with history and tab completion on a terminal. */
import { createInterface } from "node:readline/promises";
import type { Logger } from "pino";
import type { ConsoleOutput, Screen } from "./screen.ts";

export type Typed =
  | { kind: "line"; text: string }
  /** Ctrl+C; `empty` when no half-typed line was dropped by it. */
  | { kind: "interrupt"; empty: boolean }
  /** Ctrl+D, or the end of the pipe. */
  | { kind: "end" };

/** What the end of the line may become; readline shows the list and completes what they have in common. */
export type Completer = (line: string) => Promise<[completions: string[], completed: string]>;

export interface NextLine {
  prompt: string;
  complete: Completer;
  /** Whether the arrow keys bring it back. */
  history: boolean;
}

export interface Reader {
  next(wanted: NextLine): Promise<Typed>;
  close(): void;
}

export interface ReaderOptions {
  input: NodeJS.ReadableStream;
  output: ConsoleOutput;
  screen: Screen;
  interactive: boolean;
  log: Logger;
}

const historyLines = 500;

export function createReader({ input, output, screen, interactive, log }: ReaderOptions): Reader {
  let wanted: NextLine | null = null;
  let waiting: ((typed: Typed) => void) | null = null;
  const arrived: Typed[] = [];
  const lines = createInterface({
    input,
    ...(interactive ? { output } : {}),
    terminal: interactive,
    historySize: historyLines,
    removeHistoryDuplicates: true,
    completer: async (line: string): Promise<[string[], string]> => {
      try {
        return (await wanted?.complete(line)) ?? [[], line];
      } catch (error) {
        // The database may be away for a moment; the line can still be typed by hand.
        log.debug({ err: error }, "nothing could be looked up to complete the line");
        return [[], line];
      }
    },
  });

  const arrive = (typed: Typed) => {
    if (waiting === null) {
      arrived.push(typed);
      return;
    }
    const resolve = waiting;
    waiting = null;
    wanted = null;
    screen.typing(null);
    // What is typed while a command runs stays in the terminal until the next prompt.
    if (interactive && typed.kind !== "end") lines.pause();
    resolve(typed);
  };
  lines.on("line", (text) => arrive({ kind: "line", text }));
  lines.on("close", () => arrive({ kind: "end" }));
  lines.on("history", (history: string[]) => {
    if (wanted?.history === false) history.shift();
  });
  lines.on("SIGINT", () => {
    const empty = lines.line === "";
    lines.write(null, { ctrl: true, name: "e" });
    output.write("^C\n");
    // readline has no call that drops the half-typed line; it would come back with the next prompt.
    Object.assign(lines, { line: "", cursor: 0, prevRows: 0 });
    arrive({ kind: "interrupt", empty });
  });

  return {
    next(next) {
      const first = arrived.shift();
      if (first !== undefined) {
        if (first.kind === "end") arrived.push(first);
        return Promise.resolve(first);
      }
      return new Promise((resolve) => {
        waiting = resolve;
        wanted = next;
        if (!interactive) return;
        screen.typing(lines);
        lines.setPrompt(next.prompt);
        lines.prompt();
      });
    },
    close: () => lines.close(),
  };
}

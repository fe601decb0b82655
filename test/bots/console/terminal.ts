/** A terminal for tests: typed keys go in, and the screen is what a person would see after all control sequences. */
import { PassThrough, Writable } from "node:stream";

export interface TestTerminal {
  input: PassThrough & { isTTY: boolean };
  output: Writable & { isTTY: boolean; columns: number };
  /** Resolves when the condition holds; throws with the screen after two seconds. */
  until(seen: (screen: string) => boolean): Promise<string>;
  screen(): string;
  /** Everything that was ever written. */
  raw(): string;
  type(keys: string): void;
}

export function createTerminal(options: { columns?: number; tty?: boolean } = {}): TestTerminal {
  const columns = options.columns ?? 80;
  const isTTY = options.tty ?? true;
  const grid = createGrid(columns);
  let raw = "";
  const output = Object.assign(
    new Writable({
      write(chunk: Buffer, _encoding, done) {
        raw += chunk.toString();
        grid.write(chunk.toString());
        done();
      },
    }),
    { isTTY, columns },
  );
  const input = Object.assign(new PassThrough(), { isTTY });
  return {
    input,
    output,
    screen: grid.text,
    raw: () => raw,
    type: (keys) => void input.write(keys),
    async until(seen) {
      const end = performance.now() + 2_000;
      while (!seen(grid.text())) {
        if (performance.now() > end) throw new Error(`not seen on the screen:\n${grid.text()}`);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      return grid.text();
    },
  };
}

/** As much of a VT100 as readline and the console write. An unknown sequence is an error. */
function createGrid(columns: number): { write(text: string): void; text(): string } {
  const rows: string[][] = [[]];
  let row = 0;
  let column = 0;
  const line = (): string[] => {
    while (rows.length <= row) rows.push([]);
    return rows[row] ?? [];
  };
  const control = (count: number, letter: string) => {
    if (letter === "A") row = Math.max(0, row - count);
    else if (letter === "B") row += count;
    else if (letter === "C") column = Math.min(columns - 1, column + count);
    else if (letter === "D") column = Math.max(0, column - count);
    else if (letter === "G") column = count - 1;
    else if (letter === "K") line().length = Math.min(line().length, column);
    else if (letter === "J") {
      line().length = Math.min(line().length, column);
      rows.length = row + 1;
    } else if (letter !== "m") throw new Error(`unknown control sequence ${letter}`);
  };
  const put = (letter: string) => {
    if (letter === "\r") column = 0;
    else if (letter === "\n") {
      row += 1;
      column = 0;
      line();
    } else {
      if (column >= columns) {
        row += 1;
        column = 0;
      }
      const cells = line();
      while (cells.length < column) cells.push(" ");
      cells[column] = letter;
      column += 1;
    }
  };
  return {
    text: () => rows.map((cells) => cells.join("").trimEnd()).join("\n"),
    write(text) {
      // oxlint-disable-next-line no-control-regex
      for (const [, count, letter, plain] of text.matchAll(/\u001b\[(\d*)(?:;\d+)*([A-Za-z])|([^])/g)) {
        if (letter === undefined) put(plain ?? "");
        else control(count === "" && letter === "J" ? 0 : Number(count || 1), letter);
      }
    },
  };
}

/** What a simulated guest shows: lines of big letters on a dark ground, as pixels of 0xRRGGBB. */

export const WIDTH = 720;
export const HEIGHT = 400;
const GROUND = 0;
const INK = 0x9f_e8_b0;
const SCALE = 3;
const CELL_WIDTH = 4 * SCALE;
const LINE_HEIGHT = 8 * SCALE;
const MARGIN = 2 * CELL_WIDTH;

/** Three by five, row by row. */
const GLYPHS: Readonly<Record<string, string>> = {
  A: "010101111101101",
  B: "110101110101110",
  C: "011100100100011",
  D: "110101101101110",
  E: "111100110100111",
  F: "111100110100100",
  G: "011100101101011",
  H: "101101111101101",
  I: "111010010010111",
  J: "001001001101010",
  K: "101101110101101",
  L: "100100100100111",
  M: "101111111101101",
  N: "110101101101101",
  O: "010101101101010",
  P: "110101110100100",
  Q: "010101101110011",
  R: "110101110101101",
  S: "011100010001110",
  T: "111010010010010",
  U: "101101101101111",
  V: "101101101101010",
  W: "101101111111101",
  X: "101101010101101",
  Y: "101101010010010",
  Z: "111001010100111",
  "0": "111101101101111",
  "1": "010110010010111",
  "2": "110001010100111",
  "3": "110001010001110",
  "4": "101101111001001",
  "5": "111100110001110",
  "6": "011100111101111",
  "7": "111001010010010",
  "8": "111101111101111",
  "9": "111101111001110",
  ".": "000000000000010",
  ":": "000010000010000",
  "-": "000000111000000",
  "/": "001001010100100",
  _: "000000000000111",
};

export interface Screen {
  /** Row by row. */
  pixels: Uint32Array;
  print(lines: readonly string[]): void;
}

export function createScreen(): Screen {
  const pixels = new Uint32Array(WIDTH * HEIGHT);
  return {
    pixels,
    print(lines) {
      pixels.fill(GROUND);
      for (const [row, line] of lines.entries()) {
        for (const [column, letter] of Array.from(line.toUpperCase()).entries()) {
          draw(pixels, GLYPHS[letter], {
            left: MARGIN + column * CELL_WIDTH,
            top: MARGIN + row * LINE_HEIGHT,
          });
        }
      }
    },
  };
}

function draw(
  pixels: Uint32Array,
  glyph: string | undefined,
  { left, top }: { left: number; top: number },
): void {
  if (glyph === undefined || left + CELL_WIDTH > WIDTH || top + LINE_HEIGHT > HEIGHT) return;
  for (const [index, dot] of Array.from(glyph).entries()) {
    if (dot === "0") continue;
    const [x, y] = [left + (index % 3) * SCALE, top + Math.floor(index / 3) * SCALE];
    for (let line = y; line < y + SCALE; line += 1) {
      pixels.fill(INK, line * WIDTH + x, line * WIDTH + x + SCALE);
    }
  }
}

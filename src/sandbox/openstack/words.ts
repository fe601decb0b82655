/** A set of words, written as one writes words. */
export function words(...lines: string[]): Set<string> {
  return new Set(lines.flatMap((line) => line.split(" ")));
}

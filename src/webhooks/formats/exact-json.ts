/**
 * Parses JSON without losing a digit: numbers stay as they are written (64-bit ids, 10.50), and text that others wrote
 * loses the characters that only serve to deceive. What is returned is for JSON.stringify alone.
 */

// Both are in V8 since Node 22 and not in TypeScript's library yet: https://tc39.es/proposal-json-parse-with-source/
interface JsonWithSource {
  parse(
    text: string,
    reviver: (key: string, value: unknown, context: { source?: string }) => unknown,
  ): unknown;
  rawJSON(text: string): unknown;
}
// oxlint-disable-next-line typescript/no-unsafe-type-assertion
const json = JSON as unknown as JsonWithSource;

// Control characters, and what reorders or hides text: bidirectional controls, zero-width characters, line separators,
// the byte order mark.
// oxlint-disable-next-line no-control-regex
const DECEPTIVE = /[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/gu;
const LINE_BREAK = /[\t\n\r\u2028\u2029]+/gu;

export function parseExactly(text: string): unknown {
  return json.parse(text, (_key, value, { source }) => {
    if (typeof value === "number" && source !== undefined) return json.rawJSON(source);
    return typeof value === "string" ? cleanText(value) : value;
  });
}

export function cleanText(text: string): string {
  return text.replace(LINE_BREAK, " ").replace(DECEPTIVE, "");
}

/** A JSON number where every receiver reads it right, a string beyond 2^53. */
export function safeInteger(value: bigint): number | string {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value.toString();
}

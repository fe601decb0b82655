/** Codes that people copy from one screen to another: "K7QM-2D9X-H4TN-8WPA". */
import { createHash, randomInt, timingSafeEqual } from "node:crypto";

// Crockford's base 32: no I, L, O, U. The first four say which code it is, so that wrong tries of it can be counted; the
// other twelve are 60 random bits, too many to be tried within a code's life, even with its hash at hand.
const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const SELECTOR_LENGTH = 4;
const SECRET_LENGTH = 12;
const GROUP = 4;

export interface LinkCode {
  selector: string;
  secret: string;
}

export function generateLinkCode(): LinkCode {
  return { selector: random(SELECTOR_LENGTH), secret: random(SECRET_LENGTH) };
}

export function writeLinkCode({ selector, secret }: LinkCode): string {
  const text = `${selector}${secret}`;
  return Array.from({ length: text.length / GROUP }, (_, n) => text.slice(n * GROUP, (n + 1) * GROUP)).join(
    "-",
  );
}

/** As typed: any case, spaces and dashes wherever, letters that look like digits taken for those. Null: no code at all. */
export function readLinkCode(typed: string): LinkCode | null {
  const text = typed
    .toUpperCase()
    .replaceAll(/[\s\p{Pd}]/gu, "")
    .replaceAll(/[IL]/g, "1")
    .replaceAll("O", "0");
  if (text.length !== SELECTOR_LENGTH + SECRET_LENGTH) return null;
  if (!Array.from(text).every((letter) => ALPHABET.includes(letter))) return null;
  return { selector: text.slice(0, SELECTOR_LENGTH), secret: text.slice(SELECTOR_LENGTH) };
}

export function hashLinkCode({ selector, secret }: LinkCode): Buffer {
  return createHash("sha256").update(`ratatosk link code ${selector}${secret}`).digest();
}

export function isLinkCode(code: LinkCode, hash: Uint8Array): boolean {
  return timingSafeEqual(hashLinkCode(code), hash);
}

function random(length: number): string {
  return Array.from({ length }, () => ALPHABET[randomInt(ALPHABET.length)]).join("");
}

/** Time-based one-time passwords (RFC 6238), as authenticator apps make them: SHA-1, six digits, a new one every 30 s. */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";

const STEP_SECONDS = 30;
const DIGITS = 6;
// RFC 4226 §4 R6 recommends 160 bits.
const SECRET_BYTES = 20;
/** RFC 6238 §5.2: one step for the way, and for clocks that differ. */
const WINDOW = 1;
const BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** In base32 (RFC 4648), as apps take it. */
export function generateTotpSecret(): string {
  const bits = Array.from(randomBytes(SECRET_BYTES), (byte) => byte.toString(2).padStart(8, "0")).join("");
  return (bits.match(/.{5}/g) ?? []).map((five) => BASE32[Number.parseInt(five, 2)]).join("");
}

/** https://github.com/google/google-authenticator/wiki/Key-Uri-Format */
export function totpUri(secret: string, account: string): string {
  const label = encodeURIComponent(`Ratatosk:${account}`);
  return `otpauth://totp/${label}?secret=${secret}&issuer=Ratatosk&digits=${DIGITS}&period=${STEP_SECONDS}`;
}

/** The step whose code this is, or null. Steps up to `lastStep` are used up: no code is taken twice. */
export function totpStepOf(
  typed: string,
  secret: string,
  { nowSeconds, lastStep }: { nowSeconds: number; lastStep: number },
): number | null {
  const code = typed.replaceAll(/[\s-]/g, "");
  if (!/^\d{6}$/.test(code)) return null;
  const now = Math.floor(nowSeconds / STEP_SECONDS);
  for (let step = Math.max(now - WINDOW, lastStep + 1); step <= now + WINDOW; step += 1) {
    if (timingSafeEqual(Buffer.from(totpCode(secret, step)), Buffer.from(code))) return step;
  }
  return null;
}

/** RFC 4226 §5.3. */
export function totpCode(secret: string, step: number): string {
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(step));
  const mac = createHmac("sha1", bytesOf(secret)).update(counter).digest();
  const offset = (mac.at(-1) ?? 0) & 0xf;
  const number = (mac.readUInt32BE(offset) & 0x7fff_ffff) % 10 ** DIGITS;
  return String(number).padStart(DIGITS, "0");
}

function bytesOf(secret: string): Buffer {
  const bits = Array.from(secret, (letter) => BASE32.indexOf(letter).toString(2).padStart(5, "0")).join("");
  return Buffer.from((bits.match(/.{8}/g) ?? []).map((eight) => Number.parseInt(eight, 2)));
}

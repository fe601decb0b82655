import { randomBytes, randomUUID } from "node:crypto";

/** Nova's and Glance's form: whole seconds with Z. */
export function isoSeconds(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}

/** The form of instance actions and OS-SRV-USG: microseconds, which are always zero, and no zone. */
export function isoMicros(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}.000000`;
}

/** Keystone's form. */
export function isoMicrosZ(ms: number): string {
  return `${isoMicros(ms)}Z`;
}

export function newRequestId(): string {
  return `req-${randomUUID()}`;
}

export function newHexId(): string {
  return randomBytes(16).toString("hex");
}

/** The alphabet leaves out what looks alike, as oslo's generate_password does. */
export function newPassword(): string {
  const alphabet = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
  return [...randomBytes(12)].map((byte) => alphabet[byte % alphabet.length]).join("");
}

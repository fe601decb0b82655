import { randomInt } from "node:crypto";
import type { Transaction } from "../../database/client.ts";
import type { ActionContext } from "../action.ts";

// No 0/O/o, 1/I/l: passwords are read from one screen and typed into another. Letters and digits only, because cloud-init
// writes them into YAML and guests' agents into shells, each with quoting rules of its own.
const LOWER = "abcdefghjkmnpqrstuvwxyz";
const UPPER = "ABCDEFGHJKLMNPQRSTUVWXYZ";
const DIGITS = "23456789";
const ALPHABET = LOWER + UPPER + DIGITS;
const LENGTH = 24; // 24 of 54 characters: 138 bits

/** A password for a server's first login: 24 letters and digits, each class present (Windows and PAM rules ask for that). */
export function generatePassword(): string {
  for (;;) {
    const password = Array.from({ length: LENGTH }, () => ALPHABET[randomInt(ALPHABET.length)]).join("");
    // Drawn again as a whole rather than repaired, so that every password that passes is equally likely.
    if (
      [LOWER, UPPER, DIGITS].every((set) => Array.from(password).some((character) => set.includes(character)))
    ) {
      return password;
    }
  }
}

/**
 * What an action prepares that sets a password: stored before the first call, so that after a lost answer the same one is
 * set again, and never a second one. `owner`: "server:<id>", or whatever else it is kept for.
 */
export async function storeNewPassword(
  { engine, database: tx }: ActionContext & { database: Transaction },
  owner: string,
): Promise<{ details: { secretId: string } }> {
  const secretId = await engine.secrets.store(tx, {
    kind: "root_password",
    field: `${owner}:password`,
    plaintext: generatePassword(),
    lifetimeMs: engine.policies.secretLifetimeMs,
  });
  return { details: { secretId } };
}

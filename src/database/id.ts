import { randomInt } from "node:crypto";
import { v7 } from "uuid";

// No 0/o, 1/i/l: these ids are read aloud and retyped from chat.
const ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz";
const PUBLIC_ID_LENGTH = 8;

/** A UUIDv7: primary keys sort by the time they were made, which keeps indexes dense. */
export function newId(): string {
  return v7();
}

/** A short id for people, e.g. `srv-7k2m9pqx`. Random, so that nobody can count or guess another customer's. */
export function newPublicId(prefix: string): string {
  const characters = Array.from({ length: PUBLIC_ID_LENGTH }, () => ALPHABET[randomInt(ALPHABET.length)]);
  return `${prefix}-${characters.join("")}`;
}

/** Public SSH keys as people paste them. A broken one is refused here: a cloud would take some of them, or half of it. */
import { createHash } from "node:crypto";
import { z } from "zod";

// Types that OpenSSH and PVE both take; options before the type ("command=…") are not offered.
const KEY =
  /^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)|sk-ssh-ed25519@openssh\.com) ([A-Za-z0-9+/]+={0,2})( [^\r\n]*)?$/u;
/** One a line; also with commas, where a line cannot be broken. */
const BETWEEN = /\r?\n|,\s*(?=(?:ssh|ecdsa|sk-ssh)-)/u;
const MOST_KEYS = 20;

/** One or several; `publicKeysOf` reads them. */
export const PublicKeys = z
  .string()
  .max(20_000)
  .superRefine((text, context) => {
    const problem = problemOf(text);
    if (problem !== null) context.addIssue({ code: "custom", message: problem });
  });

export function publicKeysOf(text: string): string[] {
  return text
    .split(BETWEEN)
    .map((line) => withPlainComment(line.trim()))
    .filter((line) => line !== "");
}

/** PVE writes each key as an entry of YAML as it is: what would end the entry there, or make a mapping of it, is not part of a key. */
function withPlainComment(line: string): string {
  return line
    .replaceAll(/[\u0085\u2028\u2029]/gu, " ")
    .replaceAll(/:(?=\s|$)/gu, "-")
    .replaceAll(/(?<=\s)#/gu, "-");
}

/** As `ssh-keygen -l` shows it: "SHA256:…". */
export function fingerprintOf(key: string): string {
  const hash = createHash("sha256")
    .update(Buffer.from(key.split(" ")[1] ?? "", "base64"))
    .digest("base64");
  return `SHA256:${hash.replace(/=+$/u, "")}`;
}

function problemOf(text: string): string | null {
  const keys = publicKeysOf(text);
  if (keys.length === 0) return "has no key in it";
  if (keys.length > MOST_KEYS) return `has ${keys.length} keys; give at most ${MOST_KEYS}`;
  if (/PRIVATE KEY/u.test(text))
    return "is a private key, which must never leave its owner; give the public one (.pub)";
  const nth = keys.findIndex((key) => !isPublicKey(key));
  if (nth < 0) return null;
  const which =
    keys.length === 1 ? "is no public SSH key" : `has a line ${nth + 1} that is no public SSH key`;
  return `${which}; paste the whole line, as in "ssh-ed25519 AAAA… name"`;
}

/** RFC 4253 §6.6: the blob is its type again, then the key's numbers, each with its length before it. */
function isPublicKey(line: string): boolean {
  const [, type, base64] = KEY.exec(line) ?? [];
  if (type === undefined || base64 === undefined) return false;
  const fields = fieldsOf(Buffer.from(base64, "base64"));
  if (fields === null || fields.length < 2 || fields[0]?.toString("latin1") !== type) return false;
  return type !== "ssh-ed25519" || fields[1]?.length === 32;
}

/** Null when a length does not fit: the key was cut. */
function fieldsOf(blob: Buffer): Buffer[] | null {
  const fields: Buffer[] = [];
  let at = 0;
  while (at + 4 <= blob.length) {
    const end = at + 4 + blob.readUInt32BE(at);
    if (end > blob.length) return null;
    fields.push(blob.subarray(at + 4, end));
    at = end;
  }
  return at === blob.length ? fields : null;
}

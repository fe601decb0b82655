/** The one key that all secrets in the database hang on: from RATATOSK_SECRET_KEY, or a file in the data directory. */
import { createHash, createSecretKey, type KeyObject, randomBytes, randomUUID } from "node:crypto";
import { linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Queryable } from "../../database/client.ts";
import { ServiceError } from "../errors.ts";

export interface MasterKey {
  /** The first 16 hex digits of the key's SHA-256: stored with each secret, says nothing about the key. */
  readonly id: string;
  /** A KeyObject, because it prints as "KeyObject" wherever it is logged by accident. */
  readonly key: KeyObject;
}

export const KEY_BYTES = 32;
const FILE = "secret.key";

export interface MasterKeyOptions {
  /** RATATOSK_SECRET_KEY: 32 bytes as base64 (or base64url) or hex. */
  secretKey?: string | undefined;
  /** Where `secret.key` is kept, made (0600) when it is not there. Not touched when `secretKey` is given. */
  dataDir: string;
}

/** Throws ServiceError `configuration` when the key is not 32 bytes. */
export function loadMasterKey({ secretKey, dataDir }: MasterKeyOptions): MasterKey {
  if (secretKey !== undefined && secretKey.trim() !== "") {
    return masterKey(decodeKey(secretKey.trim(), "RATATOSK_SECRET_KEY"));
  }
  const path = join(dataDir, FILE);
  return masterKey(decodeKey(readKeyFile(path) ?? createKeyFile(dataDir, path), path));
}

/**
 * Refuses a start that could not read what is stored. Throws ServiceError `configuration` when secrets that are not
 * expired were written under another key.
 */
export async function checkKeyIds(queryable: Queryable, key: MasterKey): Promise<void> {
  const foreign = await queryable.sql<{ keyId: string; count: number }>(
    `SELECT key_id AS "keyId", count(*)::int AS count FROM public.secrets
      WHERE key_id <> $1 AND (expires_at IS NULL OR expires_at > clock()) GROUP BY key_id ORDER BY key_id`,
    [key.id],
  );
  if (foreign.length === 0) {
    return;
  }
  const count = foreign.reduce((sum, row) => sum + row.count, 0);
  const ids = foreign.map((row) => row.keyId).join(", ");
  throw new ServiceError(
    "configuration",
    `${count} stored ${count === 1 ? "secret was" : "secrets were"} encrypted with another key (id ${ids}); this process has key ${key.id}. ` +
      `Set RATATOSK_SECRET_KEY to the key used before, or put the ${FILE} that belongs to this database back into the data directory.`,
    { facts: { keyIds: foreign.map((row) => row.keyId), keyId: key.id } },
  );
}

function masterKey(bytes: Buffer): MasterKey {
  return { id: createHash("sha256").update(bytes).digest("hex").slice(0, 16), key: createSecretKey(bytes) };
}

function decodeKey(text: string, where: string): Buffer {
  const hex = /^[0-9a-f]{64}$/i.test(text);
  const bytes = Buffer.from(text, hex ? "hex" : "base64");
  if (!hex && (!/^[A-Za-z0-9+/_-]+={0,2}$/.test(text) || bytes.length !== KEY_BYTES)) {
    throw new ServiceError(
      "configuration",
      `${where} is not a key of ${KEY_BYTES} bytes in base64 or hex. Make one with: openssl rand -base64 ${KEY_BYTES}`,
    );
  }
  return bytes;
}

function readKeyFile(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch (error) {
    if (isErrno(error, "ENOENT")) {
      return undefined;
    }
    throw new ServiceError(
      "configuration",
      `The key file ${path} cannot be read. Give this user access to it.`,
      {
        cause: error,
      },
    );
  }
}

// A link appears together with its content: of two processes that start at once, the second reads the first one's key.
function createKeyFile(dataDir: string, path: string): string {
  const draft = `${path}.${randomUUID()}`;
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    writeFileSync(draft, `${randomBytes(KEY_BYTES).toString("base64")}\n`, { mode: 0o600, flag: "wx" });
    linkSync(draft, path);
  } catch (error) {
    if (!isErrno(error, "EEXIST")) {
      throw new ServiceError(
        "configuration",
        `The key file ${path} cannot be created. Make the directory writable, or set RATATOSK_SECRET_KEY.`,
        { cause: error },
      );
    }
  } finally {
    rmSync(draft, { force: true });
  }
  return readFileSync(path, "utf8").trim();
}

function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}

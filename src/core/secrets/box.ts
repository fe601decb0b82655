/**
 * Secrets in the database: AES-256-GCM under a data key of the row's own, which is itself wrapped by the master key, so
 * that another master key means wrapping small keys again and not decrypting everything. Both layers are bound to the
 * row's id, kind and field: a row copied elsewhere, or a field swapped, does not decrypt.
 */
import { createCipheriv, createDecipheriv, type KeyObject, randomBytes } from "node:crypto";
import type { Queryable, Transaction } from "../../database/client.ts";
import { newId } from "../../database/id.ts";
import { ServiceError } from "../errors.ts";
import { KEY_BYTES, type MasterKey } from "./master-key.ts";

const CIPHER = "aes-256-gcm";
const NONCE_BYTES = 12; // NIST SP 800-38D §8.2
const TAG_BYTES = 16;

export type SecretKind = "root_password" | "webhook_signing" | "totp";

export interface SecretToStore {
  kind: SecretKind;
  /** What it belongs to: "table:row:field". */
  field: string;
  plaintext: string;
  /** The operation that made it. */
  operationId?: string;
  /** Never readable after this moment. */
  expiresAt?: Date;
  /** The same, counted from the database's clock; wins over `expiresAt`. */
  lifetimeMs?: number;
}

export interface SecretBox {
  /** Returns the secret's id. */
  store(tx: Transaction, secret: SecretToStore): Promise<string>;
  /**
   * Throws ServiceError: `expired` when it is gone or its time is over, `configuration` when it was written under another
   * key, `internal` when the row was tampered with.
   */
  read(queryable: Queryable, secretId: string): Promise<string>;
  /** Deletes it; nothing happens when it is gone already. */
  drop(tx: Transaction, secretId: string): Promise<void>;
}

interface SecretRow {
  id: string;
  kind: string;
  keyId: string;
  wrappedKey: Buffer;
  nonce: Buffer;
  ciphertext: Buffer;
  aad: string;
}

export function createSecretBox(master: MasterKey): SecretBox {
  return {
    async store(tx, secret) {
      const row = encrypt(master, secret);
      await tx.sql(
        `INSERT INTO public.secrets (id, kind, key_id, wrapped_key, nonce, ciphertext, aad, operation_id, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, COALESCE(clock() + $10::float8 * interval '1 millisecond', $9::timestamptz))`,
        [
          row.id,
          row.kind,
          row.keyId,
          row.wrappedKey,
          row.nonce,
          row.ciphertext,
          row.aad,
          secret.operationId ?? null,
          secret.expiresAt ?? null,
          secret.lifetimeMs ?? null,
        ],
      );
      return row.id;
    },

    async read(queryable, secretId) {
      const [row] = await queryable.sql<SecretRow>(
        `SELECT id, kind, key_id AS "keyId", wrapped_key AS "wrappedKey", nonce, ciphertext, aad FROM public.secrets
          WHERE id = $1 AND (expires_at IS NULL OR expires_at > clock())`,
        [secretId],
      );
      if (!row) {
        throw new ServiceError(
          "expired",
          "This secret is gone: it was shown already, or its time is over. Set a new password to get another one.",
        );
      }
      return decrypt(master, row);
    },

    async drop(tx, secretId) {
      await tx.sql("DELETE FROM public.secrets WHERE id = $1", [secretId]);
    },
  };
}

/** Deletes what nobody may read any more, and no operation will hand over yet; returns how many. */
export async function dropExpiredSecrets(queryable: Queryable): Promise<number> {
  const dropped = await queryable.sql(
    `DELETE FROM public.secrets s WHERE s.expires_at <= clock()
       AND NOT EXISTS (SELECT FROM operations o WHERE o.id = s.operation_id AND o.finished_at IS NULL) RETURNING s.id`,
  );
  return dropped.length;
}

function encrypt(master: MasterKey, secret: SecretToStore): SecretRow {
  const row = { id: newId(), kind: secret.kind, keyId: master.id, aad: secret.field };
  const dataKey = randomBytes(KEY_BYTES);
  const wrapNonce = randomBytes(NONCE_BYTES);
  const nonce = randomBytes(NONCE_BYTES);
  return {
    ...row,
    wrappedKey: Buffer.concat([wrapNonce, seal(master.key, wrapNonce, dataKey, boundTo(row, "key"))]),
    nonce,
    ciphertext: seal(dataKey, nonce, Buffer.from(secret.plaintext, "utf8"), boundTo(row, "value")),
  };
}

function decrypt(master: MasterKey, row: SecretRow): string {
  if (row.keyId !== master.id) {
    throw new ServiceError(
      "configuration",
      `A stored secret was encrypted with another key (id ${row.keyId}); this process has key ${master.id}. ` +
        "Give all processes the same RATATOSK_SECRET_KEY.",
    );
  }
  try {
    const wrapNonce = row.wrappedKey.subarray(0, NONCE_BYTES);
    const dataKey = open(master.key, wrapNonce, row.wrappedKey.subarray(NONCE_BYTES), boundTo(row, "key"));
    return open(dataKey, row.nonce, row.ciphertext, boundTo(row, "value")).toString("utf8");
  } catch (error) {
    throw new ServiceError(
      "internal",
      "A stored secret does not decrypt: its row was changed or copied from another. Set a new one.",
      { cause: error, facts: { secretId: row.id } },
    );
  }
}

// As JSON, so that no two different rows give the same bytes.
function boundTo(row: Pick<SecretRow, "id" | "kind" | "aad">, layer: "key" | "value"): Buffer {
  return Buffer.from(JSON.stringify(["ratatosk", 1, layer, row.id, row.kind, row.aad]), "utf8");
}

function seal(key: KeyObject | Buffer, nonce: Buffer, plaintext: Buffer, aad: Buffer): Buffer {
  const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(aad);
  return Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

function open(key: KeyObject | Buffer, nonce: Buffer, sealed: Buffer, aad: Buffer): Buffer {
  const decipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
  decipher.setAAD(aad);
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
  return Buffer.concat([decipher.update(sealed.subarray(0, sealed.length - TAG_BYTES)), decipher.final()]);
}

import { randomBytes } from "node:crypto";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { createSecretBox, dropExpiredSecrets, type SecretToStore } from "../../../src/core/secrets/box.ts";
import { checkKeyIds, loadMasterKey } from "../../../src/core/secrets/master-key.ts";
import type { Database } from "../../../src/database/client.ts";
import { clean, moveClock, testDatabase } from "../../support/database.ts";

const dataDir = mkdtempSync(join(tmpdir(), "ratatosk-box-"));
const master = loadMasterKey({ secretKey: randomBytes(32).toString("base64"), dataDir });
const otherMaster = loadMasterKey({ secretKey: randomBytes(32).toString("hex"), dataDir });
const box = createSecretBox(master);
const PASSWORD = "Pässword-canary-7391";
let database: Database;

beforeAll(async () => {
  database = await testDatabase();
});
afterAll(() => database.close());
beforeEach(async () => {
  await clean(database);
  await moveClock(database, 0);
});

function store(secret: Partial<SecretToStore> = {}): Promise<string> {
  return database.transaction((tx) =>
    box.store(tx, { kind: "root_password", field: "servers:1:password", plaintext: PASSWORD, ...secret }),
  );
}

describe("a stored secret", () => {
  test("comes back as it was", async () => {
    const id = await store();

    await expect(box.read(database, id)).resolves.toBe(PASSWORD);
  });

  test("is nowhere in its row, and two rows of the same text have nothing in common", async () => {
    await store();
    await store();

    const rows = await database.sql<{ ciphertext: Buffer; wrapped: Buffer; text: string }>(
      "SELECT ciphertext, wrapped_key AS wrapped, secrets::text AS text FROM secrets",
    );

    expect(rows).toHaveLength(2);
    expect(rows[0]?.ciphertext.equals(rows[1]?.ciphertext ?? Buffer.alloc(0))).toBe(false);
    expect(rows[0]?.wrapped.equals(rows[1]?.wrapped ?? Buffer.alloc(0))).toBe(false);
    for (const row of rows) {
      expect(row.text).not.toContain(PASSWORD);
      expect(row.text).not.toContain(Buffer.from(PASSWORD).toString("hex"));
    }
  });

  test("is gone after its time, by the database's clock", async () => {
    const id = await store({ lifetimeMs: 60_000 });
    await expect(box.read(database, id)).resolves.toBe(PASSWORD);

    await moveClock(database, 61_000);

    await expect(box.read(database, id)).rejects.toMatchObject({ code: "expired" });
    await expect(dropExpiredSecrets(database)).resolves.toBe(1);
  });

  test("is gone after expiresAt, and one without an end stays", async () => {
    const short = await store({ expiresAt: new Date(Date.now() + 60_000) });
    const long = await store({ kind: "webhook_signing" });

    await moveClock(database, 61_000);

    await expect(box.read(database, short)).rejects.toMatchObject({ code: "expired" });
    await expect(dropExpiredSecrets(database)).resolves.toBe(1);
    await expect(box.read(database, long)).resolves.toBe(PASSWORD);
  });

  test("is gone once dropped; dropping twice is no error", async () => {
    const id = await store();
    await database.transaction((tx) => box.drop(tx, id));
    await database.transaction((tx) => box.drop(tx, id));

    await expect(box.read(database, id)).rejects.toMatchObject({ code: "expired" });
  });

  test.each([
    ["its field", "UPDATE secrets SET aad = 'servers:2:password' WHERE id = $1"],
    ["its kind", "UPDATE secrets SET kind = 'webhook_signing' WHERE id = $1"],
    [
      "its ciphertext",
      "UPDATE secrets SET ciphertext = set_byte(ciphertext, 0, get_byte(ciphertext, 0) # 1) WHERE id = $1",
    ],
    [
      "its key",
      "UPDATE secrets SET wrapped_key = set_byte(wrapped_key, 20, get_byte(wrapped_key, 20) # 1) WHERE id = $1",
    ],
    ["a short ciphertext", "UPDATE secrets SET ciphertext = '\\x00' WHERE id = $1"],
  ])("does not decrypt when %s was changed, and the error keeps quiet", async (_what, statement) => {
    const id = await store();
    await database.sql(statement, [id]);

    const error = await box.read(database, id).catch((caught: unknown) => caught);

    expect(error).toMatchObject({ code: "internal" });
    expect(inspect(error, { depth: null })).not.toContain(PASSWORD);
  });

  test("does not decrypt from another row", async () => {
    const mine = await store();
    const theirs = await store();
    await database.sql(
      `UPDATE secrets s SET wrapped_key = o.wrapped_key, nonce = o.nonce, ciphertext = o.ciphertext
         FROM secrets o WHERE s.id = $1 AND o.id = $2`,
      [theirs, mine],
    );

    await expect(box.read(database, theirs)).rejects.toMatchObject({ code: "internal" });
  });

  test("is not written when the transaction fails", async () => {
    await expect(
      database.transaction(async (tx) => {
        await box.store(tx, { kind: "root_password", field: "x:y:z", plaintext: PASSWORD });
        throw new Error("no");
      }),
    ).rejects.toThrow("no");

    await expect(database.sql("SELECT id FROM secrets")).resolves.toEqual([]);
  });
});

describe("another master key", () => {
  test("cannot read, and says which key is missing", async () => {
    const id = await store();

    await expect(createSecretBox(otherMaster).read(database, id)).rejects.toMatchObject({
      code: "configuration",
      message: expect.stringContaining(master.id),
    });
  });

  test("is refused at start while secrets of the first are alive", async () => {
    await store({ lifetimeMs: 60_000 });
    await expect(checkKeyIds(database, master)).resolves.toBeUndefined();
    await expect(checkKeyIds(database, otherMaster)).rejects.toMatchObject({
      code: "configuration",
      message: expect.stringMatching(/1 stored secret was encrypted with another key.*RATATOSK_SECRET_KEY/),
    });

    await moveClock(database, 61_000);

    await expect(checkKeyIds(database, otherMaster)).resolves.toBeUndefined();
  });
});

import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { describe, expect, test } from "vitest";
import { loadMasterKey } from "../../../src/core/secrets/master-key.ts";
import { generatePassword } from "../../../src/core/secrets/password.ts";

function directory(): string {
  return join(mkdtempSync(join(tmpdir(), "ratatosk-key-")), "data");
}

describe("loadMasterKey", () => {
  test("takes base64, base64url and hex of the same bytes as one key, and makes no file then", () => {
    const bytes = randomBytes(32);
    const dataDir = directory();

    const ids = (["base64", "base64url", "hex"] as const).map(
      (encoding) => loadMasterKey({ secretKey: ` ${bytes.toString(encoding)}\n`, dataDir }).id,
    );

    expect(new Set(ids).size).toBe(1);
    expect(ids[0]).toMatch(/^[0-9a-f]{16}$/);
    expect(existsSync(dataDir)).toBe(false);
  });

  test.each([
    randomBytes(16).toString("base64"),
    randomBytes(33).toString("hex"),
    "correct horse battery staple",
    "%%%",
  ])("refuses %s without repeating it", (secretKey) => {
    expect(() => loadMasterKey({ secretKey, dataDir: directory() })).toThrow(
      expect.objectContaining({ code: "configuration", message: expect.not.stringContaining(secretKey) }),
    );
  });

  test("makes a 0600 file once and reads it afterwards", () => {
    const dataDir = directory();

    const first = loadMasterKey({ dataDir });
    const second = loadMasterKey({ dataDir, secretKey: "" });

    expect(second.id).toBe(first.id);
    expect(statSync(join(dataDir, "secret.key")).mode & 0o777).toBe(0o600);
    expect(readdirSync(dataDir)).toEqual(["secret.key"]);
  });

  test("refuses a damaged key file instead of replacing it", () => {
    const dataDir = directory();
    loadMasterKey({ dataDir });
    writeFileSync(join(dataDir, "secret.key"), "short\n");

    expect(() => loadMasterKey({ dataDir })).toThrow(expect.objectContaining({ code: "configuration" }));
    expect(readFileSync(join(dataDir, "secret.key"), "utf8")).toBe("short\n");
  });

  test("does not print its key", () => {
    const bytes = randomBytes(32);
    const master = loadMasterKey({ secretKey: bytes.toString("base64"), dataDir: directory() });

    const printed = inspect(master, { depth: null, showHidden: true }) + JSON.stringify(master);

    expect(printed).not.toContain(bytes.toString("hex"));
    expect(printed).not.toContain(bytes.toString("base64"));
  });
});

describe("generatePassword", () => {
  test("has 24 unambiguous letters and digits, all three classes, never the same twice", () => {
    const passwords = Array.from({ length: 500 }, generatePassword);

    for (const password of passwords) {
      expect(password).toMatch(/^(?=.*[a-z])(?=.*[A-Z])(?=.*[2-9])[a-hj-km-np-zA-HJ-NP-Z2-9]{24}$/);
    }
    expect(new Set(passwords).size).toBe(500);
  });
});

import { randomBytes } from "node:crypto";
import { Webhook } from "standardwebhooks";
import { describe, expect, it } from "vitest";
import { isServiceError } from "../../src/core/errors.ts";
import { generateSecret, parseSecrets, signatureHeaders, verify } from "../../src/webhooks/signature.ts";

const body = Buffer.from('{"type":"server.created","data":{"name":"wörld"}}');
const now = 1_760_000_000;

function secretOf(bytes: number): string {
  return `whsec_${randomBytes(bytes).toString("base64")}`;
}

function signed(secret: string, timestampSeconds = now) {
  return signatureHeaders(parseSecrets(secret), { id: "evt_1", timestampSeconds, body });
}

function reasonOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (isServiceError(error)) return error.message;
    throw error;
  }
  throw new Error("nothing was thrown");
}

describe("a signature", () => {
  // From the specification's own test of its reference libraries.
  it("is that of the published vector", () => {
    const headers = signatureHeaders(parseSecrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), {
      id: "msg_p5jXN8AQM9LWM0D4loKWxJek",
      timestampSeconds: 1614265330,
      body: Buffer.from('{"test": 2432232314}'),
    });
    expect(headers).toEqual({
      "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
      "webhook-timestamp": "1614265330",
      "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    });
  });

  it("is accepted by the reference library", () => {
    const secret = generateSecret();
    const headers = signed(secret, Math.floor(Date.now() / 1000));
    expect(new Webhook(secret).verify(body, headers)).toEqual(JSON.parse(body.toString()));
    expect(() => new Webhook(generateSecret()).verify(body, headers)).toThrow(/No matching signature/);
  });

  it("is made with each secret while one is being changed", () => {
    const [next, old, stranger] = [generateSecret(), generateSecret(), generateSecret()];
    const headers = signed(`${next} ${old}`);
    expect(headers["webhook-signature"]?.split(" ").length).toBe(2);
    for (const secret of [next, old, `${stranger} ${old}`])
      expect(verify({ secret, headers, body, nowSeconds: now })).toBe("evt_1");
    expect(() => verify({ secret: stranger, headers, body, nowSeconds: now })).toThrow(/No signature fits/);
  });
});

describe("verify", () => {
  const secret = generateSecret();
  const check = (changes: Record<string, string | undefined>, nowSeconds = now, text = body) =>
    reasonOf(() => verify({ secret, headers: { ...signed(secret), ...changes }, body: text, nowSeconds }));

  it("takes header names in any case", () => {
    const headers = Object.fromEntries(
      Object.entries(signed(secret)).map(([name, value]) => [name.toUpperCase(), value]),
    );
    expect(verify({ secret, headers, body, nowSeconds: now + 299 })).toBe("evt_1");
  });

  it("says what is wrong", () => {
    expect(check({ "webhook-id": undefined })).toBe("The header webhook-id is missing.");
    expect(check({ "webhook-timestamp": "" })).toBe("The header webhook-timestamp is missing.");
    expect(check({ "webhook-timestamp": "yesterday" })).toMatch(/not a number/);
    expect(check({ "webhook-signature": "v1a,abc" })).toMatch(/no signature of version v1/);
    expect(check({}, now + 301)).toMatch(/301 s old/);
    expect(check({}, now - 301)).toMatch(/301 s in the future/);
    expect(check({ "webhook-id": "evt_2" })).toMatch(/No signature fits/);
    expect(check({ "webhook-timestamp": String(now + 1) })).toMatch(/No signature fits/);
    expect(check({}, now, Buffer.from(`${body.toString()} `))).toMatch(/No signature fits/);
    expect(check({ "webhook-signature": "v1," })).toMatch(/No signature fits/);
  });
});

describe("a secret", () => {
  it("holds 24 to 64 bytes", () => {
    for (const bytes of [24, 32, 64]) expect(parseSecrets(secretOf(bytes))[0]?.length).toBe(bytes);
    expect(reasonOf(() => parseSecrets(secretOf(23)))).toMatch(/24 to 64 bytes and holds 23/);
    expect(reasonOf(() => parseSecrets(secretOf(65)))).toMatch(/holds 65/);
  });

  it("is refused without repeating it", () => {
    const wrong = {
      "": /empty/,
      MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw: /begin with whsec_/,
      "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2La LaSw": /holds 21/,
      "whsec_MfKQ9r8GKYqrTwjU-D8ILPZIo2LaLaSw": /base64/,
      whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwA: /a character is missing/,
    };
    for (const [secret, reason] of Object.entries(wrong)) {
      const message = reasonOf(() => parseSecrets(secret));
      expect(message).toMatch(reason);
      expect(message).not.toContain("MfKQ9r8G");
    }
  });

  it("is new each time", () => {
    const made = new Set(Array.from({ length: 50 }, generateSecret));
    expect(made.size).toBe(50);
    for (const secret of made) expect(parseSecrets(secret)[0]?.length).toBe(32);
  });
});

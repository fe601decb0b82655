/**
 * Standard Webhooks signatures, symmetric (v1): base64 HMAC-SHA256 over "id.timestamp.body".
 * https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { ServiceError } from "../core/errors.ts";

const PREFIX = "whsec_";
const MIN_BYTES = 24;
const MAX_BYTES = 64;
const NEW_SECRET_BYTES = 32;
const DEFAULT_TOLERANCE_SECONDS = 300;

/** A new secret, as a person copies it to the receiver. */
export function generateSecret(): string {
  return PREFIX + randomBytes(NEW_SECRET_BYTES).toString("base64");
}

/**
 * The keys of one secret, or of several with spaces between them: while a secret is being changed, the new and the old
 * one both sign. Throws ServiceError `configuration`; the message never quotes the secret.
 */
export function parseSecrets(text: string): Buffer[] {
  const secrets = text.split(/\s+/u).filter((part) => part !== "");
  if (secrets.length === 0) throw invalid("It is empty.");
  return secrets.map(parseSecret);
}

function parseSecret(secret: string): Buffer {
  if (!secret.startsWith(PREFIX)) throw invalid(`It must begin with ${PREFIX}.`);
  const encoded = secret.slice(PREFIX.length);
  if (!/^[A-Za-z0-9+/]+={0,2}$/u.test(encoded)) throw invalid(`After ${PREFIX} it must be base64.`);
  const key = Buffer.from(encoded, "base64");
  // Buffer drops what it cannot read, so a mistyped secret would become another, shorter key.
  if (key.toString("base64").replaceAll("=", "") !== encoded.replaceAll("=", "")) {
    throw invalid(`After ${PREFIX} it must be base64; a character is missing or too many.`);
  }
  if (key.length < MIN_BYTES || key.length > MAX_BYTES) {
    throw invalid(`It must hold ${MIN_BYTES} to ${MAX_BYTES} bytes and holds ${key.length}.`);
  }
  return key;
}

function invalid(reason: string): ServiceError {
  return new ServiceError(
    "configuration",
    `The webhook secret cannot be used. ${reason} Write ${PREFIX} and the output of: openssl rand -base64 32`,
  );
}

export interface Signed {
  /** The event's id; the same at every attempt. */
  readonly id: string;
  /** When this attempt is made, in seconds since 1970. */
  readonly timestampSeconds: number;
  /** Exactly the bytes that are sent. */
  readonly body: Buffer;
}

/** The three headers of a signed call; one signature per key, newest first. */
export function signatureHeaders(keys: readonly Buffer[], signed: Signed): Record<string, string> {
  return {
    "webhook-id": signed.id,
    "webhook-timestamp": String(signed.timestampSeconds),
    "webhook-signature": keys.map((key) => `v1,${hmac(key, signed).toString("base64")}`).join(" "),
  };
}

function hmac(key: Buffer, { id, timestampSeconds, body }: Signed): Buffer {
  return createHmac("sha256", key).update(`${id}.${timestampSeconds}.`).update(body).digest();
}

export interface VerifyInput {
  readonly secret: string;
  /** As received; names in any case. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly body: Buffer;
  readonly nowSeconds: number;
  /** How far the timestamp may be from now. Default: 300. */
  readonly toleranceSeconds?: number;
}

/** What a receiver does. Throws ServiceError `invalid_input` with the reason; returns the webhook's id. */
export function verify(input: VerifyInput): string {
  const headers = new Map(
    Object.entries(input.headers).map(([name, value]) => [name.toLowerCase(), value?.trim()]),
  );
  const id = required(headers, "webhook-id");
  const timestamp = required(headers, "webhook-timestamp");
  const signatures = required(headers, "webhook-signature");
  if (!/^\d{1,12}$/u.test(timestamp)) throw refused("webhook-timestamp is not a number of seconds.");
  const timestampSeconds = Number(timestamp);
  const offBySeconds = Math.round(input.nowSeconds - timestampSeconds);
  const tolerance = input.toleranceSeconds ?? DEFAULT_TOLERANCE_SECONDS;
  if (Math.abs(offBySeconds) > tolerance) {
    const direction = offBySeconds > 0 ? "old" : "in the future";
    throw refused(
      `The timestamp is ${Math.abs(offBySeconds)} s ${direction}; at most ${tolerance} s are accepted. ` +
        "It is a replay, or a clock is wrong.",
    );
  }
  const given = signatures
    .split(" ")
    .filter((signature) => signature.startsWith("v1,"))
    .map((signature) => Buffer.from(signature.slice("v1,".length), "base64"));
  if (given.length === 0) throw refused("webhook-signature has no signature of version v1.");
  const expected = parseSecrets(input.secret).map((key) =>
    hmac(key, { id, timestampSeconds, body: input.body }),
  );
  const matches = given.some((signature) =>
    expected.some((mac) => mac.length === signature.length && timingSafeEqual(mac, signature)),
  );
  if (!matches) {
    throw refused(
      "No signature fits: the secret is another one, or the body is not byte for byte what was sent " +
        "(verify before any parser touches it).",
    );
  }
  return id;
}

function required(headers: ReadonlyMap<string, string | undefined>, name: string): string {
  const value = headers.get(name);
  if (value === undefined || value === "") throw refused(`The header ${name} is missing.`);
  return value;
}

function refused(message: string): ServiceError {
  return new ServiceError("invalid_input", message);
}

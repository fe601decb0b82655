/**
 * A cluster's own CA and a node's certificate, as pvecm makes them. Node can read certificates but not make
 * them, so the few structures of RFC 5280 that are needed are written here in DER.
 */
import {
  createHash,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  X509Certificate,
} from "node:crypto";
import { isIPv4 } from "node:net";

export interface Certificate {
  /** PEM of the node's private key. */
  key: string;
  /** PEM of the node's certificate. */
  chain: string;
  /** PEM of the cluster's CA: /etc/pve/pve-root-ca.pem. */
  ca: string;
  /** SHA-256 of the node's certificate, as `AA:BB:…`. */
  fingerprint: string;
}

export function makeCertificate(node: string, host: string): Certificate {
  const authority = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const own = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const caName = name("PVE Cluster Manager CA", "Simulated Virtual Environment");
  const caId = keyId(authority.publicKey);
  const ca = certificate({
    issuer: caName,
    subject: caName,
    publicKey: authority.publicKey,
    signer: authority.privateKey,
    extensions: [
      extension("2.5.29.19", sequence(boolean(true)), true),
      extension("2.5.29.15", bits(0b0000_0110, 1), true),
      extension("2.5.29.14", octets(caId)),
    ],
  });
  const address = host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host;
  const leaf = certificate({
    issuer: caName,
    subject: name(`${node}.sim`, "PVE Cluster Node"),
    publicKey: own.publicKey,
    signer: authority.privateKey,
    extensions: [
      extension("2.5.29.19", sequence()),
      extension(
        "2.5.29.17",
        sequence(...[...new Set(["127.0.0.1", "localhost", node, address])].map(altName)),
      ),
      extension("2.5.29.14", octets(keyId(own.publicKey))),
      extension("2.5.29.35", sequence(tagged(0x80, caId))),
    ],
  });
  return {
    key: own.privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    chain: pem(leaf),
    ca: pem(ca),
    fingerprint: new X509Certificate(leaf).fingerprint256,
  };
}

/** For nodes that are listed but not listened on. */
export function inventedFingerprint(node: string): string {
  const hex = createHash("sha256").update(node).digest("hex").toUpperCase();
  return (hex.match(/../g) ?? []).join(":");
}

interface Input {
  issuer: Buffer;
  subject: Buffer;
  publicKey: KeyObject;
  signer: KeyObject;
  extensions: Buffer[];
}

function certificate(input: Input): Buffer {
  // ecdsa-with-SHA256
  const algorithm = sequence(oid("1.2.840.10045.4.3.2"));
  const now = Date.now();
  const day = 86_400_000;
  const serial = randomBytes(12);
  // Positive, and without a leading zero byte.
  serial[0] = 0x40 | ((serial[0] ?? 0) & 0x3f);
  const body = sequence(
    tagged(0xa0, tagged(0x02, Buffer.from([2]))),
    tagged(0x02, serial),
    algorithm,
    input.issuer,
    sequence(time(now - day), time(now + 3650 * day)),
    input.subject,
    input.publicKey.export({ type: "spki", format: "der" }),
    tagged(0xa3, sequence(...input.extensions)),
  );
  return sequence(body, algorithm, bitString(sign("sha256", body, input.signer)));
}

function tagged(tag: number, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  if (length < 0x80) return Buffer.concat([Buffer.from([tag, length]), content]);
  const size = length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
}

function sequence(...parts: Buffer[]): Buffer {
  return tagged(0x30, ...parts);
}

function boolean(value: boolean): Buffer {
  return tagged(0x01, Buffer.from([value ? 0xff : 0]));
}

function octets(content: Buffer): Buffer {
  return tagged(0x04, content);
}

function bitString(content: Buffer): Buffer {
  return tagged(0x03, Buffer.from([0]), content);
}

/** A named bit list, with how many bits of its only byte are unused. */
function bits(value: number, unused: number): Buffer {
  return tagged(0x03, Buffer.from([unused, value]));
}

function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  const bytes = [first * 40 + second];
  for (const part of rest) {
    const groups = [part & 0x7f];
    for (let left = part >> 7; left > 0; left >>= 7) groups.unshift((left & 0x7f) | 0x80);
    bytes.push(...groups);
  }
  return tagged(0x06, Buffer.from(bytes));
}

function name(commonName: string, organization: string): Buffer {
  const part = (id: string, value: string): Buffer =>
    tagged(0x31, sequence(oid(id), tagged(0x0c, Buffer.from(value))));
  return sequence(part("2.5.4.10", organization), part("2.5.4.3", commonName));
}

/** UTCTime, good until 2049. */
function time(ms: number): Buffer {
  const digits = new Date(ms).toISOString().replaceAll(/[-:T]/g, "").slice(2, 14);
  return tagged(0x17, Buffer.from(`${digits}Z`));
}

function altName(value: string): Buffer {
  if (isIPv4(value)) return tagged(0x87, Buffer.from(value.split(".").map(Number)));
  return tagged(0x82, Buffer.from(value));
}

function extension(id: string, value: Buffer, critical = false): Buffer {
  return sequence(oid(id), ...(critical ? [boolean(true)] : []), octets(value));
}

function keyId(key: KeyObject): Buffer {
  return createHash("sha1")
    .update(key.export({ type: "spki", format: "der" }))
    .digest();
}

function pem(der: Buffer): string {
  const lines = der.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}

/** Public keys that are right in their form; nobody has the private ones. */

/** Its base64 has plus signs and slashes, which a form must not turn into spaces. */
export function ed25519Key(comment = "ada+laptop@example.com", fill = 0xfb): string {
  return keyOf("ssh-ed25519", [Buffer.alloc(32, fill)], comment);
}

export function rsaKey(comment = "ada+desktop@example.com"): string {
  return keyOf("ssh-rsa", [Buffer.from([1, 0, 1]), Buffer.alloc(257, 0xbe)], comment);
}

function keyOf(type: string, numbers: readonly Buffer[], comment: string): string {
  const blob = Buffer.concat([Buffer.from(type), ...numbers].flatMap((field) => [lengthOf(field), field]));
  return `${type} ${blob.toString("base64")} ${comment}`;
}

function lengthOf(field: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(field.length);
  return length;
}

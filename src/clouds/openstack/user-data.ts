// cloud-init reads this at first boot. A data structure and a serialiser, never joined strings: a password may hold quotes,
// colons or a leading "#". https://cloudinit.readthedocs.io/en/latest/reference/modules.html#set-passwords
import { stringify } from "yaml";
import { ServiceError } from "../../core/errors.ts";

/** Nova's limit on the encoded text (nova/api/openstack/compute/schemas/servers.py). */
const MAX_ENCODED = 65_535;

export interface FirstBoot {
  /** The image's own user; null means root. */
  user: string | null;
  password: string;
}

// A line break of any kind ends a password for chpasswd, and PyYAML folds U+0085 even inside quotes.
const UNTYPEABLE = /[\p{Cc}\u2028\u2029\uFEFF]/u;

/** Base64 of the cloud-config. Throws `cloud_invalid` when it would be too long, or when the password cannot be typed. */
export function userDataOf({ user, password }: FirstBoot): string {
  const name = user ?? "root";
  if (UNTYPEABLE.test(password)) {
    throw new ServiceError(
      "cloud_invalid",
      "The password holds a character that cannot be typed. Use another one.",
    );
  }
  const config = {
    ssh_pwauth: true,
    ...(name === "root" ? { disable_root: false } : {}),
    chpasswd: { expire: false, users: [{ name, password, type: "text" }] },
  };
  // cloud-init reads YAML 1.1, where a bare yes, 12:34 or << is no string: every value is quoted.
  const text = stringify(config, {
    lineWidth: 0,
    defaultStringType: "QUOTE_DOUBLE",
    defaultKeyType: "PLAIN",
  });
  const encoded = Buffer.from(`#cloud-config\n${text}`).toString("base64");
  if (encoded.length > MAX_ENCODED) {
    throw new ServiceError(
      "cloud_invalid",
      "The start-up data is too long for the cloud. Use a shorter password.",
      {
        facts: { encodedBytes: encoded.length, limit: MAX_ENCODED },
      },
    );
  }
  return encoded;
}

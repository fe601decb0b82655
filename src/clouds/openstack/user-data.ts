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

/** Base64 of the cloud-config. Throws `cloud_invalid` when it would be too long. */
export function userDataOf({ user, password }: FirstBoot): string {
  const name = user ?? "root";
  const config = {
    ssh_pwauth: true,
    ...(name === "root" ? { disable_root: false } : {}),
    chpasswd: { expire: false, users: [{ name, password, type: "text" }] },
  };
  const encoded = Buffer.from(`#cloud-config\n${stringify(config, { lineWidth: 0 })}`).toString("base64");
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

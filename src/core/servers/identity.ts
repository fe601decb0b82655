import type { RemoteServer } from "../cloud.ts";

/**
 * Somebody else's, under the id that our server had: PVE's numbers are taken again by whoever is fast. `kept` is what the
 * provider keeps on the server's row. Nothing of it may reach the row, or the row's customer would see it.
 */
export function isAnother(
  kept: Readonly<Record<string, unknown>>,
  { identity }: Pick<RemoteServer, "identity">,
): boolean {
  const own = kept["smbiosUuid"];
  return typeof own === "string" && identity !== undefined && identity !== own;
}

/** Images and networks by what a person typed, from the catalogue in the database. */
import type { Queryable } from "../../database/client.ts";
import { ServiceError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { shortened } from "../option-values.ts";

export interface ImageRow {
  externalId: string;
  name: string;
  minMemoryMib: number;
  minDiskGib: number;
  hasAgent: boolean | null;
  defaultUser: string | null;
}

/** Throws `not_found` with the nearest image, `unsupported` before the first sync. */
export async function findImage(database: Queryable, cloudName: string, typed: string): Promise<ImageRow> {
  const rows = await database.sql<ImageRow>(
    `SELECT i.external_id AS "externalId", i.name, i.min_memory_mib AS "minMemoryMib", i.min_disk_gib AS "minDiskGib",
       i.has_agent AS "hasAgent", i.default_user AS "defaultUser"
     FROM images i JOIN clouds c ON c.id = i.cloud_id
     WHERE c.name = $1 AND i.disabled_at IS NULL AND lower(i.status) = 'active' ORDER BY i.synced_at DESC, i.name`,
    [cloudName],
  );
  const lower = typed.toLowerCase();
  const found = rows.find((row) => row.name.toLowerCase() === lower || row.externalId === typed);
  if (found !== undefined) return found;
  if (rows.length === 0) {
    throw new ServiceError(
      "unsupported",
      "The list of images has not been read from the cloud yet. Try again in a minute, or ask our team.",
      {
        staffDetail: `Cloud ${cloudName} has no active image in the catalogue; see /sync status.`,
      },
    );
  }
  const guess = nearest(
    typed,
    rows.map((row) => row.name),
  );
  const advice =
    guess === undefined
      ? `There are ${rows
          .slice(0, 8)
          .map((row) => row.name)
          .join(", ")}.`
      : `Did you mean ${guess}?`;
  throw new ServiceError("not_found", `No image "${shortened(typed)}". ${advice}`, {
    facts: { option: "image" },
  });
}

/** The one asked for, or the only one that a tenant can use: no guess among several. */
export async function findNetwork(database: Queryable, cloudName: string, typed: string | undefined) {
  const rows = await database.sql<{
    externalId: string;
    name: string;
    isExternal: boolean;
    isShared: boolean;
  }>(
    `SELECT n.external_id AS "externalId", n.name, n.is_external AS "isExternal", n.is_shared AS "isShared"
     FROM networks n JOIN clouds c ON c.id = n.cloud_id WHERE c.name = $1 AND n.disabled_at IS NULL ORDER BY n.name`,
    [cloudName],
  );
  const usable = rows.filter((row) => !row.isExternal);
  if (typed !== undefined) {
    const found = usable.find(
      (row) => row.name.toLowerCase() === typed.toLowerCase() || row.externalId === typed,
    );
    if (found !== undefined) return found;
    const names = usable.map((row) => row.name);
    const guess = nearest(typed, names);
    const external = rows.some((row) => row.isExternal && row.name.toLowerCase() === typed.toLowerCase());
    const why = external
      ? `The network "${shortened(typed)}" is external; servers cannot be put on it directly.`
      : `No network "${shortened(typed)}".`;
    throw new ServiceError(
      "not_found",
      `${why} ${guess === undefined ? `There are ${names.join(", ") || "none"}.` : `Did you mean ${guess}?`}`,
      {
        facts: { option: "network" },
      },
    );
  }
  const own = usable.filter((row) => !row.isShared);
  const only = own.length === 1 ? own[0] : usable.length === 1 ? usable[0] : undefined;
  if (only !== undefined) return only;
  throw new ServiceError(
    "invalid_input",
    "Which network the server goes on is not configured. Ask our team.",
    {
      staffDetail: `Give network:, or set plans[].targets.${cloudName}.network to one of ${usable.map((row) => row.name).join(", ") || "none"}.`,
      facts: { option: "network" },
    },
  );
}

/** Flavors, images and networks: what the cloud lists is offered; what two complete lists lack is not any more. */
import { z } from "zod";
import { newId } from "../../database/id.ts";
import { storable } from "../../database/storable.ts";
import { BATCH, believe, listed, type SyncPass, type SyncResource, writeBatch } from "./pass.ts";

type CatalogueResource = Exclude<SyncResource, "servers">;

const id = z.string().min(1).max(255).refine(isStorable, "cannot be stored");
/** Whoever may share an image names it. */
const word = z.string().max(255).refine(isStorable, "cannot be stored");
const label = word.min(1);
const size = z.int().nonnegative();

function isStorable(text: string): boolean {
  return storable(text) === text;
}

/** In the database's spelling, so that one statement can write any of them. */
const schemas = {
  flavors: z
    .object({
      externalId: id,
      name: label,
      vcpus: size,
      memoryMib: size,
      diskGib: size,
      isPublic: z.boolean(),
    })
    .transform((row) => ({
      external_id: row.externalId,
      name: row.name,
      vcpus: row.vcpus,
      memory_mib: row.memoryMib,
      disk_gib: row.diskGib,
      is_public: row.isPublic,
    })),
  images: z
    .object({
      externalId: id,
      name: label,
      status: word,
      minMemoryMib: size,
      minDiskGib: size,
      hasAgent: z.boolean().nullable(),
      defaultUser: word.nullable(),
    })
    .transform((row) => ({
      external_id: row.externalId,
      name: row.name,
      status: row.status,
      min_memory_mib: row.minMemoryMib,
      min_disk_gib: row.minDiskGib,
      has_agent: row.hasAgent,
      default_user: row.defaultUser,
    })),
  networks: z
    .object({
      externalId: id,
      name: word,
      status: word,
      isExternal: z.boolean(),
      isShared: z.boolean(),
    })
    // Neutron allows a network without a name.
    .transform((row) => ({
      external_id: row.externalId,
      name: row.name === "" ? row.externalId : row.name,
      status: row.status,
      is_external: row.isExternal,
      is_shared: row.isShared,
    })),
} as const;

/** Columns with their types; code, never input. */
const columns: Readonly<Record<CatalogueResource, Readonly<Record<string, string>>>> = {
  flavors: { name: "text", vcpus: "int", memory_mib: "int", disk_gib: "int", is_public: "boolean" },
  images: {
    name: "text",
    status: "text",
    min_memory_mib: "int",
    min_disk_gib: "int",
    has_agent: "boolean",
    default_user: "text",
  },
  networks: { name: "text", status: "text", is_external: "boolean", is_shared: "boolean" },
};

/** Passes that a row must be missing from before it is not offered any more. */
const PASSES = 2;

type Row = { external_id: string } & Record<string, unknown>;

export async function syncCatalogue(pass: SyncPass, resource: CatalogueResource): Promise<void> {
  const items: unknown[] = await listed(pass, () => listOf(pass, resource));
  const { rows, ids } = readItems(pass, resource, items);
  for (let from = 0; from < rows.length; from += BATCH) {
    await upsert(pass, resource, rows.slice(from, from + BATCH));
  }
  await noteMissing(pass, resource, ids);
}

function listOf({ cloud }: SyncPass, resource: CatalogueResource): Promise<object[]> {
  if (resource === "flavors") return cloud.listFlavors();
  return resource === "images" ? cloud.listImages() : cloud.listNetworks();
}

/** `ids` has those of unusable rows, too: unusable is not missing. */
function readItems(pass: SyncPass, resource: CatalogueResource, items: readonly unknown[]) {
  const rows: Row[] = [];
  const ids = new Set<string>();
  for (const item of items) {
    pass.counts.seen += 1;
    const parsed = schemas[resource].safeParse(item);
    const known = z.object({ externalId: id }).safeParse(item);
    const itemId = known.success ? known.data.externalId : "without id";
    if (!parsed.success) {
      const fields = parsed.error.issues.map((issue) => issue.path.join(".")).join(", ");
      pass.counts.errors.push(`One of the ${resource} (${itemId}) cannot be used: ${fields}.`);
    } else if (ids.has(itemId)) {
      pass.counts.errors.push(`One of the ${resource} (${itemId}) was listed twice.`);
    } else {
      rows.push(parsed.data);
    }
    if (known.success) ids.add(itemId);
  }
  return { rows, ids };
}

async function upsert(pass: SyncPass, resource: CatalogueResource, rows: readonly Row[]): Promise<void> {
  const names = Object.keys(columns[resource]);
  const typed = Object.entries(columns[resource]).map(([name, type]) => `${name} ${type}`);
  const differs = `(${names.map((name) => `o.${name}`).join(", ")}) IS DISTINCT FROM (${names.map((name) => `i.${name}`).join(", ")})`;
  await writeBatch(pass, async (tx) => {
    const [counted] = await tx.sql<{ created: number; updated: number }>(
      `WITH incoming AS (
         SELECT * FROM jsonb_to_recordset($2::jsonb) AS r(id uuid, external_id text, ${typed.join(", ")})
       ), old AS (
         SELECT external_id, disabled_at, ${names.join(", ")} FROM ${resource} WHERE cloud_id = $1
            AND external_id IN (SELECT external_id FROM incoming)
       ), written AS (
         INSERT INTO ${resource} (id, cloud_id, external_id, synced_at, ${names.join(", ")})
         SELECT id, $1, external_id, clock(), ${names.join(", ")} FROM incoming ORDER BY external_id
         ON CONFLICT (cloud_id, external_id) DO UPDATE SET synced_at = excluded.synced_at, missed_passes = 0,
           disabled_at = NULL, ${names.map((name) => `${name} = excluded.${name}`).join(", ")}
         RETURNING external_id
       )
       SELECT count(*) FILTER (WHERE o.external_id IS NULL)::int AS created,
              count(*) FILTER (WHERE o.external_id IS NOT NULL AND (o.disabled_at IS NOT NULL OR ${differs}))::int AS updated
         FROM written w JOIN incoming i USING (external_id) LEFT JOIN old o USING (external_id)`,
      [pass.cloudId, JSON.stringify(rows.map((row) => Object.assign({ id: newId() }, row)))],
    );
    pass.counts.created += counted?.created ?? 0;
    pass.counts.updated += counted?.updated ?? 0;
  });
}

async function noteMissing(
  pass: SyncPass,
  resource: CatalogueResource,
  ids: ReadonlySet<string>,
): Promise<void> {
  const [known] = await pass.database.sql<{ known: number; missing: number }>(
    `SELECT count(*)::int AS known, count(*) FILTER (WHERE NOT external_id = ANY($2::text[]))::int AS missing
       FROM ${resource} WHERE cloud_id = $1 AND disabled_at IS NULL`,
    [pass.cloudId, [...ids]],
  );
  const missing = known?.missing ?? 0;
  believe(pass, { listed: pass.counts.seen, known: known?.known ?? 0, missing });
  if (missing === 0) return;
  await writeBatch(pass, async (tx) => {
    const noted = await tx.sql(
      `UPDATE ${resource} SET missed_passes = missed_passes + 1,
         disabled_at = CASE WHEN missed_passes + 1 >= $3 THEN clock() END
        WHERE cloud_id = $1 AND disabled_at IS NULL AND NOT external_id = ANY($2::text[]) RETURNING id`,
      [pass.cloudId, [...ids], PASSES],
    );
    pass.counts.missing += noted.length;
  });
}

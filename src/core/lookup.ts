/**
 * Choices for autocomplete and selects: from the database only, because a keystroke must not wait for a cloud, and never
 * a row that the asker may not see. What begins with the text comes first, then what contains it.
 */
import type { Queryable } from "../database/client.ts";
import { ownOperations, ownRows, type Principal, tenantOf } from "./access.ts";
import type { LookupKind } from "./action.ts";
import { liveStates } from "./operations/state.ts";
import { minuteOf } from "./time.ts";

export interface LookupQuery {
  kind: LookupKind;
  /** As typed so far; empty for all. */
  text: string;
  limit: number;
  /** What the other options hold: `cloud` and `plan` narrow images and networks, `server` narrows snapshots. */
  options?: Record<string, string>;
}

export interface Choice {
  /** What the option takes: a public id, code, name or reference. */
  value: string;
  label: string;
}

interface Search {
  /** Begins with; contains; both with LIKE's signs taken literally. */
  prefix: string;
  part: string;
  limit: number;
  options: Record<string, string>;
  principal: Principal;
}

const MAX_CHOICES = 100;

export async function lookup(
  database: Queryable,
  query: LookupQuery,
  principal: Principal,
): Promise<Choice[]> {
  const literal = query.text
    .trim()
    .toLowerCase()
    // PostgreSQL takes no NUL, and no name has one.
    .replaceAll(/\p{Cc}/gu, "")
    .replaceAll(/[\\%_]/g, "\\$&");
  const search: Search = {
    prefix: `${literal}%`,
    part: `%${literal}%`,
    limit: Math.max(0, Math.min(query.limit, MAX_CHOICES)),
    // Clouds are not the customer's to name.
    options: principal.kind === "customer" ? { ...query.options, cloud: "" } : (query.options ?? {}),
    principal,
  };
  return await finders[query.kind](database, search);
}

/** SQL: the row matches in one of these columns. $1 is the prefix, $2 the part; columns are code, never input. */
function matches(...columns: string[]): string {
  return `(${columns.map((column) => `lower(${column}) LIKE $2`).join(" OR ")})`;
}
function prefixFirst(...columns: string[]): string {
  return `(${columns.map((column) => `COALESCE(lower(${column}) LIKE $1, false)`).join(" OR ")}) DESC`;
}

const finders: Record<LookupKind, (database: Queryable, search: Search) => Promise<Choice[]>> = {
  async server(database, { prefix, part, limit, principal }) {
    const owner = principal.kind === "customer" ? [] : ["k.name", "k.ref"];
    const rows = await database.sql<{
      publicId: string;
      name: string;
      state: string;
      customer: string | null;
    }>(
      `SELECT s.public_id AS "publicId", s.name, s.state, k.name AS customer
         FROM servers s LEFT JOIN customers k ON k.id = s.customer_id
        WHERE ${ownRows("s.customer_id", 4)} AND s.deleted_at IS NULL AND ${matches("s.name", "s.public_id", ...owner)}
        ORDER BY ${prefixFirst("s.name", "s.public_id")}, lower(s.name), s.public_id LIMIT $3`,
      [prefix, part, limit, tenantOf(principal)],
    );
    return rows.map((row) => ({
      value: row.publicId,
      label: [
        `${row.name} (${row.publicId})`,
        ...(principal.kind === "customer" ? [] : [row.customer ?? "nobody's"]),
        row.state.replaceAll("_", " "),
      ].join(", "),
    }));
  },

  async operation(database, { prefix, part, limit, principal }) {
    const rows = await database.sql<{ publicId: string; action: string; state: string; name: string | null }>(
      `SELECT o.public_id AS "publicId", o.action, o.state, s.name
         FROM operations o LEFT JOIN servers s ON s.id = o.server_id
        WHERE ${ownOperations(4)} AND ${matches("o.public_id", "o.action", "s.name")}
        ORDER BY ${prefixFirst("o.public_id", "o.action", "s.name")}, (o.state = ANY($5::text[])) DESC, o.created_at DESC
        LIMIT $3`,
      [prefix, part, limit, tenantOf(principal), [...liveStates]],
    );
    return rows.map((row) => ({
      value: row.publicId,
      label: [
        `${row.action.replaceAll(".", " ")}${row.name === null ? "" : ` ${row.name}`} (${row.publicId})`,
        row.state.replaceAll("_", " "),
      ].join(", "),
    }));
  },

  async snapshot(database, { prefix, part, limit, options, principal }) {
    const rows = await database.sql<{ name: string; server: string; takenAt: Date | null }>(
      `SELECT n.name, s.name AS server, n.taken_at AS "takenAt"
         FROM snapshots n JOIN servers s ON s.id = n.server_id
        WHERE ${ownRows("s.customer_id", 4)} AND s.deleted_at IS NULL AND ${matches("n.name")}
          AND ($5::text IS NULL OR s.public_id = $5 OR lower(s.name) = lower($5))
        ORDER BY ${prefixFirst("n.name")}, n.taken_at DESC NULLS LAST, lower(n.name), s.public_id LIMIT $3 * 4`,
      [prefix, part, limit, tenantOf(principal), given(options["server"])],
    );
    const choices = new Map<string, Choice>();
    for (const { name, server, takenAt } of rows) {
      const taken = takenAt === null ? [] : [minuteOf(takenAt)];
      // Several servers may each have one of that name; a list may name a value only once.
      const label = choices.has(name)
        ? `${name}, of several servers`
        : [`${name} of ${server}`, ...taken].join(", ");
      choices.set(name, { value: name, label });
    }
    return [...choices.values()].slice(0, limit);
  },

  async plan(database, { prefix, part, limit, options }) {
    const rows = await database.sql<{
      code: string;
      name: string;
      vcpus: number;
      memoryMib: number;
      diskGib: number;
    }>(
      `SELECT code, name, vcpus, memory_mib AS "memoryMib", disk_gib AS "diskGib" FROM plans
        WHERE retired_at IS NULL AND ($4::text IS NULL OR jsonb_exists(targets, $4)) AND ${matches("code", "name")}
        ORDER BY ${prefixFirst("code", "name")}, vcpus, memory_mib, disk_gib, code LIMIT $3`,
      [prefix, part, limit, given(options["cloud"])],
    );
    return rows.map(({ code, name, vcpus, memoryMib, diskGib }) => {
      const memory = memoryMib % 1024 === 0 ? `${memoryMib / 1024} GiB` : `${memoryMib} MiB`;
      return { value: code, label: `${name} (${code}), ${vcpus} vCPU, ${memory}, ${diskGib} GiB disk` };
    });
  },

  async image(database, { prefix, part, limit, options, principal }) {
    // Ids in the cloud are staff's.
    const columns = principal.kind === "customer" ? ["i.name"] : ["i.name", "i.external_id"];
    const rows = await database.sql<Named>(
      `SELECT i.name, i.external_id AS "externalId", i.cloud_id AS "cloudId"
         FROM images i JOIN clouds c ON c.id = i.cloud_id
        WHERE i.disabled_at IS NULL AND lower(i.status) = 'active' AND ${offeredOn(4)} AND ${fits("i", 5)}
          AND ${matches(...columns)}
        ORDER BY ${prefixFirst(...columns)}, lower(i.name), i.external_id LIMIT $3 * 4`,
      [prefix, part, limit, given(options["cloud"]), given(options["plan"])],
    );
    return principal.kind === "customer" ? byName(rows, limit) : uniquely(rows, limit);
  },

  async network(database, { prefix, part, limit, options, principal }) {
    // Networks are ours, not the customer's: a plan says which one their servers are on.
    if (principal.kind === "customer") return [];
    const rows = await database.sql<Named>(
      `SELECT n.name, n.external_id AS "externalId", n.cloud_id AS "cloudId"
         FROM networks n JOIN clouds c ON c.id = n.cloud_id
        WHERE n.disabled_at IS NULL AND NOT n.is_external AND ${offeredOn(4)} AND ${planIsOn(5)}
          AND ${matches("n.name", "n.external_id")}
        ORDER BY ${prefixFirst("n.name", "n.external_id")}, lower(n.name), n.external_id LIMIT $3 * 4`,
      [prefix, part, limit, given(options["cloud"]), given(options["plan"])],
    );
    return uniquely(rows, limit);
  },

  async customer(database, { prefix, part, limit, principal }) {
    const rows = await database.sql<{ ref: string; name: string }>(
      `SELECT ref, name FROM customers
        WHERE closed_at IS NULL AND ${ownRows("id", 4)} AND ${matches("ref", "name", "email")}
        ORDER BY ${prefixFirst("ref", "name")}, lower(name), ref LIMIT $3`,
      [prefix, part, limit, tenantOf(principal)],
    );
    return rows.map((row) => ({ value: row.ref, label: `${row.name} (${row.ref})` }));
  },

  async cloud(database, { prefix, part, limit, principal }) {
    if (principal.kind === "customer") return [];
    const rows = await database.sql<{ name: string; provider: string }>(
      `SELECT name, provider FROM clouds WHERE retired_at IS NULL AND ${matches("name")}
        ORDER BY ${prefixFirst("name")}, lower(name) LIMIT $3`,
      [prefix, part, limit],
    );
    return rows.map((row) => ({ value: row.name, label: `${row.name} (${row.provider})` }));
  },
};

interface Named {
  name: string;
  externalId: string;
  cloudId: string;
}

function given(text: string | undefined): string | null {
  const clean = text?.replaceAll(/\p{Cc}/gu, "").trim() ?? "";
  return clean === "" ? null : clean;
}

/** SQL: the cloud `c` is in use, and is the one of this parameter if it holds one. */
function offeredOn(cloud: number): string {
  return `c.retired_at IS NULL AND ($${cloud}::text IS NULL OR lower(c.name) = lower($${cloud}))`;
}

function planWhere(plan: number, condition: string): string {
  return `($${plan}::text IS NULL OR EXISTS (SELECT FROM plans p WHERE p.retired_at IS NULL AND lower($${plan}) IN (lower(p.code), lower(p.name))
    AND ${condition}))`;
}
/** SQL: the plan of this parameter, if it holds one, is sold on the cloud `c`. */
function planIsOn(plan: number): string {
  return planWhere(plan, "jsonb_exists(p.targets, c.name)");
}
/** SQL: and is large enough for the image. */
function fits(image: string, plan: number): string {
  return planWhere(
    plan,
    `jsonb_exists(p.targets, c.name) AND ${image}.min_memory_mib <= p.memory_mib AND ${image}.min_disk_gib <= p.disk_gib`,
  );
}

function byName(rows: readonly Named[], limit: number): Choice[] {
  const names = new Set(rows.map((row) => row.name));
  return [...names].slice(0, limit).map((name) => ({ value: name, label: name }));
}

/** By name, once for all clouds; two of a name in one cloud can only be told apart by id. */
function uniquely(rows: readonly Named[], limit: number): Choice[] {
  const inCloud = new Map<string, number>();
  for (const row of rows) inCloud.set(key(row), (inCloud.get(key(row)) ?? 0) + 1);
  const choices = new Map<string, Choice>();
  for (const row of rows) {
    const isOne = inCloud.get(key(row)) === 1;
    const value = isOne ? row.name : row.externalId;
    if (!choices.has(value))
      choices.set(value, { value, label: isOne ? row.name : `${row.name} (${row.externalId})` });
  }
  return [...choices.values()].slice(0, limit);
}

function key(row: Named): string {
  return `${row.cloudId} ${row.name}`;
}

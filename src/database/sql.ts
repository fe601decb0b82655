import pg from "pg";

/** What both the root database and a transaction offer: raw SQL with `$1` parameters. */
export interface Queryable {
  /**
   * Rows have the same JavaScript types everywhere: Date for timestamptz, number for int4 and float8, bigint for int8,
   * string for uuid, numeric, date and enums, parsed json, Buffer for bytea, string[] for text[].
   * Parameters may be any of these and plain objects (json); a json *array* must be passed as JSON.stringify(array),
   * because a bare array is a PostgreSQL array.
   */
  sql<Row>(text: string, values?: readonly unknown[]): Promise<Row[]>;
}

interface RawClient {
  query(config: pg.QueryConfig): Promise<{ rows: unknown[] }>;
}

const INT8 = 20;
const INT8_ARRAY = 1016;
const DATE = 1082;
const TIMESTAMP = 1114;

const PARSERS: Readonly<Record<number, (text: string) => unknown>> = {
  [INT8]: BigInt,
  [INT8_ARRAY]: parseInt8Array,
  // pg would make a Date at local midnight of it, which is another day elsewhere.
  [DATE]: (text) => text,
  // Sessions run in UTC; pg would read this as local time.
  [TIMESTAMP]: (text) => new Date(`${text.replace(" ", "T")}Z`),
};

const types: pg.CustomTypesConfig = {
  getTypeParser(oid, format) {
    return PARSERS[oid] ?? pg.types.getTypeParser(oid, format);
  },
};

const names = new Map<string, string>();

export async function runSql<Row>(
  client: RawClient,
  text: string,
  values: readonly unknown[] = [],
): Promise<Row[]> {
  // Without parameters a text may be several statements, which cannot be prepared.
  const prepared = values.length === 0 ? {} : { name: nameOf(text) };
  const { rows } = await client.query({ ...prepared, text, values: [...values], types });
  // The caller names the row it selects; the database cannot be asked for a type at compile time.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return rows as Row[];
}

/**
 * A statement with a name is parsed once for each connection, and planned again only where its parameters decide how: what
 * we ask is asked again and again, and half of its time would go into reading it. Texts are code, never input, so there are
 * as many names as there are statements in it.
 * https://www.postgresql.org/docs/current/sql-prepare.html#SQL-PREPARE-NOTES
 */
function nameOf(text: string): string {
  const known = names.get(text);
  if (known !== undefined) return known;
  const name = `ratatosk_${names.size + 1}`;
  names.set(text, name);
  return name;
}

function parseInt8Array(text: string): (bigint | null)[] {
  const items = text.slice(1, -1);
  return items === "" ? [] : items.split(",").map((item) => (item === "NULL" ? null : BigInt(item)));
}

/** A small JSON Schema check: as much as Discord's OpenAPI file uses for application commands. */
type Schema = Record<string, unknown>;

function isSchema(value: unknown): value is Schema {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** What is wrong, as "path: rule"; empty when the value is valid. Throws for a keyword that it does not know. */
export function problemsOf(document: unknown, schemaName: string, value: unknown): string[] {
  return check(document, { $ref: `#/components/schemas/${schemaName}` }, { value, path: schemaName });
}

const known = new Set([
  ..."type properties required additionalProperties items minItems maxItems minLength maxLength minimum".split(
    " ",
  ),
  ..."maximum enum oneOf allOf $ref format description title nullable uniqueItems maxProperties pattern".split(
    " ",
  ),
]);

function check(document: unknown, given: Schema, at: { value: unknown; path: string }): string[] {
  const unknown = Object.keys(given).filter((keyword) => !known.has(keyword));
  if (unknown.length > 0) throw new Error(`${at.path}: unknown schema keywords ${unknown.join(", ")}`);
  const { value, path } = at;
  const reference = given["$ref"];
  const schema = typeof reference === "string" ? resolved(document, reference) : given;
  if (schema !== given) return check(document, withoutNames(schema), at);

  const found: string[] = [];
  if (
    schema["type"] !== undefined &&
    ![schema["type"]].flat().includes(typeOf(value, [schema["type"]].flat()))
  ) {
    return [`${path}: not ${JSON.stringify(schema["type"])}`];
  }
  if (Array.isArray(schema["enum"]) && !schema["enum"].includes(value)) found.push(`${path}: not in enum`);
  for (const part of list(schema["allOf"])) found.push(...check(document, part, at));
  const alternatives = list(schema["oneOf"]).filter((part) => part["const"] === undefined);
  if (alternatives.length > 0) {
    const fitting = alternatives.filter((part) => check(document, part, at).length === 0);
    if (fitting.length !== 1) found.push(`${path}: fits ${fitting.length} of the alternatives`);
  }
  if (typeof value === "string")
    found.push(...bounds(schema, { size: value.length, path, words: ["minLength", "maxLength"] }));
  if (typeof value === "number")
    found.push(...bounds(schema, { size: value, path, words: ["minimum", "maximum"] }));
  if (Array.isArray(value)) {
    found.push(...bounds(schema, { size: value.length, path, words: ["minItems", "maxItems"] }));
    const { items } = schema;
    if (isSchema(items)) {
      for (const [index, item] of value.entries()) {
        found.push(...check(document, items, { value: item, path: `${path}[${index}]` }));
      }
    }
  }
  if (isSchema(value) && isSchema(schema["properties"]))
    found.push(...properties(document, schema, { value, path }));
  return found;
}

function properties(document: unknown, schema: Schema, at: { value: Schema; path: string }): string[] {
  const found: string[] = [];
  const declared = isSchema(schema["properties"]) ? schema["properties"] : {};
  for (const name of Array.isArray(schema["required"]) ? schema["required"] : []) {
    if (at.value[String(name)] === undefined) found.push(`${at.path}: lacks ${String(name)}`);
  }
  for (const [name, value] of Object.entries(at.value)) {
    const part = declared[name];
    // Discord ignores unknown members silently: for us they are mistakes.
    if (!isSchema(part)) found.push(`${at.path}.${name}: not declared`);
    else found.push(...check(document, part, { value, path: `${at.path}.${name}` }));
  }
  return found;
}

function bounds(schema: Schema, at: { size: number; path: string; words: [string, string] }): string[] {
  const [least, most] = at.words.map((word) => schema[word]);
  if (typeof least === "number" && at.size < least) return [`${at.path}: ${at.words[0]} ${least}`];
  if (typeof most === "number" && at.size > most) return [`${at.path}: ${at.words[1]} ${most}`];
  return [];
}

function typeOf(value: unknown, wanted: readonly unknown[]): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  if (Number.isInteger(value) && wanted.includes("integer")) return "integer";
  return typeof value;
}

function list(value: unknown): Schema[] {
  return Array.isArray(value) ? value.filter(isSchema) : [];
}

/** Enumerations list their members as `oneOf` of consts beside a plain type; `enum` at the place of use is what binds. */
function withoutNames(schema: Schema): Schema {
  if (!list(schema["oneOf"]).some((part) => part["const"] !== undefined)) return schema;
  return { type: schema["type"] };
}

function resolved(document: unknown, reference: string): Schema {
  let at: unknown = document;
  for (const part of reference.split("/").slice(1)) at = isSchema(at) ? at[part] : undefined;
  if (!isSchema(at)) throw new Error(`${reference} is not in the document`);
  return at;
}

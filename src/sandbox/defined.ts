type Defined<T> = { [K in keyof T]: Exclude<T[K], undefined> };

/** Parsed input without the keys that were not given, as exactOptionalPropertyTypes wants it. */
export function withoutUndefined<T extends object>(value: T): Defined<T> {
  const entries = Object.entries(value).filter(([, item]) => item !== undefined);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- only the undefined ones are gone
  return Object.fromEntries(entries) as Defined<T>;
}

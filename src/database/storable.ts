/**
 * A text that PostgreSQL takes, also within jsonb: without NUL, and without halves of surrogate pairs. For others' words, which
 * may hold anything and must not cost the row that they stand in.
 */
export function storable(text: string): string {
  return text.replaceAll("\0", "\uFFFD").toWellFormed();
}

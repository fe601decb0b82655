import { expect, test } from "vitest";
import { newId, newPublicId } from "../../src/database/id.ts";

test("ids are UUIDv7 and sort in the order they were made", () => {
  const ids = Array.from({ length: 1000 }, () => newId());

  expect(ids[0]).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(ids).toEqual(ids.toSorted());
  expect(new Set(ids).size).toBe(1000);
});

test("public ids are short, lower-case, and without characters that look alike", () => {
  const ids = Array.from({ length: 1000 }, () => newPublicId("srv"));

  for (const id of ids) {
    expect(id).toMatch(/^srv-[2-9a-hjkmnp-z]{8}$/);
  }
  expect(new Set(ids).size).toBe(1000);
});

import { cpSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readSettings } from "../../../src/config/settings.ts";
import { createPeople } from "../../../src/core/people/identify.ts";
import { syncPeople } from "../../../src/core/people/sync.ts";
import type { Database } from "../../../src/database/client.ts";
import { testDatabase } from "../../support/database.ts";

let database: Database;
beforeAll(async () => {
  database = await testDatabase();
});
afterAll(() => database.close());

test("the example's settings fill the tables and name the people", async () => {
  const cwd = mkdtempSync(join(tmpdir(), "ratatosk-people-"));
  cpSync("ratatosk.example.yaml", join(cwd, "ratatosk.yaml"));
  const env = {
    MAIN_CLOUD_SECRET: "s",
    PVE_TOKEN_SECRET: "t",
    BILLING_WEBHOOK_SECRET: `whsec_${Buffer.alloc(32).toString("base64")}`,
  };
  const settings = readSettings({ env, cwd });

  await database.transaction((tx) => syncPeople(tx, settings));
  const people = createPeople({ database, staff: settings.staff });

  expect(await database.sql("SELECT name, provider FROM clouds ORDER BY name")).toEqual([
    { name: "main", provider: "openstack" },
    { name: "pve-1", provider: "pve" },
  ]);
  expect(await database.sql("SELECT count(*)::int AS places FROM slots")).toEqual([{ places: 20 }]);
  expect(await database.sql("SELECT ref FROM customers ORDER BY ref")).toEqual([
    { ref: "ada" },
    { ref: "bob" },
  ]);
  await expect(people.identify("discord", "123456789012345678")).resolves.toMatchObject({
    id: "sam",
    role: "operator",
  });
  expect(JSON.stringify(await database.sql("SELECT * FROM clouds"))).not.toContain("application");
});

// Migrates an embedded database once; every test file starts from a copy of it (0.3 s instead of 2 s).
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { openEmbedded } from "../../src/database/embedded.ts";
import { migrate } from "../../src/database/migrate.ts";

declare module "vitest" {
  export interface ProvidedContext {
    databaseDump: string;
  }
}

export async function setup(project: TestProject): Promise<() => void> {
  const directory = mkdtempSync(join(tmpdir(), "ratatosk-test-"));
  const path = join(directory, "database.tar");
  const embedded = await openEmbedded();
  await migrate(embedded.createPool("public"));
  const dump = await embedded.dump();
  writeFileSync(path, await dump.bytes());
  await embedded.close();
  project.provide("databaseDump", path);
  return () => rmSync(directory, { recursive: true, force: true });
}

/** What the tests of a file stand on: one database, and whatever each of them opens on it, closed after it. */
import { afterAll, afterEach, beforeAll } from "vitest";
import type { Database } from "../../src/database/client.ts";
import { testDatabase } from "./database.ts";

export interface Stage {
  /** From beforeAll on. */
  readonly database: Database;
  keep<Opened extends { close(): Promise<void> }>(opened: Opened): Opened;
  /** Closes what is open, for a test that opens one after the other. */
  clear(): Promise<void>;
}

/** Call it once, at the top of the file. */
export function useStage(): Stage {
  let database: Database | undefined;
  const kept: { close(): Promise<void> }[] = [];
  beforeAll(async () => {
    database = await testDatabase();
  });
  const clear = async () => {
    for (const opened of kept.splice(0).toReversed()) await opened.close();
  };
  afterEach(clear);
  afterAll(() => database?.close());
  return {
    get database() {
      if (database === undefined) throw new Error("The database is open from beforeAll on.");
      return database;
    },
    keep(opened) {
      kept.push(opened);
      return opened;
    },
    clear,
  };
}

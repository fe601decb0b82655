import { spawn, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type pg from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { lockDataDirectory } from "../../src/database/data-directory-lock.ts";
import { type Embedded, openEmbedded } from "../../src/database/embedded.ts";

const LOCK_MODULE = new URL("../../src/database/data-directory-lock.ts", import.meta.url).href;

describe("pools over one session", () => {
  let embedded: Embedded;
  let pool: pg.Pool;
  beforeAll(async () => {
    embedded = await openEmbedded({ turnTimeoutMs: 300 });
    pool = embedded.createPool("public");
    await pool.query("CREATE TABLE probe (id int)");
  });
  afterAll(() => embedded.close());
  beforeEach(async () => {
    await pool.query("TRUNCATE probe");
  });

  async function ids(): Promise<unknown[]> {
    const { rows } = await pool.query<{ id: number }>("SELECT id FROM probe ORDER BY id");
    return rows.map(({ id }) => id);
  }

  test("a query beside a transaction waits for its end", async () => {
    const client = await pool.connect();
    await client.query("BEGIN");
    await client.query("INSERT INTO probe VALUES (1)");
    const beside = ids();
    await client.query("COMMIT");
    client.release();

    expect(await beside).toEqual([1]);
  });

  test("a connection given back in the middle of a transaction rolls it back", async () => {
    const client = await pool.connect();
    await client.query("BEGIN");
    await client.query("INSERT INTO probe VALUES (1)");
    client.release();

    expect(await ids()).toEqual([]);
    await expect(client.query("SELECT 1")).rejects.toThrow(/released/);
  });

  test("a transaction opened on the pool itself does not stay open for the others", async () => {
    await pool.query("BEGIN; INSERT INTO probe VALUES (1)");

    expect(await ids()).toEqual([]);
  });

  test("a statement that waits too long for its turn is refused and never runs", async () => {
    const client = await pool.connect();
    await client.query("BEGIN");
    await expect(pool.query("INSERT INTO probe VALUES (9)")).rejects.toThrow(/was not run/);
    await client.query("COMMIT");
    client.release();
    await sleep(10);

    expect(await ids()).toEqual([]);
  });

  test("each pool has its own search_path, also right after the other's failed transaction", async () => {
    await pool.query(
      "CREATE SCHEMA bullmq; CREATE TABLE bullmq.event (theirs int); CREATE TABLE event (ours int)",
    );
    const queue = embedded.createPool("bullmq,public");
    const client = await queue.connect();
    await client.query("BEGIN");
    await expect(client.query("SELECT ours FROM event")).rejects.toMatchObject({ code: "42703" });
    await client.query("ROLLBACK");
    client.release();

    expect((await pool.query("SELECT ours FROM event")).rows).toEqual([]);
    expect((await queue.query("SELECT theirs FROM event")).rows).toEqual([]);
  });

  test("a client hears the channels it listens to, until it is released", async () => {
    const heard: unknown[] = [];
    const client = await pool.connect();
    client.on("notification", ({ channel, payload }) => heard.push([channel, payload]));
    await client.query('-- a comment\nLISTEN "Mixed"');
    await client.query("LISTEN Plain");
    await pool.query(`SELECT pg_notify('Mixed', '1'), pg_notify('plain', '2'), pg_notify('other', '3')`);
    await client.query("UNLISTEN plain");
    await pool.query(`SELECT pg_notify('Mixed', '4'), pg_notify('plain', '5')`);
    client.release();
    await pool.query(`SELECT pg_notify('Mixed', '6')`);

    expect(heard).toEqual([
      ["Mixed", "1"],
      ["plain", "2"],
      ["Mixed", "4"],
    ]);
  });

  test("answers like pg: several statements, counts, rows as arrays, VACUUM", async () => {
    expect(await pool.query("SELECT 1 AS a; SELECT 2 AS b")).toMatchObject([
      { rows: [{ a: 1 }] },
      { rows: [{ b: 2 }] },
    ]);
    expect(await pool.query("INSERT INTO probe VALUES (1), (2)")).toMatchObject({
      command: "INSERT",
      rowCount: 2,
    });
    expect(
      await pool.query({ text: "SELECT $1::text, NULL", values: ["x"], rowMode: "array" }),
    ).toMatchObject({
      rows: [["x", null]],
    });
    expect(await pool.query("VACUUM (ANALYZE)")).toMatchObject({ command: "VACUUM" });
  });

  test("refuses everything once closed, also what was waiting", async () => {
    const other = await openEmbedded();
    const otherPool = other.createPool("public");
    const client = await otherPool.connect();
    await client.query("BEGIN");
    const waiting = otherPool.query("SELECT 1").catch((error: unknown) => error);
    await other.close();

    expect(String(await waiting)).toMatch(/closed/);
    await expect(otherPool.query("SELECT 1")).rejects.toThrow(/closed/);
  });
});

describe("the data directory", () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "ratatosk-embedded-"));
  });
  afterEach(() => {
    rmSync(directory, { recursive: true, force: true });
  });

  test("keeps the data, and starts from a dump", async () => {
    const first = await openEmbedded({ dataDirectory: directory });
    await first.createPool("public").query("CREATE TABLE kept AS SELECT 42 AS n");
    const dump = await first.dump();
    await first.close();
    const second = await openEmbedded({ dataDirectory: directory });
    const copy = await openEmbedded({ loadDataDir: dump });

    expect((await second.createPool("public").query("SELECT n FROM kept")).rows).toEqual([{ n: 42 }]);
    expect((await copy.createPool("public").query("SELECT n FROM kept")).rows).toEqual([{ n: 42 }]);
    await second.close();
    await copy.close();
  });

  test("is refused to whoever comes second, here and in another process, until it is closed", () => {
    const unlock = lockDataDirectory(directory);

    expect(() => lockDataDirectory(directory)).toThrow(`in use by process ${process.pid}`);
    expect(lockElsewhere(directory)).toMatch(`in use by process ${process.pid}`);
    unlock();
    expect(lockElsewhere(directory)).toBe("locked");
  });

  test("is taken over from a process that was killed", () => {
    expect(lockElsewhere(directory)).toBe("locked"); // ended without unlocking
    const unlock = lockDataDirectory(directory);

    expect(readFileSync(join(directory, "embedded.lock"), "utf8")).toMatch(`${process.pid} `);
    unlock();
  });

  test.skipIf(process.platform !== "linux")(
    "is taken over from a process that was killed and that nobody has waited for",
    async () => {
      // The shell never waits for its child, which therefore stays in the list as a zombie.
      const holder = `${process.execPath} --input-type=module -e '
      const { lockDataDirectory } = await import("${LOCK_MODULE}");
      lockDataDirectory("${directory}");
      process.kill(process.pid, "SIGKILL");'`;
      const shell = spawn("sh", ["-c", `${holder} & exec sleep 30`], { stdio: "ignore" });
      const lock = join(directory, "embedded.lock");
      await expect.poll(() => existsSync(lock), { timeout: 10_000 }).toBe(true);
      const [pid] = readFileSync(lock, "utf8").split(" ");
      await expect
        .poll(() => readFileSync(`/proc/${pid}/stat`, "utf8"), { timeout: 10_000 })
        .toMatch(/\) Z /);

      expect(() => lockDataDirectory(directory)).not.toThrow();
      shell.kill();
    },
  );

  test("is not left half made by a process killed while it makes the files", async () => {
    mkdirSync(join(directory, "database.new"));
    writeFileSync(join(directory, "database.new", "PG_VERSION"), "18\n");
    const embedded = await openEmbedded({ dataDirectory: directory });

    expect((await embedded.createPool("public").query("SELECT 1 AS ok")).rows).toEqual([{ ok: 1 }]);
    await embedded.close();
    expect(readdirSync(directory)).toEqual(["database"]);
  });

  test("is taken over when the pid now belongs to another process", () => {
    writeFileSync(join(directory, "embedded.lock"), `${process.pid} 1\n`);

    expect(() => lockDataDirectory(directory)).not.toThrow();
  });

  function lockElsewhere(path: string): string {
    const script = `
      const { lockDataDirectory } = await import(process.argv[1]);
      try { lockDataDirectory(process.argv[2]); console.log("locked"); } catch (error) { console.log(error.message); }`;
    const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", script, LOCK_MODULE, path]);
    return stdout.toString().trim();
  }
});

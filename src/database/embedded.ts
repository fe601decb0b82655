// PostgreSQL inside this process (PGlite), behind pools that look like pg's: Prisma's own adapter, our SQL and BullMQ's
// PostgreSQL backend use them unchanged, so embedded and production differ by configuration only.
// There is one session for everybody: a transaction holds it from BEGIN to COMMIT while the others wait for their turn.
// A running statement cannot be interrupted (it blocks the event loop); what we can bound is the wait for a turn.
import { EventEmitter } from "node:events";
import { existsSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { PGlite } from "@electric-sql/pglite";
import pg from "pg";
import { lockDataDirectory } from "./data-directory-lock.ts";
import { createSession, type Session, type Turn, type WireQuery } from "./session.ts";

export interface EmbeddedOptions {
  /** Kept in this directory, which one process at a time may use. In memory when absent. */
  readonly dataDirectory?: string | undefined;
  /** A dump to start from; in memory only. */
  readonly loadDataDir?: Blob | undefined;
  readonly turnTimeoutMs?: number | undefined;
}

export interface Embedded {
  /** Another view of the same session, with a search_path of its own. */
  createPool(searchPath: string): pg.Pool;
  /** The whole database as a tar file, for `loadDataDir`. */
  dump(): Promise<Blob>;
  close(): Promise<void>;
}

const DEFAULT_TURN_TIMEOUT_MS = 15_000;
const LISTEN = /^(?:\s|--[^\n]*\n)*(UN)?LISTEN\s+(?:"([^"]+)"|([\w*]+))/i;

export async function openEmbedded(options: EmbeddedOptions = {}): Promise<Embedded> {
  const { dataDirectory, loadDataDir } = options;
  const unlock = dataDirectory === undefined ? () => {} : lockDataDirectory(dataDirectory);
  try {
    const db = await PGlite.create({
      ...(dataDirectory !== undefined && { dataDir: await prepareFiles(dataDirectory) }),
      ...(loadDataDir && { loadDataDir }),
    });
    const session = createSession(db, { turnTimeoutMs: options.turnTimeoutMs ?? DEFAULT_TURN_TIMEOUT_MS });
    const pool = createPool(session, "public");
    // Prisma's adapter reads timestamps as if every session were in UTC.
    await pool.query("SET TIME ZONE 'UTC'");
    return {
      createPool: (searchPath) => createPool(session, searchPath),
      dump: () => db.dumpDataDir("none"),
      async close() {
        await session.close();
        unlock();
      },
    };
  } catch (error) {
    unlock();
    throw error;
  }
}

// Made aside and moved into place when complete: a process killed while it makes the files must not leave half of them.
async function prepareFiles(dataDirectory: string): Promise<string> {
  const path = join(dataDirectory, "database");
  if (!existsSync(path)) {
    const draft = `${path}.new`;
    rmSync(draft, { recursive: true, force: true });
    const db = await PGlite.create(draft);
    await db.close();
    renameSync(draft, path);
  }
  return path;
}

/** A real pg.Pool (Prisma's adapter asks `instanceof`) that never connects: its methods are replaced. */
function createPool(session: Session, searchPath: string): pg.Pool {
  const pool = new pg.Pool({ max: 1 });
  return Object.assign(pool, {
    async query(query: string | WireQuery, values?: readonly unknown[]) {
      const turn = await session.takeTurn(searchPath);
      try {
        return await turn.run(wireQuery(query, values));
      } finally {
        await endTurn(turn);
      }
    },
    connect: () => Promise.resolve(createClient(session, searchPath)),
    end: () => Promise.resolve(),
  });
}

function createClient(session: Session, searchPath: string): EventEmitter {
  const client = new EventEmitter();
  const channels = new Set<string>();
  let turn: Turn | undefined;
  let tail: Promise<unknown> = Promise.resolve();
  let released = false;
  const stopListening = session.onNotification((channel, payload) => {
    if (channels.has(channel)) {
      client.emit("notification", { channel, payload, processId: 0, name: "notification", length: 0 });
    }
  });

  async function run(query: WireQuery): Promise<unknown> {
    turn ??= await session.takeTurn(searchPath);
    try {
      const result = await turn.run(query);
      noteListening(channels, query.text);
      return result;
    } finally {
      if (!turn.isInTransaction()) {
        turn.end();
        turn = undefined;
      }
    }
  }

  return Object.assign(client, {
    query(query: string | WireQuery, values?: readonly unknown[]) {
      if (released) {
        return Promise.reject(new Error("The connection has been released."));
      }
      const result = tail.then(() => run(wireQuery(query, values)));
      tail = result.catch(() => {});
      return result;
    },
    release() {
      released = true;
      stopListening();
      void tail.then(async () => {
        if (turn) {
          await endTurn(turn);
        }
      });
    },
  });
}

/** A transaction left open would become everybody's. */
async function endTurn(turn: Turn): Promise<void> {
  try {
    if (turn.isInTransaction()) {
      await turn.run({ text: "ROLLBACK" });
    }
  } finally {
    turn.end();
  }
}

// The session stays subscribed for good; each client only hears the channels it asked for.
function noteListening(channels: Set<string>, text: string): void {
  const [, stop, quoted, plain] = LISTEN.exec(text) ?? [];
  const channel = quoted ?? plain?.toLowerCase();
  if (channel === undefined) {
    return;
  }
  if (stop === undefined) {
    channels.add(channel);
  } else if (channel === "*") {
    channels.clear();
  } else {
    channels.delete(channel);
  }
}

function wireQuery(query: string | WireQuery, values: readonly unknown[] | undefined): WireQuery {
  return typeof query === "string" ? { text: query, values } : { ...query, values: query.values ?? values };
}

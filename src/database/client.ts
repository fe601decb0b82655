import { PrismaPg } from "@prisma/adapter-pg";
import type pg from "pg";
import { openEmbedded } from "./embedded.ts";
import { PrismaClient } from "./generated/client.ts";
import { migrate } from "./migrate.ts";
import { createPostgresPool } from "./postgres.ts";
import { type Queryable, runSql } from "./sql.ts";
import {
  assertOutsideTransaction,
  createDoor,
  guardPool,
  guardPrisma,
  type TransactionDoor,
  withCapturedTransactions,
} from "./transaction.ts";

export type { Queryable } from "./sql.ts";
export type { Transaction } from "./transaction.ts";

export interface Database extends Queryable, TransactionDoor {
  readonly mode: "embedded" | "postgres";
  /** The root client. Every query through it, as through `pool`, `queuePool` and `sql`, throws inside `transaction()`. */
  readonly prisma: PrismaClient;
  /** For raw SQL outside transactions that needs a connection of its own. */
  readonly pool: pg.Pool;
  /** For BullMQ's PostgreSQL backend: its search_path is `bullmq, public`. */
  readonly queuePool: pg.Pool;
  close(): Promise<void>;
}

export interface OpenDatabaseOptions {
  /** A PostgreSQL server's address (DATABASE_URL). Absent: the embedded database. */
  readonly url?: string | undefined;
  /** Embedded only: where to keep the data. Absent: in memory. */
  readonly dataDirectory?: string | undefined;
  /** Embedded and in memory only: a dump to start from. */
  readonly loadDataDir?: Blob | undefined;
  /** Apply missing migrations first. Default: true. */
  readonly migrate?: boolean | undefined;
  /** PostgreSQL only: connections for our own queries; the queue has as many again. */
  readonly maxConnections?: number | undefined;
  /** Told of connections lost while idle and of errors in afterCommit callbacks. Default: console.error. */
  readonly onError?: ((error: unknown) => void) | undefined;
}

interface Backend {
  readonly mode: Database["mode"];
  readonly pool: pg.Pool;
  readonly queuePool: pg.Pool;
  readonly maxWaitMs: number;
  close(): Promise<void>;
}

const DEFAULT_CONNECTIONS = 10;
const STATEMENT_TIMEOUT_MS = 30_000;
// Embedded, every transaction waits for all those before it.
const MAX_WAIT_MS = 10_000;
const QUEUE_SEARCH_PATH = "bullmq,public";

export async function openDatabase(options: OpenDatabaseOptions = {}): Promise<Database> {
  const onError = options.onError ?? ((error: unknown) => console.error("database:", error));
  const backend =
    options.url === undefined ? await embedded(options) : postgres({ ...options, url: options.url, onError });
  try {
    if (options.migrate ?? true) {
      await migrate(backend.pool);
    }
    return connect(backend, onError);
  } catch (error) {
    await backend.close();
    throw error;
  }
}

function connect(backend: Backend, onError: (error: unknown) => void): Database {
  const { mode, pool, maxWaitMs } = backend;
  const prisma = new PrismaClient({
    adapter: new PrismaPg(withCapturedTransactions(pool), { schema: "public" }),
    transactionOptions: { maxWait: maxWaitMs },
    errorFormat: "minimal",
  });
  return {
    mode,
    prisma: guardPrisma(prisma),
    pool: guardPool(pool, "The root database pool"),
    queuePool: guardPool(backend.queuePool, "The queue"),
    async sql<Row>(text: string, values?: readonly unknown[]) {
      assertOutsideTransaction("The root database client (sql)");
      return await runSql<Row>(pool, text, values);
    },
    ...createDoor({ prisma, maxWaitMs, onError }),
    async close() {
      await prisma.$disconnect();
      await backend.close();
    },
  };
}

async function embedded(options: OpenDatabaseOptions): Promise<Backend> {
  const { dataDirectory, loadDataDir } = options;
  const { createPool, close } = await openEmbedded({ dataDirectory, loadDataDir });
  return {
    mode: "embedded",
    pool: createPool("public"),
    queuePool: createPool(QUEUE_SEARCH_PATH),
    maxWaitMs: MAX_WAIT_MS,
    close,
  };
}

function postgres(
  options: OpenDatabaseOptions & { readonly url: string; readonly onError: (error: unknown) => void },
): Backend {
  const { url, onError, maxConnections = DEFAULT_CONNECTIONS } = options;
  const shared = { url, maxConnections, onError };
  const pool = createPostgresPool({
    ...shared,
    searchPath: "public",
    statementTimeoutMs: STATEMENT_TIMEOUT_MS,
  });
  const queuePool = createPostgresPool({ ...shared, searchPath: QUEUE_SEARCH_PATH, statementTimeoutMs: 0 });
  return {
    mode: "postgres",
    pool,
    queuePool,
    maxWaitMs: MAX_WAIT_MS,
    async close() {
      await Promise.all([pool.end(), queuePool.end()]);
    },
  };
}

/** The embedded database has no autovacuum: call this now and then. Does nothing on a server, which has one. */
export async function vacuum(database: Database): Promise<void> {
  if (database.mode === "embedded") {
    await database.sql("VACUUM (ANALYZE)");
  }
}

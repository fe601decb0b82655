import pg from "pg";

export interface PostgresPoolOptions {
  readonly url: string;
  readonly searchPath: string;
  readonly maxConnections: number;
  /** Statements that take longer are cancelled by the server; 0 = never. */
  readonly statementTimeoutMs: number;
  /** Told of connections that die while idle; the pool replaces them by itself. */
  readonly onError: (error: Error) => void;
}

const CONNECT_TIMEOUT_MS = 10_000;

export function createPostgresPool(options: PostgresPoolOptions): pg.Pool {
  const pool = new pg.Pool({
    connectionString: options.url,
    max: options.maxConnections,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
    application_name: "ratatosk",
    // UTC because Prisma's adapter reads timestamps as if every session were in UTC: it drops the offset.
    options: [
      `-c search_path=${options.searchPath}`,
      "-c TimeZone=UTC",
      `-c statement_timeout=${options.statementTimeoutMs}`,
    ].join(" "),
  });
  // Before anything else: without a listener, a restart of the server ends this process.
  pool.on("error", options.onError);
  return pool;
}

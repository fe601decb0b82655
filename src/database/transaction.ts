// The only door to a transaction. Inside it everything but the transaction itself is forbidden: a query of the root client
// would wait for a connection this transaction may be holding (always, when embedded), a queue or an HTTP call would hold locks
// while it waits for somebody else's machine, and neither would be undone by a rollback.
import { AsyncLocalStorage } from "node:async_hooks";
import type pg from "pg";
import { isSerializationFailure } from "./errors.ts";
import type { Prisma, PrismaClient } from "./generated/client.ts";
import { type Queryable, runSql } from "./sql.ts";

export interface Transaction extends Queryable {
  readonly prisma: Prisma.TransactionClient;
  /** Runs after a successful commit, when root queries, queue and HTTP are allowed again; never after a rollback. */
  afterCommit(callback: () => void): void;
}

export interface TransactionOptions {
  /** The transaction is rolled back when it takes longer. */
  readonly timeoutMs?: number;
}

export interface TransactionDoor {
  /**
   * Runs `work` in one transaction (READ COMMITTED) and commits. After a serialization failure or a deadlock `work` runs again,
   * at most MAX_ATTEMPTS times in all: it must have no effect but through its transaction.
   * Throws what `work` throws; the database's own error when COMMIT fails; an Error when an earlier statement had failed and
   * `work` swallowed that, because PostgreSQL then answers COMMIT with a rollback and no error.
   */
  transaction<T>(work: (tx: Transaction) => Promise<T>, options?: TransactionOptions): Promise<T>;
}

interface Scope {
  open: boolean;
  client: pg.PoolClient | undefined;
  commitError: unknown;
  readonly afterCommit: (() => void)[];
}

const MAX_ATTEMPTS = 3;
const DEFAULT_TIMEOUT_MS = 10_000;
const scopes = new AsyncLocalStorage<Scope>();

/** Throws when called inside `transaction()`; `what` names the thing tried, e.g. "the root database client". */
export function assertOutsideTransaction(what: string): void {
  if (scopes.getStore()?.open === true) {
    throw new Error(
      `${what} was used inside a transaction: use the transaction's own prisma or sql, or do it after the commit (tx.afterCommit).`,
    );
  }
}

export interface DoorOptions {
  readonly prisma: PrismaClient;
  /** How long to wait for a connection. */
  readonly maxWaitMs: number;
  /** Told of errors that callbacks throw after the commit: too late to fail the transaction. */
  readonly onError: (error: unknown) => void;
}

export function createDoor(options: DoorOptions): TransactionDoor {
  return {
    async transaction<T>(
      work: (tx: Transaction) => Promise<T>,
      { timeoutMs = DEFAULT_TIMEOUT_MS }: TransactionOptions = {},
    ): Promise<T> {
      assertOutsideTransaction("transaction()");
      for (let attempt = 1; ; attempt += 1) {
        const scope: Scope = { open: true, client: undefined, commitError: undefined, afterCommit: [] };
        try {
          const result = await attemptOnce({ ...options, scope, work, timeoutMs });
          scope.open = false;
          runAfterCommit(scope, options.onError);
          return result;
        } catch (error) {
          if (attempt >= MAX_ATTEMPTS || !isSerializationFailure(error)) {
            throw error;
          }
        } finally {
          scope.open = false;
        }
      }
    },
  };
}

interface Attempt<T> extends DoorOptions {
  readonly scope: Scope;
  readonly work: (tx: Transaction) => Promise<T>;
  readonly timeoutMs: number;
}

async function attemptOnce<T>({ prisma, maxWaitMs, scope, work, timeoutMs }: Attempt<T>): Promise<T> {
  try {
    return await scopes.run(scope, () =>
      prisma.$transaction(
        (tx) =>
          work({
            prisma: tx,
            sql: (text, values) => runSql(clientOf(scope), text, values),
            afterCommit: (callback) => scope.afterCommit.push(callback),
          }),
        { maxWait: maxWaitMs, timeout: timeoutMs },
      ),
    );
  } catch (error) {
    // Prisma reports a failed COMMIT as an error without code or constraint; ours is the database's own.
    throw scope.commitError ?? error;
  }
}

function clientOf(scope: Scope): pg.PoolClient {
  if (!scope.client) {
    throw new Error("The transaction is not open.");
  }
  return scope.client;
}

function runAfterCommit(scope: Scope, onError: (error: unknown) => void): void {
  for (const callback of scope.afterCommit) {
    try {
      callback();
    } catch (error) {
      onError(error);
    }
  }
}

/**
 * The pool as Prisma gets it: the connection that Prisma takes for `transaction()` is noted in its scope, so that `tx.sql` runs
 * on the same one with the same types and errors as outside, and its COMMIT is watched.
 */
export function withCapturedTransactions(pool: pg.Pool): pg.Pool {
  return override(pool, {
    async connect() {
      const client = await pool.connect();
      const scope = scopes.getStore();
      if (!scope?.open || scope.client) {
        return client;
      }
      scope.client = captured(client, scope);
      return scope.client;
    },
  });
}

function captured(client: pg.PoolClient, scope: Scope): pg.PoolClient {
  let tail: Promise<unknown> = Promise.resolve();
  let ended = false;

  async function run(query: pg.QueryConfig): Promise<pg.QueryResult> {
    const isCommit = query.text === "COMMIT";
    try {
      const result = await client.query(query);
      if (isCommit && result.command === "ROLLBACK") {
        throw new Error(
          "The transaction was rolled back at its commit: an earlier statement had failed and the error was swallowed.",
        );
      }
      return result;
    } catch (error) {
      if (isCommit) {
        scope.commitError = error;
      }
      throw error;
    }
  }

  return override(client, {
    // One at a time: pg wants it so, and a late statement must not slip behind the COMMIT or ROLLBACK, where it would commit alone.
    query(query: pg.QueryConfig) {
      if (ended) {
        return Promise.reject(new Error("The transaction has ended (committed, rolled back or timed out)."));
      }
      ended = query.text === "COMMIT" || query.text === "ROLLBACK";
      const result = tail.then(() => run(query));
      tail = result.catch(() => {});
      return result;
    },
  });
}

/** The pool as the rest of the program gets it. */
export function guardPool(pool: pg.Pool, what: string): pg.Pool {
  return override(pool, {
    async query(query: pg.QueryConfig, values?: unknown[]) {
      assertOutsideTransaction(what);
      return await pool.query(query, values);
    },
    async connect() {
      assertOutsideTransaction(what);
      return await pool.connect();
    },
  });
}

/**
 * The root client as the rest of the program gets it. The check is here, at the call, because further down Prisma batches
 * look-ups of one tick together and runs them in the context of whichever came first.
 */
export function guardPrisma(prisma: PrismaClient): PrismaClient {
  const guarded = prisma.$extends({
    query: {
      $allOperations({ args, query, model, operation }) {
        assertOutsideTransaction(`The root database client (${model ? `${model}.` : ""}${operation})`);
        return query(args);
      },
    },
  });
  // An extension of queries changes no type that callers use.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return override(guarded as unknown as PrismaClient, {
    $transaction: () => Promise.reject(new Error("Use database.transaction(): it is the only door.")),
  });
}

function override<Target extends object>(target: Target, methods: Readonly<Record<string, unknown>>): Target {
  return new Proxy(target, {
    get(object, key) {
      if (typeof key === "string" && Object.hasOwn(methods, key)) {
        return methods[key];
      }
      const value: unknown = Reflect.get(object, key);
      return typeof value === "function" ? value.bind(object) : value;
    },
  });
}

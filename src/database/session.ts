// The one session that PGlite has, spoken to in PostgreSQL's own wire protocol, and whose turn it is to use it.
// Answers are read by pg's own Result, so that the embedded database and a real one return the same values and errors.
import { AsyncLocalStorage } from "node:async_hooks";
import { messages, type PGlite, protocol } from "@electric-sql/pglite";
import pg from "pg";
import { createTurnQueue } from "./turn-queue.ts";

export interface WireQuery {
  readonly text: string;
  /** As with pg: the same text each time; parsed once for the session. */
  readonly name?: string | undefined;
  readonly values?: readonly unknown[] | undefined;
  readonly rowMode?: string | undefined;
  readonly types?: pg.CustomTypesConfig | undefined;
}

export interface Turn {
  /** Like pg: one result, or an array of them when `text` holds several statements. */
  run(query: WireQuery): Promise<pg.QueryResult | pg.QueryResult[]>;
  /** Also true after a statement failed inside a transaction that nobody has rolled back yet. */
  isInTransaction(): boolean;
  end(): void;
}

export interface Session {
  /** Waits for the session, first come first served; rejects after `turnTimeoutMs`, and then nothing has run. */
  takeTurn(searchPath: string): Promise<Turn>;
  /** Listeners run in no transaction's context, whoever's COMMIT delivered the notification. */
  onNotification(listener: (channel: string, payload: string) => void): () => void;
  close(): Promise<void>;
}

/** pg's own reader of answers; @types/pg knows the class but not its methods. */
interface ResultReader extends pg.QueryResult {
  addFields(fields: unknown[]): void;
  parseRow(fields: (string | null)[]): pg.QueryResultRow;
  addRow(row: pg.QueryResultRow): void;
  addCommandComplete(message: { text: string }): void;
}
interface PgInternals {
  readonly Result: new (rowMode?: string, types?: pg.CustomTypesConfig) => ResultReader;
  readonly utils: { prepareValue(value: unknown): string | Buffer | null };
}
// oxlint-disable-next-line typescript/no-unsafe-type-assertion
const { Result, utils } = pg as unknown as PgInternals;

const ERROR_FIELDS = [
  "severity",
  "code",
  "detail",
  "hint",
  "position",
  "internalPosition",
  "internalQuery",
  "where",
  "schema",
  "table",
  "column",
  "dataType",
  "constraint",
  "file",
  "line",
  "routine",
] as const;

export function createSession(db: PGlite, options: { turnTimeoutMs: number }): Session {
  const turns = createTurnQueue(options.turnTimeoutMs);
  const outsideAnyContext = AsyncLocalStorage.snapshot();
  const parsed = new Set<string>();
  let closed = false;
  let searchPath = "";

  function assertOpen(): void {
    if (closed) {
      throw closedError();
    }
  }

  return {
    async takeTurn(wantedSearchPath) {
      assertOpen();
      const end = await turns.wait();
      try {
        assertOpen();
        if (searchPath !== wantedSearchPath) {
          await exchange({ db, parsed }, { text: `SET search_path TO ${wantedSearchPath}` });
          searchPath = wantedSearchPath;
        }
        return {
          run: (query) => exchange({ db, parsed }, query),
          isInTransaction: () => db.isInTransaction(),
          end,
        };
      } catch (error) {
        end();
        throw error;
      }
    },
    onNotification: (listener) =>
      db.onNotification((channel, payload) => outsideAnyContext(() => listener(channel, payload))),
    async close() {
      if (!closed) {
        closed = true;
        turns.refuseAll(closedError());
        await db.close();
      }
    },
  };
}

function closedError(): Error {
  return new Error("The embedded database is closed.");
}

interface Wire {
  readonly db: PGlite;
  /** The names that the session knows. */
  readonly parsed: Set<string>;
}

async function exchange({ db, parsed }: Wire, query: WireQuery): Promise<pg.QueryResult | pg.QueryResult[]> {
  const { name } = query;
  try {
    const answer = await db.execProtocol(encode(query, name !== undefined && parsed.has(name)));
    if (name !== undefined) parsed.add(name);
    return decode(answer.messages, query);
  } catch (error) {
    // It may have failed before its name was known, or after.
    if (name !== undefined) parsed.delete(name);
    throw asPgError(error);
  }
}

// Like pg: the simple protocol, which allows several statements, only when there are no values.
function encode({ text, name = "", values }: WireQuery, isParsed: boolean): Uint8Array {
  const { serialize } = protocol;
  if (values === undefined || values.length === 0) {
    return serialize.query(text);
  }
  return Buffer.concat([
    // To forget a name that is not known is no error.
    ...(isParsed ? [] : [serialize.close({ type: "S", name }), serialize.parse({ text, name })]),
    serialize.bind({ statement: name, values: values.map(encodeValue) }),
    serialize.describe({ type: "P" }),
    serialize.execute({}),
    serialize.sync(),
  ]);
}

function encodeValue(value: unknown): string | null {
  const prepared = utils.prepareValue(value);
  return Buffer.isBuffer(prepared) ? `\\x${prepared.toString("hex")}` : prepared;
}

function decode(answer: readonly unknown[], query: WireQuery): pg.QueryResult | pg.QueryResult[] {
  const results: ResultReader[] = [];
  let current = new Result(query.rowMode, query.types ?? pg.types);
  for (const message of answer) {
    if (message instanceof messages.RowDescriptionMessage) {
      current.addFields(message.fields);
    } else if (message instanceof messages.DataRowMessage) {
      current.addRow(current.parseRow(message.fields));
    } else if (message instanceof messages.CommandCompleteMessage) {
      current.addCommandComplete(message);
      results.push(current);
      current = new Result(query.rowMode, query.types ?? pg.types);
    }
  }
  return results.length > 1 ? results : (results[0] ?? current);
}

// PGlite's error class is its own; code that asks `instanceof pg.DatabaseError` must not care.
function asPgError(error: unknown): unknown {
  if (!(error instanceof messages.DatabaseError)) {
    return error;
  }
  const copy = new pg.DatabaseError(error.message, error.length, "error");
  for (const field of ERROR_FIELDS) {
    const value = error[field];
    if (value !== undefined) {
      copy[field] = value;
    }
  }
  return copy;
}

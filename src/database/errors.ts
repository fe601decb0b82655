interface DatabaseFault {
  readonly sqlState: string | undefined;
  readonly constraint: string | undefined;
}

const UNIQUE_VIOLATION = "23505";
const RETRYABLE = new Set(["40001", "40P01"]); // serialization_failure, deadlock_detected
// Prisma's adapter keeps the SQLSTATE in `originalCode`; these are the spellings where only the kind is left.
const SQL_STATE_OF_KIND: Readonly<Record<string, string>> = {
  UniqueConstraintViolation: UNIQUE_VIOLATION,
  TransactionWriteConflict: "40001",
};
const SQL_STATE_OF_PRISMA_CODE: Readonly<Record<string, string>> = {
  P2002: UNIQUE_VIOLATION,
  P2034: "40001",
};
const MAX_CAUSES = 5;

/**
 * Whether a unique constraint or index (the named one, if a name is given) refused a write.
 * Answers the same for Prisma's methods, Prisma's raw queries, our `sql()`, and a failed COMMIT, on every backend.
 */
export function isUniqueViolation(error: unknown, constraintName?: string): boolean {
  const fault = findFault(error);
  return (
    fault?.sqlState === UNIQUE_VIOLATION &&
    (constraintName === undefined || fault.constraint === constraintName)
  );
}

/** Whether the database gave up on a transaction that would probably pass when tried again. */
export function isSerializationFailure(error: unknown): boolean {
  return RETRYABLE.has(findFault(error)?.sqlState ?? "");
}

/** The SQLSTATE behind an error of pg, PGlite or Prisma, or undefined. */
export function sqlState(error: unknown): string | undefined {
  return findFault(error)?.sqlState;
}

function findFault(error: unknown): DatabaseFault | undefined {
  let current: unknown = error;
  for (let depth = 0; depth < MAX_CAUSES && isRecord(current); depth += 1) {
    const fault = driverFault(current) ?? prismaFault(current) ?? adapterFault(current);
    if (fault) {
      return fault;
    }
    current = current["cause"];
  }
  return undefined;
}

/** pg and PGlite: `{ code: "23505", severity, constraint }`. */
function driverFault(error: Record<string, unknown>): DatabaseFault | undefined {
  const code = text(error["code"]);
  return code?.length === 5 && text(error["severity"]) !== undefined
    ? { sqlState: code, constraint: text(error["constraint"]) }
    : undefined;
}

/** PrismaClientKnownRequestError: `{ code: "P2002", meta: { driverAdapterError } }`. */
function prismaFault(error: Record<string, unknown>): DatabaseFault | undefined {
  const code = text(error["code"]);
  if (code === undefined || !/^P\d{4}$/.test(code)) {
    return undefined;
  }
  const meta = isRecord(error["meta"]) ? error["meta"] : {};
  const inner = findFault(meta["driverAdapterError"]);
  const state = inner?.sqlState ?? SQL_STATE_OF_PRISMA_CODE[code];
  return state === undefined ? undefined : { sqlState: state, constraint: inner?.constraint };
}

/** What @prisma/adapter-pg makes of a driver's error: `{ kind, originalCode?, code?, constraint?: { index } }`. */
function adapterFault(error: Record<string, unknown>): DatabaseFault | undefined {
  const kind = text(error["kind"]);
  if (kind === undefined) {
    return undefined;
  }
  const constraint = isRecord(error["constraint"]) ? text(error["constraint"]["index"]) : undefined;
  return {
    sqlState: text(error["originalCode"]) ?? text(error["code"]) ?? SQL_STATE_OF_KIND[kind],
    constraint,
  };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

/** What has to be set right by hand before the database can be used: the text says what. */
export class DatabaseSetupError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "DatabaseSetupError";
  }
}

// Class 08: connection exceptions; 57P01 to 57P03: shut down, crashed, not up yet; 53300: too many connections.
const UNAVAILABLE_STATES = /^(?:08...|57P0[123]|53300)$/;
const UNAVAILABLE_ERRNO = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "EAI_AGAIN",
]);
const UNAVAILABLE_PRISMA = new Set(["P1001", "P1002", "P1017"]);
// pg and its pool know these by their text only.
const UNAVAILABLE_TEXT =
  /^(?:Connection terminated|timeout exceeded when trying to connect|Client has encountered a connection error|Can't reach database server)/;

/** Whether the server could not be reached, or went away: the same would pass once it is back. Only for errors of the database. */
export function isUnavailable(error: unknown): boolean {
  let current: unknown = error;
  for (let depth = 0; depth < MAX_CAUSES && isRecord(current); depth += 1) {
    const code = text(current["code"]) ?? "";
    if (UNAVAILABLE_ERRNO.has(code) || UNAVAILABLE_PRISMA.has(code)) return true;
    if (UNAVAILABLE_TEXT.test(text(current["message"]) ?? "")) return true;
    if (UNAVAILABLE_STATES.test(sqlState(current) ?? "")) return true;
    const [first] = current instanceof AggregateError ? (current.errors as unknown[]) : [];
    current = first ?? current["cause"];
  }
  return false;
}

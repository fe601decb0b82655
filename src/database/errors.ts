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

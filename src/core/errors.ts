/**
 * Every error a person may meet. `code` is stable (the API and the tests switch on it), `message` is a sentence
 * that says what happened and what to do, safe for any audience. What only staff may see (request ids, a cloud's
 * own words) goes into `staffDetail`; `facts` carries the values behind the sentence.
 */
import { isUnavailable } from "../database/errors.ts";
import { storable } from "../database/storable.ts";

export const errorCodes = [
  // the request
  "invalid_input",
  "unknown_command",
  "not_found",
  "forbidden",
  "conflict",
  "busy",
  "wrong_state",
  "nothing_to_change",
  "quota",
  "idempotency_mismatch",
  "expired",
  "drifted",
  "cancelled",
  // a cloud; see core/cloud.ts
  "unreachable",
  "timeout",
  "unauthorized",
  "cloud_forbidden",
  "cloud_not_found",
  "cloud_conflict",
  "cloud_quota",
  "capacity",
  "cloud_invalid",
  "unsupported",
  "unknown_outcome",
  "cloud_failed",
  // ourselves
  "configuration",
  "internal",
] as const;
export type ErrorCode = (typeof errorCodes)[number];

export interface ServiceErrorOptions {
  cause?: unknown;
  facts?: Record<string, unknown>;
  /** Whether the same request may succeed later without anybody changing anything. */
  retryable?: boolean;
  staffDetail?: string | undefined;
}

export class ServiceError extends Error {
  readonly code: ErrorCode;
  readonly facts: Record<string, unknown>;
  readonly retryable: boolean;
  readonly staffDetail: string | undefined;

  constructor(code: ErrorCode, message: string, options: ServiceErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "ServiceError";
    this.code = code;
    this.facts = options.facts ?? {};
    this.retryable = options.retryable ?? false;
    // It may quote a guest, and is stored with the operation.
    this.staffDetail = options.staffDetail === undefined ? undefined : storable(options.staffDetail);
  }
}

/**
 * The same error in other words: its staffDetail stays, and its facts with `change.facts` over them. With another code it
 * is judged anew, so that it is retryable only when `change` says so.
 */
export function reworded(
  cause: ServiceError,
  message: string,
  change: { code?: ErrorCode; facts?: Record<string, unknown>; retryable?: boolean } = {},
): ServiceError {
  return new ServiceError(change.code ?? cause.code, message, {
    cause,
    facts: { ...cause.facts, ...change.facts },
    retryable: change.retryable ?? (change.code === undefined && cause.retryable),
    staffDetail: cause.staffDetail,
  });
}

/** What is stored and shown of an error; never a stack, never a cause. */
export interface Problem {
  code: ErrorCode;
  message: string;
  staffDetail?: string;
}

/** An unexpected error is told as "internal": its text may quote anything, so it goes to the log only. */
export function problemOf(error: unknown): Problem {
  if (error instanceof ServiceError) {
    const problem: Problem = { code: error.code, message: error.message };
    if (error.staffDetail !== undefined) problem.staffDetail = error.staffDetail;
    return problem;
  }
  if (isUnavailable(error)) {
    return {
      code: "internal",
      message:
        "Our database does not answer at the moment. Try again in a minute; /ops list shows what was taken in.",
    };
  }
  return { code: "internal", message: "Something went wrong on our side; the log has the details." };
}

export function isServiceError(error: unknown, ...codes: ErrorCode[]): error is ServiceError {
  return error instanceof ServiceError && (codes.length === 0 || codes.includes(error.code));
}

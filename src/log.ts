/**
 * The process's log: JSON lines for operators. While the database or the queue is away every loop meets the same error
 * several times a second, and its stack says nothing: such a line is shortened, and repeated every ten seconds at most.
 * Nor does the stack of an error that was foreseen (ServiceError) say anything that its code and texts do not.
 */
import { type DestinationStream, type Logger, pino, stdSerializers } from "pino";
import { ServiceError } from "./core/errors.ts";
import { isUnavailable } from "./database/errors.ts";

const repeatEveryMs = 10_000;

export function createLog(level: string, stream: DestinationStream): Logger {
  const told = new Map<string, number>();
  return pino(
    {
      level,
      serializers: { err: serializeError },
      hooks: {
        logMethod(args, method) {
          const [facts, message] = args as unknown[];
          const error = typeof facts === "object" && facts !== null && "err" in facts ? facts.err : undefined;
          if (error !== undefined && isUnavailable(error)) {
            const line = String(message);
            const now = Date.now();
            if (now - (told.get(line) ?? 0) < repeatEveryMs) return;
            told.set(line, now);
          }
          method.apply(this, args);
        },
      },
    },
    stream,
  );
}

function serializeError(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  if (error instanceof ServiceError && error.code !== "internal") {
    const { name, code, message, staffDetail, cause } = error;
    const reason = cause instanceof Error ? cause.message : undefined;
    return { type: name, code, message, staffDetail, ...(reason === message ? {} : { reason }) };
  }
  const full = stdSerializers.err(error);
  if (!isUnavailable(error)) return full;
  const first: unknown = error instanceof AggregateError ? error.errors[0] : undefined;
  const message = error.message === "" && first instanceof Error ? first.message : error.message;
  return { type: full.type, message };
}

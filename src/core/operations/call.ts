/**
 * Until when something may still be sent for an intent. After `call_deadline` and the settle time others take "not there"
 * for "never arrived", so a request that leaves later would make a twin.
 */
import { ServiceError } from "../errors.ts";

const notAfter = new WeakMap<AbortSignal, number>();

/** To be made before the intent is recorded. Aborted when the lease is lost or the time is over. */
export function callSignal(lost: AbortSignal, callTimeoutMs: number): AbortSignal {
  const signal = AbortSignal.any([lost, AbortSignal.timeout(callTimeoutMs)]);
  notAfter.set(signal, performance.now() + callTimeoutMs);
  return signal;
}

/**
 * For whoever writes to the cloud's socket, immediately before the first byte: a process that was suspended wakes up with
 * its sockets served before its timers, so the signal alone comes too late. Throws ServiceError `timeout`.
 */
export function requireTime(signal: AbortSignal | undefined): void {
  const last = signal === undefined ? undefined : notAfter.get(signal);
  if (last === undefined || performance.now() < last) return;
  const message = "We were too slow to ask the cloud in time, so it was not asked.";
  throw new ServiceError("timeout", message, { retryable: true });
}

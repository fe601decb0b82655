/**
 * Where the rig ends a process by name, in the order in which an operation comes to them. The engine names most of them;
 * two lie outside of it:
 * - `after_commit`: whoever entered the operation dies before its first nudge has left
 * - `bytes_sent`: the request is in the kernel's hands, nobody has its answer. undici says so on a diagnostics channel
 *   (https://undici.nodejs.org/#/docs/api/DiagnosticsChannel, undici:request:bodySent), so production has no hook for it.
 */
import { subscribe } from "node:diagnostics_channel";
import { crashPoints } from "../../src/core/operations/engine.ts";

const [afterIntent, ...later] = crashPoints;
export const workerPoints = [afterIntent, "bytes_sent", ...later] as const;
export type WorkerPoint = (typeof workerPoints)[number];
export const rigPoints = ["after_commit", ...workerPoints] as const;
export type RigPoint = (typeof rigPoints)[number];

interface SentRequest {
  method: string;
  path: string;
}

/** Calls back when a request that changes something has been written to its socket, to the last byte. */
export function onBytesSent(reached: () => void): void {
  subscribe("undici:request:bodySent", (message) => {
    const { method, path } = (message as { request: SentRequest }).request;
    // A new token changes nothing.
    if (method !== "GET" && !path.includes("/auth/tokens")) reached();
  });
}

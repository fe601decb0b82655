// One list of what changed answers all waits of a cloud, however many there are.
import type { Observation, OpenWait } from "../../core/cloud.ts";
import type { OpenStackClient } from "./client.ts";
import { listChanges } from "./compute.ts";
import { Condition } from "./condition.ts";
import type { NovaServer } from "./schema.ts";
import { isBusy, isGone, noteOf, statusOf } from "./state.ts";

/** Nova's rows are written with the clocks of several hosts, a little apart. */
const OVERLAP_MS = 30_000;
/** For a wait nobody has looked at: its call may have been answered before the clocks were compared. */
const FIRST_LOOK_MS = 120_000;

export type Watch = (waits: readonly OpenWait[], signal?: AbortSignal) => Promise<Observation[]>;

/** The place in the stream of changes is kept in memory only: after a restart the waits themselves say where to begin. */
export function createWatch(client: OpenStackClient, now: () => number): Watch {
  let cursor: number | undefined;

  return async (waits, signal) => {
    if (waits.length === 0) return [];
    const since = new Date(beginning(waits, cursor, client.clockOffsetMs()));
    const { rows, date } = await listChanges(client, since, signal);
    // Only after all pages: a failed page throws, and the next pass asks for the same again.
    cursor = (date?.getTime() ?? now() + client.clockOffsetMs()) - OVERLAP_MS;
    const byId = new Map(rows.map((row) => [row.id, row]));
    return waits.map((wait) => observe(wait, byId));
  };
}

/** In the cloud's time. */
function beginning(waits: readonly OpenWait[], cursor: number | undefined, offsetMs: number): number {
  const starts = waits.flatMap((wait) => {
    if (wait.observedAt === null) return [wait.since.getTime() + offsetMs - FIRST_LOOK_MS];
    // Another process has watched it until then.
    return cursor === undefined ? [wait.observedAt.getTime() + offsetMs - FIRST_LOOK_MS] : [];
  });
  return Math.min(...starts, ...(cursor === undefined ? [] : [cursor]));
}

function observe(wait: OpenWait, rows: ReadonlyMap<string, NovaServer>): Observation {
  const parsed = Condition.safeParse(wait.condition);
  if (!parsed.success) {
    // Written by another version of this program: the step's own verify knows better.
    return { waitId: wait.id, result: { outcome: "settled", detail: "unknown condition" } };
  }
  const condition = parsed.data;
  if (condition.kind === "server") return observeServer(wait, rows.get(condition.serverId), condition.leave);
  const moved = condition.serverIds.some((id) => {
    const row = rows.get(id);
    return row === undefined ? wait.observedAt === null : isGone(row) || !isBusy(row);
  });
  return moved
    ? { waitId: wait.id, result: { outcome: "settled" } }
    : { waitId: wait.id, note: "being removed" };
}

function observeServer(wait: OpenWait, row: NovaServer | undefined, leave: readonly string[]): Observation {
  if (row === undefined) {
    // Not changed since the last look; or, for a new wait, not changed since the call, or not listed yet: verify asks for
    // the server itself.
    return wait.observedAt === null
      ? { waitId: wait.id, result: { outcome: "settled", detail: "not among the changes" } }
      : { waitId: wait.id };
  }
  const status = statusOf(row);
  if (isGone(row)) return { waitId: wait.id, result: { outcome: "gone", detail: status } };
  const settled = !isBusy(row) && status !== "UNKNOWN" && !leave.includes(status);
  if (settled) return { waitId: wait.id, result: { outcome: "settled", detail: status } };
  const note = noteOf(row);
  return note === undefined ? { waitId: wait.id } : { waitId: wait.id, note };
}

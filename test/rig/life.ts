/** What becomes of a share of the PVE servers once they are built, in the same run: the changes, and how far they have come. */
import type { Database } from "../../src/database/client.ts";
import type { PlannedOrder } from "./stage.ts";

export interface Change {
  action: string;
  options: Record<string, string>;
}

export interface Life {
  /** Of its order. */
  index: number;
  changes: readonly Change[];
}

/** A stranger's VM has a snapshot of this name, too. */
export const snapshotName = "before";

const resize = (options: Record<string, string>): Change => ({ action: "server.resize", options });
const power = (action: string): Change => ({ action: "server.power", options: { action } });
const takeSnapshot: Change = { action: "snapshot.create", options: { name: snapshotName } };
const rollBack: Change = { action: "snapshot.rollback", options: { snapshot: snapshotName } };
const dropSnapshot: Change = { action: "snapshot.delete", options: { snapshot: snapshotName } };
const rebuild: Change = { action: "server.rebuild", options: { image: "debian-12" } };
const remove: Change = { action: "server.delete", options: {} };

/** In turn. Each leaves something that can be told afterwards: a size, a snapshot, a system, or nothing at all. */
const lives: readonly (readonly Change[])[] = [
  [rebuild, resize({ memory: "3G", disk: "11G" })],
  [resize({ cpu: "2", memory: "3G", disk: "12G" }), power("reboot"), remove],
  [power("stop"), power("start"), takeSnapshot, dropSnapshot],
  [takeSnapshot, resize({ cpu: "2" }), rollBack],
  [resize({ memory: "4G" }), rebuild, remove],
  [takeSnapshot, resize({ cpu: "4", disk: "13G" })],
  [takeSnapshot, remove],
];

/** `share` of the PVE orders that are to succeed, spread over all of them. */
export function planLives(orders: readonly PlannedOrder[], share: number): Life[] {
  const able = orders.filter(({ kind, meantToFail }) => kind === "pve" && !meantToFail);
  const chosen = able.filter((_, n) => Math.floor((n + 1) * share) > Math.floor(n * share));
  return chosen.map(({ index }, n) => ({ index, changes: lives[n % lives.length] ?? [] }));
}

export const orderKey = (index: number): string => `rig:${index}`;
export const changeKey = (index: number, n: number): string => `life:${index}:${n}`;

/** Every operation of the rig by its idempotency key. */
export type Entries = ReadonlyMap<
  string,
  { operationId: string; publicId: string; serverPublicId: string; externalId: string | null; state: string }
>;

export async function readEntries(database: Database): Promise<Entries> {
  const rows = await database.sql<{
    key: string;
    operationId: string;
    publicId: string;
    serverPublicId: string;
    externalId: string | null;
    state: string;
  }>(
    `SELECT o.idempotency_key AS key, o.id AS "operationId", o.public_id AS "publicId", s.public_id AS "serverPublicId",
       s.external_id AS "externalId", o.state
     FROM operations o JOIN servers s ON s.id = o.server_id`,
  );
  return new Map(rows.map(({ key, ...row }) => [key, row]));
}

const ended = new Set(["succeeded", "failed", "cancelled", "expired", "needs_attention"]);
export const hasEnded = (state: string | undefined): boolean => state !== undefined && ended.has(state);

export type Next =
  /** Something is still under way. */
  | { kind: "wait" }
  | { kind: "ask" | "confirm"; n: number; change: Change }
  /** All is done, or something went otherwise than meant and nothing more is asked of this server. */
  | { kind: "over"; done: number };

export function nextOf({ index, changes }: Life, entries: Entries): Next {
  const order = entries.get(orderKey(index))?.state;
  if (!hasEnded(order)) return { kind: "wait" };
  if (order !== "succeeded") return { kind: "over", done: 0 };
  for (const [n, change] of changes.entries()) {
    const state = entries.get(changeKey(index, n))?.state;
    if (state === undefined) return { kind: "ask", n, change };
    if (state === "awaiting_confirmation") return { kind: "confirm", n, change };
    if (!hasEnded(state)) return { kind: "wait" };
    if (state !== "succeeded") return { kind: "over", done: n };
  }
  return { kind: "over", done: changes.length };
}

/** How much of all the work is done: orders, and changes of those that live on. */
export async function progressOf(
  database: Database,
  orders: readonly { index: number }[],
  { lives: planned, givenUp }: { lives: readonly Life[]; givenUp: ReadonlyMap<number, string> },
): Promise<{ done: number; all: number; restingOrders: number }> {
  const entries = await readEntries(database);
  const restingOrders = orders.filter(({ index }) => hasEnded(entries.get(orderKey(index))?.state)).length;
  let [done, all] = [restingOrders, orders.length];
  for (const life of planned) {
    all += life.changes.length;
    const isOver = givenUp.has(life.index) || nextOf(life, entries).kind === "over";
    done += isOver
      ? life.changes.length
      : life.changes.filter((_, n) => hasEnded(entries.get(changeKey(life.index, n))?.state)).length;
  }
  return { done, all, restingOrders };
}

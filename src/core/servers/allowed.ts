/** Which state allows which change: one table for plans, preflight and help. */
import { type PowerVerb, type ServerState, serverStates } from "../cloud.ts";
import { ServiceError } from "../errors.ts";
import { minuteOf } from "../time.ts";
import { named } from "./change.ts";
import type { ServerRow } from "./find.ts";

// Nova refuses each of these in other states with 409 (api-ref "Run an action"); PVE is stricter nowhere.
export const allowedIn = {
  resize: ["active", "stopped"],
  // The guest has to run to take a password.
  password: ["active"],
  // Of clouds that hand passwords and keys over at a boot: one that is off takes them at its next start.
  atNextBoot: ["active", "stopped"],
  restart: ["active", "stopped"],
  // A state in which disk and settings hold still, or that the guest itself brought about.
  snapshot: ["active", "stopped"],
  rollback: ["active", "stopped", "paused", "error"],
  deleteSnapshot: ["active", "stopped", "paused", "error"],
  rescue: ["active", "stopped", "error"],
  // One that was switched off there boots from rescue media still.
  // Also one whose rescue stopped half-way: its next restart would boot the media.
  unrescue: ["rescue", "stopped", "active", "error"],
  // A CD drive is there whatever its guest does; one in rescue boots from another.
  iso: ["active", "stopped", "paused", "error"],
  // Whatever became of its system; one that boots other media has somebody at work on its disk.
  rebuild: ["active", "stopped", "paused", "suspended", "error"],
  // What runs has a screen, whatever its guest is doing.
  console: ["active", "rescue", "paused", "error"],
  // Whatever is under way holds the server's lock; a state that never ends must not keep it alive.
  delete: serverStates.filter((state) => state !== "deleted"),
} as const satisfies Record<string, readonly ServerState[]>;

/** The states a power verb acts in, and the one it leads to. */
export const powerTable: Record<
  PowerVerb,
  { from: readonly ServerState[]; to: ServerState; already: string }
> = {
  start: { from: ["stopped"], to: "active", already: "is running already" },
  stop: { from: ["active", "error", "rescue"], to: "stopped", already: "is stopped already" },
  shutdown: { from: ["active"], to: "stopped", already: "is stopped already" },
  kill: { from: ["active", "error", "rescue"], to: "stopped", already: "is stopped already" },
  reboot: { from: ["active", "rescue"], to: "active", already: "" },
  reset: { from: ["active", "stopped", "paused", "suspended", "error", "rescue"], to: "active", already: "" },
  suspend: { from: ["active"], to: "suspended", already: "is suspended to disk already" },
  resume: { from: ["suspended"], to: "active", already: "is running already" },
};

/** Throws `wrong_state` for one that waits for its deletion. Only that itself and its undoing may touch it until then. */
export function requireNotDueForDeletion(server: ServerRow, verb: string): void {
  if (server.deleteAt === null) return;
  const when = minuteOf(server.deleteAt);
  const leaves = server.isDue
    ? `was to be deleted at ${when} and still is`
    : `is going to be deleted at ${when}`;
  throw new ServiceError(
    "wrong_state",
    `${named(server)} ${leaves}, so it cannot be ${verb}. Our team can bring it back first: /server undelete ${server.publicId}.`,
    { facts: { serverId: server.id, state: server.state } },
  );
}

/** Throws `wrong_state` for one whose disk may not be lost. `verb`: "deleted", "rebuilt". */
export function requireUnprotected(server: ServerRow, verb: string): void {
  if (!server.deleteProtected) return;
  throw new ServiceError(
    "wrong_state",
    `${named(server)} is protected against deletion, so it cannot be ${verb}. Lift the protection first: /server protect ${server.publicId} on:no.`,
    { facts: { serverId: server.id, protected: true } },
  );
}

/** Throws `wrong_state` for one that may not run. `verb`: "started", for what would start it. */
export function requireNotSuspended(server: ServerRow, verb: string): void {
  if (server.suspendedAt === null) return;
  throw new ServiceError("wrong_state", `${named(server)} is suspended by billing, so it cannot be ${verb}.`);
}

/** Throws `wrong_state` with what the server is and when it would be possible. */
export function requireState(server: ServerRow, verb: string, states: readonly ServerState[]): void {
  if (verb !== "deleted") requireNotDueForDeletion(server, verb);
  if (server.externalId === null && verb !== "deleted") {
    throw new ServiceError("wrong_state", `${named(server)} is not built yet, so it cannot be ${verb}.`, {
      facts: { serverId: server.id, state: server.state },
    });
  }
  if (states.includes(server.state)) return;
  const when = states.length > 4 ? "" : ` It can when it is ${states.map(wordOf).join(" or ")}.`;
  throw new ServiceError(
    "wrong_state",
    `${named(server)} is ${wordOf(server.state)}, so it cannot be ${verb} now.${when}`,
    { facts: { serverId: server.id, state: server.state } },
  );
}

/** "in rescue": completes "It is …". */
export function wordOf(state: ServerState): string {
  return state === "rescue" ? "in rescue" : state.replaceAll("_", " ");
}

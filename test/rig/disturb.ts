/** What goes wrong around the workers, each at its share of the orders that are done. */
import type { Receiver } from "../../src/sandbox/receiver.ts";
import { askSimulator, type CloudAddress } from "./address.ts";
import type { OwnServers } from "./servers.ts";
import type { Supervisor } from "./supervise.ts";

export interface Disturbed {
  "Redis flushed": number;
  "Redis killed": number;
  "PostgreSQL restarted at once": number;
  "dispatchers killed": number;
  "VMIDs stolen": number;
  "deliveries refused": number;
}

export interface DisturbOptions {
  clouds: readonly CloudAddress[];
  /** Null: they belong to somebody else, too, and are left alone. */
  servers: OwnServers | null;
  supervisor: Supervisor;
  killDispatcher: () => void;
  receiver: Receiver;
}

const redisAwayMs = 2_500;

export interface Disturbances {
  readonly counts: Readonly<Disturbed>;
  /** Does what is due at this share of the orders. */
  at(share: number): Promise<void>;
}

export function createDisturbances(options: DisturbOptions): Disturbances {
  const { clouds, servers, supervisor, receiver } = options;
  const counts: Disturbed = {
    "Redis flushed": 0,
    "Redis killed": 0,
    "PostgreSQL restarted at once": 0,
    "dispatchers killed": 0,
    "VMIDs stolen": 0,
    "deliveries refused": 0,
  };
  const does: Record<keyof Disturbed, () => Promise<void>> = {
    "Redis flushed": async () => servers?.flushRedis(),
    "Redis killed": async () => supervisor.during(servers?.restartRedis(redisAwayMs) ?? Promise.resolve()),
    "PostgreSQL restarted at once": async () =>
      supervisor.during(servers?.restartPostgres() ?? Promise.resolve()),
    "dispatchers killed": async () => options.killDispatcher(),
    "VMIDs stolen": async () => {
      for (const cloud of clouds.filter(({ kind }) => kind === "pve")) {
        // oxlint-disable-next-line no-await-in-loop -- one cluster
        await askSimulator(cloud, { method: "PUT", path: "traps", body: { stealVmids: 1 } });
      }
    },
    // Refused, throttled never: a pause of its own would hold up the rest.
    "deliveries refused": async () => receiver.answerWith(500, 503, 0),
  };
  const needsOwn = new Set<keyof Disturbed>([
    "Redis flushed",
    "Redis killed",
    "PostgreSQL restarted at once",
  ]);
  const open = timetable.filter(
    ([, what]) =>
      (servers !== null || !needsOwn.has(what)) &&
      (what !== "VMIDs stolen" || clouds.some(({ kind }) => kind === "pve")),
  );
  return {
    counts,
    async at(share) {
      while (open[0] !== undefined && open[0][0] <= share) {
        const [, what] = open.shift() ?? [0, "Redis flushed" as const];
        // oxlint-disable-next-line no-await-in-loop -- one after the other
        await does[what]();
        counts[what] += 1;
      }
    },
  };
}

const timetable: readonly (readonly [number, keyof Disturbed])[] = [
  [0.05, "deliveries refused"],
  [0.08, "VMIDs stolen"],
  [0.1, "dispatchers killed"],
  [0.15, "Redis flushed"],
  [0.22, "PostgreSQL restarted at once"],
  [0.3, "dispatchers killed"],
  [0.35, "VMIDs stolen"],
  [0.4, "Redis killed"],
  [0.5, "Redis flushed"],
  [0.55, "deliveries refused"],
  [0.6, "VMIDs stolen"],
  [0.62, "PostgreSQL restarted at once"],
  [0.7, "dispatchers killed"],
  [0.75, "Redis killed"],
  [0.8, "Redis flushed"],
];

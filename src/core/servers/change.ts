/** What every plan of a change to one server says alike. */
import type { ChangePlan } from "../action.ts";
import type { ServerRow } from "./find.ts";

type Head = Omit<ChangePlan, "before" | "after" | "details">;

/** `what` it is that is done: "Resize" gives the title "Resize web-1 of Ada". A plan may say more after it. */
export function changeOf(server: ServerRow, what: string): Head {
  return {
    title: `${what} ${server.name}${server.customerName === null ? "" : ` of ${server.customerName}`}`,
    serverId: server.id,
    customerId: server.customerId,
    cloud: server.cloudName,
    lockKey: `server:${server.id}`,
    downtime: null,
    irreversible: [],
    notes: [],
    dataAsOf: server.syncedAt,
  };
}

/** "web-1 (srv-4fz9c2kd)" */
export function named(server: Pick<ServerRow, "name" | "publicId">): string {
  return `${server.name} (${server.publicId})`;
}

/** Of one that is built, which `requireState` sees to; anything else is a mistake of ours. */
export function externalIdOf(server: ServerRow): string {
  if (server.externalId === null) throw new Error(`${server.publicId} has no id in its cloud`);
  return server.externalId;
}

/** What the receiver was told, against the events in our database and the servers in the clouds. */
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import type { Database } from "../../src/database/client.ts";
import type { Delivery } from "../../src/sandbox/receiver.ts";
import type { CloudAddress } from "./address.ts";
import { serversByRow } from "./inspect.ts";

export interface Told {
  events: number;
  deliveries: number;
  /** Of one event more than once, and accepted each time. */
  duplicates: number;
  refused: number;
  /** Signatures that somebody else's verifier did not accept. */
  unverified: number;
  /** Events that never came. */
  missing: number;
  /** What came and is no event of ours. */
  invented: number;
  servers: number;
  /** Servers whose sequence, as it came, does not go 1, 2, 3 to the end. */
  serversWithGaps: number;
  /** Servers whose last event tells another state than the cloud has. */
  untrue: string[];
}

const Body = z.object({
  sequence: z.number().optional(),
  data: z.object({ server: z.object({ id: z.string(), state: z.string() }).optional() }),
});

export async function untilAllTold(
  database: Database,
  deliveries: readonly Delivery[],
  limitMs: number,
): Promise<void> {
  const end = performance.now() + limitMs;
  // What was refused twice is due in five minutes; nobody sits here for that.
  await database.sql(
    `UPDATE deliveries SET next_attempt_at = clock() WHERE state = 'pending' AND next_attempt_at > clock() + interval '30 s'`,
  );
  while (performance.now() < end) {
    // oxlint-disable-next-line no-await-in-loop -- a poll
    const [row] = await database.sql<{ open: number }>(
      `SELECT ((SELECT count(*) FROM events WHERE position IS NULL)
             + (SELECT count(*) FROM deliveries WHERE state = 'pending'))::int AS open`,
    );
    if (row?.open === 0) return;
    // oxlint-disable-next-line no-await-in-loop
    await delay(250);
  }
  console.error(`deliveries are still open after ${limitMs} ms; ${deliveries.length} came`);
}

export async function inspectTold(
  database: Database,
  clouds: readonly CloudAddress[],
  deliveries: readonly Delivery[],
): Promise<Told> {
  const accepted = deliveries.filter(({ status }) => status >= 200 && status < 300);
  const ids = new Set(accepted.map(({ id }) => id));
  const events = await database.sql<{ id: string }>(`SELECT id FROM events`);
  const known = new Set(events.map(({ id }) => id));
  const heard = hearServers(accepted);
  const rows = await database.sql<{ id: string; publicId: string; eventSeq: number }>(
    `SELECT id, public_id AS "publicId", event_seq::int AS "eventSeq" FROM servers`,
  );
  const byRow = await serversByRow(database, clouds);
  return {
    events: events.length,
    deliveries: deliveries.length,
    duplicates: deliveries.filter(({ duplicate }) => duplicate).length,
    refused: deliveries.length - accepted.length,
    unverified: deliveries.filter(({ verified }) => !verified).length,
    missing: events.filter(({ id }) => !ids.has(id)).length,
    invented: [...ids].filter((id) => !known.has(id)).length,
    servers: heard.size,
    serversWithGaps: rows.filter(({ publicId, eventSeq }) => {
      const sequences = heard.get(publicId)?.sequences ?? new Set();
      return sequences.size !== eventSeq || Math.max(0, ...sequences) !== eventSeq;
    }).length,
    untrue: rows.flatMap(({ publicId, id }) => {
      const told = heard.get(publicId)?.state ?? "nothing";
      const there = byRow.get(id)?.[0]?.state;
      const isTrue = there === undefined ? told === "deleted" || told === "error" : told === there;
      return isTrue ? [] : [`${publicId}: told ${told}, the cloud has ${there ?? "nothing"}`];
    }),
  };
}

interface Heard {
  sequences: Set<number>;
  last: number;
  /** By the event with the highest sequence. */
  state: string;
}

function hearServers(deliveries: readonly Delivery[]): Map<string, Heard> {
  const servers = new Map<string, Heard>();
  for (const { body } of deliveries) {
    const { sequence, data } = Body.parse(body);
    if (data.server === undefined || sequence === undefined) continue;
    const { id, state } = data.server;
    const heard = servers.get(id) ?? { sequences: new Set<number>(), last: 0, state: "" };
    heard.sequences.add(sequence);
    if (sequence >= heard.last) Object.assign(heard, { last: sequence, state });
    servers.set(id, heard);
  }
  return servers;
}

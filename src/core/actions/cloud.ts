/** The clouds as the team sees them, and the work on them that is announced. */
import { z } from "zod";
import type { Queryable, Transaction } from "../../database/client.ts";
import { newId } from "../../database/id.ts";
import { type ActionContext, defineImmediate, defineRead, type ImmediateResult } from "../action.ts";
import type { Provider } from "../cloud.ts";
import { ServiceError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { duration } from "../operations/card.ts";
import { recordEvent } from "../operations/events.ts";
import {
  bannersOf,
  type OpenMaintenance,
  openMaintenances,
  placeOf,
  renewCards,
} from "../servers/maintenance.ts";

const ListInput = z.object({});

export const cloudList = defineRead<z.infer<typeof ListInput>>({
  name: "cloud.list",
  summary: "List the clouds with their nodes and what is being worked on",
  audience: ["staff"],
  permission: "cloud.read",
  input: ListInput,
  options: [],
  async run({ database }) {
    const open = await openMaintenances(database);
    const rows = await database.sql<{
      name: string;
      provider: Provider;
      servers: number;
      nodes: string[];
      agoMs: number | null;
      problem: string | null;
    }>(
      `SELECT c.name, c.provider, c.last_problem->>'message' AS problem,
         (extract(epoch FROM clock() - c.last_ok_at) * 1000)::float8 AS "agoMs",
         (SELECT count(*)::int FROM servers s WHERE s.cloud_id = c.id AND s.deleted_at IS NULL) AS servers,
         ARRAY(SELECT DISTINCT s.provider_data->>'node' FROM servers s
               WHERE s.cloud_id = c.id AND s.deleted_at IS NULL AND s.provider_data->>'node' IS NOT NULL
               UNION SELECT m.node FROM maintenances m
               WHERE m.cloud_id = c.id AND m.ended_at IS NULL AND m.node IS NOT NULL ORDER BY 1) AS nodes
       FROM clouds c WHERE c.retired_at IS NULL ORDER BY c.name`,
    );
    const banner = bannersOf(open, "staff");
    return {
      title: rows.length === 1 ? "1 cloud" : `${rows.length} clouds`,
      tone: open.length > 0 || rows.some(({ problem }) => problem !== null) ? "warning" : "neutral",
      ...(banner.length === 0 ? {} : { banner }),
      table: {
        columns: ["Cloud", "Provider", "State", "Servers", "Nodes", "Maintenance"],
        rows: rows.map((row) => [
          row.name,
          row.provider,
          row.problem ?? (row.agoMs === null ? "not asked yet" : `answered ${duration(row.agoMs)} ago`),
          String(row.servers),
          row.nodes.join(" ") || "-",
          maintenanceOf(open.filter(({ cloud }) => cloud === row.name)),
        ]),
        empty: "No cloud is configured.",
      },
    };
  },
});

function maintenanceOf(open: readonly OpenMaintenance[]): string {
  return open.map(({ node }) => (node === null ? "all of it" : node)).join(" ") || "-";
}

const Input = z.object({
  cloud: z.string(),
  node: z.string().min(1).max(63).optional(),
  state: z.enum(["on", "off"]),
  message: z.string().trim().min(1).max(300).optional(),
});
type Input = z.infer<typeof Input>;

const defaultMessage = "We are working on it; changes are possible again soon.";

export const cloudMaintenance = defineImmediate<Input>({
  name: "cloud.maintenance",
  summary: "Announce work on a cloud or one of its nodes, or its end",
  audience: ["staff"],
  permission: "cloud.maintain",
  risk: "change",
  input: Input,
  options: [
    {
      name: "cloud",
      field: "cloud",
      label: "Cloud",
      help: "Name of the cloud",
      type: "text",
      required: true,
      subject: true,
      lookup: "cloud",
    },
    {
      name: "state",
      field: "state",
      label: "Maintenance",
      help: "Begins or ends",
      type: "text",
      required: true,
      choices: [
        { value: "on", label: "On" },
        { value: "off", label: "Off" },
      ],
    },
    {
      name: "node",
      field: "node",
      label: "Node",
      help: "Proxmox VE: one node; else the whole cloud",
      type: "text",
    },
    {
      name: "message",
      field: "message",
      label: "Message",
      help: "What everybody is told, customers too",
      type: "text",
    },
  ],
  run: (context, input) => (input.state === "on" ? begin(context, input) : end(context, input)),
});

type Context = ActionContext & { database: Transaction };

interface Place {
  cloudId: string;
  cloud: string;
  node: string | null;
  /** Whether a server of ours is known there. */
  isKnown: boolean;
}

async function begin(context: Context, input: Input): Promise<ImmediateResult> {
  const { database: tx, principal } = context;
  const place = await placeFor(context, input);
  const earlier = await openAt(tx, place);
  const message = input.message ?? earlier?.message ?? defaultMessage;
  if (earlier !== null && earlier.message === message) {
    throw new ServiceError(
      "nothing_to_change",
      `Nothing to change: ${placeOf(place)} is in maintenance already. state:off ends it.`,
    );
  }
  if (earlier === null) {
    await tx.sql(
      `INSERT INTO maintenances (id, cloud_id, node, message, started_by) VALUES ($1, $2, $3, $4, $5)`,
      [newId(), place.cloudId, place.node, message, principal.name],
    );
  } else {
    await tx.sql(`UPDATE maintenances SET message = $2 WHERE id = $1`, [earlier.id, message]);
  }
  await tell(context, place, { what: earlier === null ? "started" : "changed", message, since: null });
  const unknown =
    place.node === null || place.isKnown
      ? ""
      : ` No server of ours is known on that node: look whether its name is right.`;
  return {
    subject: `Maintenance of ${placeOf(place)}: on`,
    view: {
      title: `Maintenance of ${placeOf(place)}`,
      tone: unknown === "" ? "success" : "warning",
      text: `Everybody whose servers are on it is told: ${message} Customers' changes are refused, and nothing new is placed on it.${unknown}`,
      banner: bannersOf(await openMaintenances(tx), "staff"),
    },
  };
}

async function end(context: Context, input: Input): Promise<ImmediateResult> {
  const { database: tx } = context;
  const place = await placeFor(context, input);
  const earlier = await openAt(tx, place);
  if (earlier === null) {
    const open = (await openMaintenances(tx)).map(placeOf);
    const there = open.length === 0 ? "Nothing is." : `In maintenance: ${open.join("; ")}.`;
    throw new ServiceError(
      "nothing_to_change",
      `Nothing to change: ${placeOf(place)} is not in maintenance. ${there}`,
    );
  }
  await tx.sql(`UPDATE maintenances SET ended_at = clock() WHERE id = $1`, [earlier.id]);
  await tell(context, place, { what: "ended", message: earlier.message, since: earlier.startedAt });
  return {
    subject: `Maintenance of ${placeOf(place)}: off`,
    view: {
      title: `Maintenance of ${placeOf(place)} has ended`,
      tone: "success",
      text: "Customers can change their servers there again, and new ones are placed on it.",
    },
  };
}

async function tell(
  { database: tx, engine, principal }: Context,
  { cloudId, cloud, node }: Place,
  { what, message, since }: { what: "started" | "changed" | "ended"; message: string; since: Date | null },
): Promise<void> {
  await recordEvent(tx, {
    type: `${node === null ? "cloud" : "node"}.maintenance.${what}`,
    serverId: null,
    data: { message },
    staffData: { cloud, ...(node === null ? {} : { node }), by: principal.name },
  });
  await renewCards(tx, { cloudId, node, since });
  tx.afterCommit(() => {
    engine.wake.nudge("cards");
    engine.wake.nudge("events");
  });
}

async function placeFor({ database, engine }: Context, input: Input): Promise<Place> {
  const clouds = await database.sql<{ id: string; name: string }>(
    `SELECT id, name FROM clouds WHERE retired_at IS NULL ORDER BY name`,
  );
  const names = clouds.map(({ name }) => name);
  const found = clouds.find(({ name }) => name.toLowerCase() === input.cloud.toLowerCase());
  if (found === undefined) {
    const guess = nearest(input.cloud, names);
    const advice =
      guess === undefined ? `There are ${names.join(", ") || "none"}.` : `Did you mean ${guess}?`;
    throw new ServiceError("not_found", `No cloud "${input.cloud}". ${advice}`, {
      facts: { option: "cloud" },
    });
  }
  const place = { cloudId: found.id, cloud: found.name };
  if (input.node === undefined) return { ...place, node: null, isKnown: true };
  if (engine.clouds.get(found.name).hasNodes !== true) {
    throw new ServiceError("unsupported", `${found.name} has no nodes that we know of: leave node out.`, {
      facts: { option: "node" },
    });
  }
  const known = await database.sql<{ node: string }>(
    `SELECT DISTINCT provider_data->>'node' AS node FROM servers
     WHERE cloud_id = $1 AND deleted_at IS NULL AND lower(provider_data->>'node') = lower($2)
     UNION SELECT node FROM maintenances WHERE cloud_id = $1 AND ended_at IS NULL AND lower(node) = lower($2)`,
    [found.id, input.node],
  );
  return { ...place, node: known[0]?.node ?? input.node, isKnown: known.length > 0 };
}

async function openAt(database: Queryable, { cloudId, node }: Place): Promise<OpenMaintenance | null> {
  const rows = await database.sql<OpenMaintenance>(
    `SELECT m.id, m.message, m.started_at AS "startedAt", m.node FROM maintenances m
     WHERE m.cloud_id = $1 AND m.node IS NOT DISTINCT FROM $2 AND m.ended_at IS NULL FOR UPDATE`,
    [cloudId, node],
  );
  return rows[0] ?? null;
}

import { z } from "zod";
import type { Queryable, Transaction } from "../../database/client.ts";
import { type ActionContext, type ChangePlan, defineOperation } from "../action.ts";
import { serverStates } from "../cloud.ts";
import { ServiceError } from "../errors.ts";
import { preflightServer } from "../operations/preflight.ts";
import { changeOf, named } from "../servers/change.ts";
import { Scheduled } from "../servers/deletion.ts";
import { findServer, type ServerRow } from "../servers/find.ts";
import { minuteOf } from "../time.ts";
import { serverOption } from "./options.ts";

const UndeleteInput = z.object({ server: z.string() });
type UndeleteInput = z.infer<typeof UndeleteInput>;

const Details = z.object({ externalId: z.string(), start: z.boolean(), state: z.enum(serverStates) });

export const serverUndelete = defineOperation<UndeleteInput>({
  name: "server.undelete",
  summary: "Bring back a server that is going to be deleted",
  audience: ["staff"],
  permission: "server.change",
  risk: "change",
  specVersion: 1,
  input: UndeleteInput,
  options: [serverOption],
  plan: planUndelete,
  prepare: keep,
  steps(plan, clouds) {
    const { externalId, start } = Details.parse(plan.details);
    const states = start ? (["stopped", "active"] as const) : serverStates;
    return [
      preflightServer({ externalId, states: [...states] }),
      ...(start ? clouds.get(plan.cloud ?? "").power({ externalId, verb: "start" }) : []),
    ];
  },
  onEnd(end, { plan }) {
    const { start, state } = Details.parse(plan.details);
    const started = start && end === "succeeded";
    const asBefore = ` It is ${state} as before.`;
    const then = start ? (started ? " It runs." : " But it was not started.") : asBefore;
    return {
      // It was kept when this was entered, whatever came of the start.
      events: [{ type: "server.undeleted", data: { started } }],
      note: `It is no longer going to be deleted.${then}`,
    };
  },
});

async function planUndelete(context: ActionContext, input: UndeleteInput): Promise<ChangePlan> {
  const server = await findServer(context.database, context.principal, input.server);
  const name = named(server);
  if (server.deleteAt === null || server.externalId === null) {
    throw new ServiceError("nothing_to_change", `Nothing to change: ${name} is not going to be deleted.`);
  }
  const start =
    server.state === "stopped" && server.suspendedAt === null && (await ranBefore(context.database, server));
  return {
    ...changeOf(server, "Bring back"),
    before: { deletion: minuteOf(server.deleteAt) },
    after: { deletion: "none", ...(start ? { power: "active" } : {}) },
    notes: [start ? "It was switched off for its deletion, so it is started." : `It stays ${server.state}.`],
    details: { externalId: server.externalId, start, state: server.state } satisfies z.infer<typeof Details>,
  };
}

/** Whether it was switched off for its deletion. */
async function ranBefore(database: Queryable, { id }: ServerRow): Promise<boolean> {
  const rows = await database.sql<{ output: unknown }>(
    `SELECT output FROM operations WHERE server_id = $1 AND action = 'server.delete' AND state = 'succeeded'
     ORDER BY finished_at DESC LIMIT 1`,
    [id],
  );
  return Scheduled.safeParse(rows[0]?.output).data?.ranBefore ?? false;
}

/** From this moment on, so that its time cannot come while it is started. */
async function keep({ database }: ActionContext & { database: Transaction }, plan: ChangePlan) {
  await database.sql(`UPDATE servers SET delete_at = NULL WHERE id = $1`, [plan.serverId]);
  return {};
}

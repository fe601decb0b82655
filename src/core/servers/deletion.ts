/** A server that is to be deleted later: how it is switched off, its time, what is looked at then, and who asks for it. */
import { z } from "zod";
import { isUniqueViolation } from "../../database/errors.ts";
import { type Cloud, type RemoteServer, type ServerState, serverStates } from "../cloud.ts";
import { isServiceError, ServiceError } from "../errors.ts";
import type { Engine } from "../operations/engine.ts";
import { enterOperation } from "../operations/enter.ts";
import type { Issued, PlannedStep, StepContext, StepDefinition } from "../operations/step.ts";
import { minuteOf } from "../time.ts";
import { powerTable, wordOf } from "./allowed.ts";
import { named } from "./change.ts";
import type { ServerRow } from "./find.ts";

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;

/** What scheduleStep hands on; a later undelete reads it from the operation. */
export const Scheduled = z.object({ deleteAt: z.coerce.date(), ranBefore: z.boolean() });

/** Nothing of it runs, and no memory of a node is held for it. */
const offStates: readonly ServerState[] = ["stopped", "suspended"];

export const SwitchOff = z.enum(["stop", "kill"]);
export type SwitchOff = z.infer<typeof SwitchOff>;

/**
 * How it is switched off for the time in which it can be brought back; null: it is off. Throws `wrong_state` for what a
 * cloud lets nobody switch off: it would run on, or hold its memory, while everybody is told that it is off.
 */
export function switchOffOf(server: ServerRow, cloud: Pick<Cloud, "powerVerbs">): SwitchOff | null {
  const { state } = server;
  if (offStates.includes(state)) return null;
  if (powerTable.stop.from.includes(state)) return "stop";
  // Its guest cannot be asked: PVE refuses to shut down what is paused.
  if (state === "paused" && cloud.powerVerbs.includes("kill")) return "kill";
  const first =
    state === "paused"
      ? `Reset it first (/server power ${server.publicId} action:reset)`
      : "Wait until that is over";
  throw new ServiceError(
    "wrong_state",
    `${named(server)} is ${wordOf(state)}, so it cannot be switched off and kept. ${first}, or delete it at once, for good, with now:yes.`,
    { facts: { serverId: server.id, state } },
  );
}

/** The states in which a deletion that was planned so may begin. */
export function statesBefore(switchOff: SwitchOff | null): ServerState[] {
  if (switchOff === null) return [...offStates];
  return switchOff === "kill" ? ["paused", "stopped"] : [...powerTable.stop.from, "stopped"];
}

const ScheduleInput = z.object({ externalId: z.string(), graceMs: z.number() });
/** By the look before it was switched off, not by when it was asked for: whoever confirms may take their time. */
const Before = z.object({ stateSeen: z.enum(serverStates) });

export function planSchedule(input: z.infer<typeof ScheduleInput>): PlannedStep {
  return { name: "delete.schedule", label: "Set the time of its deletion", input };
}

/** "72 h" */
export function describeGrace(graceMs: number): string {
  return `${Math.round(graceMs / hourMs)} h`;
}

/** Last of a deletion that can be taken back: the cloud itself says that it is off. */
export const scheduleStep: StepDefinition = {
  name: "delete.schedule",
  deadlineMs: 5 * minuteMs,
  callTimeoutMs: minuteMs,
  evidence: "none",
  issue: setTime,
};

async function setTime(context: StepContext): Promise<Issued> {
  const { externalId, graceMs } = ScheduleInput.parse(context.input);
  const before = Before.safeParse(context.operation.output).data?.stateSeen;
  const ranBefore = before !== undefined && powerTable.stop.from.includes(before);
  const server = await context.cloud.inspect(externalId, context.signal);
  if (!offStates.includes(server.state)) {
    const message = `The server is ${wordOf(server.state)} in the cloud, not off, so it was not scheduled for deletion. Ask once more.`;
    return { kind: "failed", server, error: new ServiceError("cloud_conflict", message) };
  }
  const rows = await context.database.sql<{ deleteAt: Date }>(
    `SELECT date_trunc('milliseconds', clock()) + make_interval(secs => $1::float8 / 1000) AS "deleteAt"`,
    [graceMs],
  );
  const deleteAt = rows[0]?.deleteAt;
  if (deleteAt === undefined) throw new Error("the database has no clock");
  return {
    kind: "done",
    server,
    output: { deleteAt: deleteAt.toISOString(), ranBefore },
    note: `it is kept until ${minuteOf(deleteAt)}.`,
  };
}

export function planCheckDue(externalId: string): PlannedStep {
  return { name: "delete.due", label: "Check that nobody wants to keep it", input: { externalId } };
}

/** First of a deletion whose time has come. `wrong_state`: somebody has protected it meanwhile. */
export const checkDueStep: StepDefinition = {
  name: "delete.due",
  deadlineMs: 5 * minuteMs,
  callTimeoutMs: minuteMs,
  evidence: "none",
  issue: checkDue,
};

async function checkDue(context: StepContext): Promise<Issued> {
  const externalId = z.string().parse(context.input["externalId"]);
  const rows = await context.database.sql<{ deleteProtected: boolean }>(
    `SELECT s.delete_protected AS "deleteProtected" FROM servers s JOIN operations o ON o.server_id = s.id WHERE o.id = $1`,
    [context.operation.id],
  );
  const server = await inspectIfThere(context, externalId);
  if (rows[0]?.deleteProtected !== true && server?.deleteProtected !== true) return { kind: "done" };
  const message =
    "It is protected against deletion by now, so it is kept, switched off, and no longer going to be deleted. To delete it all the same, lift the protection and ask again.";
  const error = new ServiceError("wrong_state", message);
  return { kind: "failed", error, ...(server === null ? {} : { server }) };
}

async function inspectIfThere(
  { cloud, signal }: StepContext,
  externalId: string,
): Promise<RemoteServer | null> {
  try {
    return await cloud.inspect(externalId, signal);
  } catch (error) {
    if (isServiceError(error, "cloud_not_found")) return null;
    throw error;
  }
}

interface Due {
  id: string;
  publicId: string;
  deleteAt: Date;
  key: string;
}

// By the time as well: a server that was brought back and deleted again is due a second time. And by the day since then.
const keyOf = `'delete-due:' || s.id || ':' || (extract(epoch FROM s.delete_at) * 1000)::bigint || ':' ||
  floor(extract(epoch FROM clock() - s.delete_at) / 86400)::bigint`;
const BATCH = 1_000;

/**
 * Asks for the deletion of every server whose time has come, once a day each, whatever crashes or runs twice: the key of
 * the operation is the server, the time and the day since. One that an operation is at work on is asked for again at the
 * next look. One whose deletion failed or was cancelled is tried again every day until it is gone or brought back, and
 * each time the staff hear of it in channels.alerts.
 */
export async function deleteDue(engine: Engine): Promise<void> {
  const due = await engine.database.sql<Due>(
    `SELECT s.id, s.public_id AS "publicId", s.delete_at AS "deleteAt", ${keyOf} AS key FROM servers s
     WHERE s.delete_at <= clock() AND s.deleted_at IS NULL
       AND NOT EXISTS (SELECT FROM operations o WHERE o.idempotency_key = ${keyOf})
     ORDER BY s.delete_at LIMIT ${BATCH}`,
  );
  for (const server of due) {
    try {
      // oxlint-disable-next-line no-await-in-loop -- one at a time: nobody waits for it
      await enterDeletion(engine, server);
    } catch (error) {
      const isForLater = isServiceError(error, "busy") || isUniqueViolation(error);
      const level = isForLater ? "info" : "error";
      engine.log[level]({ err: error, server: server.publicId }, "a server that is due was not deleted yet");
    }
  }
}

async function enterDeletion(engine: Engine, { id, publicId, deleteAt, key }: Due): Promise<void> {
  const action = engine.registry.get("server.delete");
  if (action.kind !== "operation") throw new Error("server.delete is no operation");
  await engine.database.transaction(async (tx) => {
    // Whoever brings it back in this moment waits for us, or we for them.
    const rows = await tx.sql(
      `SELECT FROM servers WHERE id = $1 AND delete_at = $2 AND deleted_at IS NULL FOR UPDATE`,
      [id, deleteAt],
    );
    if (rows.length === 0) return;
    const asked = await tx.sql<{ backups: boolean }>(
      `SELECT COALESCE((plan->'details'->>'backups')::boolean, false) AS backups FROM operations
       WHERE server_id = $1 AND action = 'server.delete' AND state = 'succeeded' ORDER BY finished_at DESC LIMIT 1`,
      [id],
    );
    await enterOperation(
      {
        database: tx,
        principal: { kind: "system", id: "schedule", name: "Ratatosk" },
        source: "system",
        engine,
      },
      {
        action,
        input: { server: publicId, now: true, backups: asked[0]?.backups ?? false },
        idempotencyKey: key,
        origin: null,
      },
    );
  });
}

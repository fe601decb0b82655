import { z } from "zod";
import { type ActionContext, type ChangePlan, defineOperation, type EndEffects } from "../action.ts";
import type { Cloud, Clouds } from "../cloud.ts";
import { ServiceError } from "../errors.ts";
import { preflightServer } from "../operations/preflight.ts";
import type { PlannedStep } from "../operations/step.ts";
import { allowedIn, requireState, requireUnprotected } from "../servers/allowed.ts";
import { changeOf, named } from "../servers/change.ts";
import {
  checkDueStep,
  describeGrace,
  planCheckDue,
  planSchedule,
  Scheduled,
  SwitchOff,
  scheduleStep,
  statesBefore,
  switchOffOf,
} from "../servers/deletion.ts";
import { findServer, type ServerRow } from "../servers/find.ts";
import { minuteOf } from "../time.ts";
import { serverOption } from "./options.ts";

const DeleteInput = z.object({
  server: z.string(),
  now: z.boolean().optional(),
  backups: z.boolean().optional(),
});
type DeleteInput = z.infer<typeof DeleteInput>;

const Details = z.object({
  externalId: z.string().nullable(),
  publicId: z.string().default(""),
  backups: z.boolean().default(false),
  /** How long it is kept, switched off, before it is gone; null: it goes at once. */
  graceMs: z.number().nullable().default(null),
  /** How, when it is kept; null: it is off. */
  switchOff: SwitchOff.nullable().default(null),
  /** Its time has come; nobody asks again. */
  due: z.boolean().default(false),
});
type Details = z.infer<typeof Details>;

export const serverDelete = defineOperation<DeleteInput>({
  name: "server.delete",
  summary: "Delete a server for good",
  audience: ["staff"],
  permission: "server.delete",
  risk: "destructive",
  specVersion: 2,
  during: (plan) => (Details.parse(plan.details).graceMs === null ? "deleting" : undefined),
  supersedes: true,
  input: DeleteInput,
  options: [
    serverOption,
    {
      name: "now",
      field: "now",
      label: "At once",
      help: "Without the time in which it could be brought back",
      type: "flag",
      audience: ["staff"],
    },
    {
      name: "purge_backups",
      field: "backups",
      label: "Backups, too",
      help: "Its backups in the cloud's storages go with it",
      type: "flag",
      audience: ["staff"],
    },
  ],
  plan: planDelete,
  steps: stepsOf,
  definitions: [scheduleStep, checkDueStep],
  onEnd(end, { plan, output, problem }) {
    const details = Details.parse(plan.details);
    if (details.graceMs !== null) return endOfSchedule(end === "succeeded", details, output);
    if (end === "succeeded") {
      return {
        server: { deleted: true },
        events: [{ type: "server.deleted" }],
        note: "The server is deleted.",
      };
    }
    if (!details.due) return {};
    if (problem?.code !== "wrong_state") return endOfTry(details);
    // Only checkDueStep answers so: somebody wants it kept, and from now on it is a server like any other.
    return {
      server: { deleteAt: null },
      events: [{ type: "server.undeleted", data: { reason: "protected" } }],
    };
  },
});

function endOfSchedule(done: boolean, { publicId }: Details, output: Record<string, unknown>): EndEffects {
  if (!done) return { note: "It is not going to be deleted. Look whether it was switched off already." };
  const { deleteAt } = Scheduled.parse(output);
  return {
    server: { deleteAt },
    endsAs: { type: "server.delete.scheduled", data: { deleteAt: deleteAt.toISOString() } },
    offers: [{ action: "server.undelete", input: { server: publicId } }],
    note: `It is switched off and will be deleted at ${minuteOf(deleteAt)}; /server undelete ${publicId} brings it back.`,
  };
}

/** Its time has come, and it is there still. */
function endOfTry({ publicId }: Details): EndEffects {
  return {
    alert: true,
    offers: [{ action: "server.undelete", input: { server: publicId } }],
    note: `Its deletion is tried again within a day, and every day until it is gone; /server undelete ${publicId} keeps it.`,
  };
}

function stepsOf(plan: ChangePlan, clouds: Clouds): PlannedStep[] {
  const { externalId, backups, graceMs, switchOff, due } = Details.parse(plan.details);
  // A row whose server the cloud never made.
  if (externalId === null) return [];
  const cloud = clouds.get(plan.cloud ?? "");
  if (graceMs !== null) {
    const states = statesBefore(switchOff);
    return [
      preflightServer({ externalId, states, unprotected: true, tellsState: true }),
      ...(switchOff === null ? [] : cloud.power({ externalId, verb: switchOff })),
      planSchedule({ externalId, graceMs }),
    ];
  }
  const states = [...allowedIn.delete, "deleting" as const, "deleted" as const];
  return [
    ...(due ? [planCheckDue(externalId)] : []),
    preflightServer({ externalId, states, mayBeGone: true, unprotected: true }),
    ...cloud.remove(backups ? { externalId, backups } : { externalId }),
  ];
}

async function planDelete(context: ActionContext, input: DeleteInput): Promise<ChangePlan> {
  const server = await findServer(context.database, context.principal, input.server);
  requireState(server, "deleted", allowedIn.delete);
  const due = context.principal.kind === "system" && server.deleteAt !== null;
  // When its time has come, the first step says so on a card that somebody sees.
  if (!due) requireUnprotected(server, "deleted");
  const cloud = context.engine.clouds.get(server.cloudName);
  const backups = input.backups ?? false;
  if (backups && cloud.removesBackups !== true) {
    throw new ServiceError(
      "unsupported",
      "This server's cloud has no backups that could be deleted with it: leave purge_backups out.",
      { facts: { option: "purge_backups" } },
    );
  }
  const graceMs = await graceOf(context, server, input.now ?? false);
  const switchOff = graceMs === null ? null : switchOffOf(server, cloud);
  const change = changeOf(server, "Delete");
  const grace = graceMs === null ? null : describeGrace(graceMs);
  const lost = "the server and everything on its disk are gone for good.";
  return {
    ...change,
    title: grace === null ? change.title : `${change.title} in ${grace}`,
    before: { server: server.publicId, name: server.name },
    after: grace === null ? {} : { deletion: grace },
    downtime: switchOff === null ? null : "It is switched off now.",
    irreversible: [grace === null ? `T${lost.slice(1)}` : `In ${grace} ${lost}`],
    notes: notesOf(cloud, { backups, grace }),
    details: {
      externalId: server.externalId,
      publicId: server.publicId,
      backups,
      graceMs,
      switchOff,
      due,
    } satisfies Details,
  };
}

/** Null: at once. What the cloud does not have, or never made, cannot be brought back either. */
async function graceOf(context: ActionContext, server: ServerRow, now: boolean): Promise<number | null> {
  const { deleteGraceMs } = context.engine.policies;
  const isThere = server.externalId !== null && server.state !== "missing";
  if (now || deleteGraceMs === 0 || !isThere) return null;
  if (server.deleteAt === null) return deleteGraceMs;
  const rows = await context.database.sql<{ past: boolean }>(`SELECT $1::timestamptz <= clock() AS past`, [
    server.deleteAt,
  ]);
  if (rows[0]?.past === true) return null;
  throw new ServiceError(
    "nothing_to_change",
    `${named(server)} is going to be deleted at ${minuteOf(server.deleteAt)} already. /server undelete ${server.publicId} brings it back; now:yes deletes it at once.`,
  );
}

/** What goes with it and what stays, so that whoever confirms knows. */
function notesOf(cloud: Cloud, { backups, grace }: { backups: boolean; grace: string | null }): string[] {
  return [
    ...(grace === null ? [] : ["Until then it is kept, switched off, and /server undelete brings it back."]),
    ...(cloud.goesWithRemoval ?? []),
    ...(backups
      ? ["Its backups in the cloud's storages go, too, except those that are protected there."]
      : cloud.survivesRemoval),
  ];
}

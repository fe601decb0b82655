/** Snapshots of a server: taken, listed, gone back to, deleted. What there is follows the cloud. */
import { z } from "zod";
import type { Queryable } from "../../database/client.ts";
import { type ActionContext, type ChangePlan, defineOperation, defineRead } from "../action.ts";
import { type Cloud, Size } from "../cloud.ts";
import { ServiceError } from "../errors.ts";
import { preflightServer } from "../operations/preflight.ts";
import { allowedIn, requireNotSuspended, requireState } from "../servers/allowed.ts";
import { changeOf, externalIdOf, named } from "../servers/change.ts";
import { findServer, type ServerRow } from "../servers/find.ts";
import { requireSnapshotRoom } from "../servers/limits.ts";
import { requireProcedure } from "../servers/procedure.ts";
import { describeSize, sizesOf } from "../servers/size.ts";
import { findSnapshot, listSnapshots, type SnapshotRow } from "../servers/snapshots.ts";
import { minuteOf } from "../time.ts";
import { serverOption, snapshotOption } from "./options.ts";

/** What PVE takes (pve-configid), which is the strictest; these two mean something else there. */
const reserved = new Set(["current", "pending"]);
const SnapshotName = z
  .string()
  .regex(
    /^[A-Za-z][A-Za-z0-9_-]{1,39}$/u,
    "must start with a letter and have 2 to 40 letters, digits, hyphens or underscores",
  )
  .refine((name) => !reserved.has(name.toLowerCase()), "is a word that clouds keep for themselves");

const Order = z.object({
  externalId: z.string(),
  name: z.string(),
  description: z.string(),
  withMemory: z.boolean(),
});
const CreateDetails = z.object({ order: Order });

const CreateInput = z.object({
  server: z.string(),
  name: SnapshotName.optional(),
  withMemory: z.boolean().optional(),
  description: z
    .string()
    .max(200, "must be no longer than 200 characters")
    .regex(/^\P{Cc}*$/u, "must be a single line")
    .optional(),
});
type CreateInput = z.infer<typeof CreateInput>;

export const snapshotCreate = defineOperation<CreateInput>({
  name: "snapshot.create",
  summary: "Take a snapshot of a server's disk",
  audience: ["staff", "customer"],
  permission: "server.change",
  risk: "change",
  specVersion: 1,
  input: CreateInput,
  options: [
    serverOption,
    {
      name: "name",
      field: "name",
      label: "Name",
      help: "Letters, digits, - and _; made from the time when left out",
      type: "text",
    },
    {
      name: "memory",
      field: "withMemory",
      label: "With memory",
      help: "Keep the running state, too, so that it goes on from there",
      type: "flag",
    },
    {
      name: "description",
      field: "description",
      label: "Description",
      help: "What it is for, one line",
      type: "text",
    },
  ],
  plan: planCreate,
  steps(plan, clouds) {
    const { order } = CreateDetails.parse(plan.details);
    const states = order.withMemory ? (["active"] as const) : allowedIn.snapshot;
    return [
      preflightServer({ externalId: order.externalId, states: [...states] }),
      ...proceduresOf(clouds.get(plan.cloud ?? "")).create(order),
    ];
  },
  onEnd(end, { plan }) {
    if (end !== "succeeded") return {};
    const { name, withMemory } = CreateDetails.parse(plan.details).order;
    return {
      events: [{ type: "snapshot.created", data: { snapshot: name, withMemory } }],
      note: `The snapshot ${name} is taken.`,
    };
  },
});

function proceduresOf(cloud: Cloud) {
  return requireProcedure(cloud, "snapshots", "This server's cloud has no snapshots that we can work with.");
}

async function planCreate(context: ActionContext, input: CreateInput): Promise<ChangePlan> {
  const { database, principal, engine } = context;
  const server = await findServer(database, principal, input.server);
  proceduresOf(engine.clouds.get(server.cloudName));
  const withMemory = input.withMemory === true;
  if (withMemory && server.state === "stopped") {
    throw new ServiceError(
      "wrong_state",
      `${named(server)} is off, so there is no memory to keep. Leave memory: out, or start it first.`,
      { facts: { option: "memory", serverId: server.id, state: server.state } },
    );
  }
  requireState(server, "snapshotted", withMemory ? ["active"] : allowedIn.snapshot);
  const rows = await listSnapshots(database, server.id);
  requireSnapshotRoom(principal, rows.length);
  const name = input.name ?? (await freeName(database, rows));
  if (rows.some((row) => row.name === name)) {
    throw new ServiceError(
      "conflict",
      `${named(server)} has a snapshot ${name} already. Choose another name.`,
      {
        facts: { option: "name" },
      },
    );
  }
  return {
    ...changeOf(server, `Take the snapshot ${name} of`),
    before: {},
    after: { snapshot: name, memory: withMemory },
    downtime: withMemory ? "The server stands still while its memory is written." : null,
    notes: withMemory ? [] : ["The disk is kept as it is now; what is only in memory is not."],
    details: {
      order: {
        externalId: externalIdOf(server),
        name,
        description: input.description ?? "",
        withMemory,
      },
    } satisfies z.infer<typeof CreateDetails>,
  };
}

/** snap-20261121-1840, and with a number behind it for another one of the same minute. */
async function freeName(database: Queryable, rows: readonly SnapshotRow[]): Promise<string> {
  const [row] = await database.sql<{ now: Date }>(`SELECT clock() AS now`);
  const now = row?.now.toISOString() ?? "";
  const base = `snap-${now.slice(0, 10).replaceAll("-", "")}-${now.slice(11, 16).replace(":", "")}`;
  for (let n = 1; ; n += 1) {
    const name = n === 1 ? base : `${base}-${n}`;
    if (!rows.some((one) => one.name === name)) return name;
  }
}

const ListInput = z.object({ server: z.string() });
type ListInput = z.infer<typeof ListInput>;

export const snapshotList = defineRead<ListInput>({
  name: "snapshot.list",
  summary: "List the snapshots of a server",
  audience: ["staff", "customer"],
  permission: "server.read",
  input: ListInput,
  options: [serverOption],
  async run({ database, principal }, input) {
    const server = await findServer(database, principal, input.server);
    const rows = await listSnapshots(database, server.id);
    const oldest = rows.map(({ syncedAt }) => syncedAt).toSorted((a, b) => a.getTime() - b.getTime())[0];
    const asOf = oldest ?? server.syncedAt;
    return {
      title: `${rows.length === 1 ? "1 snapshot" : `${rows.length} snapshots`} of ${server.name}`,
      tone: "neutral",
      table: {
        columns: ["Snapshot", "Taken", "Memory", "Description"],
        rows: rows.map(({ name, takenAt, withMemory, description }) => [
          name,
          takenAt === null ? "-" : minuteOf(takenAt),
          withMemory ? "yes" : "no",
          description || "-",
        ]),
        empty: "There are none. /snapshot create takes one.",
      },
      footer: asOf === null ? "Not looked at in the cloud yet." : `As of ${minuteOf(asOf)}.`,
    };
  },
});

const PickInput = z.object({ server: z.string(), snapshot: z.string() });
type PickInput = z.infer<typeof PickInput>;

const PickDetails = z.object({
  order: z.object({
    externalId: z.string(),
    name: z.string(),
    takenAt: z.string().optional(),
    neverLarger: z.boolean().optional(),
  }),
  /** Before it. */
  size: Size,
});

async function picked({ database, principal, engine }: ActionContext, input: PickInput) {
  const server = await findServer(database, principal, input.server);
  proceduresOf(engine.clouds.get(server.cloudName));
  const snapshot = await findSnapshot(database, server, input.snapshot);
  return { server, snapshot };
}

/** Also with which of that name: another one may have it by then. */
function detailsOf(server: ServerRow, { name, takenAt }: SnapshotRow): z.infer<typeof PickDetails> {
  const taken = takenAt === null ? {} : { takenAt: takenAt.toISOString() };
  return { order: { externalId: externalIdOf(server), name, ...taken }, size: sizesOf(server) };
}

export const snapshotRollback = defineOperation<PickInput>({
  name: "snapshot.rollback",
  summary: "Take a server back to a snapshot; all since then is lost",
  audience: ["staff", "customer"],
  permission: "server.change",
  risk: "destructive",
  stepUp: true,
  specVersion: 1,
  input: PickInput,
  options: [serverOption, snapshotOption],
  plan: planRollback,
  steps(plan, clouds) {
    const { order } = PickDetails.parse(plan.details);
    return [
      preflightServer({ externalId: order.externalId, states: [...allowedIn.rollback] }),
      ...proceduresOf(clouds.get(plan.cloud ?? "")).rollback(order),
    ];
  },
  onEnd(end, { plan, output }) {
    const { order, size } = PickDetails.parse(plan.details);
    const { name, takenAt = null } = order;
    // It is so, whatever became of its power.
    if (output["rolledBackTo"] !== name) return {};
    const now = Size.safeParse(output["size"]).data ?? size;
    const [before, after] = [describeSize(size), describeSize(now)];
    const resized = before === after ? "" : ` It has ${after} again, not ${before}.`;
    return {
      events: [{ type: "snapshot.rolled_back", data: { snapshot: name, taken: takenAt } }],
      note: `The server is as it was in ${name}${end === "succeeded" ? "" : " all the same"}.${resized}`,
    };
  },
});

async function planRollback(context: ActionContext, input: PickInput): Promise<ChangePlan> {
  const { server, snapshot } = await picked(context, input);
  requireNotSuspended(server, "taken back to a snapshot, which may start it");
  requireState(server, "taken back to a snapshot", allowedIn.rollback);
  const { name, takenAt, withMemory } = snapshot;
  const since = takenAt === null ? `the snapshot ${name} was taken` : minuteOf(takenAt);
  const { order, size } = detailsOf(server, snapshot);
  // A size comes with its price; whoever of the team goes back knows that.
  const neverLarger = context.principal.kind === "customer";
  const runs = server.state !== "stopped";
  const restart = runs
    ? "It is switched off hard, taken back, and started again."
    : "It stays off, as it is now.";
  return {
    ...changeOf(server, `Go back to the snapshot ${name} on`),
    before: { power: server.state },
    after: { snapshot: name, taken: takenAt?.toISOString() ?? null },
    downtime: withMemory || !runs ? null : "The server restarts.",
    irreversible: [
      `Everything that changed on ${server.name} since ${since} is lost: its data, and its size and settings.`,
    ],
    notes: [
      withMemory
        ? "The memory is in the snapshot: the server runs on from that moment."
        : `The memory is not in the snapshot. ${restart}`,
      "Passwords and keys are those of that time again.",
    ],
    details: { order: { ...order, neverLarger }, size } satisfies z.infer<typeof PickDetails>,
  };
}

export const snapshotDelete = defineOperation<PickInput>({
  name: "snapshot.delete",
  summary: "Delete a snapshot of a server",
  audience: ["staff", "customer"],
  permission: "server.change",
  risk: "destructive",
  specVersion: 1,
  input: PickInput,
  options: [serverOption, snapshotOption],
  async plan(context, input): Promise<ChangePlan> {
    const { server, snapshot } = await picked(context, input);
    requireState(server, "freed of a snapshot", allowedIn.deleteSnapshot);
    const taken = snapshot.takenAt?.toISOString() ?? null;
    return {
      ...changeOf(server, `Delete the snapshot ${snapshot.name} of`),
      before: { snapshot: snapshot.name, taken },
      after: {},
      irreversible: [`There is no way back to ${snapshot.name} any more. The server itself stays as it is.`],
      details: detailsOf(server, snapshot),
    };
  },
  steps(plan, clouds) {
    const { order } = PickDetails.parse(plan.details);
    return [
      preflightServer({ externalId: order.externalId, states: [...allowedIn.deleteSnapshot] }),
      ...proceduresOf(clouds.get(plan.cloud ?? "")).remove(order),
    ];
  },
  onEnd(end, { plan }) {
    if (end !== "succeeded") return {};
    const { name } = PickDetails.parse(plan.details).order;
    return {
      events: [{ type: "snapshot.deleted", data: { snapshot: name } }],
      note: `The snapshot ${name} is deleted.`,
    };
  },
});

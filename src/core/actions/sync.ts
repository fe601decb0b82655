import { z } from "zod";
import { type ActionContext, type ChangePlan, defineOperation, defineRead } from "../action.ts";
import type { Cloud } from "../cloud.ts";
import { ServiceError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { duration } from "../operations/card.ts";
import type { Issued, StepContext, StepDefinition } from "../operations/step.ts";
import { shortened } from "../option-values.ts";
import { type SyncReport, syncResources } from "../sync/pass.ts";
import { runSync } from "../sync/run.ts";
import { cloudOption } from "./options.ts";

const minuteMs = 60_000;

const RunInput = z.object({
  type: z.enum(syncResources).optional(),
  cloud: z.string().optional(),
  force: z.boolean().optional(),
});
type RunInput = z.infer<typeof RunInput>;

const StepInput = z.object({ resource: z.enum(syncResources), force: z.boolean() });
const Details = z.object({ resources: z.array(z.enum(syncResources)), force: z.boolean() });

const syncStep: StepDefinition = {
  name: "sync.resource",
  deadlineMs: 15 * minuteMs,
  callTimeoutMs: 10 * minuteMs,
  evidence: "none",
  issue: syncOne,
};

async function syncOne(context: StepContext): Promise<Issued> {
  const { resource, force } = StepInput.parse(context.input);
  const report = await runSync({
    database: context.database,
    cloud: context.cloud,
    resource,
    requester: context.operation.publicId,
    log: context.log,
    force,
  });
  if (report.state === "failed") {
    return {
      kind: "failed",
      error: new ServiceError("cloud_failed", `The list of ${resource} could not be read.`, detailOf(report)),
    };
  }
  if (report.state === "aborted") {
    return {
      kind: "failed",
      error: new ServiceError(
        "conflict",
        `The list of ${resource} was not believed, and nothing was taken away.`,
        detailOf(report),
      ),
    };
  }
  return { kind: "done", note: noteOf(report), output: { [resource]: report.state } };
}

function detailOf(report: SyncReport) {
  return report.errors.length === 0 ? {} : { staffDetail: report.errors.slice(0, 3).join(" ") };
}

function noteOf(report: SyncReport): string {
  const parts = [
    `${report.seen} seen`,
    `${report.created} new`,
    `${report.updated} changed`,
    `${report.missing} missing`,
  ];
  if (report.errors.length > 0) parts.push(`${report.errors.length} unusable (${report.errors[0] ?? ""})`);
  if (report.lateTwins.length > 0) {
    const twins = report.lateTwins
      .map((twin) => `${twin.name} ${twin.externalId} (${twin.marker})`)
      .join(", ");
    parts.push(`servers with our marker that belong to nothing of ours: ${twins}`);
  }
  return parts.join(", ");
}

export const syncRun = defineOperation<RunInput>({
  name: "sync.run",
  summary: "Read a cloud's catalogue and servers now",
  audience: ["staff"],
  permission: "sync.run",
  risk: "change",
  specVersion: 1,
  input: RunInput,
  options: [
    {
      name: "type",
      field: "type",
      label: "What",
      help: "Else everything",
      type: "text",
      subject: true,
      choices: syncResources.map((value) => ({ value, label: value })),
    },
    { ...cloudOption, help: "Else the only one" },
    {
      name: "force",
      field: "force",
      label: "Force",
      help: "Believe a list that is much shorter than before",
      type: "flag",
      advanced: true,
    },
  ],
  plan: planSync,
  steps(plan) {
    const { resources, force } = Details.parse(plan.details);
    return resources.map((resource) => ({
      name: syncStep.name,
      label: `Read the ${resource}`,
      input: { resource, force },
    }));
  },
  definitions: [syncStep],
});

async function planSync(context: ActionContext, input: RunInput): Promise<ChangePlan> {
  const cloud = chooseCloud(context.engine.clouds.list(), input.cloud);
  const resources = input.type === undefined ? [...syncResources] : [input.type];
  return {
    title: `Synchronise ${input.type ?? "everything"} of ${cloud.name}`,
    serverId: null,
    customerId: null,
    cloud: cloud.name,
    lockKey: `sync:${cloud.name}`,
    before: {},
    after: {},
    downtime: null,
    irreversible: [],
    notes: [],
    dataAsOf: null,
    details: { resources, force: input.force ?? false },
  };
}

function chooseCloud(clouds: readonly Cloud[], typed: string | undefined): Cloud {
  const names = clouds.map((cloud) => cloud.name);
  if (typed === undefined) {
    const [only] = clouds;
    if (only !== undefined && clouds.length === 1) return only;
    throw new ServiceError("invalid_input", `Say which cloud: cloud:${names.join(" or cloud:")}.`, {
      facts: { option: "cloud" },
    });
  }
  const found = clouds.find((cloud) => cloud.name.toLowerCase() === typed.toLowerCase());
  if (found !== undefined) return found;
  const guess = nearest(typed, names);
  throw new ServiceError(
    "not_found",
    `No cloud "${shortened(typed)}". ${guess === undefined ? `There are ${names.join(", ")}.` : `Did you mean ${guess}?`}`,
    {
      facts: { option: "cloud" },
    },
  );
}

const StatusInput = z.object({});

export const syncStatus = defineRead<z.infer<typeof StatusInput>>({
  name: "sync.status",
  summary: "When each cloud was last read, and what came of it",
  audience: ["staff"],
  permission: "sync.read",
  input: StatusInput,
  options: [],
  async run({ database }) {
    const rows = await database.sql<{
      cloud: string;
      resource: string;
      state: string;
      ageMs: number;
      seen: number;
      missing: number;
      errors: string[];
    }>(
      `SELECT DISTINCT ON (c.name, r.resource) c.name AS cloud, r.resource, r.state, r.seen, r.missing, r.errors,
         (extract(epoch FROM clock() - r.started_at) * 1000)::float8 AS "ageMs"
       FROM sync_runs r JOIN clouds c ON c.id = r.cloud_id WHERE c.retired_at IS NULL
       ORDER BY c.name, r.resource, r.started_at DESC`,
    );
    return {
      title: "Synchronisation",
      tone: rows.some((row) => row.state === "failed" || row.state === "aborted") ? "warning" : "neutral",
      table: {
        columns: ["Cloud", "What", "Result", "Ago", "Seen", "Missing", "Problem"],
        rows: rows.map((row) => [
          row.cloud,
          row.resource,
          row.state,
          duration(row.ageMs),
          String(row.seen),
          String(row.missing),
          row.errors[0] ?? "-",
        ]),
        empty: "No cloud has been read yet.",
      },
    };
  },
});

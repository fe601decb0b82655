/** The engine's part for one step, without the engine: issue, find out after a lost answer, wait, verify. */
import { setTimeout as pause } from "node:timers/promises";
import { pino } from "pino";
import type { Cloud, OpenWait, RemoteServer } from "../../src/core/cloud.ts";
import { isServiceError, type ServiceError } from "../../src/core/errors.ts";
import type { PlannedStep, StepContext, StepDefinition, Verdict } from "../../src/core/operations/step.ts";
import type { Database } from "../../src/database/client.ts";

export interface RunOptions {
  operationId: string;
  secret?: string;
  /** Where a step may keep rows of its own (PVE's reservations); any use of it throws otherwise. */
  database?: Database | undefined;
  /** The rows of servers by external id, as the engine keeps them. */
  rows?: Map<string, Record<string, unknown>>;
  /** The server that the whole operation is about, by its external id before it. */
  externalId?: string;
  /** How often the cloud is looked at. */
  everyMs?: number;
  limitMs?: number;
}

export interface StepRun {
  verdict: Exclude<Verdict, { kind: "pending" | "again" }>;
  /** How often `issue` was called. */
  issued: number;
  /** The error of the first `issue`, when its answer was lost. */
  lost?: ServiceError;
  reference: Record<string, unknown> | null;
  notes: string[];
}

/** A cloud's step has no business in the database. */
// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- any use of it throws
const noDatabase = new Proxy({} as Database, {
  get(_target, key) {
    throw new Error(`a cloud's step used the database (${String(key)})`);
  },
});

export function definitionOf(cloud: Cloud, name: string): StepDefinition {
  const found = cloud.steps.find((step) => step.name === name);
  if (found === undefined) throw new Error(`cloud ${cloud.name} has no step ${name}`);
  return found;
}

export function contextOf(cloud: Cloud, planned: PlannedStep, options: RunOptions): StepContext {
  return {
    operation: {
      id: options.operationId,
      publicId: "op-test",
      action: "test",
      input: {},
      plan: {},
      output: options.rows?.get(outputOf(options.operationId)) ?? {},
    },
    // As it comes back from the database.
    input: JSON.parse(JSON.stringify(planned.input)),
    attempt: 1,
    marker: `op=${options.operationId}.1`,
    reference: null,
    inDoubt: false,
    issuedAt: new Date(),
    ...rowOf(planned, options),
    cloud,
    database: options.database ?? noDatabase,
    log: pino({ level: "silent" }),
    signal: new AbortController().signal,
    readSecret: () => Promise.resolve(options.secret ?? "not-a-secret"),
  };
}

/** Steps on a server name it; those that make one find out what it is. */
function rowOf(planned: PlannedStep, { rows, operationId, externalId }: RunOptions) {
  const named = planned.input["externalId"] ?? planned.input["serverId"];
  const made = rows?.get(madeBy(operationId))?.["externalId"];
  const own = typeof made === "string" ? made : externalId;
  const key = typeof named === "string" ? named : own;
  const data = key === undefined ? undefined : rows?.get(key);
  return { externalId: data === undefined || key === undefined ? null : key, serverData: data ?? {} };
}

type Kept = { kind: string; server?: RemoteServer; output?: Record<string, unknown> };

function keepRow(outcome: Kept, { rows, operationId }: RunOptions): void {
  const { server, output } = outcome;
  if (output !== undefined && rows !== undefined)
    rows.set(outputOf(operationId), { ...rows.get(outputOf(operationId)), ...stored(output) });
  if (server === undefined || rows === undefined) return;
  rows.set(server.externalId, { ...rows.get(server.externalId), ...server.data });
  rows.set(madeBy(operationId), { externalId: server.externalId });
}

function madeBy(operationId: string): string {
  return `made by ${operationId}`;
}

function outputOf(operationId: string): string {
  return `output of ${operationId}`;
}

const MAX_ATTEMPTS = 3;

/** Throws what `issue` refuses with. */
export async function runStep(cloud: Cloud, planned: PlannedStep, options: RunOptions): Promise<StepRun> {
  const step = definitionOf(cloud, planned.name);
  const context = contextOf(cloud, planned, options);
  const run: StepRun = { verdict: { kind: "done" }, issued: 0, reference: null, notes: [] };
  while (run.issued < MAX_ATTEMPTS) {
    run.issued += 1;
    context.attempt = run.issued;
    context.marker = `op=${options.operationId}.${run.issued}`;
    context.issuedAt = new Date();
    try {
      const issued = await step.issue(context);
      if (issued.kind !== "wait") return ended(run, issued, options);
      context.reference = stored(issued.reference);
      const finished = await finish(step, { context, condition: stored(issued.condition), options, run });
      if (finished !== "again") return finished;
      // It was answered: it counts as one that was never issued.
      context.reference = null;
      run.issued -= 1;
      await pause(options.everyMs ?? 15);
    } catch (error) {
      if (!isServiceError(error, "unknown_outcome")) throw error;
      run.lost = error;
      const probe = await step.probe?.(context);
      if (probe?.effect === "unknown") throw error;
      if (probe?.effect === "present") {
        context.reference = stored(probe.reference);
        const finished = await finish(step, { context, condition: stored(probe.condition), options, run });
        if (finished !== "again") return finished;
        context.reference = null;
      }
    }
  }
  throw new Error(`${step.name} was issued ${MAX_ATTEMPTS} times`, { cause: run.lost });
}

function ended(run: StepRun, verdict: StepRun["verdict"], options: RunOptions): StepRun {
  keepRow(verdict, options);
  run.verdict = verdict;
  if (verdict.kind === "done" && verdict.note !== undefined) run.notes.push(verdict.note);
  return run;
}

interface Rest {
  context: StepContext;
  condition: Record<string, unknown>;
  options: RunOptions;
  run: StepRun;
}

async function finish(
  step: StepDefinition,
  { context, condition, options, run }: Rest,
): Promise<StepRun | "again"> {
  run.reference = context.reference;
  const limit = Date.now() + (options.limitMs ?? 15_000);
  let wait: OpenWait = { id: "wait", condition, since: context.issuedAt, observedAt: null };
  while (Date.now() < limit) {
    const [observation] = await context.cloud.watch([wait]);
    if (observation?.note !== undefined && run.notes.at(-1) !== observation.note)
      run.notes.push(observation.note);
    if (observation?.result !== undefined) {
      const verdict = await verify(step, context);
      // One call of several that the step makes.
      if (verdict.kind === "again" || (verdict.kind === "done" && verdict.more !== undefined)) return "again";
      if (verdict.kind !== "pending") return ended(run, verdict, options);
      // As the engine does: a new wait, from now on.
      context.issuedAt = new Date();
      wait = { id: "wait", condition: stored(verdict.condition), since: context.issuedAt, observedAt: null };
    } else if (observation !== undefined) {
      wait.observedAt = new Date();
    }
    await pause(options.everyMs ?? 15);
  }
  throw new Error(`step ${step.name} did not end: ${run.notes.join(", ")}`);
}

function verify(step: StepDefinition, context: StepContext): Promise<Verdict> {
  if (step.verify === undefined) throw new Error(`step ${step.name} waits but cannot verify`);
  return step.verify(context);
}

function stored(value: Record<string, unknown>): Record<string, unknown> {
  return JSON.parse(JSON.stringify(value));
}

/** All steps of a procedure; throws when one does not end as done. */
export async function runAll(cloud: Cloud, steps: PlannedStep[], options: RunOptions): Promise<StepRun[]> {
  const runs: StepRun[] = [];
  for (const step of steps) {
    const run = await runStep(cloud, step, options);
    runs.push(run);
    if (run.verdict.kind === "failed") throw run.verdict.error;
  }
  return runs;
}

/** A create's procedure in two: what comes before the step that makes the server, and that step. */
export function createStepOf(
  cloud: Cloud,
  steps: PlannedStep[],
): { before: PlannedStep[]; create: PlannedStep } {
  const index = steps.findIndex((step) => definitionOf(cloud, step.name).compensation !== undefined);
  const create = steps[index];
  if (create === undefined) throw new Error("a create step must be able to undo");
  return { before: steps.slice(0, index), create };
}

import { z } from "zod";
import { type PowerVerb, powerVerbs, type RemoteServer, type ServerState } from "../../../core/cloud.ts";
import { ServiceError } from "../../../core/errors.ts";
import type {
  Issued,
  PlannedStep,
  Probe,
  StepContext,
  StepDefinition,
  Verdict,
} from "../../../core/operations/step.ts";
import { pingAgent } from "../agent.ts";
import type { PveClient } from "../client.ts";
import type { FoundVm } from "../cluster.ts";
import { lookCondition } from "../condition.ts";
import { hasAgent } from "../config.ts";
import type { Parameters } from "../form.ts";
import { remoteServerOf } from "../server.ts";
import { getStatus, type PowerCall, powerVm } from "../vm.ts";
import { findTarget, getTarget, outcomeFor, requireUnlocked, vanished } from "./target.ts";
import { explained, judgeTask, refusal, staffNoteOf, taskSinceIntent, waitFor } from "./task.ts";
import { withWaitingSize } from "./waiting-size.ts";

const Input = z.object({ externalId: z.string().optional(), verb: z.enum(powerVerbs) });

interface Verb {
  label: string;
  goal: ServerState;
  call: PowerCall;
  parameters?: Parameters;
  already?: string;
  /** Completes "The cloud tried to …". */
  what: string;
}

/** How long a guest has to react. PVE's own default. */
const GUEST_S = 60;

const VERBS: Readonly<Record<PowerVerb, Verb>> = {
  start: {
    label: "Start the server",
    goal: "active",
    call: "start",
    already: "It was already running.",
    what: "start the server",
  },
  stop: {
    label: "Stop the server",
    goal: "stopped",
    call: "shutdown",
    // The guest is asked first; then the power is cut.
    parameters: { timeout: GUEST_S, forceStop: true },
    already: "It was already off.",
    what: "stop the server",
  },
  shutdown: {
    label: "Shut the server down",
    goal: "stopped",
    call: "shutdown",
    parameters: { timeout: GUEST_S },
    already: "It was already off.",
    what: "shut the server down",
  },
  kill: {
    label: "Cut the power",
    goal: "stopped",
    call: "stop",
    already: "It was already off.",
    what: "switch the server off",
  },
  suspend: {
    label: "Save its memory and switch it off",
    goal: "suspended",
    call: "suspend",
    parameters: { todisk: true },
    already: "It was already suspended.",
    what: "suspend the server",
  },
  resume: {
    label: "Resume the server",
    goal: "active",
    call: "resume",
    already: "It was already running.",
    what: "resume the server",
  },
  reboot: {
    label: "Restart the server",
    goal: "active",
    call: "reboot",
    parameters: { timeout: GUEST_S },
    what: "restart the server",
  },
  reset: { label: "Reset the server", goal: "active", call: "reset", what: "reset the server" },
};

const DEADLINE_MS = 10 * 60_000;
const CALL_TIMEOUT_MS = 2 * 60_000;
/** How long the guest's agent may take to come up again. */
const AGENT_BACK_MS = 2 * 60_000;

/** Without an external id: of the VM that this operation makes. */
export function planPower(input: z.infer<typeof Input>): PlannedStep {
  const happens = input.verb === "reboot" || input.verb === "reset";
  return { name: happens ? "pve.reboot" : "pve.power", label: VERBS[input.verb].label, input };
}

/** Verbs that lead to a state: asked for again they change nothing. */
export function powerStep(client: PveClient): StepDefinition {
  return {
    name: "pve.power",
    deadlineMs: DEADLINE_MS,
    callTimeoutMs: CALL_TIMEOUT_MS,
    evidence: "repeatable",
    issue: (context) => issue(client, context),
    verify: (context) => verifyState(client, context),
  };
}

/** Verbs that happen each time they are asked for: after a lost answer the node's task list tells. */
export function rebootStep(client: PveClient): StepDefinition {
  return {
    name: "pve.reboot",
    deadlineMs: DEADLINE_MS,
    callTimeoutMs: CALL_TIMEOUT_MS,
    evidence: "record",
    issue: (context) => issue(client, context),
    probe: (context) => probe(client, context),
    verify: (context) => verifyReboot(client, context),
  };
}

function verbOf(context: StepContext): Verb {
  return VERBS[Input.parse(context.input).verb];
}

async function issue(client: PveClient, context: StepContext): Promise<Issued> {
  const verb = verbOf(context);
  const vm = await getTarget(client, context);
  const before = await remoteServerOf(client, vm, context.signal, { addresses: false });
  if (verb.already !== undefined && isAt(verb.goal, before) && !before.busy) {
    return { kind: "done", ...outcomeFor(context, before), note: verb.already };
  }
  await requireUnlocked(client, vm, context.signal);
  requireFitting(client, verb, before);
  // A reset of a server that is off is a start.
  const call = verb.call === "reset" && before.state === "stopped" ? "start" : verb.call;
  const parameters = verb.parameters === undefined ? {} : { parameters: verb.parameters };
  const upid = await explained(client, { vm, signal: context.signal }, () =>
    powerVm(client, vm, { call, ...parameters }, { signal: context.signal }),
  );
  if (upid === null) throw noTask(client);
  return waitFor(upid);
}

/** Running is running, whatever it was started from. */
function isAt(goal: ServerState, { state }: RemoteServer): boolean {
  return state === goal || (goal === "active" && state === "rescue");
}

const HINTS: Partial<Record<ServerState, string>> = {
  stopped: 'The server is off: use "start".',
  suspended: 'The server is suspended: use "resume".',
  paused: 'The server is paused: use "resume".',
};

/** PVE would refuse it in the task, or do something else. */
function requireFitting(client: PveClient, verb: Verb, { state }: RemoteServer): void {
  const wrong =
    (verb.call === "reboot" && !["active", "rescue", "error"].includes(state)) ||
    (verb.call === "reset" && (state === "suspended" || state === "paused")) ||
    (verb.call === "start" && state === "paused") ||
    (verb.call === "suspend" && state !== "active") ||
    (verb.call === "resume" && state === "stopped");
  if (!wrong) return;
  throw new ServiceError(
    "cloud_conflict",
    `${HINTS[state] ?? `The server is ${state}.`} Nothing was changed.`,
    { facts: { cloud: client.cloud, state } },
  );
}

export function noTask(client: PveClient): ServiceError {
  return new ServiceError(
    "unknown_outcome",
    "The cloud's answer cannot be understood, so it is not known yet whether the change was made.",
    { facts: { cloud: client.cloud } },
  );
}

async function probe(client: PveClient, context: StepContext): Promise<Probe> {
  const verb = verbOf(context);
  const vm = await findTarget(client, context);
  if (vm === null) return { effect: "absent" };
  // A reset of a server that was off is a start.
  const types = [`qm${verb.call}`, ...(verb.call === "reset" ? ["qmstart"] : [])];
  return taskSinceIntent(client, context, { vm, types });
}

async function verifyState(client: PveClient, context: StepContext): Promise<Verdict> {
  const verb = verbOf(context);
  const judged = await judgeTask(client, context, verb.what);
  if (judged.kind === "running") return judged.verdict;
  const vm = await findTarget(client, context);
  if (vm === null) return { kind: "failed", error: vanished(client) };
  const justStarted = verb.goal === "active" && judged.kind === "ok";
  const server = await remoteServerOf(client, vm, context.signal, { justStarted });
  if (isAt(verb.goal, server) && !server.busy) {
    const late = judged.kind === "failed" && verb.already !== undefined ? { note: verb.already } : {};
    return {
      kind: "done",
      ...outcomeFor(context, await withWaitingSize(client, context, { vm, server })),
      ...late,
      ...(judged.kind === "ok" ? staffNoteOf(judged.warnings) : {}),
    };
  }
  if (judged.kind === "failed")
    return withServer(context, await refusal(client, context, { error: judged.error, vm }), server);
  // A VM under HA changes its state after the task has ended.
  if (judged.kind === "ok")
    return { kind: "pending", condition: lookCondition(`it is ${server.state} still`) };
  return { kind: "again", error: unknownTask(client) };
}

export function unknownTask(client: PveClient): ServiceError {
  return new ServiceError(
    "cloud_conflict",
    "The cloud has no record of the work, and the server did not change.",
    {
      facts: { cloud: client.cloud },
    },
  );
}

function withServer(context: StepContext, verdict: Verdict, server: RemoteServer): Verdict {
  const known = outcomeFor(context, server).server;
  return verdict.kind === "failed" && known !== undefined ? { ...verdict, server: known } : verdict;
}

/** PVE's own task ends when the guest is down; it comes up a moment later. */
async function verifyReboot(client: PveClient, context: StepContext): Promise<Verdict> {
  const verb = verbOf(context);
  const judged = await judgeTask(client, context, verb.what);
  if (judged.kind === "running") return judged.verdict;
  const vm = await findTarget(client, context);
  if (vm === null) return { kind: "failed", error: vanished(client) };
  const found = await remoteServerOf(client, vm, context.signal);
  const server = await withWaitingSize(client, context, { vm, server: found });
  if (judged.kind === "failed")
    return withServer(context, await refusal(client, context, { error: judged.error, vm }), server);
  if (!isAt("active", server)) return { kind: "pending", condition: lookCondition("coming up again") };
  // PVE has forgotten the task: only a younger guest proves the restart, and a reset does not make it younger.
  if (judged.kind === "unknown" && !(await hasStartedSince(client, context, vm))) {
    return { kind: "pending", condition: lookCondition("it is not known yet whether it has restarted") };
  }
  // A rescue system has no agent of ours.
  if (server.state === "rescue" || !hasAgent(vm.config) || (await pingAgent(client, vm, context.signal))) {
    return {
      kind: "done",
      ...outcomeFor(context, server),
      ...(judged.kind === "ok" ? staffNoteOf(judged.warnings) : {}),
    };
  }
  const status = await getStatus(client, vm, context.signal);
  if ((status.uptime ?? 0) * 1000 < AGENT_BACK_MS)
    return { kind: "pending", condition: lookCondition("coming up again") };
  return {
    kind: "done",
    ...outcomeFor(context, server),
    note: "It runs again, but its guest agent does not answer yet.",
  };
}

async function hasStartedSince(client: PveClient, context: StepContext, vm: FoundVm): Promise<boolean> {
  const { uptime = Number.POSITIVE_INFINITY } = await getStatus(client, vm, context.signal);
  return uptime * 1000 < client.now() - context.issuedAt.getTime();
}

/** The VM as it is, for steps that need a running one. */
export async function isOff(client: PveClient, vm: FoundVm, signal: AbortSignal): Promise<boolean> {
  return (await getStatus(client, vm, signal)).status === "stopped";
}

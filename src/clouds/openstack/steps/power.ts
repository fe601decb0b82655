import { z } from "zod";
import type { PowerVerb, ServerState } from "../../../core/cloud.ts";
import { isServiceError, reworded, ServiceError } from "../../../core/errors.ts";
import type {
  Issued,
  PlannedStep,
  Probe,
  StepContext,
  StepDefinition,
  Verdict,
} from "../../../core/operations/step.ts";
import type { OpenStackClient } from "../client.ts";
import { actOnServer, findServer, getServer, remoteServerOf } from "../compute.ts";
import { serverCondition } from "../condition.ts";
import type { NovaServer } from "../schema.ts";
import { isBusy, noteOf, stateOf, statusOf } from "../state.ts";
import { failureOf, findOwnAction, recordDetailOf } from "./record.ts";

interface Verb {
  label: string;
  /** The state that it leads to. */
  goal: ServerState;
  body(server: NovaServer): Record<string, unknown>;
  /** As the action is called in Nova's log. */
  actions: readonly string[];
  already?: string;
}

const STOP: Verb = {
  label: "Shut the server down",
  goal: "stopped",
  // os-stop asks the guest first and cuts the power after the image's or the cloud's own timeout.
  body: () => ({ "os-stop": null }),
  actions: ["stop"],
  already: "It was already off.",
};

/** These lead to a state, so they may be asked for again. */
const STATE_VERBS = {
  start: {
    label: "Start the server",
    goal: "active",
    body: () => ({ "os-start": null }),
    actions: ["start"],
    already: "It was already running.",
  },
  stop: STOP,
  shutdown: STOP,
  suspend: {
    label: "Suspend the server",
    goal: "suspended",
    body: () => ({ suspend: null }),
    actions: ["suspend"],
    already: "It was already suspended.",
  },
  resume: {
    label: "Resume the server",
    goal: "active",
    body: (server) => (stateOf(server) === "paused" ? { unpause: null } : { resume: null }),
    actions: ["resume", "unpause"],
    already: "It was already running.",
  },
} as const satisfies Partial<Record<PowerVerb, Verb>>;

/** These happen once each time they are asked for. */
const REBOOT_VERBS = {
  reboot: {
    label: "Restart the server",
    goal: "active",
    body: () => ({ reboot: { type: "SOFT" } }),
    actions: ["reboot"],
  },
  reset: {
    label: "Reset the server",
    goal: "active",
    body: () => ({ reboot: { type: "HARD" } }),
    actions: ["reboot"],
  },
} as const satisfies Partial<Record<PowerVerb, Verb>>;

type StateVerb = keyof typeof STATE_VERBS;
type RebootVerb = keyof typeof REBOOT_VERBS;

const StateInput = z.object({
  serverId: z.string(),
  verb: z.enum(["start", "stop", "shutdown", "suspend", "resume"]),
});
const RebootInput = z.object({ serverId: z.string(), verb: z.enum(["reboot", "reset"]) });

export const openStackPowerVerbs: readonly PowerVerb[] = [
  "start",
  "stop",
  "shutdown",
  "reboot",
  "reset",
  "suspend",
  "resume",
];

const CALL_TIMEOUT_MS = 60_000;
const DEADLINE_MS = 10 * 60_000;

/** Throws `unsupported` for a verb without an equivalent. */
export function planPower(serverId: string, verb: PowerVerb): PlannedStep {
  if (isIn(STATE_VERBS, verb)) {
    return { name: "openstack.power", label: STATE_VERBS[verb].label, input: { serverId, verb } };
  }
  if (isIn(REBOOT_VERBS, verb)) {
    return { name: "openstack.reboot", label: REBOOT_VERBS[verb].label, input: { serverId, verb } };
  }
  throw new ServiceError(
    "unsupported",
    `OpenStack has no "${verb}". Use "stop": it asks the guest first and cuts the power when the guest does not react.`,
    { facts: { verb, supported: openStackPowerVerbs } },
  );
}

function isIn<Verbs extends object>(verbs: Verbs, verb: string): verb is keyof Verbs & string {
  return Object.hasOwn(verbs, verb);
}

export function powerStep(client: OpenStackClient): StepDefinition {
  const read = (context: StepContext): { serverId: string; verb: Verb } => {
    const input: { serverId: string; verb: StateVerb } = StateInput.parse(context.input);
    return { serverId: input.serverId, verb: STATE_VERBS[input.verb] };
  };
  return {
    name: "openstack.power",
    deadlineMs: DEADLINE_MS,
    callTimeoutMs: CALL_TIMEOUT_MS,
    evidence: "repeatable",
    async issue(context) {
      const { serverId, verb } = read(context);
      const before = await getServer(client, serverId, context.signal);
      if (isThere(before, verb)) return alreadyThere(before, verb);
      try {
        return await act(client, context, { server: before, verb });
      } catch (error) {
        // 409 also when it is there already: somebody else, or our own earlier call.
        if (!isServiceError(error, "cloud_conflict")) throw error;
        const after = await getServer(client, serverId, context.signal);
        if (isThere(after, verb)) return alreadyThere(after, verb);
        throw error;
      }
    },
    verify: (context) => verifyPower(client, context, read(context)),
  };
}

export function rebootStep(client: OpenStackClient): StepDefinition {
  const read = (context: StepContext): { serverId: string; verb: Verb } => {
    const input: { serverId: string; verb: RebootVerb } = RebootInput.parse(context.input);
    return { serverId: input.serverId, verb: REBOOT_VERBS[input.verb] };
  };
  return {
    name: "openstack.reboot",
    deadlineMs: DEADLINE_MS,
    callTimeoutMs: CALL_TIMEOUT_MS,
    evidence: "record",
    async issue(context) {
      const { serverId, verb } = read(context);
      const before = await getServer(client, serverId, context.signal);
      return act(client, context, { server: before, verb });
    },
    async probe(context): Promise<Probe> {
      const { serverId, verb } = read(context);
      const record = await findOwnAction(client, context, { serverId, actions: verb.actions });
      if (record === null) return { effect: "absent" };
      return {
        effect: "present",
        reference: { requestId: record.request_id },
        condition: serverCondition(serverId),
        note: "The cloud's answer was lost, but it has begun the restart.",
      };
    },
    verify: (context) => verifyPower(client, context, read(context)),
  };
}

async function act(
  client: OpenStackClient,
  context: StepContext,
  { server, verb }: { server: NovaServer; verb: Verb },
): Promise<Issued> {
  try {
    const answer = await actOnServer(client, server.id, verb.body(server), {
      timeoutMs: CALL_TIMEOUT_MS,
      signal: context.signal,
    });
    return {
      kind: "wait",
      reference: answer.requestId === undefined ? {} : { requestId: answer.requestId },
      condition: serverCondition(server.id),
    };
  } catch (error) {
    throw isServiceError(error, "cloud_conflict") ? withHint(error, server) : error;
  }
}

const HINTS: Partial<Record<ServerState, string>> = {
  stopped: 'The server is off: use "start".',
  suspended: 'The server is suspended: use "resume".',
  paused: 'The server is paused: use "resume".',
  verify_resize: "The server waits for the end of a resize.",
  error: 'The server is in an error state: "reset" often brings it back.',
  rescue: "The server is in rescue mode: it must be ended in the cloud first.",
};

function withHint(error: ServiceError, server: NovaServer): ServiceError {
  const hint = HINTS[stateOf(server)];
  if (hint === undefined || isBusy(server) || error.facts["locked"] === true) return error;
  return reworded(error, `${hint} Nothing was changed.`, { code: "cloud_conflict" });
}

function isThere(server: NovaServer, verb: Verb): boolean {
  return !isBusy(server) && stateOf(server) === verb.goal;
}

function alreadyThere(server: NovaServer, verb: Verb): Issued {
  return {
    kind: "done",
    server: remoteServerOf(server),
    ...(verb.already === undefined ? {} : { note: verb.already }),
  };
}

async function verifyPower(
  client: OpenStackClient,
  context: StepContext,
  { serverId, verb }: { serverId: string; verb: Verb },
): Promise<Verdict> {
  const server = await findServer(client, serverId, context.signal);
  if (server === null) {
    return {
      kind: "failed",
      error: new ServiceError(
        "cloud_not_found",
        "The server is no longer there: it was removed in the cloud meanwhile.",
        {
          facts: { cloud: client.cloud },
        },
      ),
    };
  }
  if (isBusy(server) || statusOf(server) === "UNKNOWN") {
    const note = noteOf(server);
    return {
      kind: "pending",
      condition: serverCondition(server.id),
      ...(note === undefined ? {} : { note }),
    };
  }
  const remote = remoteServerOf(server);
  const record = await findOwnAction(client, context, { serverId, actions: verb.actions });
  if (stateOf(server) === verb.goal && failureOf(record) === null) return { kind: "done", server: remote };
  return {
    kind: "failed",
    server: remote,
    error: new ServiceError(
      "cloud_failed",
      `The cloud accepted this and then gave it up: the server is ${STATE_WORDS[stateOf(server)] ?? "in another state"}. Try again, or have the operators look at it.`,
      {
        facts: { cloud: client.cloud, status: statusOf(server) },
        staffDetail: `${client.cloud}: server ${server.id} is ${statusOf(server)}; ${recordDetailOf(record)}`,
      },
    ),
  };
}

const STATE_WORDS: Partial<Record<ServerState, string>> = {
  active: "running",
  stopped: "off",
  suspended: "suspended",
  paused: "paused",
  error: "in an error state",
};

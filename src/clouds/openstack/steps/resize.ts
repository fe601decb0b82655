import { z } from "zod";
import type { ResizeOrder, TargetSize } from "../../../core/cloud.ts";
import { isServiceError, ServiceError } from "../../../core/errors.ts";
import type {
  Issued,
  PlannedStep,
  Probe,
  StepContext,
  StepDefinition,
  Verdict,
} from "../../../core/operations/step.ts";
import type { OpenStackClient } from "../client.ts";
import { actOnServer, findServer, getFlavor, getServer, remoteServerOf } from "../compute.ts";
import { serverCondition } from "../condition.ts";
import type { NovaFlavor, NovaServer } from "../schema.ts";
import { isBusy, noteOf, stateOf, statusOf } from "../state.ts";
import { failureOf, findOwnAction, recordDetailOf } from "./record.ts";

const Size = z.object({ vcpus: z.number(), memoryMib: z.number(), diskGib: z.number() });
const Input = z.object({ serverId: z.string(), flavorId: z.string(), after: Size });
type Input = z.infer<typeof Input>;

const RESIZE = "openstack.resize";
const CONFIRM = "openstack.confirm_resize";
const CALL_TIMEOUT_MS = 75_000;
const NO_RETURN =
  "The cloud is already moving the server to its new size, and this cannot be stopped half-way. Resize it back afterwards if need be.";

export function planResize(order: ResizeOrder, flavorId: string): PlannedStep[] {
  const { vcpus, memoryMib, diskGib }: TargetSize = order.after;
  const input: Input = { serverId: order.externalId, flavorId, after: { vcpus, memoryMib, diskGib } };
  return [
    { name: RESIZE, label: "Move the server to its new size", input },
    { name: CONFIRM, label: "Keep the new size", input: { ...input } },
  ];
}

export function resizeStep(client: OpenStackClient): StepDefinition {
  return {
    name: RESIZE,
    deadlineMs: 2 * 60 * 60_000,
    callTimeoutMs: CALL_TIMEOUT_MS,
    pointOfNoReturn: NO_RETURN,
    evidence: "record",
    issue: (context) => issueResize(client, context),
    probe: (context) => probeResize(client, context),
    verify: (context) => verifyResize(client, context),
  };
}

function waiting(serverId: string) {
  return serverCondition(serverId, ["RESIZE", "REVERT_RESIZE", "MIGRATING"]);
}

async function issueResize(client: OpenStackClient, context: StepContext): Promise<Issued> {
  const input = Input.parse(context.input);
  const flavor = await findFlavor(client, input, context.signal);
  const before = await getServer(client, input.serverId, context.signal);
  if (hasFlavor(before, flavor, input) && !isBusy(before) && stateOf(before) !== "error") {
    return { kind: "done", server: remoteServerOf(before), note: "The server has this size already." };
  }
  try {
    const answer = await actOnServer(
      client,
      input.serverId,
      { resize: { flavorRef: input.flavorId } },
      { timeoutMs: CALL_TIMEOUT_MS, signal: context.signal },
    );
    return {
      kind: "wait",
      reference: answer.requestId === undefined ? {} : { requestId: answer.requestId },
      condition: waiting(input.serverId),
    };
  } catch (error) {
    // A conflict on a repeated call may be our own earlier one at work.
    if (context.attempt > 1 && isServiceError(error, "cloud_conflict", "cloud_invalid")) {
      const found = await probeResize(client, context);
      if (found.effect === "present") {
        return { kind: "wait", reference: found.reference, condition: found.condition };
      }
    }
    throw error;
  }
}

async function probeResize(client: OpenStackClient, context: StepContext): Promise<Probe> {
  const { serverId } = Input.parse(context.input);
  const record = await findOwnAction(client, context, { serverId, actions: ["resize"] });
  if (record === null) return { effect: "absent" };
  return {
    effect: "present",
    reference: { requestId: record.request_id },
    condition: waiting(serverId),
    note: "The cloud's answer was lost, but it has begun the resize.",
  };
}

async function verifyResize(client: OpenStackClient, context: StepContext): Promise<Verdict> {
  const input = Input.parse(context.input);
  const server = await findServer(client, input.serverId, context.signal);
  if (server === null) return { kind: "failed", error: vanished(client) };
  const status = statusOf(server);
  if (isBusy(server) || status === "UNKNOWN") return stillWaiting(server, waiting(server.id));
  const flavor = await findFlavor(client, input, context.signal);
  const remote = remoteServerOf(server);
  if (status !== "ERROR" && hasFlavor(server, flavor, input)) {
    return {
      kind: "done",
      server: remote,
      ...(status === "VERIFY_RESIZE" ? {} : { note: "The cloud has kept the new size by itself." }),
    };
  }
  const record = await findOwnAction(client, context, { serverId: server.id, actions: ["resize"] });
  return { kind: "failed", server: remote, error: resizeFailure(client, server, record) };
}

function resizeFailure(
  client: OpenStackClient,
  server: NovaServer,
  record: Awaited<ReturnType<typeof findOwnAction>>,
): ServiceError {
  const fault = server.fault?.message === undefined ? "" : `: ${server.fault.message.trim()}`;
  const options = {
    facts: { cloud: client.cloud, status: statusOf(server) },
    staffDetail: `${client.cloud}: server ${server.id} is ${statusOf(server)}${fault}; ${recordDetailOf(record)}`,
  };
  if (stateOf(server) === "error") {
    return new ServiceError(
      "cloud_failed",
      "The resize failed half-way and the server is in an error state. The operators must bring it back (a hard reset often does).",
      options,
    );
  }
  if (stateOf(server) === "verify_resize") {
    return new ServiceError(
      "cloud_conflict",
      "The server is waiting for the end of another resize, made outside of here. It must be kept or undone in the cloud first.",
      options,
    );
  }
  const noHost = failureOf(record)?.events.some((event) => /migrate/u.test(event)) ?? false;
  const reason = noHost
    ? " Most likely no host has room for the new size."
    : " A size with a smaller disk is the usual reason.";
  return new ServiceError(
    "cloud_failed",
    `OpenStack gave up the resize and put the server back as it was.${failureOf(record) === null ? "" : reason}`,
    options,
  );
}

export function confirmResizeStep(client: OpenStackClient): StepDefinition {
  return {
    name: CONFIRM,
    deadlineMs: 60 * 60_000,
    callTimeoutMs: CALL_TIMEOUT_MS,
    pointOfNoReturn: "The new size is being made final.",
    evidence: "repeatable",
    issue: (context) => issueConfirm(client, context),
    verify: (context) => verifyConfirm(client, context),
  };
}

async function issueConfirm(client: OpenStackClient, context: StepContext): Promise<Issued> {
  const input = Input.parse(context.input);
  const before = await getServer(client, input.serverId, context.signal);
  // An operator's resize_confirm_window confirms by itself.
  if (statusOf(before) !== "VERIFY_RESIZE" || isBusy(before)) return confirmedBy(client, context, before);
  try {
    const answer = await actOnServer(
      client,
      input.serverId,
      { confirmResize: null },
      { timeoutMs: CALL_TIMEOUT_MS, signal: context.signal },
    );
    return {
      kind: "wait",
      reference: answer.requestId === undefined ? {} : { requestId: answer.requestId },
      condition: serverCondition(input.serverId, ["VERIFY_RESIZE"]),
    };
  } catch (error) {
    // Confirmed between our look and our call.
    if (!isServiceError(error, "cloud_conflict") || error.facts["locked"] === true) throw error;
    const after = await getServer(client, input.serverId, context.signal);
    if (statusOf(after) === "VERIFY_RESIZE" && !isBusy(after)) throw error;
    return confirmedBy(client, context, after);
  }
}

/** Without a call of ours. Throws when the size is not the new one. */
async function confirmedBy(
  client: OpenStackClient,
  context: StepContext,
  server: NovaServer,
): Promise<Issued> {
  const verdict = await confirmVerdict(client, context, server);
  if (verdict.kind === "failed") throw verdict.error;
  if (verdict.kind === "pending") return { kind: "wait", reference: {}, condition: verdict.condition };
  return { ...verdict, note: "The cloud has kept the new size by itself." };
}

async function verifyConfirm(client: OpenStackClient, context: StepContext): Promise<Verdict> {
  const input = Input.parse(context.input);
  const server = await findServer(client, input.serverId, context.signal);
  if (server === null) return { kind: "failed", error: vanished(client) };
  return confirmVerdict(client, context, server);
}

async function confirmVerdict(
  client: OpenStackClient,
  context: StepContext,
  server: NovaServer,
): Promise<Exclude<Verdict, { kind: "again" }>> {
  const input = Input.parse(context.input);
  const status = statusOf(server);
  if (isBusy(server) || status === "UNKNOWN") {
    return stillWaiting(server, serverCondition(server.id, ["VERIFY_RESIZE"]));
  }
  const record = await findOwnAction(client, context, { serverId: server.id, actions: ["confirmResize"] });
  // After the 204 the server stays in VERIFY_RESIZE without a task for about a second.
  if (status === "VERIFY_RESIZE" && failureOf(record) === null) {
    return stillWaiting(server, serverCondition(server.id, ["VERIFY_RESIZE"]));
  }
  const remote = remoteServerOf(server);
  const flavor = await findFlavor(client, input, context.signal);
  const kept = hasFlavor(server, flavor, input);
  if (kept && status !== "ERROR" && status !== "VERIFY_RESIZE") return { kind: "done", server: remote };
  return {
    kind: "failed",
    server: remote,
    error: new ServiceError(
      "cloud_failed",
      kept
        ? "The cloud could not make the new size final. The operators must look at the server."
        : "The server went back to its old size: the resize was undone in the cloud before it could be kept.",
      {
        facts: { cloud: client.cloud, status },
        staffDetail: `${client.cloud}: server ${server.id} is ${status}; ${recordDetailOf(record)}`,
      },
    ),
  };
}

function stillWaiting(
  server: NovaServer,
  condition: ReturnType<typeof serverCondition>,
): Extract<Verdict, { kind: "pending" }> {
  const note = noteOf(server);
  return { kind: "pending", condition, ...(note === undefined ? {} : { note }) };
}

function vanished(client: OpenStackClient): ServiceError {
  return new ServiceError(
    "cloud_not_found",
    "The server is no longer there: it was removed in the cloud meanwhile.",
    {
      facts: { cloud: client.cloud },
    },
  );
}

/** Null when the flavor was removed meanwhile; then the sizes decide. */
async function findFlavor(
  client: OpenStackClient,
  input: Input,
  signal: AbortSignal,
): Promise<NovaFlavor | null> {
  try {
    return await getFlavor(client, input.flavorId, signal);
  } catch (error) {
    if (isServiceError(error, "cloud_not_found")) return null;
    throw error;
  }
}

/** Since 2.47 a server's flavor is a copy without id: its name and its sizes must agree. */
function hasFlavor(server: NovaServer, flavor: NovaFlavor | null, input: Input): boolean {
  const own = server.flavor;
  if (own === undefined) return false;
  if (own.id !== undefined) return own.id === input.flavorId;
  if (flavor === null) {
    const { vcpus, memoryMib, diskGib } = input.after;
    return own.vcpus === vcpus && own.ram === memoryMib && own.disk === diskGib;
  }
  return (
    own.original_name === flavor.name &&
    own.vcpus === flavor.vcpus &&
    own.ram === flavor.ram &&
    own.disk === flavor.disk
  );
}

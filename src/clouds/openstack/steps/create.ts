import { z } from "zod";
import type { ProvisionOrder } from "../../../core/cloud.ts";
import { ServiceError } from "../../../core/errors.ts";
import type { PlannedStep, StepContext, StepDefinition, Verdict } from "../../../core/operations/step.ts";
import type { OpenStackClient } from "../client.ts";
import {
  createServer,
  findAction,
  findMarked,
  findServer,
  MARKER_KEY,
  remoteServerOf,
  tagsOf,
} from "../compute.ts";
import { serverCondition } from "../condition.ts";
import { NovaCreated, type NovaServer } from "../schema.ts";
import { isBusy, noteOf, stateOf, statusOf } from "../state.ts";
import { userDataOf } from "../user-data.ts";
import { failureOf, recordDetailOf, requestIdOf } from "./record.ts";

const Input = z.object({
  name: z.string(),
  flavorId: z.string(),
  imageId: z.string(),
  networkId: z.string(),
  metadata: z.record(z.string(), z.string()),
  passwordSecretId: z.string(),
  defaultUser: z.string().nullable(),
});

export const CREATE = "openstack.create";
export const DISCARD = "openstack.discard";

export function planCreate(order: ProvisionOrder, flavorId: string): PlannedStep {
  const input: z.infer<typeof Input> = {
    name: order.name,
    flavorId,
    imageId: order.imageId,
    networkId: order.networkId,
    metadata: order.metadata,
    passwordSecretId: order.passwordSecretId,
    defaultUser: order.defaultUser,
  };
  return { name: CREATE, label: "Create the server", input };
}

/** Makes one server. Nova has no client token, so the tag is the handle by which a server is found whose answer was lost. */
export function createStep(client: OpenStackClient): StepDefinition {
  // Nova answers within seconds, or after its own 60 s when its message queue is in trouble.
  const callTimeoutMs = 75_000;
  return {
    name: CREATE,
    deadlineMs: 30 * 60_000,
    callTimeoutMs,
    evidence: "probe",

    async issue(context) {
      const input = Input.parse(context.input);
      const password = await context.readSecret(input.passwordSecretId);
      const userData = userDataOf({ user: input.defaultUser, password });
      const answer = await createServer(
        client,
        {
          name: input.name,
          flavorRef: input.flavorId,
          imageRef: input.imageId,
          networks: [{ uuid: input.networkId }],
          metadata: { ...input.metadata, [MARKER_KEY]: context.marker },
          tags: tagsOf(context.operation.id, context.marker),
          user_data: userData,
        },
        { timeoutMs: callTimeoutMs, signal: context.signal, secrets: [password, userData] },
      );
      const created = NovaCreated.safeParse(answer.body);
      if (!created.success) {
        throw new ServiceError(
          "unknown_outcome",
          "The cloud's answer cannot be understood, so it is not known yet whether the server was made.",
          { facts: { cloud: client.cloud, requestId: answer.requestId } },
        );
      }
      const serverId = created.data.server.id;
      return {
        kind: "wait",
        reference: { serverId, ...(answer.requestId === undefined ? {} : { requestId: answer.requestId }) },
        condition: serverCondition(serverId, ["BUILD"]),
        note: "The cloud has taken the order.",
      };
    },

    async probe(context) {
      const [oldest] = await findMarked(client, context.operation.id, context.signal);
      if (oldest === undefined) return { effect: "absent" };
      return {
        effect: "present",
        reference: { serverId: oldest.id },
        condition: serverCondition(oldest.id, ["BUILD"]),
        note: "The cloud's answer was lost, but the server is there.",
      };
    },

    verify: (context) => verify(client, context),

    compensation: ({ operation, reference }) => ({
      name: DISCARD,
      label: "Remove the unfinished server",
      input: { operationId: operation.id, serverId: serverIdOf(reference) },
    }),
  };
}

/** `externalId` is what a person named with /ops adopt (core/operations/resolve.ts). */
function serverIdOf(reference: Record<string, unknown> | null): string | null {
  const id = reference?.["externalId"] ?? reference?.["serverId"];
  return typeof id === "string" ? id : null;
}

async function verify(client: OpenStackClient, context: StepContext): Promise<Verdict> {
  const servers = await candidates(client, context);
  const [server] = servers;
  if (server === undefined) {
    return {
      kind: "failed",
      error: new ServiceError(
        "cloud_failed",
        "The server is no longer there: it was removed while it was being built.",
        {
          facts: { cloud: client.cloud },
        },
      ),
    };
  }
  const note = noteOf(server);
  if (isBusy(server) || statusOf(server) === "UNKNOWN") {
    return {
      kind: "pending",
      condition: serverCondition(server.id, ["BUILD"]),
      ...(note === undefined ? {} : { note }),
    };
  }
  const remote = remoteServerOf(server);
  if (stateOf(server) === "error")
    return { kind: "failed", error: faultError(client, server), server: remote };

  const requestId = requestIdOf(context.reference);
  const record =
    requestId === undefined ? null : await findAction(client, server.id, requestId, context.signal);
  if (failureOf(record) !== null) {
    return {
      kind: "failed",
      server: remote,
      error: new ServiceError(
        "cloud_failed",
        "The cloud shows the server as built, but its own record of the build holds an error. Order it again.",
        {
          facts: { cloud: client.cloud },
          staffDetail: `${client.cloud}: server ${server.id}: ${recordDetailOf(record)}`,
        },
      ),
    };
  }
  // The engine and sync tell staff of these; nothing is deleted here.
  const twins = servers.slice(1).map((twin) => twin.id);
  return {
    kind: "done",
    server: remote,
    output: { serverId: server.id, ...(twins.length === 0 ? {} : { twins }) },
    ...(twins.length === 0
      ? {}
      : {
          note: `A late answer of the cloud made ${twins.length + 1} servers for this order. One is kept; our team removes the rest.`,
          staffNote: `${server.id} is kept; the operators must remove ${twins.join(", ")}.`,
        }),
  };
}

/** Those of this operation, the one to keep first: the oldest that did not fail. */
async function candidates(client: OpenStackClient, context: StepContext): Promise<NovaServer[]> {
  const found = await findMarked(client, context.operation.id, context.signal);
  const referenced = serverIdOf(context.reference);
  if (referenced !== null && !found.some((server) => server.id === referenced)) {
    // Lists may lag behind.
    const server = await findServer(client, referenced, context.signal);
    if (server !== null) found.push(server);
  }
  const alive = found.filter((server) => stateOf(server) !== "deleted");
  // What a person named to be adopted comes first, whatever else is there.
  const rank = (server: NovaServer): number => {
    if (server.id === context.reference?.["externalId"]) return 0;
    return stateOf(server) === "error" ? 2 : 1;
  };
  return alive.toSorted((a, b) => rank(a) - rank(b));
}

const FAULTS: readonly (readonly [RegExp, "capacity" | "cloud_failed", string])[] = [
  [
    /No valid host/iu,
    "capacity",
    "No host of the cloud has room for this server. Try a smaller size, or again later.",
  ],
  [
    /Exceeded maximum number of retries|Exhausted all hosts/iu,
    "cloud_failed",
    "The cloud tried to build the server on every host that had room, and failed on each. The operators must look at the cloud.",
  ],
  [
    /Failed to allocate the network/iu,
    "cloud_failed",
    "The cloud could not give the server an address on its network. Choose another network, or have the operators look at this one.",
  ],
  [
    /aborted/iu,
    "cloud_failed",
    "The cloud gave up building the server. The operators must look at the cloud.",
  ],
];

function faultError(client: OpenStackClient, server: NovaServer): ServiceError {
  const text = server.fault?.message ?? "";
  const known = FAULTS.find(([pattern]) => pattern.test(text));
  return new ServiceError(
    known?.[1] ?? "cloud_failed",
    known?.[2] ?? "The cloud failed to build the server. The operators must look at the cloud.",
    {
      facts: { cloud: client.cloud },
      staffDetail: `${client.cloud}: server ${server.id} is in ERROR${text === "" ? "" : `: ${text.trim()}`}`,
    },
  );
}

import { z } from "zod";
import { isServiceError, ServiceError } from "../../../core/errors.ts";
import type { PlannedStep, StepContext, StepDefinition, Verdict } from "../../../core/operations/step.ts";
import type { OpenStackClient } from "../client.ts";
import { deleteServer, findServer, remoteServerOf } from "../compute.ts";
import { serverCondition } from "../condition.ts";
import { findPort, listFloatingIps, listPorts } from "../network.ts";
import type { NovaServer } from "../schema.ts";
import { isBusy, isGone, statusOf } from "../state.ts";
import { failureOf, findOwnAction, recordDetailOf } from "./record.ts";

const Input = z.object({ serverId: z.string() });
/** What hung on the server before it went; some of it outlives the server and goes on costing. */
const Attached = z.object({
  ports: z.array(z.string()).default([]),
  floatingIps: z.array(z.string()).default([]),
  volumes: z.array(z.string()).default([]),
  /** The look at the network service failed. */
  incomplete: z.boolean().default(false),
});
type Attached = z.infer<typeof Attached>;

const DELETE = "openstack.delete";
const CALL_TIMEOUT_MS = 60_000;

export function planDelete(serverId: string): PlannedStep {
  return { name: DELETE, label: "Delete the server", input: { serverId } };
}

export function deleteStep(client: OpenStackClient): StepDefinition {
  return {
    name: DELETE,
    deadlineMs: 15 * 60_000,
    callTimeoutMs: CALL_TIMEOUT_MS,
    pointOfNoReturn: "The cloud is already deleting the server.",
    evidence: "repeatable",
    async issue(context) {
      const { serverId } = Input.parse(context.input);
      const server = await findServer(client, serverId, context.signal);
      if (server === null) return { kind: "done", gone: true, note: "The server was already gone." };
      const attached = await attachedTo(client, server, context.signal);
      try {
        const answer = await deleteServer(client, serverId, {
          timeoutMs: CALL_TIMEOUT_MS,
          signal: context.signal,
        });
        return {
          kind: "wait",
          reference: {
            ...attached,
            ...(answer.requestId === undefined ? {} : { requestId: answer.requestId }),
          },
          condition: serverCondition(serverId),
        };
      } catch (error) {
        if (!isServiceError(error, "cloud_not_found")) throw error;
        return { kind: "done", gone: true, note: "The server was already gone." };
      }
    },
    verify: (context) => verify(client, context),
  };
}

async function attachedTo(
  client: OpenStackClient,
  server: NovaServer,
  signal: AbortSignal,
): Promise<Attached> {
  const volumes = (server["os-extended-volumes:volumes_attached"] ?? [])
    .filter((volume) => volume.delete_on_termination !== true)
    .map((volume) => volume.id);
  try {
    const ports = await listPorts(client, server.id, signal);
    const addresses = await Promise.all(ports.map((port) => listFloatingIps(client, port.id, signal)));
    const floatingIps = addresses.flat().map((address) => address.floating_ip_address ?? address.id);
    return { ports: ports.map((port) => port.id), floatingIps, volumes, incomplete: false };
  } catch (error) {
    // The look is for the note only: a network service in trouble must not keep a server alive. The note says so.
    if (!(error instanceof ServiceError)) throw error;
    client.log.warn(
      { cloud: client.cloud, code: error.code },
      "ports of a server to be deleted could not be listed",
    );
    return { ports: [], floatingIps: [], volumes, incomplete: true };
  }
}

async function verify(client: OpenStackClient, context: StepContext): Promise<Verdict> {
  const { serverId } = Input.parse(context.input);
  const server = await findServer(client, serverId, context.signal);
  if (server === null || isGone(server)) {
    const inBin = server !== null && statusOf(server) === "SOFT_DELETED";
    return goneVerdict(client, context, inBin);
  }
  const status = statusOf(server);
  if (isBusy(server) || status === "UNKNOWN") {
    return { kind: "pending", condition: serverCondition(serverId), note: "being removed" };
  }
  const record = await findOwnAction(client, context, { serverId, actions: ["delete"] });
  // Deleting was asked for, and the answer may be ahead of the task state.
  if (record !== null && failureOf(record) === null && status !== "ERROR") {
    return { kind: "pending", condition: serverCondition(serverId), note: "being removed" };
  }
  return {
    kind: "failed",
    server: remoteServerOf(server),
    error: new ServiceError(
      "cloud_failed",
      "The cloud did not delete the server: it is still there. Try again, or have the operators look at it.",
      {
        facts: { cloud: client.cloud, status },
        staffDetail: `${client.cloud}: server ${serverId} is ${status}; ${recordDetailOf(record)}`,
      },
    ),
  };
}

async function goneVerdict(client: OpenStackClient, context: StepContext, inBin: boolean): Promise<Verdict> {
  const attached = Attached.parse(context.reference ?? {});
  const found = await Promise.all(attached.ports.map((id) => findPort(client, id, context.signal)));
  const ports = found.filter((port) => port !== null).map((port) => port.id);
  const { floatingIps, volumes, incomplete } = attached;
  const parts = [
    floatingIps.length === 0 ? "" : `floating IPs ${floatingIps.join(", ")}`,
    ports.length === 0 ? "" : `ports ${ports.join(", ")}`,
    volumes.length === 0 ? "" : `volumes ${volumes.join(", ")}`,
  ].filter((part) => part !== "");
  const forStaff = [
    parts.length === 0 ? "" : `Left behind in the cloud: ${parts.join("; ")}.`,
    incomplete ? "What it leaves behind could not be looked up." : "",
  ].filter((note) => note !== "");
  const left = parts.length === 0 ? {} : { output: { leftBehind: { floatingIps, ports, volumes } } };
  return {
    kind: "done",
    gone: true,
    ...left,
    ...(inBin ? { note: "The cloud keeps it in its bin for a while." } : {}),
    ...(forStaff.length === 0 ? {} : { staffNote: forStaff.join(" ") }),
  };
}

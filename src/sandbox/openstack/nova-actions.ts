import { pause, pauseExactly } from "../pace.ts";
import { JsonObject, LockInput, PasswordInput, RebootInput, ResetStateInput, ResizeInput } from "./bodies.ts";
import { usage } from "./cloud.ts";
import { computeFault } from "./faults.ts";
import { type Answer, Refusal } from "./http.ts";
import { knobsOf } from "./knobs.ts";
import {
  deleteServer,
  rebootServer,
  restoreServer,
  setState,
  startServer,
  stopServer,
  work,
} from "./lifecycle.ts";
import { confirmResize, resizeServer, revertResize } from "./lifecycle-resize.ts";
import {
  findServer,
  type NovaCall,
  notFoundMessage,
  policyRefusal,
  refuse,
  requireBody,
} from "./nova-call.ts";
import { flavorIdOf, requireQuota } from "./nova-create.ts";
import { type Actor, finishEvent, startAction, startEvent } from "./nova-records.ts";
import { actionSchema } from "./nova-schemas.ts";
import type { Server, VmState } from "./types.ts";
import { words } from "./words.ts";

type Action = (call: NovaCall, server: Server, input: unknown) => Answer | Promise<Answer>;

const ACCEPTED: Answer = { status: 202 };

const actions: Record<string, Action> = {
  "os-stop": stop,
  "os-start": start,
  reboot,
  resize,
  confirmResize: confirm,
  revertResize: revert,
  changePassword,
  lock,
  unlock,
  forceDelete,
  restore,
  "os-resetState": resetState,
};

/** Real actions of Nova that are not played here; named, so that nobody takes them for typing errors. */
const NOT_SIMULATED = words(
  "addFloatingIp addSecurityGroup createBackup createImage os-getConsoleOutput pause rebuild removeSecurityGroup",
  "rescue resume shelve shelveOffload suspend unpause unrescue unshelve",
);
const ADMIN_ONLY: Readonly<Record<string, string>> = {
  "os-resetState": "os-admin-actions:reset_state",
  migrate: "os-migrate-server:migrate",
  "os-migrateLive": "os-migrate-server:migrate_live",
  evacuate: "os-evacuate",
  injectNetworkInfo: "os-admin-actions:inject_network_info",
};
/** Removed in 2.6 in favour of /remote-consoles. */
const REMOVED = words("os-getVNCConsole os-getSPICEConsole os-getRDPConsole os-getSerialConsole");

export function serverAction(call: NovaCall, id: string): Answer | Promise<Answer> {
  const body = JsonObject.safeParse(call.body).data ?? {};
  const keys = Object.keys(body);
  const [name] = keys;
  if (name === undefined || keys.length !== 1) throw refuse(400, "Malformed request body");
  const known = actions[name] ?? (NOT_SIMULATED.has(name) || ADMIN_ONLY[name] || REMOVED.has(name));
  if (known === undefined || known === false) throw refuse(400, `There is no such action: ${name}`);
  if (REMOVED.has(name)) throw refuse(404, "The resource could not be found.");
  const schema = actionSchema(name, call.version);
  if (schema) requireBody(call, schema, JsonObject);
  const server = findServer(call, id, { unknownText: `Instance ${id} has no mapping to a cell.` });
  const policy = ADMIN_ONLY[name];
  if (policy !== undefined && !call.token.admin) throw policyRefusal(policy);
  const action = actions[name];
  if (!action) throw refuse(501, `The simulator does not play ${name}.`);
  return action(call, server, body[name]);
}

function actorOf(call: NovaCall): Actor {
  return { requestId: call.exchange.requestId, userId: call.token.userId };
}

function requireUnlocked(call: NovaCall, server: Server): void {
  if (server.locked && !call.token.admin) throw refuse(409, `Instance ${server.id} is locked`);
}

/** Lock, vm_state, task_state, and whether it ever ran: the order of Nova's decorators (compute/api.py). */
function requireState(
  call: NovaCall,
  server: Server,
  verb: string,
  allowed: VmState[],
  options: { busyIsFine?: boolean; neverLaunched?: string } = {},
): void {
  requireUnlocked(call, server);
  const wrong = (what: string, state: string): Refusal =>
    refuse(409, `Cannot '${verb}' instance ${server.id} while it is in ${what} ${state}`);
  if (!allowed.includes(server.vmState)) throw wrong("vm_state", server.vmState);
  if (server.taskState !== null && options.busyIsFine !== true) throw wrong("task_state", server.taskState);
  if (server.launchedAt === null)
    throw refuse(409, options.neverLaunched ?? `Instance ${server.id} is in an invalid state for '${verb}'`);
}

/**
 * Between Nova's look at the state and its compare-and-set lies a moment. Of several requests inside
 * it one wins and the others are 500 UnexpectedTaskStateError, not 409 (measured with three resizes).
 */
async function compareAndSet(call: NovaCall, server: Server): Promise<void> {
  const { vmState, taskState, generation } = server;
  await pauseExactly(call.cloud, call.cloud.traps.resizeRaceMs ?? 8);
  if (server.deletedAt !== null) throw refuse(404, notFoundMessage(server.id));
  const same =
    server.vmState === vmState && server.taskState === taskState && server.generation === generation;
  if (!same)
    throw new Refusal({ status: 500, body: computeFault("nova.exception.UnexpectedTaskStateError") });
}

function stop(call: NovaCall, server: Server): Answer {
  // As long as the server is a mere build request, stop does not find it at all (measured).
  if (server.vmState === "building" && server.actions.length === 0)
    throw refuse(404, notFoundMessage(server.id));
  requireState(call, server, "stop", ["active", "error"], {
    neverLaunched: `Instance ${server.id} is not ready`,
  });
  stopServer(call.cloud, server, actorOf(call));
  return ACCEPTED;
}

function start(call: NovaCall, server: Server): Answer {
  if (server.vmState === "error" && server.launchedAt === null)
    throw refuse(409, `Instance ${server.id} is not ready`);
  requireState(call, server, "start", ["stopped"], { neverLaunched: `Instance ${server.id} is not ready` });
  startServer(call.cloud, server, actorOf(call));
  return ACCEPTED;
}

function reboot(call: NovaCall, server: Server, input: unknown): Answer {
  const hard = RebootInput.parse(input).type.toUpperCase() === "HARD";
  const rebooting = server.taskState?.startsWith("reboot") === true;
  if (hard) requireState(call, server, "reboot", ["active", "stopped", "error"], { busyIsFine: rebooting });
  else requireState(call, server, "reboot", ["active"]);
  rebootServer(call.cloud, server, hard, actorOf(call));
  return ACCEPTED;
}

async function resize(call: NovaCall, server: Server, input: unknown): Promise<Answer> {
  requireState(call, server, "resize", ["active", "stopped"]);
  if (knobsOf(call.cloud, server).dead) throw refuse(409, "Service is unavailable at this time.");
  const flavorId = flavorIdOf(ResizeInput.parse(input).flavorRef);
  const flavor = call.cloud.flavors.find(({ id }) => id === flavorId);
  if (!flavor) throw refuse(400, `Flavor ${flavorId} could not be found.`);
  if (flavor.id === server.flavor.id) throw refuse(400, "When resizing, instances must change flavor!");
  requireQuota(call, {
    instances: 0,
    cores: Math.max(0, flavor.vcpus - server.flavor.vcpus),
    ramMib: Math.max(0, flavor.ramMib - server.flavor.ramMib),
  });
  await compareAndSet(call, server);
  resizeServer(call.cloud, server, flavor, actorOf(call));
  return ACCEPTED;
}

function confirm(call: NovaCall, server: Server): Answer {
  requireState(call, server, "confirmResize", ["resized"]);
  confirmResize(call.cloud, server, actorOf(call));
  return { status: 204 };
}

function revert(call: NovaCall, server: Server): Answer {
  requireState(call, server, "revertResize", ["resized"]);
  revertResize(call.cloud, server, actorOf(call));
  return ACCEPTED;
}

/** A synchronous RPC to the compute host: the answer comes when the guest has answered. */
async function changePassword(call: NovaCall, server: Server, input: unknown): Promise<Answer> {
  requireState(call, server, "changePassword", ["active"]);
  const { cloud } = call;
  const record = startAction(server, "changePassword", actorOf(call));
  setState(server, { taskState: "updating_password" });
  const knobs = knobsOf(cloud, server);
  if (knobs.dead) {
    // Stays PASSWORD/updating_password for good, even after the host returns; only os-resetState helps.
    await pause(cloud, cloud.traps.rpcTimeoutMs ?? 60_000);
    throw new Refusal({ status: 500, body: computeFault("oslo_messaging.exceptions.MessagingTimeout") });
  }
  const event = startEvent(record, server, "compute_set_admin_password");
  const { generation } = server;
  if (!knobs.noAgent) await work(cloud, server, 300);
  if (server.generation !== generation) throw refuse(404, notFoundMessage(server.id));
  setState(server, { taskState: null });
  if (knobs.noAgent || knobs.fail === "password") {
    finishEvent(record, event, "Error");
    throw refuse(
      409,
      knobs.noAgent
        ? "QEMU guest agent is not enabled"
        : `Failed to set admin password on ${server.id} because error setting admin password`,
    );
  }
  server.adminPassword = PasswordInput.parse(input).adminPass;
  finishEvent(record, event, "Success");
  return ACCEPTED;
}

function lock(call: NovaCall, server: Server, input: unknown): Answer {
  const reason = LockInput.parse(input)?.locked_reason ?? null;
  const record = startAction(server, "lock", actorOf(call));
  finishEvent(record, startEvent(record, server, "api_lock"), "Success");
  server.locked = true;
  server.lockedReason = reason;
  server.updatedAt = Date.now();
  return ACCEPTED;
}

function unlock(call: NovaCall, server: Server): Answer {
  const record = startAction(server, "unlock", actorOf(call));
  finishEvent(record, startEvent(record, server, "api_unlock"), "Success");
  server.locked = false;
  server.lockedReason = null;
  server.updatedAt = Date.now();
  return ACCEPTED;
}

function forceDelete(call: NovaCall, server: Server): Answer {
  requireUnlocked(call, server);
  deleteServer(call.cloud, server, { ...actorOf(call), force: true });
  return ACCEPTED;
}

function restore(call: NovaCall, server: Server): Answer {
  requireState(call, server, "restore", ["soft-delete"]);
  const used = usage(call.cloud, server.projectId);
  if (used.instances > call.cloud.quota.instances) throw refuse(403, "Quota exceeded, too many servers.");
  restoreServer(call.cloud, server, actorOf(call));
  return ACCEPTED;
}

/** The operator's way out of a stuck task. */
function resetState(_call: NovaCall, server: Server, input: unknown): Answer {
  const state = ResetStateInput.parse(input)?.state;
  if (state !== "active" && state !== "error") throw refuse(400, "Invalid input for field/attribute state.");
  setState(server, { vmState: state, taskState: null });
  return ACCEPTED;
}

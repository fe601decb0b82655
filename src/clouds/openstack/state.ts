// Nova's status is a function of vm_state and task_state (nova/api/openstack/common.py, _STATE_MAP); the task state says
// whether something is still at work.
import type { ServerState } from "../../core/cloud.ts";
import type { NovaServer } from "./schema.ts";

const STATES: Readonly<Record<string, ServerState>> = {
  ACTIVE: "active",
  BUILD: "building",
  REBUILD: "rebuilding",
  RESIZE: "resizing",
  REVERT_RESIZE: "resizing",
  VERIFY_RESIZE: "verify_resize",
  // The guest keeps running, or comes back by itself.
  MIGRATING: "active",
  REBOOT: "active",
  HARD_REBOOT: "active",
  PASSWORD: "active",
  SHUTOFF: "stopped",
  SHELVED: "stopped",
  SHELVED_OFFLOADED: "stopped",
  PAUSED: "paused",
  SUSPENDED: "suspended",
  RESCUE: "rescue",
  SOFT_DELETED: "deleted",
  DELETED: "deleted",
  ERROR: "error",
};

const TRANSITIONAL = new Set([
  "BUILD",
  "REBUILD",
  "RESIZE",
  "REVERT_RESIZE",
  "MIGRATING",
  "REBOOT",
  "HARD_REBOOT",
  "PASSWORD",
]);

export function statusOf(server: NovaServer): string {
  return server.status ?? "UNKNOWN";
}

export function taskOf(server: NovaServer): string | null {
  return server["OS-EXT-STS:task_state"] ?? null;
}

export function stateOf(server: NovaServer): ServerState {
  const status = statusOf(server);
  const task = taskOf(server);
  if (status !== "DELETED" && (task === "deleting" || task === "soft-deleting")) return "deleting";
  return STATES[status] ?? "unknown";
}

/** In BUILD the task state is null for a moment between scheduling and networking, so the status counts too. */
export function isBusy(server: NovaServer): boolean {
  return taskOf(server) !== null || TRANSITIONAL.has(statusOf(server));
}

export function isGone(server: NovaServer): boolean {
  return statusOf(server) === "DELETED" || statusOf(server) === "SOFT_DELETED";
}

const NOTES: Readonly<Record<string, string>> = {
  scheduling: "looking for a host with room",
  block_device_mapping: "preparing the disk",
  networking: "setting up the network",
  spawning: "starting the server",
  resize_prep: "preparing the new size",
  resize_migrating: "moving the server",
  resize_migrated: "moved, finishing the new size",
  resize_finish: "starting it in its new size",
  resize_confirming: "removing the old copy",
  resize_reverting: "going back to the old size",
  "powering-off": "shutting down",
  "powering-on": "starting",
  rebooting: "asking the guest to restart",
  reboot_pending: "asking the guest to restart",
  reboot_started: "restarting",
  rebooting_hard: "restarting",
  reboot_pending_hard: "restarting",
  reboot_started_hard: "restarting",
  suspending: "saving its memory",
  resuming: "restoring its memory",
  pausing: "pausing",
  unpausing: "resuming",
  updating_password: "setting the password",
  deleting: "being removed",
  "soft-deleting": "being removed",
  rebuilding: "replacing the disk",
  rebuild_block_device_mapping: "replacing the disk",
  rebuild_spawning: "starting the server",
};

/** Progress in the words of a person, or undefined when there is nothing to tell. */
export function noteOf(server: NovaServer): string | undefined {
  const task = taskOf(server);
  if (task !== null) return NOTES[task] ?? "the cloud is working on it";
  return statusOf(server) === "UNKNOWN" ? "the cloud cannot see this server at the moment" : undefined;
}

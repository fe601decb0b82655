import { pause, pauseExactly } from "../pace.ts";
import { type Cloud, releasePorts } from "./cloud.ts";
import { knobsOf } from "./knobs.ts";
import { type Actor, finishEvent, startAction, startEvent } from "./nova-records.ts";
import type { Server, ServerFault, VmState } from "./types.ts";

export const POWER_NONE = 0;
export const POWER_RUNNING = 1;
export const POWER_SHUTDOWN = 4;

/** The memory of the largest host, with Nova's default ram_allocation_ratio of 1.5 on 64 GiB. */
export const LARGEST_HOST_RAM_MIB = 98_304;
export const LARGEST_HOST_VCPUS = 256;

export function setState(
  server: Server,
  change: Partial<Pick<Server, "vmState" | "taskState" | "powerState">>,
): void {
  Object.assign(server, change);
  server.updatedAt = Date.now();
}

export function fits(server: Pick<Server, "flavor">): boolean {
  return server.flavor.ramMib <= LARGEST_HOST_RAM_MIB && server.flavor.vcpus <= LARGEST_HOST_VCPUS;
}

export function fault(message: string): ServerFault {
  return { code: 500, message, createdAt: Date.now() };
}

/**
 * Runs a transition in the background. A delete (or a hard reboot) raises the server's generation;
 * whatever was under way then stops at its next `step`.
 */
export function inBackground(server: Server, transition: (alive: () => boolean) => Promise<void>): void {
  const { generation } = server;
  void transition(() => server.generation === generation);
}

/** Work in the guest: as long as the server's metadata asks for, else `ms` at the simulator's speed. */
export function work(cloud: Cloud, server: Server, ms: number): Promise<void> {
  const { delayMs } = knobsOf(cloud, server);
  return delayMs === undefined ? pause(cloud, ms) : pauseExactly(cloud, delayMs);
}

export function stopServer(cloud: Cloud, server: Server, actor: Actor): void {
  const record = startAction(server, "stop", actor);
  setState(server, { taskState: "powering-off" });
  if (knobsOf(cloud, server).dead) return;
  inBackground(server, async (alive) => {
    const event = startEvent(record, server, "compute_stop_instance");
    await work(cloud, server, 1000);
    if (!alive()) return;
    const { fail } = knobsOf(cloud, server);
    // A guest lost in a failed resize cannot be stopped; only a hard reboot makes it anew.
    if (fail === "power" || (fail === "resize" && server.vmState === "error")) {
      setState(server, { taskState: null });
      finishEvent(record, event, "Error");
      return;
    }
    server.fault = null;
    setState(server, { vmState: "stopped", taskState: null, powerState: POWER_SHUTDOWN });
    finishEvent(record, event, "Success");
  });
}

export function startServer(cloud: Cloud, server: Server, actor: Actor): void {
  const record = startAction(server, "start", actor);
  setState(server, { taskState: "powering-on" });
  if (knobsOf(cloud, server).dead) return;
  inBackground(server, async (alive) => {
    const event = startEvent(record, server, "compute_start_instance");
    await work(cloud, server, 1000);
    if (!alive()) return;
    if (knobsOf(cloud, server).fail === "power") {
      setState(server, { taskState: null });
      finishEvent(record, event, "Error");
      return;
    }
    setState(server, { vmState: "active", taskState: null, powerState: POWER_RUNNING });
    finishEvent(record, event, "Success");
  });
}

export function rebootServer(cloud: Cloud, server: Server, hard: boolean, actor: Actor): void {
  const suffix = hard ? "_hard" : "";
  // A hard reboot is allowed on top of a running reboot and takes it over.
  server.generation += 1;
  const record = startAction(server, "reboot", actor);
  setState(server, { taskState: `rebooting${suffix}` });
  if (knobsOf(cloud, server).dead) return;
  inBackground(server, async (alive) => {
    const event = startEvent(record, server, "compute_reboot_instance");
    await pause(cloud, 150);
    if (!alive()) return;
    if (hard && server.vmState !== "error") {
      setState(server, { taskState: "reboot_pending_hard" });
      await pause(cloud, 100);
      if (!alive()) return;
    }
    setState(server, { taskState: `reboot_started${suffix}` });
    await work(cloud, server, 750);
    if (!alive()) return;
    server.fault = null;
    setState(server, { vmState: "active", taskState: null, powerState: POWER_RUNNING });
    finishEvent(record, event, "Success");
  });
}

export function deleteServer(cloud: Cloud, server: Server, actor: Actor & { force: boolean }): void {
  // A second delete while the first runs is accepted and changes nothing.
  if (server.taskState === "deleting") return;
  server.generation += 1;
  const neverRan = server.launchedAt === null && server.host === null;
  if (cloud.traps.softDelete === true && !actor.force && !neverRan && server.vmState !== "soft-delete") {
    softDelete(cloud, server, actor);
    return;
  }
  // A dead host's server is deleted by the API itself: at once, and without a record.
  if (knobsOf(cloud, server).dead) {
    finishDelete(cloud, server);
    return;
  }
  const record = startAction(server, actor.force ? "forceDelete" : "delete", actor);
  if (neverRan) {
    finishDelete(cloud, server);
    return;
  }
  setState(server, { taskState: "deleting" });
  inBackground(server, async (alive) => {
    const event = startEvent(record, server, "compute_terminate_instance");
    await pause(cloud, 500);
    if (!alive()) return;
    setState(server, { vmState: "deleted", taskState: null, powerState: POWER_NONE });
    // For this moment GET still finds it, as DELETED.
    await pause(cloud, 60);
    finishEvent(record, event, "Success");
    finishDelete(cloud, server);
  });
}

function finishDelete(cloud: Cloud, server: Server): void {
  const now = Date.now();
  releasePorts(cloud, server.id);
  setState(server, { vmState: "deleted", taskState: null, powerState: POWER_NONE });
  server.deletedAt = now;
  server.terminatedAt = now;
}

function softDelete(cloud: Cloud, server: Server, actor: Actor): void {
  const record = startAction(server, "delete", actor);
  setState(server, { taskState: "soft-deleting" });
  inBackground(server, async (alive) => {
    const event = startEvent(record, server, "compute_soft_delete_instance");
    await pause(cloud, 500);
    if (!alive()) return;
    setState(server, { vmState: "soft-delete", taskState: null, powerState: POWER_SHUTDOWN });
    finishEvent(record, event, "Success");
  });
}

export function restoreServer(cloud: Cloud, server: Server, actor: Actor): void {
  const record = startAction(server, "restore", actor);
  setState(server, { taskState: "restoring" });
  inBackground(server, async (alive) => {
    const event = startEvent(record, server, "compute_restore_instance");
    await work(cloud, server, 500);
    if (!alive()) return;
    setState(server, { vmState: "active", taskState: null, powerState: POWER_RUNNING });
    finishEvent(record, event, "Success");
  });
}

/** What a resize returns to. */
export function restingPower(vmState: VmState): number {
  return vmState === "stopped" ? POWER_SHUTDOWN : POWER_RUNNING;
}

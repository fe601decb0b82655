import { pause } from "../pace.ts";
import type { Cloud } from "./cloud.ts";
import { knobsOf } from "./knobs.ts";
import { fault, fits, inBackground, restingPower, setState, work } from "./lifecycle.ts";
import { type Actor, finishEvent, startAction, startEvent } from "./nova-records.ts";
import type { ActionRecord, Flavor, Server } from "./types.ts";

/** RESIZE: resize_prep, resize_migrating, resize_migrated, resize_finish; then VERIFY_RESIZE. */
export function resizeServer(cloud: Cloud, server: Server, flavor: Flavor, actor: Actor): void {
  const record = startAction(server, "resize", actor);
  server.vmStateBeforeResize = server.vmState;
  setState(server, { taskState: "resize_prep" });
  inBackground(server, async (alive) => {
    const conductor = startEvent(record, server, "conductor_migrate_server", "conductor");
    const migrate = startEvent(record, server, "cold_migrate", "conductor");
    await pause(cloud, 300);
    if (!alive()) return;
    const found = fits({ flavor }) && !knobsOf(cloud, server).noCapacity;
    finishEvent(record, migrate, found ? "Success" : "Error");
    finishEvent(record, conductor, found ? "Success" : "Error");
    if (!found) {
      // Silent: back to where it was, no fault. Only the record says Error.
      setState(server, { taskState: null });
      return;
    }
    await migrateAway(cloud, server, flavor, record, alive, actor);
  });
}

async function migrateAway(
  cloud: Cloud,
  server: Server,
  flavor: Flavor,
  record: ActionRecord,
  alive: () => boolean,
  actor: Actor,
): Promise<void> {
  const target = server.host === 0 ? 1 : 0;
  const source = server.host;
  server.host = target;
  const prepare = startEvent(record, server, "compute_prep_resize");
  finishEvent(record, prepare, "Success");
  server.host = source;
  const leave = startEvent(record, server, "compute_resize_instance");
  setState(server, { taskState: "resize_migrating" });
  const knobs = knobsOf(cloud, server);
  // libvirt does not shrink a root disk: rolled back at once, again without a fault.
  const shrinks = flavor.diskGib < server.flavor.diskGib;
  await (shrinks ? pause(cloud, 100) : work(cloud, server, 700));
  if (!alive()) return;
  if (shrinks || knobs.silentResize) {
    setState(server, { taskState: null });
    finishEvent(record, leave, "Error");
    return;
  }
  if (knobs.fail === "migrate") {
    await failResize(cloud, server, "osr: migrate failed on request");
    finishEvent(record, leave, "Error");
    return;
  }
  setState(server, { taskState: "resize_migrated" });
  finishEvent(record, leave, "Success");
  await pause(cloud, 100);
  if (!alive()) return;
  server.host = target;
  const finish = startEvent(record, server, "compute_finish_resize");
  setState(server, { taskState: "resize_finish" });
  await work(cloud, server, 900);
  if (!alive()) return;
  if (knobs.fail === "resize") {
    await failResize(cloud, server, "osr: resize failed on request");
    finishEvent(record, finish, "Error");
    return;
  }
  server.previousFlavor = server.flavor;
  server.flavor = flavor;
  server.launchedAt = Date.now();
  setState(server, { vmState: "resized", taskState: null });
  finishEvent(record, finish, "Success");
  await confirmByItself(cloud, server, alive, actor);
}

async function failResize(cloud: Cloud, server: Server, message: string): Promise<void> {
  server.fault = fault(message);
  setState(server, { vmState: "error" });
  await pause(cloud, 50);
  setState(server, { taskState: null });
}

/** The operator's resize_confirm_window: VERIFY_RESIZE may vanish before a client sees it. */
async function confirmByItself(
  cloud: Cloud,
  server: Server,
  alive: () => boolean,
  actor: Actor,
): Promise<void> {
  const window = knobsOf(cloud, server).confirmWindowMs;
  if (window === undefined) return;
  await pause(cloud, window);
  if (!alive() || server.vmState !== "resized" || server.taskState !== null) return;
  confirmResize(cloud, server, { ...actor, requestId: `${actor.requestId}-confirm` });
}

/** The state stays VERIFY_RESIZE without a task until it is done. */
export function confirmResize(cloud: Cloud, server: Server, actor: Actor): void {
  const record = startAction(server, "confirmResize", actor);
  server.generation += 1;
  inBackground(server, async (alive) => {
    const event = startEvent(record, server, "compute_confirm_resize");
    await pause(cloud, 400);
    if (!alive()) return;
    server.previousFlavor = null;
    const vmState = server.vmStateBeforeResize;
    setState(server, { vmState, taskState: null, powerState: restingPower(vmState) });
    finishEvent(record, event, "Success");
  });
}

export function revertResize(cloud: Cloud, server: Server, actor: Actor): void {
  const record = startAction(server, "revertResize", actor);
  server.generation += 1;
  setState(server, { taskState: "resize_reverting" });
  inBackground(server, async (alive) => {
    const revert = startEvent(record, server, "compute_revert_resize");
    await pause(cloud, 300);
    if (!alive()) return;
    finishEvent(record, revert, "Success");
    server.host = server.host === 0 ? 1 : 0;
    const finish = startEvent(record, server, "compute_finish_revert_resize");
    await pause(cloud, 300);
    if (!alive()) return;
    if (server.previousFlavor) server.flavor = server.previousFlavor;
    server.previousFlavor = null;
    server.launchedAt = Date.now();
    finishEvent(record, finish, "Success");
    if (server.vmStateBeforeResize === "stopped") {
      // It comes back running and is then stopped again.
      const stop = startEvent(record, server, "compute_stop_instance");
      setState(server, { taskState: "powering-off" });
      await pause(cloud, 300);
      if (!alive()) return;
      finishEvent(record, stop, "Success");
    }
    const vmState = server.vmStateBeforeResize;
    setState(server, { vmState, taskState: null, powerState: restingPower(vmState) });
  });
}

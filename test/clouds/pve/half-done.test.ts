/** A step of two calls, of which only the first was done: what counts in the guest is not told as nothing, nor thrown away. */
import { describe, expect, it } from "vitest";
import { renderCard } from "../../../src/core/operations/card.ts";
import type { OperationRow } from "../../../src/core/operations/rows.ts";
import { ed25519Key } from "../../support/ssh-key.ts";
import { useStage } from "../../support/stage.ts";
import { createScene, NEW, OLD, type Scene, UBUNTU } from "./rebuild-scene.ts";
import { finish } from "./time.ts";
import { openTimedWorld, type TimedWorld } from "./timed-world.ts";
import { BUILD } from "./world.ts";

const WEB = { server: "web-1" };
const DAY_MS = 24 * 60 * 60_000;
const OFFLINE = { data: null, message: "storage 'local-lvm' is not online\n" };
const FULL = { data: null, message: "unable to create image: No space left on device\n" };
const stage = useStage();

/** With web-1 of Ada, which runs. */
async function open(): Promise<TimedWorld> {
  const world = stage.keep(await openTimedWorld({ database: stage.database }));
  await world.order("server.build", BUILD);
  world.changes();
  return world;
}

async function revealed(at: Pick<TimedWorld, "entrance" | "ada">, operationId: string): Promise<string> {
  const { view } = await renderCard(stage.database, operationId, "customer");
  const token = view.buttons?.find(({ purpose }) => purpose === "reveal")?.token ?? "";
  return (await at.entrance.reveal(token, at.ada, "console")).text;
}

function passwordIn({ vm }: TimedWorld): string | undefined {
  return vm().guest.passwords["root"];
}

/** How the thread tells that it was given up. */
async function givenUp(at: TimedWorld | Scene, { id, publicId }: OperationRow): Promise<string> {
  await at.ask(at.rita, "ops.abandon", { operation: publicId });
  expect(await at.operation(id)).toMatchObject({ state: "failed" });
  return (await at.lines(id)).find((line) => line.startsWith("Given up by")) ?? "";
}

/** It is asked for again until its time is over; some tries less change nothing. */
function untilParked(at: TimedWorld, operationId: string): Promise<OperationRow> {
  return finish(at, at.time, { operationId, leastMoveMs: 120_000 });
}

/** "Stop and start it now", and the storage is there again. */
async function restart(at: TimedWorld, operationId: string) {
  const { view } = await renderCard(stage.database, operationId, "customer");
  const offered = view.buttons?.find(({ label }) => label === "Stop and start it now");
  const answer = await at.entrance.press(offered?.token ?? "", at.ada, "console");
  if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
  expect(await at.rest(answer.operationId)).toMatchObject({ action: "server.restart", state: "succeeded" });
}

describe("a password of which only the first half is done", () => {
  it("is the one that counts and is shown, when the guest has it and PVE refuses to store it", async () => {
    const at = await open();
    const before = passwordIn(at);
    at.simulator.addFault({ method: "PUT", path: "/config$", kind: "status", status: 500, body: OFFLINE });
    const operation = await at.order("server.password", WEB, at.ada);
    expect(operation).toMatchObject({ state: "succeeded", output: { passwordActive: "now" } });
    expect(passwordIn(at)).not.toBe(before);
    expect(await revealed(at, operation.id)).toBe(passwordIn(at));
    expect((await at.lines(operation.id)).join("\n")).toMatch(
      /cloud-init data of VM 100000 keeps the old password.*local-lvm/u,
    );
  });

  it("counts from a real restart on, when it is stored and its drive cannot be made anew", async () => {
    const at = await open();
    at.simulator.changeVm(100_000, { config: { agent: null } });
    const before = passwordIn(at);
    at.simulator.addFault({ method: "PUT", path: "/cloudinit$", kind: "status", status: 500, body: FULL });
    const operation = await at.order("server.password", WEB, at.ada);
    expect(operation).toMatchObject({ state: "succeeded", output: { passwordActive: "after_restart" } });
    const lines = await at.lines(operation.id);
    expect(lines.at(-1)).toBe(
      "The new password becomes active when the server is stopped and started, not before. It can be shown once.",
    );
    expect(lines.join("\n")).toMatch(/drive of VM 100000 could not be made anew .*No space left/u);
    expect(passwordIn(at)).toBe(before);
    await restart(at, operation.id);
    expect(await revealed(at, operation.id)).toBe(passwordIn(at));
    expect(passwordIn(at)).not.toBe(before);
  });

  it("counts from the next start on when the server is off, whatever became of its drive", async () => {
    const at = await open();
    await at.order("server.power", { ...WEB, action: "kill" });
    at.simulator.addFault({ method: "PUT", path: "/cloudinit$", kind: "status", status: 500, body: FULL });
    const operation = await at.order("server.password", WEB, at.ada);
    expect(operation).toMatchObject({ state: "succeeded", output: { passwordActive: "at_next_start" } });
    await at.order("server.power", { ...WEB, action: "start" });
    expect(await revealed(at, operation.id)).toBe(passwordIn(at));
  });

  it("is still shown a week later, when nobody can know what counts and the team gives it up", async () => {
    const at = await open();
    at.simulator.addFault({ method: "PUT", path: "/config$", kind: "status", status: 596, times: 0 });
    const operation = await untilParked(at, await at.begin("server.password", WEB, at.ada));
    expect(operation).toMatchObject({ state: "needs_attention", problem: { code: "unknown_outcome" } });
    await at.time.later(7 * DAY_MS);
    const told = await givenUp(at, operation);
    expect(told).not.toMatch(/was not replaced/u);
    expect(told).toMatch(/not known which password counts, the old or the new one, which can be shown once/u);
    expect(await revealed(at, operation.id)).toBe(passwordIn(at));
  });

  it("is not told as refused, when an answer was lost and the next try is refused", async () => {
    const at = await open();
    at.simulator.addFault({ method: "PUT", path: "/config$", kind: "status", status: 596 });
    const operationId = await at.begin("server.password", WEB, at.ada);
    const refusal = { data: null, message: "Agent error: child process has failed to set user password\n" };
    // The first of these calls sets it.
    at.simulator.addFault({ method: "POST", path: "/agent/set-user-password$", kind: "delay", delayMs: 1 });
    at.simulator.addFault({
      method: "POST",
      path: "/agent/set-user-password$",
      kind: "status",
      status: 500,
      body: refusal,
      times: 0,
    });
    const parked = await untilParked(at, operationId);
    expect(parked).toMatchObject({ state: "needs_attention", problem: { code: "unknown_outcome" } });
    at.simulator.clearFaults();
    await at.ask(at.rita, "ops.retry", { operation: parked.publicId });
    expect(await at.rest(operationId)).toMatchObject({ state: "succeeded" });
    expect(await revealed(at, operationId)).toBe(passwordIn(at));
  });
});

describe("keys of which only the first half is done", () => {
  it("count from a real restart on, when they are stored and their drive cannot be made anew", async () => {
    const at = await open();
    at.simulator.addFault({ method: "PUT", path: "/cloudinit$", kind: "status", status: 500, body: FULL });
    const operation = await at.order("server.keys", { ...WEB, keys: ed25519Key() }, at.ada);
    expect(operation).toMatchObject({ state: "succeeded", output: { keysActive: "after_restart" } });
    expect((await at.lines(operation.id)).at(-1)).toMatch(
      /^The keys count from the next stop and start on, not before\./u,
    );
    expect(at.vm().guest.sshKeys).toEqual([]);
    await restart(at, operation.id);
    expect(at.vm().guest.sshKeys).toEqual([ed25519Key()]);
  });

  it("are not told as refused when an answer was lost and the VM is locked since", async () => {
    const at = await open();
    at.simulator.addFault({ method: "PUT", path: "/cloudinit$", kind: "status", status: 596 });
    at.simulator.addFault({
      method: "PUT",
      path: "/config$",
      kind: "delay",
      delayMs: 1,
    });
    at.simulator.addFault({
      method: "PUT",
      path: "/config$",
      kind: "status",
      status: 500,
      body: { data: null, message: "VM is locked (backup)\n" },
      times: 0,
    });
    const operationId = await at.begin("server.keys", { ...WEB, keys: ed25519Key() }, at.ada);
    const operation = await untilParked(at, operationId);
    expect(operation).toMatchObject({ state: "needs_attention", problem: { code: "unknown_outcome" } });
    expect(await givenUp(at, operation)).toMatch(/not known which keys count from its next boot on/u);
  });
});

describe("a rebuild of which only a part is done", () => {
  async function openScene(): Promise<Scene> {
    return stage.keep(await createScene({ database: stage.database, onboot: true }));
  }

  it("hands its password over when it is given up after the new system has become the server", async () => {
    const at = await openScene();
    at.beforeStep("pve.retire", () => at.simulator.changeVm(OLD, { lock: "backup" }));
    const parked = await at.order("server.rebuild", UBUNTU, at.ada);
    expect(parked).toMatchObject({ state: "needs_attention" });
    expect(await givenUp(at, parked)).toMatch(/Its new password can be shown once/u);
    const { ubuntu, root } = at.vm(NEW)?.guest.passwords ?? {};
    expect(await revealed(at, parked.id)).toBe(ubuntu ?? root);
  });

  it("lets the old system start with its node again when the new one may not be let to", async () => {
    const at = await openScene();
    at.beforeStep("pve.autostart", () => {
      at.simulator.addFault({
        method: "PUT",
        path: `/${NEW}/config$`,
        kind: "status",
        status: 500,
        body: { data: null, message: "unable to write it\n" },
        times: 0,
      });
    });
    const end = await at.order("server.rebuild", UBUNTU);
    expect(end).toMatchObject({ state: "failed", problem: { code: "cloud_failed" } });
    expect(at.made()).toMatchObject([{ vmid: OLD, status: "running", config: { onboot: "1" } }]);
  });

  it("tells the team what to switch on again if they give it up between the two systems", async () => {
    const at = await openScene();
    const end = await at.order("server.rebuild", UBUNTU);
    expect((await at.lines(end.id)).join("\n")).toMatch(/qm set 100000 --onboot 1/u);
  });
});

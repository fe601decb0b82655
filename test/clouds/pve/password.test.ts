/** server.password on Proxmox VE: in the guest when its agent answers, for its next boot otherwise, and never claimed else. */
import { describe, expect, it } from "vitest";
import { renderCard } from "../../../src/core/operations/card.ts";
import { ed25519Key } from "../../support/ssh-key.ts";
import { useStage } from "../../support/stage.ts";
import { recordingLog } from "../recording-log.ts";
import { surviveDeaths } from "./deaths.ts";
import { openTimedWorld, type TimedWorld } from "./timed-world.ts";
import { BUILD, type PveWorldOptions } from "./world.ts";

const WEB = { server: "web-1" };
const stage = useStage();

/** With web-1 of Ada, which runs. */
async function open(
  options: Omit<PveWorldOptions, "database"> = {},
  build: Record<string, string> = {},
): Promise<TimedWorld> {
  const world = stage.keep(await openTimedWorld({ database: stage.database, ...options }));
  await world.order("server.build", { ...BUILD, ...build });
  world.changes();
  return world;
}

/** What the requester is shown once. */
async function revealed(at: TimedWorld, operationId: string): Promise<string> {
  const [row] = await stage.database.sql<{ token: string }>(
    `SELECT token FROM capabilities WHERE operation_id = $1 AND action = 'secret.reveal'`,
    [operationId],
  );
  const shown = await at.entrance.reveal(row?.token ?? "", at.sam, "console");
  return shown.text;
}

function passwordIn({ vm }: TimedWorld, user = "root"): string | undefined {
  return vm().guest.passwords[user];
}

describe("who takes a password when", () => {
  it("the agent answers: active now, shown once, and nowhere else", async () => {
    const { log, logged } = recordingLog();
    const at = await open({ runtime: { log }, engine: { log } });
    const first = passwordIn(at);
    const operation = await at.order("server.password", WEB);
    expect(operation).toMatchObject({
      state: "succeeded",
      output: { passwordActive: "now", passwordUser: "root" },
    });
    expect((await at.lines(operation.id)).at(-1)).toBe("The new password is active. It can be shown once.");
    expect(await at.offersOf(operation.id)).toEqual([]);
    const password = await revealed(at, operation.id);
    expect(password).not.toBe(first);
    expect(passwordIn(at)).toBe(password);

    const kept = await everythingKept();
    expect(kept).toContain(operation.id);
    for (const secret of [password, first ?? "none"]) {
      for (const form of [secret, encodeURIComponent(secret), Buffer.from(secret).toString("base64")]) {
        expect(kept).not.toContain(form);
        expect(logged()).not.toContain(form);
        expect(JSON.stringify(at.simulator.state.tasks)).not.toContain(form);
      }
    }
  });

  it("the agent is down: set for the next boot, said so, offered, and true after that boot alone", async () => {
    const at = await open();
    at.simulator.changeVm(100_000, { config: { agent: null } });
    const before = passwordIn(at);
    const operation = await at.order("server.password", WEB, at.ada);
    expect(operation).toMatchObject({ state: "succeeded", output: { passwordActive: "after_next_boot" } });
    expect((await at.lines(operation.id)).at(-1)).toBe(
      "The new password becomes active at the next boot, not before. It can be shown once.",
    );
    expect(passwordIn(at)).toBe(before);
    expect(at.changes()).toEqual(["PUT V/config", "PUT V/cloudinit"]);
    const { view } = await renderCard(stage.database, operation.id, "customer");
    expect(view.buttons?.map(({ label }) => label)).toEqual(["Stop and start it now", "Show password once"]);

    const [offered] = await at.offersOf(operation.id);
    const answer = await at.entrance.press(offered?.token ?? "", at.ada, "console");
    if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
    expect(await at.rest(answer.operationId)).toMatchObject({ action: "server.restart", state: "succeeded" });
    const token = view.buttons?.find(({ purpose }) => purpose === "reveal")?.token ?? "";
    expect(passwordIn(at)).toBe((await at.entrance.reveal(token, at.ada, "console")).text);
    expect(passwordIn(at)).not.toBe(before);
  });
});

/** Every row of every table, as text. */
async function everythingKept(): Promise<string> {
  const tables = await stage.database.sql<{ name: string }>(
    `SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'`,
  );
  const rows = await Promise.all(
    tables.map(({ name }) => stage.database.sql(`SELECT t::text AS row FROM "${name}" t`)),
  );
  return JSON.stringify(rows);
}

describe("who takes it, and when", () => {
  it("a server that is off gets it for its next start, without being started", async () => {
    const at = await open();
    await at.order("server.power", { ...WEB, action: "stop" });
    const operation = await at.order("server.password", WEB);
    expect(operation).toMatchObject({ state: "succeeded", output: { passwordActive: "at_next_start" } });
    expect((await at.lines(operation.id)).at(-1)).toBe(
      "The new password becomes active at the next start, not before. It can be shown once.",
    );
    expect(at.vm().status).toBe("stopped");
    expect(await at.offersOf(operation.id)).toEqual([]);
    await at.order("server.power", { ...WEB, action: "start" });
    expect(passwordIn(at)).toBe(await revealed(at, operation.id));
  });

  it("a Windows guest's user is Administrator, by the agent and by cloud-init", async () => {
    const at = await open({}, { image: "windows-2025" });
    const now = await at.order("server.password", WEB);
    expect(now).toMatchObject({ output: { passwordActive: "now", passwordUser: "Administrator" } });
    expect(passwordIn(at, "Administrator")).toBe(await revealed(at, now.id));
    at.simulator.changeVm(100_000, { config: { agent: null } });
    const later = await at.order("server.password", WEB);
    expect(later).toMatchObject({
      output: { passwordActive: "after_next_boot", passwordUser: "Administrator" },
    });
    await at.order("server.restart", WEB);
    expect(passwordIn(at, "Administrator")).toBe(await revealed(at, later.id));
  });

  it("an agent that comes up late is waited for, and the card says that", async () => {
    const at = await open();
    const body = { data: null, message: "QEMU guest agent is not running\n" };
    at.simulator.addFault({ path: "/agent/(get-osinfo|ping)$", kind: "status", status: 500, times: 3, body });
    const operation = await at.order("server.password", WEB);
    expect(operation).toMatchObject({ state: "succeeded", output: { passwordActive: "now" } });
    expect((await at.lines(operation.id)).join("\n")).toMatch(/waiting for the guest agent/u);
  });

  it("a password that the agent has set outlives a later change of the keys", async () => {
    const at = await open();
    const operation = await at.order("server.password", WEB);
    const password = await revealed(at, operation.id);
    await at.order("server.keys", { ...WEB, keys: ed25519Key() });
    await at.order("server.restart", WEB);
    // cloud-init has run again, with all of its data.
    expect(at.vm().guest).toMatchObject({ sshKeys: [ed25519Key()], passwords: { root: password } });
  });

  it("a backup that holds the VM is no reason to refuse what the agent takes; staff are told what is behind", async () => {
    const at = await open();
    at.simulator.addFault({
      method: "PUT",
      path: "/config$",
      kind: "status",
      status: 500,
      body: { data: null, message: "VM is locked (backup)\n" },
    });
    const operation = await at.order("server.password", WEB);
    expect(operation).toMatchObject({ state: "succeeded", output: { passwordActive: "now" } });
    expect((await at.lines(operation.id)).join("\n")).toMatch(
      /cloud-init data of VM 100000 keeps the old password/u,
    );
  });

  it("what cannot be done is refused in a sentence: a user that the guest does not know, no agent and no cloud-init drive, suspended", async () => {
    const at = await open();
    at.simulator.addFault({
      path: "/agent/set-user-password$",
      kind: "status",
      status: 500,
      body: {
        data: null,
        message: "Agent error: child process has failed to set user password: no such user\n",
      },
    });
    expect(await at.order("server.password", WEB)).toMatchObject({
      state: "failed",
      problem: { code: "cloud_failed", message: expect.stringMatching(/^The guest refused this/u) },
    });
    at.simulator.changeVm(100_000, { config: { agent: null, ide2: null } });
    expect(await at.order("server.password", WEB)).toMatchObject({
      state: "failed",
      problem: {
        code: "unsupported",
        message: expect.stringMatching(/no guest agent answers in it and it has no cloud-init drive/u),
      },
    });
    await at.order("server.power", { ...WEB, action: "suspend" });
    await expect(at.ask(at.sam, "server.password", WEB)).rejects.toMatchObject({
      code: "wrong_state",
      message: expect.stringMatching(/is suspended, so it cannot be given a new password now/u),
    });
  });
});

describe("answers that are lost", () => {
  it("each write of a password once: the same password is set again, and is the one that is shown", async () => {
    for (const [kind, status] of [
      ["status", 595],
      ["status", 596],
      ["status_after", 596],
      ["drop_after", 0],
    ] as const) {
      const at = await open();
      at.simulator.addFault({ method: "POST", path: "/agent/set-user-password$", kind, status });
      at.simulator.addFault({ method: "PUT", path: "/config$", kind, status });
      const now = await at.order("server.password", WEB);
      expect(now, `${kind} ${status}`).toMatchObject({
        state: "succeeded",
        output: { passwordActive: "now" },
      });
      expect(passwordIn(at)).toBe(await revealed(at, now.id));

      at.simulator.changeVm(100_000, { config: { agent: null } });
      at.simulator.addFault({ method: "PUT", path: "/config$", kind, status });
      at.simulator.addFault({ method: "PUT", path: "/cloudinit$", kind, status });
      const later = await at.order("server.password", WEB);
      expect(later, `${kind} ${status}`).toMatchObject({ output: { passwordActive: "after_next_boot" } });
      await at.order("server.power", { ...WEB, action: "reboot" });
      expect(passwordIn(at)).toBe(await revealed(at, later.id));
      await stage.clear();
    }
  });

  it("a worker that dies at each moment: the guest has the password that is shown", async () => {
    const at = await open();
    const ended: string[] = [];
    const { moments } = await surviveDeaths(at, {
      begin: () => at.begin("server.password", WEB),
      after: (_order, operation) => void ended.push(operation.id),
    });
    expect(moments).toBeGreaterThan(3);
    expect(passwordIn(at)).toBe(await revealed(at, ended.at(-1) ?? ""));
  });

  it("a password that PVE quotes in a refusal does not get out", async () => {
    const { log, logged } = recordingLog();
    const at = await open({ runtime: { log }, engine: { log } });
    const operationId = await at.begin("server.password", WEB);
    const [row] = await stage.database.sql<{ id: string }>(`SELECT id FROM secrets WHERE operation_id = $1`, [
      operationId,
    ]);
    const password = await at.engine.secrets.read(stage.database, row?.id ?? "");
    at.simulator.addFault({
      path: "/agent/set-user-password$",
      kind: "status",
      status: 500,
      body: { data: null, message: `Agent error: chpasswd: cannot use '${password}'\n` },
    });
    expect(await at.rest(operationId)).toMatchObject({ state: "failed", problem: { code: "cloud_failed" } });
    const kept = await everythingKept();
    expect(kept).not.toContain(password);
    expect(logged()).not.toContain(password);
  });
});

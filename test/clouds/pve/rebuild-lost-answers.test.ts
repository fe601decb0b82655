/** Answers to writes of a rebuild are lost: one system in the end, never two that run, no disk too early. */
import { describe, expect, it } from "vitest";
import { useStage } from "../../support/stage.ts";
import { createScene, expectOne, OLD, type Scene, type SceneOptions, UBUNTU } from "./rebuild-scene.ts";

const stage = useStage();

async function open(options: Omit<SceneOptions, "database"> = {}): Promise<Scene> {
  return stage.keep(await createScene({ database: stage.database, ...options }));
}

const WRITES: readonly (readonly [step: string, method: string, path: string])[] = [
  ["pve.clone", "POST", "/clone$"],
  ["pve.configure", "PUT", "/config$"],
  ["pve.take_over", "PUT", "/config$"],
  ["pve.resize_disk", "PUT", "/resize$"],
  ["pve.retire_halt", "POST", "/status/shutdown$"],
  ["pve.autostart", "PUT", "/100\\d+/config$"],
  ["pve.start_new", "POST", "/status/start$"],
  ["pve.retire", "DELETE", "/qemu/\\d+\\?"],
];
const ALL = WRITES.map(([step]) => step);

describe("a lost answer to a write of a rebuild", () => {
  /** Rebuilds once for each write, whose answer is lost; returns the steps that noticed. */
  async function eachWrite(kind: "status_after" | "status" | "drop_after" | "drop", status?: number) {
    const at = await open({ onboot: true });
    const net0 = at.vm(OLD)?.config["net0"];
    const noticed: string[] = [];
    for (const [step, method, path] of WRITES) {
      at.beforeStep(step, () =>
        at.simulator.addFault({ method, path, kind, ...(status === undefined ? {} : { status }) }),
      );
      const end = await at.order("server.rebuild", UBUNTU);
      await expectOne(at, `${kind} ${step}`, end, net0);
      if (/no certain answer came back/u.test((await at.lines(end.id)).join("\n"))) noticed.push(step);
    }
    const copies = at.simulator.state.tasks.filter((task) => task.type === "qmclone");
    expect(copies).toHaveLength(1 + WRITES.length);
    return noticed;
  }

  it("596 after it was done: nothing is done twice", async () => {
    expect(await eachWrite("status_after", 596)).toEqual(ALL);
  });

  it("595 before it was done: it is asked for again", async () => {
    expect(await eachWrite("status", 595)).toEqual(ALL);
  });

  it("a cut connection after it was done: nothing is done twice", async () => {
    expect(await eachWrite("drop_after")).toEqual(ALL);
  });

  it("a cut connection before it was done: it is asked for again", async () => {
    expect(await eachWrite("drop")).toEqual(ALL);
  });

  it("of every write in turn, with locks of seconds in each task", async () => {
    const at = await open({ onboot: true });
    const net0 = at.vm(OLD)?.config["net0"];
    for (const [step, method, path] of WRITES) {
      at.beforeStep(step, () => at.simulator.addFault({ method, path, kind: "status_after", status: 596 }));
    }
    const message = "can't lock file '/var/lock/qemu-server/lock-100000.conf' - got timeout";
    for (const task of ["resize", "qmshutdown", "qmstart", "qmdestroy"]) {
      at.simulator.addTaskFault({ task, outcome: "fail", at: "start", message });
    }
    const end = await at.order("server.rebuild", UBUNTU);
    expect(end.state).toBe("succeeded");
    await expectOne(at, "all", end, net0);
  });

  it("while it is undone, too: the old system runs again, once, and nothing else is left", async () => {
    const at = await open({ onboot: true });
    const { uuid } = at.vm(OLD) ?? {};
    at.beforeStep("pve.start_new", () =>
      at.simulator.addTaskFault({ task: "qmstart", outcome: "fail", message: "QEMU exited with code 1" }),
    );
    at.beforeStep("pve.autostart_back", () =>
      at.simulator.addFault({ method: "PUT", path: `/${OLD}/config$`, kind: "status_after", status: 596 }),
    );
    at.beforeStep("pve.revive", () =>
      at.simulator.addFault({ method: "POST", path: "/status/start$", kind: "status_after", status: 596 }),
    );
    at.beforeStep("pve.discard", () =>
      at.simulator.addFault({ method: "DELETE", path: "/qemu/", kind: "status_after", status: 596 }),
    );
    expect(await at.order("server.rebuild", UBUNTU)).toMatchObject({ state: "failed" });
    expect(at.made()).toMatchObject([
      { vmid: OLD, uuid, status: "running", guest: { boots: 2 }, config: { onboot: "1" } },
    ]);
    expect(await at.server()).toMatchObject({ externalId: String(OLD), state: "active" });
    expect(at.simulator.state.macClashes).toEqual([]);
  });
});

describe("somebody takes the reserved number during a rebuild", () => {
  it("the new system gets another one, and theirs is not touched", async () => {
    const at = await open();
    at.beforeStep("pve.clone", () => at.simulator.addStranger({ vmid: OLD + 1, name: "theirs" }));
    const net0 = at.vm(OLD)?.config["net0"];
    const end = await at.order("server.rebuild", UBUNTU);
    expect(at.vm(OLD + 1)).toMatchObject({ name: "theirs", status: "running" });
    at.simulator.removeVm(OLD + 1);
    expect(end).toMatchObject({ state: "succeeded", problem: null });
    expect(at.made()).toMatchObject([{ vmid: OLD + 2, config: { net0 } }]);
  });

  it("also between PVE's early check and its task", async () => {
    const at = await open();
    const uuid = at.vm(OLD)?.uuid;
    at.beforeStep("pve.clone", () => {
      at.simulator.state.traps = { stealVmids: 1 };
    });
    const end = await at.order("server.rebuild", UBUNTU);
    expect(at.vm(OLD + 1)).toMatchObject({ name: "thief-100001" });
    // Either with another number, or not at all.
    const left = at.made().find((vm) => vm.vmid !== OLD + 1);
    expect(left?.uuid === uuid ? "failed" : "succeeded").toBe(end.state);
    expect(await at.server()).toMatchObject({ externalId: String(left?.vmid), state: "active" });
  });
});

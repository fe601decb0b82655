/** A rebuild without room for two systems: the old one goes first, and whatever fails then is gone on with. */
import { describe, expect, it } from "vitest";
import { useStage } from "../../support/stage.ts";
import { createScene, fillUp, NEW, OLD, type Scene, type SceneOptions, TIGHT } from "./rebuild-scene.ts";

const stage = useStage();

async function open(options: Omit<SceneOptions, "database"> = {}): Promise<Scene> {
  return stage.keep(await createScene({ database: stage.database, ...options }));
}

describe("in place, because there is no room for both", () => {
  const IN_PLACE = { image: "debian-12", in_place: "yes" };

  async function full(): Promise<Scene> {
    const at = await open(TIGHT);
    fillUp(at);
    return at;
  }

  it("deletes the old system first, and gives the new one its MAC and address", async () => {
    const at = await full();
    const before = at.vm(OLD);
    const row = await at.server();
    const operation = await at.order("server.rebuild", IN_PLACE);
    expect(operation).toMatchObject({ state: "succeeded", problem: null });
    expect(operation.plan.notes[0]).toMatch(/^The old server is deleted FIRST/u);
    expect(at.made()).toMatchObject([
      { vmid: NEW, status: "running", config: { net0: before?.config["net0"] }, guest: { boots: 1 } },
    ]);
    expect(await at.server()).toMatchObject({
      id: row.id,
      externalId: String(NEW),
      state: "active",
      addresses: row.addresses,
    });
    expect(at.changes()).toEqual([
      "POST /nodes/{node}/qemu/{vmid}/status/shutdown",
      "DELETE /nodes/{node}/qemu/{vmid}",
      "POST /nodes/{node}/qemu/{vmid}/clone",
      "PUT /nodes/{node}/qemu/{vmid}/config",
      "PUT /nodes/{node}/qemu/{vmid}/config",
      "PUT /nodes/{node}/qemu/{vmid}/resize",
      "POST /nodes/{node}/qemu/{vmid}/status/start",
    ]);
  });

  it("cancelled before the deletion: the old system runs again; after it that is refused", async () => {
    const at = await full();
    const cancel = async (operationId: string) => {
      const { publicId } = await at.operation(operationId);
      return at.ask(at.rita, "ops.cancel", { operation: publicId });
    };
    const early = await at.begin("server.rebuild", IN_PLACE);
    at.beforeStep("pve.retire_halt", () => cancel(early));
    expect(await at.finish(early)).toMatchObject({ state: "cancelled" });
    expect(at.made()).toMatchObject([{ vmid: OLD, status: "running", guest: { boots: 2 } }]);
    expect(await at.server()).toMatchObject({ externalId: String(OLD), state: "active" });
    const late = await at.begin("server.rebuild", IN_PLACE);
    let refusal: unknown;
    at.beforeStep("pve.clone", async () => {
      refusal = await cancel(late).catch((error: unknown) => error);
    });
    expect(await at.finish(late)).toMatchObject({ state: "succeeded" });
    expect(refusal).toMatchObject({
      message: expect.stringMatching(/^Too late to cancel .*: The old system is deleted\.$/u),
    });
  });

  it("a deletion that fails is undone: the old system runs again", async () => {
    const at = await full();
    at.simulator.addTaskFault({
      task: "qmdestroy",
      at: "start",
      outcome: "fail",
      message: "lvremove: device busy",
    });
    const operation = await at.order("server.rebuild", IN_PLACE);
    expect(operation).toMatchObject({ state: "failed", problem: { code: "cloud_failed" } });
    expect(at.made()).toMatchObject([{ vmid: OLD, status: "running" }]);
    expect(await at.server()).toMatchObject({ externalId: String(OLD), state: "active" });
  });

  it("each failure after the deletion is left to a person, nothing is undone, and a retry goes on", async () => {
    const at = await full();
    const { addresses } = await at.server();
    const refuse = (method: string, path: string) =>
      at.simulator.addFault({
        method,
        path,
        kind: "status",
        status: 500,
        body: { data: null, message: "no such thing\n" },
      });
    at.beforeStep("pve.clone", () =>
      at.simulator.addTaskFault({ task: "qmclone", outcome: "fail", message: "clone failed: I/O error" }),
    );
    at.beforeStep("pve.configure", () => refuse("PUT", "/config$"));
    at.beforeStep("pve.take_over", () => refuse("PUT", "/config$"));
    at.beforeStep("pve.resize_disk", () =>
      at.simulator.addTaskFault({ task: "resize", outcome: "fail", message: "qemu-img: failure" }),
    );
    at.beforeStep("pve.start_new", () =>
      at.simulator.addTaskFault({ task: "qmstart", outcome: "fail", message: "QEMU exited with code 1" }),
    );
    let operation = await at.order("server.rebuild", IN_PLACE);
    const failed: string[] = [];
    while (operation.state === "needs_attention") {
      expect(operation.problem?.message).toMatch(
        /The old system is deleted\. Nothing is undone; a retry goes on/u,
      );
      const step = (await at.steps(operation.id)).find(({ state }) => state === "failed");
      failed.push(step?.name ?? "none");
      operation = await at.retry(operation);
    }
    expect(operation).toMatchObject({ state: "succeeded", problem: null });
    expect(failed).toEqual([
      "pve.clone",
      "pve.configure",
      "pve.take_over",
      "pve.resize_disk",
      "pve.start_new",
    ]);
    expect(at.made()).toMatchObject([{ vmid: NEW, status: "running", guest: { boots: 1 } }]);
    expect(await at.server()).toMatchObject({ addresses, externalId: String(NEW), state: "active" });
  });

  it("given up after the deletion: it is said that the server has no system", async () => {
    const at = await full();
    at.beforeStep("pve.clone", () =>
      at.simulator.addTaskFault({ task: "qmclone", outcome: "fail", message: "clone failed: I/O error" }),
    );
    const operation = await at.order("server.rebuild", IN_PLACE);
    await at.ask(at.rita, "ops.abandon", { operation: operation.publicId });
    expect((await at.lines(operation.id)).join("\n")).toMatch(
      /is deleted, and the new one was not finished/u,
    );
    expect(await at.server()).toMatchObject({ externalId: String(OLD), state: "missing" });
  });

  it("no number is left for the new system: the old one is not touched", async () => {
    const at = await open({ ...TIGHT, client: { ...TIGHT.client, vmidRange: [OLD, OLD] } });
    fillUp(at);
    const operation = await at.order("server.rebuild", IN_PLACE);
    expect(operation).toMatchObject({ state: "failed", problem: { code: "capacity" } });
    expect(at.changes()).toEqual([]);
    expect(at.made()).toMatchObject([{ vmid: OLD, status: "running", guest: { boots: 1 } }]);
  });
});

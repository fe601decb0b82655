/** ISO images in a server's CD drive, and out of it: what counts at once, what waits, and that nothing else of the VM is touched. */
import { describe, expect, it } from "vitest";
import { renderCard } from "../../../src/core/operations/card.ts";
import { useStage } from "../../support/stage.ts";
import { surviveDeaths } from "./deaths.ts";
import { createScene, OLD, type Scene } from "./rebuild-scene.ts";

const stage = useStage();

const ISO = "local:iso/debian-13.iso";
const ISOS = {
  "debian-13": ISO,
  gone: "local:iso/gone.iso",
  elsewhere: "nowhere:iso/x.iso",
  rescue: "local:iso/rescue.iso",
};
const PUT = "PUT /nodes/{node}/qemu/{vmid}/config";
const DEBIAN = { iso: "debian-13" };

async function open(
  client: { rescueIso?: string; isos?: Record<string, string> } = { isos: ISOS },
): Promise<Scene> {
  return stage.keep(await createScene({ database: stage.database, client }));
}

/** What of it an ISO may change. */
function traceOf(at: Scene) {
  const { config = {}, description, pending, pendingDelete } = { pendingDelete: [], ...at.vm(OLD) };
  const drives = Object.keys(config).filter((key) => /^(?:ide|sata)\d/u.test(key));
  return { boot: config["boot"], drives, description, pending, pendingDelete };
}

async function restart(at: Scene, operationId: string): Promise<void> {
  const [button] = await stage.database.sql<{ token: string }>(
    `SELECT token FROM capabilities WHERE operation_id = $1 AND action = 'server.restart' AND used_at IS NULL`,
    [operationId],
  );
  const answer = await at.entrance.press(button?.token ?? "", at.sam, "console");
  if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
  expect(await at.finish(answer.operationId)).toMatchObject({ state: "succeeded" });
}

describe("an ISO", () => {
  it("gets a new drive that a running server has after a real restart, never the cloud-init drive's slot", async () => {
    const at = await open();
    const before = traceOf(at);
    const operation = await at.order("iso.mount", DEBIAN, at.ada);
    expect(operation).toMatchObject({ state: "succeeded", problem: null });
    expect(at.changes()).toEqual([PUT, PUT, PUT]);
    expect((await at.lines(operation.id)).at(-1)).toBe(
      "It gets a CD drive with debian-13 when it has been stopped and started; a restart from inside is not enough.",
    );
    expect(at.vm(OLD)).toMatchObject({ pending: { ide0: expect.stringContaining(ISO) } });
    const { view } = await renderCard(stage.database, operation.id, "customer");
    expect(view.buttons?.map(({ label }) => label)).toEqual(["Stop and start it now"]);
    await restart(at, operation.id);
    expect(at.vm(OLD)).toMatchObject({
      status: "running",
      pending: {},
      config: {
        boot: "order=scsi0",
        ide0: expect.stringContaining(ISO),
        ide2: expect.stringMatching(/cloudinit/u),
      },
      // Its own system has booted.
      guest: { boots: 2 },
    });
    at.changes();
    const out = await at.order("iso.unmount", {}, at.ada);
    expect(out).toMatchObject({ state: "succeeded", problem: null });
    expect(at.changes()).toEqual([PUT, PUT, PUT]);
    expect((await at.lines(out.id)).at(-1)).toBe("The ISO is out of its CD drive.");
    expect(traceOf(at)).toEqual({ ...before, drives: [...before.drives, "ide0"] });
    expect(at.vm(OLD)?.config["ide0"]).toBe("none,media=cdrom");
    expect((await at.events()).map(({ type }) => type)).toEqual(
      expect.arrayContaining(["server.iso.mounted", "server.iso.unmounted"]),
    );
  });

  it("is in an empty drive at once, and one that replaces it, too", async () => {
    const at = await open();
    at.simulator.changeVm(OLD, { config: { ide0: "none,media=cdrom" } });
    const before = traceOf(at);
    const operation = await at.order("iso.mount", DEBIAN);
    expect((await at.lines(operation.id)).at(-1)).toBe("debian-13 is in its CD drive now.");
    expect(at.vm(OLD)).toMatchObject({ pending: {}, config: { ide0: expect.stringContaining(ISO) } });
    const other = await at.order("iso.mount", { iso: "Rescue" });
    expect((await at.lines(other.id)).at(-1)).toBe("rescue is in its CD drive now.");
    expect(at.vm(OLD)?.config["ide0"]).toContain("local:iso/rescue.iso");
    expect(await at.order("iso.unmount")).toMatchObject({ state: "succeeded" });
    expect(traceOf(at)).toEqual(before);
  });

  it("that is mounted already is mounted still, and one that is not is not taken out", async () => {
    const at = await open();
    const before = traceOf(at);
    await at.order("iso.mount", DEBIAN);
    at.changes();
    expect(await at.order("iso.mount", DEBIAN)).toMatchObject({ state: "succeeded", problem: null });
    expect(at.changes()).toEqual([]);
    // Nothing of it has ever been the guest's, so nothing stays.
    await at.order("iso.unmount");
    expect(traceOf(at)).toEqual(before);
    at.changes();
    const again = await at.order("iso.unmount");
    expect(again).toMatchObject({ state: "succeeded", problem: null });
    expect((await at.lines(again.id)).at(-1)).toBe("No ISO was in its CD drive.");
    expect(at.changes()).toEqual([]);
    const told = (await at.events()).map(({ type }) => type).filter((type) => type.startsWith("server.iso."));
    expect(told).toEqual(["server.iso.mounted", "server.iso.unmounted"]);
  });

  it("is booted from with boot:yes, from a real restart on, and the old boot order comes back", async () => {
    const at = await open();
    await at.asSomebody(
      "PUT",
      `/nodes/n1/qemu/${OLD}/config`,
      `boot=${encodeURIComponent("order=scsi0;net0")}`,
    );
    await at.order("server.power", { action: "kill" });
    await at.order("server.power", { action: "start" });
    const before = traceOf(at);
    const mounted = await at.order("iso.mount", { ...DEBIAN, boot: "yes" });
    expect((await at.lines(mounted.id)).at(-1)).toBe(
      "It gets a CD drive with debian-13 and boots from there until /iso unmount, when it has been stopped and started; a restart from inside is not enough.",
    );
    const boots = at.vm(OLD)?.guest.boots;
    await restart(at, mounted.id);
    expect(at.vm(OLD)).toMatchObject({
      config: { boot: "order=ide0;scsi0;net0" },
      // Another system has booted.
      guest: { boots },
    });
    // That is no rescue: every other action is allowed.
    expect(await at.server()).toMatchObject({ state: "active" });
    const out = await at.order("iso.unmount");
    expect((await at.lines(out.id)).at(-1)).toBe(
      "The ISO is out of its CD drive. Its old boot order counts when it has been stopped and started; a restart from inside is not enough.",
    );
    await restart(at, out.id);
    expect(traceOf(at)).toEqual({ ...before, drives: [...before.drives, "ide0"] });
  });

  it("of a server that is off leaves no trace, whatever its boot order was", async () => {
    const at = await open();
    for (const boot of ["order=scsi0", "order=net0;scsi0", "c", null]) {
      at.simulator.changeVm(OLD, { config: { boot } });
      await at.order("server.power", { action: "kill" }).catch(() => undefined);
      const before = traceOf(at);
      for (const options of [DEBIAN, { ...DEBIAN, boot: "yes" }]) {
        const mounted = await at.order("iso.mount", options);
        expect(mounted, JSON.stringify(boot)).toMatchObject({ state: "succeeded", problem: null });
        expect((await at.lines(mounted.id)).at(-1)).toMatch(/^debian-13 is in its CD drive/u);
        const first = at.vm(OLD)?.config["boot"]?.split(/[=;]/u)[1];
        expect(first === "ide0", JSON.stringify([boot, options])).toBe("boot" in options);
        expect(await at.order("iso.unmount")).toMatchObject({ state: "succeeded", problem: null });
        expect(traceOf(at), JSON.stringify([boot, options])).toEqual(before);
      }
    }
  });

  it("of a protected server: PVE lets no drive be removed, so an empty one stays", async () => {
    const at = await open();
    at.simulator.changeVm(OLD, { config: { protection: "1" } });
    await at.order("iso.mount", DEBIAN);
    expect(await at.order("iso.unmount")).toMatchObject({ state: "succeeded", problem: null });
    await at.order("server.power", { action: "kill" });
    expect(at.vm(OLD)?.config).toMatchObject({ ide0: "none,media=cdrom", boot: "order=scsi0" });
  });

  it("that is not where the server is is told in a sentence, before anything is changed", async () => {
    const at = await open();
    for (const [iso, volid] of [
      ["gone", "local:iso/gone.iso"],
      ["elsewhere", "nowhere:iso/x.iso"],
    ]) {
      const { problem, state } = await at.order("iso.mount", { iso: iso ?? "" });
      expect([state, problem?.code]).toEqual(["failed", "cloud_invalid"]);
      expect(problem?.message, iso).toBe(
        `The ISO ${iso} is not there where the server is, so nothing was changed. Our operators must put it there.`,
      );
      expect(problem?.staffDetail).toMatch(new RegExp(`node n1 has no ${volid}`, "u"));
    }
    expect(at.changes()).toEqual([]);
  });

  it("that was only half put in or taken out is told as that, and a second unmount ends it", async () => {
    const at = await open();
    await at.order("server.power", { action: "kill" });
    const before = traceOf(at);
    const refuse = () =>
      at.simulator.addFault({
        method: "PUT",
        path: "/config$",
        kind: "status",
        status: 500,
        body: { data: null, message: "unable to write configuration: no space left\n" },
      });
    at.beforeStep("pve.iso_boot", refuse);
    const failed = await at.order("iso.mount", { ...DEBIAN, boot: "yes" });
    expect(failed).toMatchObject({ state: "failed" });
    expect((await at.lines(failed.id)).join("\n")).toMatch(
      /in its CD drive all the same; \/iso unmount takes/u,
    );
    await at.order("iso.mount", { ...DEBIAN, boot: "yes" });
    at.simulator.clearFaults();
    at.beforeStep("pve.iso_unset", refuse);
    const half = await at.order("iso.unmount");
    expect(half).toMatchObject({ state: "failed" });
    expect((await at.lines(half.id)).join("\n")).toMatch(/another \/iso unmount brings its boot order back/u);
    expect(await at.order("iso.unmount")).toMatchObject({ state: "succeeded", problem: null });
    expect(traceOf(at)).toEqual(before);
  });

  it("stays where it is when its server is deleted", async () => {
    const at = await open();
    await at.order("server.power", { action: "kill" });
    await at.order("iso.mount", DEBIAN);
    expect(await at.order("server.delete")).toMatchObject({ state: "succeeded" });
    const volumes = at.simulator.state.volumes.filter(({ volid, node }) => volid === ISO && node === "n1");
    expect(volumes).toHaveLength(1);
  });

  it("is forgotten by a rebuild, and by going back to a snapshot it is what PVE has then", async () => {
    const at = await open();
    await at.order("snapshot.create", { name: "s1" });
    await at.order("server.power", { action: "kill" });
    await at.order("iso.mount", { ...DEBIAN, boot: "yes" });
    await at.order("snapshot.create", { name: "s2" });
    await at.order("snapshot.rollback", { snapshot: "s1" });
    at.changes();
    const none = await at.order("iso.unmount");
    expect((await at.lines(none.id)).at(-1)).toBe("No ISO was in its CD drive.");
    expect(at.vm(OLD)?.description).not.toContain("iso:");
    await at.order("snapshot.rollback", { snapshot: "s2" });
    expect(at.vm(OLD)?.config).toMatchObject({
      ide0: expect.stringContaining(ISO),
      boot: "order=ide0;scsi0",
    });
    // Our line went with the first unmount; what is offered is known by its image.
    expect(await at.order("iso.unmount")).toMatchObject({ state: "succeeded", problem: null });
    expect(at.vm(OLD)?.config["boot"]).toBe("order=scsi0");
    expect(at.vm(OLD)?.config["ide0"] ?? "none,media=cdrom").toBe("none,media=cdrom");
    await at.order("iso.mount", DEBIAN);
    expect(await at.order("server.rebuild", { image: "debian-12" })).toMatchObject({ state: "succeeded" });
    const { externalId } = await at.server();
    expect(at.vm(Number(externalId))?.description).not.toContain("iso:");
  });
});

describe("an ISO and a rescue", () => {
  it("exclude each other, each with a sentence that says what to leave first", async () => {
    const at = await open({ isos: ISOS, rescueIso: ISOS.rescue });
    await at.order("iso.mount", DEBIAN);
    at.changes();
    expect(await at.order("server.rescue")).toMatchObject({
      state: "failed",
      problem: { message: expect.stringMatching(/^An ISO is in the server's CD drive.*\/iso unmount\.$/u) },
    });
    expect(at.changes()).toEqual([]);
    await at.order("iso.unmount");
    await at.order("server.rescue");
    await expect(at.ask(at.ada, "iso.mount", { server: "web-1", ...DEBIAN })).rejects.toMatchObject({
      code: "wrong_state",
      message: expect.stringMatching(/is in rescue, so it cannot be given an ISO/u),
    });
    await at.order("server.power", { action: "kill" });
    at.changes();
    expect(await at.order("iso.mount", DEBIAN)).toMatchObject({
      state: "failed",
      problem: { message: expect.stringMatching(/^The server boots rescue media.*\/server unrescue\.$/u) },
    });
    expect(at.changes()).toEqual([]);
    expect(await at.order("server.unrescue")).toMatchObject({ state: "succeeded" });
    expect(await at.order("iso.mount", DEBIAN)).toMatchObject({ state: "succeeded" });
  });
});

describe("the ISOs that are offered", () => {
  it("are listed by their names alone, and where a server has one in its drive that is said", async () => {
    const at = await open();
    const asked = async (who: Scene["ada"] | Scene["sam"], options: Record<string, string> = {}) => {
      const answer = await at.ask(who, "iso.list", options);
      if (answer.kind !== "view") throw new Error(JSON.stringify(answer));
      return answer.view;
    };
    const all = await asked(at.ada);
    expect(all.table?.rows).toEqual([["debian-13"], ["gone"], ["elsewhere"], ["rescue"]]);
    expect((await asked(at.sam)).table?.rows[0]).toEqual(["debian-13", "sim"]);
    // Bob has no server, so there is nothing to put one into.
    expect((await asked(at.bob)).table?.rows).toEqual([]);
    await at.order("server.power", { action: "kill" });
    await at.order("iso.mount", DEBIAN, at.ada);
    const told = await asked(at.ada, { server: "web-1" });
    expect(told.text).toBe("debian-13 is in its CD drive.");
    for (const view of [all, told, await asked(at.ada)]) {
      expect(JSON.stringify(view)).not.toMatch(/local|iso\/|nowhere|n1|sim\b/u);
    }
    await expect(asked(at.bob, { server: "web-1" })).rejects.toMatchObject({ code: "not_found" });
  });

  it("are chosen by name: another one, a volume, and another customer's server are refused", async () => {
    const at = await open();
    for (const iso of ["debian", ISO, "debian-13,media=disk", "../debian-13", "0"]) {
      await expect(at.ask(at.ada, "iso.mount", { server: "web-1", iso }), iso).rejects.toMatchObject({
        code: "not_found",
        facts: { option: "iso" },
      });
    }
    await expect(at.ask(at.bob, "iso.mount", { server: "web-1", ...DEBIAN })).rejects.toMatchObject({
      code: "not_found",
    });
    expect(at.changes()).toEqual([]);
  });

  it("may be none: that is said, and by whom it can be changed", async () => {
    const at = await open({});
    await expect(at.ask(at.ada, "iso.mount", { server: "web-1", ...DEBIAN })).rejects.toMatchObject({
      code: "unsupported",
      message: expect.stringMatching(/has no ISO images yet\. Our operators can offer some/u),
    });
    const answer = await at.ask(at.ada, "iso.list", { server: "web-1" });
    expect(answer).toMatchObject({ kind: "view", view: { table: { rows: [] } } });
  });
});

it("a stranger's VM under the server's number gets no ISO, and a locked one is named", async () => {
  const at = await open();
  at.simulator.changeVm(OLD, { lock: "backup" });
  expect(await at.order("iso.mount", DEBIAN)).toMatchObject({
    state: "failed",
    problem: { staffDetail: expect.stringMatching(/qm unlock 100000/u) },
  });
  at.simulator.removeVm(OLD);
  const stranger = at.simulator.addStranger({ vmid: OLD, name: "web-1", tags: "ratatosk" });
  at.changes();
  for (const command of ["iso.mount", "iso.unmount"]) {
    await stage.database.sql(`UPDATE servers SET state = 'active', missing_since = NULL`);
    expect(await at.order(command, command === "iso.mount" ? DEBIAN : {})).toMatchObject({
      state: "failed",
      problem: { code: "cloud_conflict" },
    });
  }
  expect(at.changes()).toEqual([]);
  expect(at.vm(OLD)).toEqual(stranger);
});

describe("a worker that dies at each moment of an ISO", { timeout: 120_000 }, () => {
  it("on its way in: another one ends it, with one drive and one way back", async () => {
    const at = await open();
    const off = at.vm(OLD)?.config ?? {};
    const { moments } = await surviveDeaths(at, {
      async begin() {
        await put(at, off);
        return at.begin("iso.mount", { ...DEBIAN, boot: "yes" });
      },
      after() {
        expect(at.vm(OLD)).toMatchObject({
          config: { boot: "order=ide0;scsi0", ide0: expect.stringContaining(ISO) },
        });
        expect(at.vm(OLD)?.description.match(/^iso:.*$/gmu)).toEqual(["iso:ide0 held= boot=order=scsi0"]);
        expect(at.vm(OLD)?.config).not.toHaveProperty("ide1");
      },
    });
    expect(moments).toBeGreaterThan(6);
  });

  it("on its way out: another one ends it, without a trace", async () => {
    const at = await open();
    await at.order("server.power", { action: "kill" });
    const before = at.vm(OLD)?.config ?? {};
    await at.order("iso.mount", { ...DEBIAN, boot: "yes" });
    const mounted = at.vm(OLD)?.config ?? {};
    const { moments } = await surviveDeaths(at, {
      async begin() {
        await put(at, mounted);
        return at.begin("iso.unmount");
      },
      async after(_, end) {
        expect(at.vm(OLD)?.config).toEqual(before);
        expect((await at.lines(end.id)).at(-1)).toBe("The ISO is out of its CD drive.");
      },
    });
    expect(moments).toBeGreaterThan(6);
  });

  /** As if it had been so all the time; it is off, so that nothing waits. */
  async function put(at: Scene, config: Record<string, string>): Promise<void> {
    if (at.vm(OLD)?.status === "running") await at.order("server.power", { action: "kill" });
    const gone = Object.keys(at.vm(OLD)?.config ?? {}).filter((key) => config[key] === undefined);
    at.simulator.changeVm(OLD, {
      config: { ...config, ...Object.fromEntries(gone.map((key) => [key, null])) },
    });
  }
});

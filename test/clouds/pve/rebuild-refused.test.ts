/** What a rebuild could fail at is found before anything is changed: PVE is asked for nothing but what it reads. */
import { describe, expect, it } from "vitest";
import { newId } from "../../../src/database/id.ts";
import { useStage } from "../../support/stage.ts";
import { createScene, fillUp, OLD, type Scene, type SceneOptions, TIGHT, UBUNTU } from "./rebuild-scene.ts";

const stage = useStage();

async function open(options: Omit<SceneOptions, "database"> = {}): Promise<Scene> {
  return stage.keep(await createScene({ database: stage.database, ...options }));
}

describe("a rebuild is refused with nothing changed", () => {
  async function refused(at: Scene, options: Record<string, string> = UBUNTU, state = "active") {
    const before = at.vm(OLD);
    const operation = await at.order("server.rebuild", options);
    expect(operation.state).toBe("failed");
    expect(at.changes()).toEqual([]);
    expect(at.vm(OLD)).toEqual(before);
    expect(at.made()).toHaveLength(1);
    expect(await at.server()).toMatchObject({ state, externalId: String(OLD) });
    return operation.problem;
  }

  it("when the template is gone from the cloud", async () => {
    const at = await open();
    at.simulator.removeVm(9001);
    expect(await refused(at)).toMatchObject({
      code: "cloud_invalid",
      message: expect.stringMatching(/no longer has this image/u),
    });
  });

  it("when the template's disk has grown beyond the server's", async () => {
    const at = await open();
    at.simulator.changeVm(9001, {
      config: { scsi0: `${at.vm(9001)?.disks["scsi0"]?.volid},size=20G` },
    });
    expect(await refused(at)).toMatchObject({
      code: "cloud_invalid",
      message: expect.stringMatching(/needs a disk of at least 20 GiB; the server has 10 GiB/u),
    });
  });

  it("when the template has no cloud-init drive", async () => {
    const at = await open();
    at.simulator.changeVm(9001, { config: { ide2: null } });
    expect(await refused(at)).toMatchObject({ code: "cloud_invalid" });
  });

  it("when there is no room for both, and it says how it could be done", async () => {
    const at = await open(TIGHT);
    fillUp(at);
    expect(await refused(at, { image: "debian-12" })).toMatchObject({
      code: "capacity",
      message: expect.stringMatching(/no room .* beside the old one.*in_place:yes/u),
    });
  });

  it("in place while there is room for both", async () => {
    const at = await open();
    expect(await refused(at, { ...UBUNTU, in_place: "yes" })).toMatchObject({
      code: "cloud_invalid",
      message: expect.stringMatching(/There is room .*without in_place/u),
    });
  });

  it("in place when even the old one's disk does not make room", async () => {
    const at = await open({ ...TIGHT, build: { clone: "linked" } });
    expect(at.vm(OLD)?.disks["scsi0"]?.volid).toMatch(/base-9000/u);
    fillUp(at);
    expect(await refused(at, { image: "debian-12", in_place: "yes" })).toMatchObject({
      code: "capacity",
      message: expect.stringMatching(/^Even without the old system/u),
    });
  });

  it("when PVE protects the VM", async () => {
    const at = await open();
    at.simulator.changeVm(OLD, { config: { protection: "1" } });
    expect(await refused(at)).toMatchObject({ code: "cloud_conflict" });
  });

  it("when the VM is locked by work that was broken off", async () => {
    const at = await open();
    at.simulator.changeVm(OLD, { lock: "backup" });
    const problem = await refused(at);
    expect(problem).toMatchObject({ code: "cloud_conflict" });
    expect(problem?.staffDetail).toMatch(/qm unlock 100000/u);
  });

  it("when the VM has a firewall of its own that would be lost", async () => {
    const at = await open();
    await at.asSomebody("PUT", `/nodes/n1/qemu/${OLD}/firewall/options`, "enable=1");
    at.changes();
    expect(await refused(at)).toMatchObject({
      code: "unsupported",
      message: expect.stringMatching(/firewall of its own/u),
    });
  });

  it("when the VM has further disks, attached, waiting for a restart or detached, which would go with it", async () => {
    const at = await open();
    await at.asSomebody("PUT", `/nodes/n1/qemu/${OLD}/config`, "scsi1=local-lvm:5&ide0=none,media=cdrom");
    await at.asSomebody("PUT", `/nodes/n1/qemu/${OLD}/config`, "sata3=local-lvm:3");
    at.changes();
    const problem = await refused(at);
    expect(problem).toMatchObject({
      code: "unsupported",
      message: expect.stringMatching(/more disks than the one that it starts from/u),
      staffDetail: expect.stringMatching(
        /VM 100000 has besides scsi0: .*scsi1 \(local-lvm:.*sata3 \(local-lvm:/u,
      ),
    });
    expect(problem?.message).not.toMatch(/scsi|local-lvm|100000/u);

    await at.asSomebody("PUT", `/nodes/n1/qemu/${OLD}/config`, "delete=scsi1,sata3");
    at.changes();
    expect((await refused(at))?.staffDetail).toMatch(/unused0 \(local-lvm:/u);
  });

  it("when a size waits for a restart, which the new system would not have", async () => {
    const at = await open();
    const resized = await at.order("server.resize", { plan: "m", restart: "later" });
    expect(resized).toMatchObject({ state: "succeeded", output: { cpuAndMemory: "at_restart" } });
    at.changes();
    expect(await refused(at)).toMatchObject({
      code: "cloud_conflict",
      message: expect.stringMatching(/^A change of the server waits for its restart .*\/server restart/u),
      staffDetail: expect.stringMatching(/memory/u),
    });
    await at.order("server.restart");
    const end = await at.order("server.rebuild", UBUNTU);
    expect(end).toMatchObject({ state: "succeeded" });
    const [row] = await stage.database.sql<{ plan: string; vcpus: number; memoryMib: number }>(
      `SELECT plan_code AS plan, vcpus, memory_mib AS "memoryMib" FROM servers`,
    );
    expect({ ...row, memory: at.made()[0]?.config["memory"] }).toEqual({
      plan: "m",
      vcpus: 2,
      memoryMib: 4096,
      memory: "4096",
    });
  });

  it("when what has the server's number is somebody else's", async () => {
    const at = await open();
    at.simulator.changeVm(OLD, { config: { description: "mine", smbios1: `uuid=${newId()}` } });
    // What is there is another one, so ours is not.
    expect(await refused(at, UBUNTU, "missing")).toMatchObject({
      code: "cloud_conflict",
      message: expect.stringMatching(/not provably this server/u),
    });
  });

  it("at once, for a protected server, one that billing has suspended, and an image that is too big", async () => {
    const at = await open();
    const ask = () => at.ask(at.ada, "server.rebuild", { server: "web-1", ...UBUNTU });
    await stage.database.sql(`UPDATE servers SET delete_protected = true`);
    await expect(ask()).rejects.toMatchObject({
      message: expect.stringMatching(/protected against deletion/u),
    });
    await stage.database.sql(`UPDATE servers SET delete_protected = false, suspended_at = clock()`);
    await expect(ask()).rejects.toMatchObject({ message: expect.stringMatching(/suspended by billing/u) });
    await stage.database.sql(`UPDATE servers SET suspended_at = NULL`);
    await stage.database.sql(`UPDATE images SET min_disk_gib = 11`);
    await expect(ask()).rejects.toMatchObject({
      message: expect.stringMatching(/at least 0 MiB and 11 GiB/u),
    });
    await expect(
      at.ask(at.ada, "server.rebuild", { server: "web-1", ...UBUNTU, in_place: "yes" }),
    ).rejects.toMatchObject({ code: "invalid_input" });
    expect(at.changes()).toEqual([]);
  });
});

/** A server gets a new system beside its old one: what its customer keeps, and what the cluster has in the end. */
import { describe, expect, it } from "vitest";
import { newId } from "../../../src/database/id.ts";
import { useStage } from "../../support/stage.ts";
import {
  createScene,
  fillUp,
  GIB,
  NEW,
  OLD,
  type Scene,
  type SceneOptions,
  UBUNTU,
} from "./rebuild-scene.ts";

const stage = useStage();

async function open(options: Omit<SceneOptions, "database"> = {}): Promise<Scene> {
  return stage.keep(await createScene({ database: stage.database, ...options }));
}

const KEY =
  "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ada@example.com";

describe("beside the old system", () => {
  it("gives the server a new system with the old MAC, address and size, and deletes the old one last", async () => {
    const at = await open();
    const before = at.vm(OLD);
    const row = await at.server();
    const operation = await at.order("server.rebuild", UBUNTU);
    expect(operation).toMatchObject({ state: "succeeded", problem: null });
    expect(at.made().map((vm) => vm.vmid)).toEqual([NEW]);
    const after = at.vm(NEW);
    expect(after).toMatchObject({
      name: "web-1",
      status: "running",
      node: before?.node,
      tags: "ratatosk",
      guest: { hostname: "web-1", boots: 1 },
      config: { net0: before?.config["net0"], ipconfig0: "ip=dhcp", memory: "2048" },
    });
    expect(after?.uuid).not.toBe(before?.uuid);
    expect(after?.disks["scsi0"]?.sizeBytes).toBe(10 * GIB);
    expect(after?.description.split("\n")[0]).toBe(`op:${operation.id}.1`);
    expect(await at.server()).toEqual({
      ...row,
      externalId: String(NEW),
      image: "ubuntu-24.04",
      data: { node: after?.node, smbiosUuid: after?.uuid, bootDisk: "scsi0" },
    });
    expect(row.addresses).toHaveLength(1);
    expect(at.simulator.state.volumes.filter((volume) => volume.vmid === OLD)).toEqual([]);
    expect(at.simulator.state.macClashes).toEqual([]);
    expect(at.changes()).toEqual([
      "POST /nodes/{node}/qemu/{vmid}/clone",
      "PUT /nodes/{node}/qemu/{vmid}/config",
      "PUT /nodes/{node}/qemu/{vmid}/config",
      "PUT /nodes/{node}/qemu/{vmid}/resize",
      "POST /nodes/{node}/qemu/{vmid}/status/shutdown",
      "POST /nodes/{node}/qemu/{vmid}/status/start",
      "DELETE /nodes/{node}/qemu/{vmid}",
    ]);
  });

  it("says before it is confirmed what is lost, and afterwards by events what was done", async () => {
    const at = await open();
    const operation = await at.order("server.rebuild", UBUNTU);
    expect(operation.plan).toMatchObject({
      before: { image: "debian-12" },
      after: { image: "ubuntu-24.04" },
      irreversible: ["Everything on its disk is lost for good.", "Its snapshots are lost with it."],
      notes: [expect.stringMatching(/deleted only when the new one runs/u), expect.any(String)],
    });
    expect(operation.plan.downtime).toMatch(/one to two minutes/u);
    const types = (await at.events()).map((event) => event.type);
    expect(types).toEqual(
      expect.arrayContaining(["server.rebuild.started", "server.state.changed", "server.rebuild.succeeded"]),
    );
    const told = (await at.lines(operation.id)).join("\n");
    expect(told).toMatch(/Let the new system be the server: the new system has taken the server's place\./u);
    expect(told).toMatch(/Delete the old system: it is deleted\./u);
    expect(told).toMatch(/web-1 runs its new system, ubuntu-24\.04\./u);
  });

  it("sets a new password that is revealed once, and the old one is gone", async () => {
    const at = await open();
    const before = at.vm(OLD)?.guest.passwords["root"];
    const { id } = await at.order("server.rebuild", UBUNTU, at.ada);
    const [offered] = await stage.database.sql<{ token: string }>(
      `SELECT token FROM capabilities WHERE operation_id = $1 AND action = 'secret.reveal'`,
      [id],
    );
    const shown = await at.entrance.reveal(offered?.token ?? "", at.ada, "console");
    expect(at.vm(NEW)?.guest.passwords["root"]).toBe(shown.text);
    expect(shown.text).not.toBe(before);
    await expect(at.entrance.reveal(offered?.token ?? "", at.ada, "console")).rejects.toMatchObject({
      name: "ServiceError",
    });
  });

  it("keeps what belongs to the place: cards, fixed address, name servers, limits, tags, keys", async () => {
    const at = await open();
    const old = at.simulator.changeVm(OLD, {
      config: {
        net0: "virtio=BC:24:11:AA:BB:01,bridge=vmbr0,firewall=1,rate=12.5,tag=7",
        net1: "e1000=BC:24:11:AA:BB:02,bridge=vmbr1",
        ipconfig0: "ip=192.0.2.10/24,gw=192.0.2.1",
        ipconfig1: "ip6=2001:db8::10/64",
        nameserver: "9.9.9.9 2620:fe::fe",
        searchdomain: "example.com",
        onboot: "1",
        startup: "order=3",
        cpulimit: "1.5",
        sockets: "2",
        cores: "1",
        tags: "gold;ratatosk",
        sshkeys: `${encodeURIComponent(KEY)}%0A`,
        description: `${at.vm(OLD)?.description}\nticket = 55`,
      },
    });
    const operation = await at.order("server.rebuild", UBUNTU);
    expect(operation).toMatchObject({ state: "succeeded", problem: null });
    const now = at.vm(NEW);
    for (const key of [
      "net0",
      "net1",
      "ipconfig0",
      "ipconfig1",
      "nameserver",
      "searchdomain",
      "onboot",
      "startup",
      "cpulimit",
      "sockets",
      "cores",
      "tags",
      "sshkeys",
    ]) {
      expect({ [key]: now?.config[key] }).toEqual({ [key]: old.config[key] });
    }
    expect(now?.guest.sshKeys).toEqual([KEY]);
    expect(now?.description.split("\n")).toEqual([
      `op:${operation.id}.1`,
      "Made by Ratatosk, which finds it again by the line above.",
      "ticket = 55",
    ]);
    expect((await at.server()).addresses).toEqual(["192.0.2.10", "2001:db8::10"]);
  });

  it("takes what the template had and the server had not out again", async () => {
    const at = await open();
    at.simulator.changeVm(9001, {
      config: { net1: "virtio=BC:24:11:AA:BB:03,bridge=vmbr1", nameserver: "192.0.2.53", onboot: "1" },
    });
    expect(await at.order("server.rebuild", UBUNTU)).toMatchObject({ state: "succeeded", problem: null });
    expect(Object.keys(at.vm(NEW)?.config ?? {})).not.toEqual(
      expect.arrayContaining([expect.stringMatching(/^(?:net1|nameserver|onboot)$/u)]),
    );
  });

  it("takes the key of the order instead of the server's, and refuses one that is none before PVE is asked", async () => {
    const at = await open();
    at.simulator.changeVm(OLD, { config: { sshkeys: encodeURIComponent("ssh-rsa AAAAold old") } });
    await expect(
      at.ask(at.ada, "server.rebuild", { server: "web-1", ...UBUNTU, key: "ssh-ed25519 AAAA" }),
    ).rejects.toMatchObject({ code: "invalid_input" });
    expect(at.changes()).toEqual([]);
    expect(await at.order("server.rebuild", { ...UBUNTU, key: KEY })).toMatchObject({ state: "succeeded" });
    expect(at.vm(NEW)?.guest.sshKeys).toEqual([KEY]);
  });

  it("tells the team, and nobody else, what in PVE names the old number", async () => {
    const at = await open();
    const { id } = await at.order("server.rebuild", UBUNTU, at.ada);
    const rows = await stage.database.sql<{ audience: string; text: string }>(
      `SELECT audience, text FROM operation_log WHERE operation_id = $1 AND text LIKE '%VM 100%'`,
      [id],
    );
    expect(rows.map(({ audience }) => audience)).toEqual(["staff", "staff", "staff"]);
    expect(rows.at(-1)?.text).toMatch(
      /was VM 100000 and is VM 100001 on n1 now\. What names VM 100000 in PVE \(backup jobs,/u,
    );
  });

  it("starts a server that was off, because a new system is for use", async () => {
    const at = await open();
    await at.order("server.power", { action: "kill" });
    expect(await at.order("server.rebuild", UBUNTU)).toMatchObject({ state: "succeeded" });
    expect(at.vm(NEW)?.status).toBe("running");
    expect(await at.server()).toMatchObject({ state: "active", externalId: String(NEW) });
  });

  it("empties the list of snapshots, which were the old disk's", async () => {
    const at = await open();
    const { id } = await at.server();
    await stage.database.sql(
      `INSERT INTO snapshots (id, server_id, name, description, with_memory, synced_at) VALUES ($1, $2, 's1', '', false, clock())`,
      [newId(), id],
    );
    await at.order("server.rebuild", UBUNTU);
    expect(await stage.database.sql(`SELECT name FROM snapshots WHERE server_id = $1`, [id])).toEqual([]);
  });

  it("can be done again and again, never under a number that was used", async () => {
    const at = await open();
    const { addresses } = await at.server();
    await at.order("server.rebuild", UBUNTU);
    await at.order("server.reinstall");
    await at.order("server.rebuild", { image: "debian-12" });
    expect(at.made()).toMatchObject([{ vmid: OLD + 3, status: "running" }]);
    expect(await at.server()).toMatchObject({ addresses, image: "debian-12", state: "active" });
    expect(await at.order("server.delete")).toMatchObject({ state: "succeeded" });
    expect(at.made()).toEqual([]);
  });

  it("goes to the node and storage of the old one, and elsewhere only when they are full", async () => {
    const at = await open({ build: { storage: "local-lvm", node: "n2" } });
    expect(await at.order("server.reinstall")).toMatchObject({ state: "succeeded" });
    expect(at.vm(NEW)).toMatchObject({ node: "n2" });
    expect(at.vm(NEW)?.disks["scsi0"]?.volid).toMatch(/^local-lvm:/u);
    fillUp(at);
    const shared = at.simulator.state.storages.find((storage) => storage.id === "shared");
    if (shared !== undefined) shared.totalBytes = 2048 * GIB;
    const operation = await at.order("server.reinstall");
    expect(operation).toMatchObject({ state: "succeeded", problem: null });
    expect(at.made()).toMatchObject([{ vmid: NEW + 1, node: "n2" }]);
    expect(at.made()[0]?.disks["scsi0"]?.volid).toMatch(/^shared:/u);
    const told = (await at.lines(operation.id)).join("\n");
    expect(told).toMatch(/VM 100001 is rebuilt as a new VM on n2, with its disk on shared\./u);
  });

  it("a guest that says nothing is no failure: it runs, and that is what is said", async () => {
    const at = await open();
    at.simulator.changeVm(9001, { config: { agent: null } });
    const operation = await at.order("server.rebuild", UBUNTU);
    expect(operation).toMatchObject({ state: "succeeded" });
    expect((await at.lines(operation.id)).join("\n")).toMatch(
      /Without a guest agent its address is not known/u,
    );
  });
});

describe("reinstall", () => {
  it("is a rebuild with the present image, under its own name in events", async () => {
    const at = await open();
    const before = at.vm(OLD);
    expect(await at.order("server.reinstall", {}, at.ada)).toMatchObject({
      state: "succeeded",
      problem: null,
    });
    expect(at.vm(NEW)?.config["net0"]).toBe(before?.config["net0"]);
    expect(await at.server()).toMatchObject({ image: "debian-12", externalId: String(NEW) });
    const types = (await at.events()).map((event) => event.type);
    expect(types).toEqual(expect.arrayContaining(["server.reinstall.started", "server.reinstall.succeeded"]));
  });

  it("says so when the image is no longer offered, or was never known", async () => {
    const at = await open();
    await stage.database.sql(`UPDATE servers SET image_name = 'debian-9'`);
    await expect(at.ask(at.ada, "server.reinstall", { server: "web-1" })).rejects.toMatchObject({
      code: "not_found",
      message: expect.stringMatching(/^The image debian-9 that web-1 .* is no longer offered\. Choose one:/u),
    });
    await stage.database.sql(`UPDATE servers SET image_name = NULL`);
    await expect(at.ask(at.ada, "server.reinstall", { server: "web-1" })).rejects.toMatchObject({
      code: "wrong_state",
    });
  });
});

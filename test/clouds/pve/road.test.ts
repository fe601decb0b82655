/** The whole road on PVE: orders through the entrance, the engine, the client, and what the cluster has in the end. */
import { expect, it } from "vitest";
import { clean } from "../../support/database.ts";
import { ed25519Key } from "../../support/ssh-key.ts";
import { useStage } from "../../support/stage.ts";
import { BUILD, createPveWorld, type PveWorld, type PveWorldOptions } from "./world.ts";

const GIB = 2 ** 30;
const stage = useStage();

async function open(options: Omit<PveWorldOptions, "database"> = {}): Promise<PveWorld> {
  await clean(stage.database);
  return stage.keep(await createPveWorld({ database: stage.database, ...options }));
}

const KEY = ed25519Key("ada+laptop@example.com");

it("builds a server on the node that was asked for, with all that was ordered, before its first start", async () => {
  const { run, sam, simulator, made, lines, events } = await open();
  const operation = await run(sam, "server.build", { ...BUILD, node: "n2", key: KEY });
  expect(operation.problem).toBeNull();
  expect(operation.state).toBe("succeeded");
  const [vm, ...others] = made();
  expect(others).toEqual([]);
  expect(vm).toMatchObject({
    vmid: 100_000,
    node: "n2",
    name: "web-1",
    status: "running",
    tags: "ratatosk",
    config: { ciuser: "root", ipconfig0: "ip=dhcp", memory: "2048", cores: "2", sockets: "1" },
  });
  expect(vm?.description.split("\n")[0]).toBe(`op:${operation.id}.1`);
  expect(vm?.disks["scsi0"]?.sizeBytes).toBe(10 * GIB);
  expect(vm?.config["net0"]).toMatch(/bridge=vmbr0$/u);
  // PVE stores the percent-encoded list; the guest got the key itself.
  expect(vm?.guest).toMatchObject({ hostname: "web-1", boots: 1, sshKeys: [KEY] });
  const [row] = await stage.database.sql<{
    state: string;
    data: Record<string, unknown>;
    addresses: string[];
  }>(`SELECT state, provider_data AS data, addresses FROM servers WHERE name = 'web-1'`);
  expect(row).toMatchObject({
    state: "active",
    data: { node: "n2", smbiosUuid: vm?.uuid, bootDisk: "scsi0" },
  });
  // From the guest agent: the configuration says only DHCP.
  expect(row?.addresses).toEqual([expect.stringMatching(/^10\./u)]);
  expect((await lines(operation.id)).join("\n")).toMatch(
    /Copy the image: done[\s\S]*Grow the disk: the disk has 10 GiB now/u,
  );
  expect((await events()).map((event) => event.type)).toContain("server.build.succeeded");
  // The copy was made within the node, from its own template of that name.
  expect(simulator.state.tasks.find((task) => task.type === "qmclone")).toMatchObject({
    node: "n2",
    id: "9100",
  });
});

it("provisions by plan, resizes, sets a password, restarts, stops and deletes", async () => {
  const { run, sam, rita, simulator, made, lines } = await open();
  const provisioned = await run(sam, "server.provision", {
    name: "web-1",
    customer: "ada",
    plan: "s",
    image: "debian-12",
  });
  expect(provisioned).toMatchObject({ state: "succeeded", problem: null });
  const first = made()[0];

  const resized = await run(sam, "server.resize", { server: "web-1", plan: "m" });
  expect(resized).toMatchObject({ state: "succeeded", problem: null });
  expect(made()[0]).toMatchObject({ pending: {}, config: { memory: "4096" }, guest: { boots: 2 } });
  expect(made()[0]?.disks["scsi0"]?.sizeBytes).toBe(20 * GIB);

  const password = await run(sam, "server.password", { server: "web-1" });
  expect(password).toMatchObject({ state: "succeeded", problem: null });
  expect(made()[0]?.guest.passwords["root"]).not.toBe(first?.guest.passwords["root"]);
  expect((await lines(password.id)).at(-1)).toMatch(/The new password is active/u);

  for (const action of [
    "reboot",
    "suspend",
    "resume",
    "shutdown",
    "start",
    "reset",
    "kill",
    "start",
    "stop",
  ]) {
    const power = await run(sam, "server.power", { server: "web-1", action });
    expect(power, action).toMatchObject({ state: "succeeded", problem: null });
  }
  const deleted = await run(rita, "server.delete", { server: "web-1" });
  expect(deleted).toMatchObject({ state: "succeeded", problem: null });
  expect(made()).toEqual([]);
  expect(simulator.state.volumes.filter((volume) => volume.vmid === first?.vmid)).toEqual([]);
});

it("answers the same build with the first one's card, and another of that name with a refusal", async () => {
  const { run, ask, sam, made } = await open();
  const first = await run(sam, "server.build", BUILD);
  expect(await ask(sam, "server.build", BUILD)).toMatchObject({ operationId: first.id });
  await expect(ask(sam, "server.build", { ...BUILD, memory: "4G" })).rejects.toMatchObject({
    code: "conflict",
  });
  expect(made()).toHaveLength(1);
});

it("never gives a number twice, not even after its server is gone", async () => {
  const { run, sam, rita, made } = await open();
  for (const name of ["a", "b", "c"]) {
    await run(sam, "server.build", { ...BUILD, name });
    await run(rita, "server.delete", { server: name });
  }
  await run(sam, "server.build", { ...BUILD, name: "d" });
  expect(made().map((vm) => vm.vmid)).toEqual([100_003]);
});

it("leaves nothing behind when a build is cancelled or fails, and touches no stranger's VM", async () => {
  const { run, sam, simulator, made, operation } = await open();
  const stranger = simulator.addStranger({ name: "web-1" });
  simulator.addTaskFault({
    task: "qmstart",
    outcome: "fail",
    message: "start failed: QEMU exited with code 1",
  });
  const failed = await run(sam, "server.build", BUILD);
  expect(failed).toMatchObject({ state: "failed", problem: { code: "cloud_failed" } });
  expect(failed.problem?.message).not.toContain("QEMU");
  expect(failed.problem?.staffDetail).toContain("QEMU exited with code 1");
  expect(made()).toEqual([]);
  expect(simulator.state.vms.find((vm) => vm.vmid === stranger.vmid)).toEqual(
    expect.objectContaining({ uuid: stranger.uuid, status: "running" }),
  );
  expect((await operation(failed.id)).state).toBe("failed");
});

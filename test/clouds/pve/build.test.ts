/** server.build on Proxmox VE: what can be said of a new server, where it goes, and what is refused before anything is made. */
import { Webhook } from "standardwebhooks";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { createHttpClient } from "../../../src/clouds/http.ts";
import { createClient } from "../../../src/clouds/pve/client.ts";
import { placeFor } from "../../../src/clouds/pve/placement.ts";
import { preflightProvision } from "../../../src/clouds/pve/preflight.ts";
import { renderCard } from "../../../src/core/operations/card.ts";
import { receive } from "../../net/receiver.ts";
import { ed25519Key, rsaKey } from "../../support/ssh-key.ts";
import { useStage } from "../../support/stage.ts";
import { silent } from "../../support/world.ts";
import { createWorld as createWebhookWorld } from "../../webhooks/world.ts";
import { optionsOf, orderOf } from "./open-simulator.ts";
import { openTimedWorld, type TimedWorld } from "./timed-world.ts";
import { BUILD, type PveWorldOptions } from "./world.ts";

const GIB = 2 ** 30;
const stage = useStage();

async function open(options: Omit<PveWorldOptions, "database"> = {}): Promise<TimedWorld> {
  return stage.keep(await openTimedWorld({ database: stage.database, ...options }));
}

const { cpu: _cpu, memory: _memory, disk: _disk, ...WITHOUT_SIZE } = BUILD;

describe("a build on a chosen node", () => {
  it("a build on a chosen node shows its steps in order, makes one clone, and tells billing once, signed", async () => {
    const { order, sam, simulator, vm, row, steps } = await open();
    const receiver = await receive((_request, response) => response.writeHead(200).end());
    const webhooks = createWebhookWorld(() => stage.database);
    try {
      const secret = await webhooks.endpoints({ url: receiver.url, name: "billing" });
      const operation = await order("server.build", { ...WITHOUT_SIZE, plan: "s", node: "n2" }, sam);
      expect(operation).toMatchObject({ state: "succeeded", problem: null });
      const card = await renderCard(stage.database, operation.id, "staff");
      expect(card.view.steps?.map(({ label, state }) => `${label}: ${state}`)).toEqual([
        "Check quota, image and network: done",
        "Reserve a number for the server: done",
        "Copy the image: done",
        "Set its size, network and first password: done",
        "Grow the disk: done",
        "Start the server: done",
        "Wait for the guest: done",
      ]);
      expect((await steps(operation.id)).every(({ state }) => state === "done")).toBe(true);
      const clones = simulator.state.requests.filter(({ path }) => path.endsWith("/clone"));
      expect(clones.map(({ method, status }) => `${method} ${status}`)).toEqual(["POST 200"]);
      expect(vm()).toMatchObject({ node: "n2", status: "running", guest: { boots: 1 } });
      expect(await row()).toMatchObject({ state: "active", planCode: "s", vcpus: 1, memoryMib: 2048 });

      await webhooks.dispatcher().tick();
      const told = receiver.requests.map((request) => {
        const names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
        const headers = Object.fromEntries(names.map((name) => [name, String(request.headers[name])]));
        return z.looseObject({ type: z.string() }).parse(new Webhook(secret).verify(request.body, headers));
      });
      expect(told.filter(({ type }) => type === "server.build.succeeded")).toHaveLength(1);
      expect(JSON.stringify(told)).not.toMatch(/"n2"|local-lvm/u);
    } finally {
      await webhooks.close();
    }
  });
});

describe("what can be ordered", () => {
  it("sockets, storage, a fixed address and several keys are in the VM before its first start", async () => {
    const { order, vm, row, simulator } = await open({
      client: { nameservers: ["9.9.9.9", "2620:fe::fe"], searchDomain: "example.com" },
    });
    const keys = [ed25519Key(), rsaKey()];
    const operation = await order("server.build", {
      ...BUILD,
      cpu: "4",
      sockets: "2",
      storage: "shared",
      clone: "full",
      ip: "10.1.2.3/24",
      gateway: "10.1.2.1",
      key: keys.join("\n"),
    });
    expect(operation).toMatchObject({ state: "succeeded", problem: null });
    expect(vm()).toMatchObject({
      config: {
        sockets: "2",
        cores: "2",
        ipconfig0: "ip=10.1.2.3/24,gw=10.1.2.1",
        nameserver: "9.9.9.9 2620:fe::fe",
        searchdomain: "example.com",
      },
      guest: { boots: 1, addresses: { 0: "ip=10.1.2.3/24,gw=10.1.2.1" }, sshKeys: keys },
    });
    expect(vm().disks["scsi0"]).toMatchObject({
      volid: expect.stringMatching(/^shared:/u),
      sizeBytes: 10 * GIB,
    });
    expect((await row()).addresses).toEqual(["10.1.2.3"]);
    const calls = simulator.state.requests
      .filter(({ method, path }) => method !== "GET" && path.includes("/100000/"))
      .map(({ path }) => path.split("/").at(-1));
    expect(calls.filter((call) => call !== "ping")).toEqual(["config", "resize", "start"]);
  });

  it("sshkeys double encoding and +: the guest gets each key as it was pasted", async () => {
    const { order, vm, simulator } = await open();
    const key = ed25519Key("ada+laptop 100% of 'it' & more=1");
    expect(key).toMatch(/\+.*\//u);
    await order("server.build", { ...BUILD, key });
    expect(vm().guest.sshKeys).toEqual([key]);
    const sent = simulator.state.requests.find(({ params }) => "sshkeys" in params)?.params["sshkeys"];
    // What PVE itself sees is percent-encoded still, with spaces as %20.
    expect(sent).toBe(encodeURIComponent(`${key}\n`));
  });

  it("an IPv6 address goes into ip6 and gw6", async () => {
    const { order, vm } = await open();
    await order("server.build", { ...BUILD, ip: "2001:db8::5/64", gateway: "fe80::1" });
    expect(vm().config["ipconfig0"]).toBe("ip6=2001:db8::5/64,gw6=fe80::1");
  });

  it("a copy to another node goes onto a storage that both reach", async () => {
    const { order, vm, simulator } = await open();
    const operation = await order("server.build", { ...BUILD, image: "ubuntu-24.04", node: "n2" });
    expect(operation).toMatchObject({ state: "succeeded", problem: null });
    expect(vm()).toMatchObject({ node: "n2", status: "running" });
    expect(vm().disks["scsi0"]?.volid).toMatch(/^shared:/u);
    const clone = simulator.state.requests.find(({ path }) => path.endsWith("/clone"));
    expect(clone?.params).toMatchObject({ target: "n2", storage: "shared", full: "1" });
  });

  it("a linked clone shares its template's disk", async () => {
    const { order, vm, simulator } = await open();
    const operation = await order("server.build", { ...BUILD, image: "ubuntu-24.04", clone: "linked" });
    expect(operation.problem).toBeNull();
    expect(simulator.state.requests.find(({ path }) => path.endsWith("/clone"))?.params).toMatchObject({
      full: "0",
    });
    expect(vm().disks["scsi0"]?.volid).toMatch(/^shared:9001\/base-/u);
  });

  it("start:no leaves it off, with everything set, and says so", async () => {
    const { order, vm, row, lines, changes } = await open();
    const operation = await order("server.build", { ...BUILD, start: "no" });
    expect(operation).toMatchObject({ state: "succeeded", problem: null });
    expect(vm()).toMatchObject({ status: "stopped", config: { memory: "2048", ciuser: "root" } });
    expect(await row()).toMatchObject({ state: "stopped" });
    expect(changes()).not.toContain("POST V/status/start");
    expect((await lines(operation.id)).at(-1)).toBe("web-1 is built and off.");
  });

  it("order: configure before first start, also when the answer to the configuration is lost", async () => {
    const { order, vm, simulator, changes } = await open();
    simulator.addFault({ method: "PUT", path: "/config$", kind: "status", status: 596 });
    const operation = await order("server.build", BUILD);
    expect(operation).toMatchObject({ state: "succeeded", problem: null });
    expect(changes()).toEqual([
      "POST V/clone",
      "PUT V/config",
      "PUT V/config",
      "PUT V/resize",
      "POST V/status/start",
    ]);
    expect(vm().guest).toMatchObject({ boots: 1, hostname: "web-1" });
  });
});

describe("where it goes", () => {
  it("to the node with the most free memory and the storage with the most room", async () => {
    const { simulator } = await open();
    simulator.addStranger({ vmid: 500, node: "n1" });
    simulator.changeVm(500, { config: { memory: "65536" } });
    simulator.addStranger({ vmid: 501, node: "n2", storage: "shared" });
    const client = clientOf(simulator);
    const request = { imageId: "n1/9000", size: { memoryMib: 2048, diskGib: 10 } };
    const { signal } = new AbortController();
    expect(await placeFor(client, { ...request, signal })).toMatchObject({
      node: "n2",
      storage: "local-lvm",
    });
    await client.close();
  });

  it("past storages that are too small for its disk", async () => {
    const { order, vm, simulator } = await open();
    for (const id of ["local-lvm", "shared"]) storage(simulator, id).totalBytes = 5 * GIB;
    await order("server.build", BUILD);
    expect(vm().disks["scsi0"]?.volid).toMatch(/^local:/u);
  });

  it("to no node that takes nothing new", async () => {
    const { simulator } = await open();
    const client = clientOf(simulator);
    const signal = new AbortController().signal;
    const request = { imageId: "n1/9001", signal, mayPlaceOn: (node: string) => node !== "n1" };
    expect(await placeFor(client, request)).toMatchObject({ node: "n2", storage: "shared" });
    await expect(placeFor(client, { ...request, node: "n1" })).rejects.toMatchObject({
      code: "cloud_conflict",
      message: expect.stringMatching(/in maintenance and takes no new ones/u),
    });
    await expect(placeFor(client, { ...request, mayPlaceOn: () => false })).rejects.toMatchObject({
      facts: { maintenance: true },
    });
    await client.close();
  });
});

/** The simulator's own; it hands out what it works with. */
function storage(simulator: TimedWorld["simulator"], id: string) {
  const found = simulator.state.storages.find((one) => one.id === id);
  if (found === undefined) throw new Error(`no storage ${id}`);
  return found;
}

function clientOf(simulator: TimedWorld["simulator"]) {
  const options = optionsOf(simulator);
  const http = createHttpClient({
    cloud: options.name,
    connectTimeoutMs: 5_000,
    timeoutMs: 30_000,
    verifyTls: true,
    fingerprint: simulator.fingerprint,
    log: silent,
  });
  return createClient(options, http, { log: silent, now: Date.now });
}

describe("what is refused before anything is made", () => {
  it("by the entrance: sizes out of bounds, an address that is none, a broken key, sockets that do not divide", async () => {
    const { ask, sam, changes } = await open();
    const refusals: [Record<string, string>, RegExp][] = [
      [{ cpu: "129" }, /^CPU must be 1-128\.$/u],
      [{ memory: "511M" }, /^Memory must be at least 512 MiB\.$/u],
      [{ memory: "8" }, /^memory:8 needs a unit; write memory:8G/u],
      [{ memory: "8 GHz" }, /has the unknown unit "GHz"; write M, G or T/u],
      [{ plan: "s" }, /^Give either plan:, or all of cpu:, memory: and disk:\.$/u],
      [{ sockets: "3" }, /^2 vCPU do not divide by 3 sockets\.$/u],
      [{ clone: "linked", storage: "shared" }, /^A linked clone stays on the storage of its template/u],
      [{ ip: "10.0.0.5" }, /needs its prefix length/u],
      [{ ip: "10.0.0.0/24" }, /first or last address of its network/u],
      [{ ip: "010.0.0.5/24" }, /is no address/u],
      [{ ip: "127.0.0.1/8" }, /cannot be a server's address/u],
      [{ ip: "10.0.0.5/24", gateway: "10.0.1.1" }, /is not in the network of/u],
      [{ ip: "10.0.0.5/24", gateway: "10.0.0.5" }, /cannot be its own gateway/u],
      [{ ip: "10.0.0.5/24", gateway: "fe80::1" }, /of different kinds/u],
      [{ gateway: "10.0.0.1" }, /needs a fixed address/u],
      [{ key: "AAAA" }, /is no public SSH key/u],
      [{ key: ed25519Key().slice(0, 70) }, /is no public SSH key/u],
      [{ key: `${ed25519Key()}\nnonsense` }, /has a line 2 that is no public SSH key/u],
      [{ key: "-----BEGIN OPENSSH PRIVATE KEY-----" }, /is a private key, which must never leave its owner/u],
    ];
    for (const [change, message] of refusals) {
      await expect(
        ask(sam, "server.build", { ...BUILD, ...change }),
        JSON.stringify(change),
      ).rejects.toMatchObject({
        code: "invalid_input",
        message: expect.stringMatching(message),
      });
    }
    await expect(ask(sam, "server.build", { ...WITHOUT_SIZE, cpu: "2" })).rejects.toMatchObject({
      message: "Give either plan:, or all of cpu:, memory: and disk:.",
    });
    expect(changes()).toEqual([]);
  });

  it("by the preflight: an unknown node, storage or network, and a linked clone to another storage", async () => {
    const { order, changes, made } = await open({ client: { clone: "linked" } });
    const toN2 = { node: "n2", image: "ubuntu-24.04", clone: "full" };
    const refusals: [Record<string, string>, RegExp, RegExp][] = [
      [{ node: "n3" }, /^The cloud has no such node\./u, /no node n3; it has n1, n2$/u],
      [{ ...toN2, storage: "nfs9" }, /^The node has no such storage for servers/u, /n2 has .*, not nfs9$/u],
      // It takes backups alone.
      [
        { clone: "full", storage: "backups" },
        /^The node has no such storage for servers/u,
        /, not backups$/u,
      ],
      [{ ...toN2, storage: "local" }, /onto a storage that both nodes reach/u, /local is not shared/u],
    ];
    for (const [index, [change, message, detail]] of refusals.entries()) {
      const operation = await order("server.build", { ...BUILD, name: `web-${index}`, ...change });
      expect(operation, JSON.stringify(change)).toMatchObject({
        state: "failed",
        problem: {
          code: "cloud_invalid",
          message: expect.stringMatching(message),
          staffDetail: expect.stringMatching(detail),
        },
      });
      // The customer sees what became of it, and no node or storage.
      const card = JSON.stringify((await renderCard(stage.database, operation.id, "customer")).view);
      expect(card).not.toMatch(/\bn[123]\b|nfs9|backups|local/u);
    }
    const linked = await order("server.build", { ...BUILD, name: "web-9", storage: "shared" });
    expect(linked.problem?.message).toMatch(/^A linked clone stays on the storage of its template\./u);
    expect(changes()).toEqual([]);
    expect(made()).toEqual([]);
  });

  it("an image without a cloud-init drive, or bigger than the size", async () => {
    const { simulator } = await open();
    const { signal } = new AbortController();
    const client = clientOf(simulator);
    const small = { ...orderOf(), size: { vcpus: 1, memoryMib: 1024, diskGib: 3 } };
    await expect(preflightProvision(client, small, signal)).rejects.toMatchObject({
      code: "cloud_invalid",
      message: expect.stringMatching(/needs a disk of at least 4 GiB; this size has 3 GiB/u),
    });
    await client.close();
    for (const vmid of [9000, 9100]) simulator.changeVm(vmid, { config: { ide2: null } });
    const another = clientOf(simulator);
    await expect(preflightProvision(another, orderOf(), signal)).rejects.toMatchObject({
      message: expect.stringMatching(/has no cloud-init drive/u),
    });
    await expect(
      preflightProvision(another, { ...orderOf(), imageId: "n1/9001", networkId: "vmbr9" }, signal),
    ).rejects.toMatchObject({
      message: expect.stringMatching(/^The network is not there on the node/u),
    });
    await another.close();
  });

  it("storage full: said before the clone, with what is free, for staff", async () => {
    const { order, simulator, changes } = await open();
    storage(simulator, "shared").totalBytes = 20 * GIB;
    const operation = await order("server.build", { ...BUILD, disk: "40G", storage: "shared" });
    expect(operation).toMatchObject({
      state: "failed",
      problem: {
        code: "capacity",
        message: expect.stringMatching(/no room for this server's disk/u),
        staffDetail: expect.stringMatching(/shared has \d+ GiB free; 40 GiB are needed/u),
      },
    });
    expect(operation.problem?.message).not.toContain("shared");
    expect(changes()).toEqual([]);
  });

  it("a memory that no node has free, unless a node is named", async () => {
    const { order } = await open();
    const big = { ...BUILD, memory: "512G" };
    expect(await order("server.build", { ...big, name: "web-2" })).toMatchObject({
      state: "failed",
      problem: { code: "capacity", staffDetail: expect.stringMatching(/MiB free.*524288 MiB are needed/u) },
    });
    expect(await order("server.build", { ...big, node: "n2" })).toMatchObject({ state: "succeeded" });
  });

  it("a storage that fills up during the copy: nothing of it stays", async () => {
    const { order, simulator, made } = await open();
    simulator.addTaskFault({
      task: "resize",
      outcome: "fail",
      message: "command '/usr/bin/qemu-img resize' failed: No space left on device",
    });
    expect(await order("server.build", BUILD)).toMatchObject({
      state: "failed",
      problem: { code: "capacity" },
    });
    expect(made()).toEqual([]);
    expect(simulator.state.volumes.filter((volume) => volume.vmid === 100_000)).toEqual([]);
  });
});

describe("answers that are lost", () => {
  it("each write of a build once, before and after it was done: one VM, as it was ordered", async () => {
    for (const kind of ["status", "status_after"] as const) {
      for (const status of [595, 596]) {
        // What never reached the daemon was never done.
        if (kind === "status_after" && status === 595) continue;
        const { order, simulator, vm } = await open();
        for (const [method, path] of [
          ["POST", "/clone$"],
          ["PUT", "/config$"],
          ["PUT", "/resize$"],
          ["POST", "/status/start$"],
        ]) {
          simulator.addFault({ method: method ?? "", path: path ?? "", kind, status });
        }
        const key = ed25519Key();
        const operation = await order("server.build", {
          ...BUILD,
          key,
          ip: "10.1.2.3/24",
          gateway: "10.1.2.1",
        });
        expect(operation, `${kind} ${status}`).toMatchObject({ state: "succeeded", problem: null });
        expect(vm()).toMatchObject({
          status: "running",
          config: { memory: "2048", ipconfig0: "ip=10.1.2.3/24,gw=10.1.2.1" },
          guest: { boots: 1, sshKeys: [key] },
        });
        expect(vm().disks["scsi0"]?.sizeBytes).toBe(10 * GIB);
        expect(simulator.state.tasks.filter((task) => task.type === "qmclone")).toHaveLength(1);
        await stage.clear();
      }
    }
  });
});

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  type PveSimulator,
  type PveSimulatorOptions,
  startPveSimulator,
} from "../../src/sandbox/pve/index.ts";
import { invalidRequests, loadPveApi } from "../support/pve-schema.ts";
import { type Json, type PveClient, pveClient, until } from "./pve-client.ts";

const api = loadPveApi();
let simulator: PveSimulator;
let client: PveClient;

async function start(options: PveSimulatorOptions = {}): Promise<void> {
  client?.close();
  await simulator?.close();
  simulator = await startPveSimulator({ speed: 0, tls: false, ...options });
  client = pveClient(simulator);
}

beforeEach(() => start());
afterEach(async () => {
  client.close();
  await simulator.close();
  // Whatever was accepted here, PVE 9.2 would have accepted.
  const refused = api ? invalidRequests(api, simulator.state.requests) : [];
  if (refused.length > 0) throw new Error(refused.join("; "));
});

const vm = "/nodes/n1/qemu/200";

function seen(vmid = 200): PveSimulator["state"]["vms"][number] {
  const found = simulator.state.vms.find((each) => each.vmid === vmid);
  if (!found) throw new Error(`no VM ${vmid}`);
  return found;
}

async function running(form: Record<string, string | number> = {}): Promise<void> {
  await client.clone(200, form);
  await client.exit(client.post(`${vm}/status/start`));
}

function agentUp(): Promise<true> {
  return until(async () => ((await client.post(`${vm}/agent/ping`)).status === 200 ? true : undefined));
}

function pendingOf(rows: Json[]): Json[] {
  return rows.filter((row) => "pending" in row || "delete" in row);
}

describe("a clone", () => {
  it("gives another MAC and UUID, and answers lock: clone while it runs", async () => {
    await start({ speed: 0.05 });
    const reply = await client.post("/nodes/n1/qemu/9000/clone", {
      newid: 200,
      full: 1,
      name: "web-1",
      description: "op:1.1",
    });
    const early = await until(async () => {
      const { data, status } = await client.get(`${vm}/config`);
      return status === 200 ? data : undefined;
    });
    expect(await client.exit(reply)).toBe("OK");
    const template = seen(9000);

    expect(reply.data).toMatch(
      /^UPID:n1:[0-9A-F]{8}:[0-9A-F]{8}:[0-9A-F]{8}:qmclone:9000:ratatosk@pve!ratatosk:$/,
    );
    // Not even the description is there yet: a marker in it cannot be looked for at this time.
    expect(early).toEqual({ lock: "clone", digest: early.digest });
    expect(seen()).toMatchObject({ name: "web-1", description: "op:1.1", lock: undefined, template: false });
    expect(seen().uuid).not.toBe(template.uuid);
    expect(seen().config["net0"]).not.toBe(template.config["net0"]);
    expect(seen().disks["scsi0"]).toEqual({
      volid: "local:200/vm-200-disk-0.qcow2",
      sizeBytes: 4 * 1024 ** 3,
    });
  });

  it("loses the race for a VMID in its task, and leaves the winner alone", async () => {
    simulator.state.traps = { forkDelayMs: 200 };
    const both = await Promise.all(
      [1, 2].map(() => client.post("/nodes/n1/qemu/9000/clone", { newid: 200, full: 1 })),
    );
    const ends = await Promise.all(both.map((reply) => client.exit(reply)));
    expect(both.map(({ status }) => status)).toEqual([200, 200]);
    expect(ends.toSorted()).toEqual(["OK", "unable to create VM 200: config file already exists"]);
    expect(seen().disks["scsi0"]?.sizeBytes).toBeGreaterThan(0);
  });

  it("loses its VMID to a stranger between check and task", async () => {
    simulator.state.traps = { stealVmids: 1 };
    expect(await client.clone(200)).toBe("unable to create VM 200: config file already exists");
    expect(seen()).toMatchObject({ stranger: true, name: "thief-200", status: "running" });
  });

  it.each([
    ["/nodes/n1/qemu/404/clone", { newid: 200 }, "unable to find configuration file for VM 404 on node 'n1'"],
    ["/nodes/n1/qemu/9000/clone", { newid: 200, target: "nope" }, "no such cluster node 'nope'"],
    ["/nodes/n1/qemu/9000/clone", { newid: 200, full: 1, storage: "nope" }, "storage 'nope' does not exist"],
    [
      "/nodes/n1/qemu/9000/clone",
      { newid: 200, storage: "local" },
      "parameter 'storage' not allowed for linked clones",
    ],
    [
      "/nodes/n1/qemu/9000/clone",
      { newid: 200, full: 1, target: "n2" },
      "can't clone VM to node 'n2' (VM uses local storage)",
    ],
    [
      "/nodes/n1/qemu/9001/clone",
      { newid: 200, full: 1, target: "n2", storage: "local" },
      "can't clone to non-shared storage 'local'",
    ],
    [
      "/nodes/n1/qemu/9000/clone",
      { newid: 9000, full: 1 },
      "unable to create VM 9000: config file already exists",
    ],
    [
      "/nodes/n1/qemu/100/clone",
      { newid: 200, full: 0 },
      "Linked clone feature is not supported for 'local:100/vm-100-disk-0.qcow2' (scsi0)",
    ],
  ])("of %s with %o is refused at once", async (path, form, message) => {
    simulator.addStranger({ vmid: 100, running: false });
    const reply = await client.post(path, form);
    expect([reply.status, reply.json.message]).toEqual([500, `${message}\n`]);
  });

  it("goes to another node from shared storage", async () => {
    expect(
      await client.exit(client.post("/nodes/n1/qemu/9001/clone", { newid: 201, full: 1, target: "n2" })),
    ).toBe("OK");
    expect(seen(201).node).toBe("n2");
  });

  it("is linked to its template by default, which then cannot go", async () => {
    await client.exit(client.post("/nodes/n1/qemu/9000/clone", { newid: 200 }));
    expect(seen().disks["scsi0"]?.volid).toBe("local:9000/base-9000-disk-0.qcow2/200/vm-200-disk-0.qcow2");
    expect(await client.exit(client.del("/nodes/n1/qemu/9000"))).toContain(
      "is still in use by linked cloned",
    );
  });

  it("cleans up after itself when it is stopped, not when it is killed", async () => {
    const clone = (newid: number): ReturnType<PveClient["post"]> =>
      client.post("/nodes/n1/qemu/9000/clone", { newid, full: 1, name: "sim-slow-clone" });
    const [stopped, killed] = [await clone(200), await clone(201)];
    await until(() =>
      simulator.state.vms.some(({ vmid }) => vmid === 200) &&
      simulator.state.vms.some(({ vmid }) => vmid === 201)
        ? true
        : undefined,
    );
    await client.del(`/nodes/n1/tasks/${encodeURIComponent(stopped.data)}`);
    simulator.killTask(killed.data);

    expect(await client.exit(stopped)).toContain("interrupted by signal");
    expect(await client.exit(killed)).toBe("unexpected status");
    expect(simulator.state.vms.some(({ vmid }) => vmid === 200)).toBe(false);
    expect(seen(201).lock).toBe("clone");
    expect(await client.exit(client.del("/nodes/n1/qemu/201"))).toBe("VM is locked (clone)");
  });

  it.each([
    ["sim-fail-clone", "clone failed: copy failed: simulated failure", undefined],
    ["sim-kill-clone", "unexpected status", "clone"],
    ["sim-full", expect.stringContaining("No space left on device"), undefined],
  ])("named %s", async (name, status, lock) => {
    expect(await client.clone(200, { name })).toEqual(status);
    expect(simulator.state.vms.find(({ vmid }) => vmid === 200)?.lock).toBe(lock);
  });

  it("finds a running source locked by another clone", async () => {
    await start({ speed: 0.3 });
    simulator.addStranger({ vmid: 100 });
    const both = await Promise.all(
      [201, 202].map((newid) => client.post("/nodes/n1/qemu/100/clone", { newid, full: 1 })),
    );
    const ends = await Promise.all(both.map((reply) => client.exit(reply)));
    expect(ends.toSorted()).toEqual([
      "OK",
      "can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout",
    ]);
  });
});

describe("VMIDs", () => {
  it("are named, not reserved", async () => {
    const [first, second] = [await client.get("/cluster/nextid"), await client.get("/cluster/nextid")];
    const taken = await client.get("/cluster/nextid", { vmid: 9000 });
    const free = await client.get("/cluster/nextid", { vmid: 5000 });
    expect([first.data, second.data, free.data]).toEqual(["100", "100", "5000"]);
    expect([taken.status, taken.json.errors]).toEqual([400, { vmid: "VM 9000 already exists" }]);
  });

  it("are locked by a create before its task runs", async () => {
    const reply = await client.post("/nodes/n1/qemu", {
      vmid: 300,
      name: "new",
      scsi0: "local:2",
      ide2: "local:cloudinit",
      net0: "virtio,bridge=vmbr0",
    });
    const again = await client.post("/nodes/n1/qemu", { vmid: 300 });
    expect(again.json.message).toBe("unable to create VM 300 - VM 300 already exists on node 'n1'\n");
    expect(await client.exit(reply)).toBe("OK");
    expect(seen(300)).toMatchObject({
      config: { scsi0: "local:300/vm-300-disk-0.qcow2,size=2G", boot: "order=scsi0" },
    });
    expect(seen(300).config["net0"]).toMatch(/^virtio=BC:24:11:/);
  });
});

describe("a configuration", () => {
  it("changes at once when stopped, guarded by its digest", async () => {
    await client.clone(200);
    const { digest } = (await client.get(`${vm}/config`)).data;
    const first = await client.put(`${vm}/config`, { cores: 2, digest });
    const late = await client.put(`${vm}/config`, { cores: 4, digest });
    expect([first.status, first.json]).toEqual([200, { data: null }]);
    expect([late.status, late.json.message]).toEqual([
      500,
      "checksum mismatch (file change by other user?)\n",
    ]);
  });

  it("of a running VM waits for a stop and start, and PVE's reboot is one", async () => {
    await running();
    await agentUp();
    await client.put(`${vm}/config`, {
      cores: 2,
      memory: 1024,
      name: "other",
      ide0: "local:iso/rescue.iso,media=cdrom",
    });
    const pending = pendingOf((await client.get(`${vm}/pending`)).data);
    const shown = (await client.get(`${vm}/config`)).data;
    const live = (await client.get(`${vm}/config`, { current: 1 })).data;

    expect(pending.map(({ key }) => String(key)).toSorted()).toEqual(["boot", "cores", "ide0", "memory"]);
    expect([shown.cores, shown.memory, shown.name]).toEqual([2, "1024", "other"]);
    expect([live.cores, live.memory, live.name]).toEqual([1, "512", "other"]);

    await client.exit(client.post(`${vm}/status/reset`));
    expect(pendingOf((await client.get(`${vm}/pending`)).data)).toHaveLength(4);

    expect(await client.exit(client.post(`${vm}/status/reboot`, { timeout: 60 }))).toBe("OK");
    await until(() => (seen().status === "running" ? true : undefined));
    expect(pendingOf((await client.get(`${vm}/pending`)).data)).toEqual([]);
    expect(seen().config["cores"]).toBe("2");
  });

  it("hides its password, hashes it, and keeps it out of the log", async () => {
    await client.clone(200);
    await client.exit(client.post(`${vm}/config`, { cipassword: "first-pass" }));
    expect((await client.get(`${vm}/config`)).data.cipassword).toBe("**********");
    expect(seen().config["cipassword"]).toMatch(/^\$5\$/);
    expect(JSON.stringify(simulator.state.tasks)).not.toContain("first-pass");
  });

  it("takes keys encoded in themselves, and valid ones only", async () => {
    await client.clone(200);
    const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB6tU0V7v7tyb1sBZ0nM8V0l8hYg3b1m1u1Y1Q1Z1a1b a@b";
    const plain = await client.put(`${vm}/config`, { sshkeys: "not a key" });
    const bad = await client.put(`${vm}/config`, { sshkeys: encodeURIComponent("not a key") });
    const good = await client.put(`${vm}/config`, { sshkeys: encodeURIComponent(key) });
    await client.exit(client.post(`${vm}/status/start`));
    expect(plain.json.errors).toEqual({ sshkeys: "invalid format - invalid urlencoded string: not a key\n" });
    expect([bad.status, bad.json.message]).toEqual([500, "SSH public key validation error\n"]);
    expect(good.status).toBe(200);
    expect(seen().guest.sshKeys).toEqual([key]);
  });

  it("finds a missing volume and an empty change wrong", async () => {
    await client.clone(200);
    const volume = await client.put(`${vm}/config`, { ide0: "local:iso/none.iso,media=cdrom" });
    const nothing = await client.put(`${vm}/config`);
    expect(volume.json.message).toBe("volume 'local:iso/none.iso' does not exist\n");
    expect(nothing.json.message).toBe("no options specified\n");
  });

  it("with a new CD drive and a boot order in one call gets the drive appended to the old order", async () => {
    await client.clone(200);
    await client.put(`${vm}/config`, { ide0: "local:iso/rescue.iso,media=cdrom", boot: "order=ide0;scsi0" });
    expect((await client.get(`${vm}/config`)).json.data).toMatchObject({ boot: "order=scsi0;ide0" });
  });

  it("boots a rescue ISO, where no agent answers, and back", async () => {
    await client.clone(200);
    await client.put(`${vm}/config`, { ide0: "local:iso/rescue.iso,media=cdrom" });
    await client.put(`${vm}/config`, { boot: "order=ide0;scsi0" });
    await client.exit(client.post(`${vm}/status/start`));
    expect((await client.post(`${vm}/agent/ping`)).json.message).toBe("QEMU guest agent is not running\n");
    await client.exit(client.post(`${vm}/status/stop`));
    await client.put(`${vm}/config`, { boot: "order=scsi0" });
    await client.exit(client.post(`${vm}/status/start`));
    await agentUp();
  });
});

describe("a disk", () => {
  it("only grows, and +N grows again", async () => {
    await client.clone(200);
    const resize = (size: string, disk = "scsi0"): Promise<string> =>
      client.exit(client.put(`${vm}/resize`, { disk, size }));
    expect(await resize("+1G")).toBe("OK");
    expect(await resize("+1G")).toBe("OK");
    expect(seen().disks["scsi0"]?.sizeBytes).toBe(6 * 1024 ** 3);
    expect(await resize("6G")).toBe("OK");
    expect(await resize("1M")).toBe("shrinking disks is not supported");
    expect(await resize("8G", "scsi7")).toBe("disk 'scsi7' does not exist");
    expect(await resize("8G", "ide2")).toBe("you can't resize a cdrom");
    expect(seen().config["scsi0"]).toContain("size=6G");
  });

  it("moves to another storage and stays behind as unused", async () => {
    await client.clone(200);
    expect(await client.exit(client.post(`${vm}/move_disk`, { disk: "scsi0", storage: "shared" }))).toBe(
      "OK",
    );
    expect(seen().config).toMatchObject({
      scsi0: "shared:200/vm-200-disk-0.qcow2,size=4G",
      unused0: "local:200/vm-200-disk-0.qcow2",
    });
    expect((await client.put(`${vm}/unlink`, { idlist: "unused0" })).status).toBe(200);
    expect(simulator.state.volumes.some(({ volid }) => volid === "local:200/vm-200-disk-0.qcow2")).toBe(
      false,
    );
  });

  it("fills its storage up, which its status shows", async () => {
    const used = async (): Promise<number> => (await client.get("/nodes/n1/storage/local/status")).data.used;
    const before = await used();
    await client.clone(200);
    expect((await used()) - before).toBe(4 * 1024 ** 3 + 4 * 1024 ** 2);
    const { data } = await client.get("/nodes/n1/storage", { content: "images" });
    expect(data.map(({ storage }: { storage: string }) => storage)).toEqual(["local", "local-lvm", "shared"]);
  });
});

describe("power", () => {
  it("is told in the task: twice started, twice stopped, a template, nobody there", async () => {
    await running();
    const power = (verb: string, path = vm): Promise<string> =>
      client.exit(client.post(`${path}/status/${verb}`));
    expect(await power("start")).toBe("VM 200 already running");
    expect(await power("stop")).toBe("OK");
    expect(await power("stop")).toBe("OK");
    expect(await power("shutdown")).toBe("OK");
    expect(await power("start", "/nodes/n1/qemu/9000")).toBe("you can't start a vm if it's a template");
    expect(await power("start", "/nodes/n1/qemu/404")).toContain("does not exist");
  });

  it.each(["reboot", "reset", "suspend", "resume"])("%s of a stopped VM is refused at once", async (verb) => {
    await client.clone(200);
    const reply = await client.post(`${vm}/status/${verb}`);
    expect([reply.status, reply.json.message]).toEqual([500, "VM 200 not running\n"]);
  });

  it("pauses, and suspends to disk", async () => {
    await running();
    await client.exit(client.post(`${vm}/status/suspend`));
    expect((await client.get(`${vm}/status/current`)).data).toMatchObject({
      status: "running",
      qmpstatus: "paused",
    });
    expect((await client.post(`${vm}/status/shutdown`)).json.message).toBe(
      "VM is paused - cannot shutdown\n",
    );
    await client.exit(client.post(`${vm}/status/resume`));
    expect(seen().status).toBe("running");
    await client.exit(client.post(`${vm}/status/suspend`, { todisk: 1 }));
    expect(seen()).toMatchObject({ status: "stopped", lock: "suspended" });
    await client.exit(client.post(`${vm}/status/start`));
    expect(seen()).toMatchObject({ status: "running", lock: undefined });
  });

  it("is not obeyed by a deaf guest, until it is forced", async () => {
    await running({ name: "sim-deaf" });
    expect(await client.exit(client.post(`${vm}/status/shutdown`, { timeout: 5 }))).toBe(
      "VM quit/powerdown failed - got timeout",
    );
    expect(seen().status).toBe("running");
    expect(await client.exit(client.post(`${vm}/status/shutdown`, { timeout: 5, forceStop: 1 }))).toBe("OK");
    expect(seen().status).toBe("stopped");
  });

  it("warns, or fails, by the VM's name or a tag", async () => {
    await client.clone(200, { name: "sim-warn-start" });
    expect(await client.exit(client.post(`${vm}/status/start`))).toBe("WARNINGS: 1");
    await client.clone(201);
    await client.put("/nodes/n1/qemu/201/config", { tags: "x;sim-fail-start" });
    expect(await client.exit(client.post("/nodes/n1/qemu/201/status/start"))).toBe(
      "start failed: QEMU exited with code 1",
    );
  });

  it("meets the file lock that qmeventd holds after a stop", async () => {
    await start({ speed: 0.04 });
    await running();
    simulator.state.traps = { cleanupLockMs: 30_000 };
    await client.exit(client.post(`${vm}/status/stop`));
    expect(await client.exit(client.post(`${vm}/status/start`))).toBe(
      "can't lock file '/var/lock/qemu-server/lock-200.conf' - got timeout",
    );
    expect(
      await until(async () =>
        (await client.exit(client.post(`${vm}/status/start`))) === "OK" ? "OK" : undefined,
      ),
    ).toBe("OK");
  });
});

describe("locks", () => {
  it("refuse changes at once and everything else in the task", async () => {
    await client.clone(200);
    simulator.changeVm(200, { lock: "backup" });
    expect((await client.put(`${vm}/config`, { cores: 2 })).json.message).toBe("VM is locked (backup)\n");
    expect((await client.post(`${vm}/clone`, { newid: 300 })).json.message).toBe("VM is locked (backup)\n");
    const tasks = [
      client.post(`${vm}/status/start`),
      client.put(`${vm}/resize`, { disk: "scsi0", size: "9G" }),
      client.post(`${vm}/snapshot`, { snapname: "s1" }),
      client.del(vm),
    ];
    expect(await Promise.all(tasks.map((reply) => client.exit(reply)))).toEqual(
      tasks.map(() => "VM is locked (backup)"),
    );
  });
});

describe("the end of a VM", () => {
  it("is refused while it runs or is protected", async () => {
    await running();
    expect((await client.del(vm)).json.message).toBe("VM 200 is running - destroy failed\n");
    await client.exit(client.post(`${vm}/status/stop`));
    await client.put(`${vm}/config`, { protection: 1 });
    expect((await client.del(vm)).json.message).toBe("can't remove VM 200 - protection mode enabled\n");
    await client.put(`${vm}/config`, { protection: 0 });
    expect(await client.exit(client.del(vm, { purge: 1, "destroy-unreferenced-disks": 1 }))).toBe("OK");
    expect((await client.del(vm)).json.message).toContain("does not exist");
    expect(simulator.state.volumes.some(({ vmid }) => vmid === 200)).toBe(false);
  });
});

describe("the guest agent", () => {
  it("is there only a while after the start, then knows address and password", async () => {
    await start({ speed: 0.02 });
    await client.clone(200, { name: "web-1" });
    await client.put(`${vm}/config`, {
      ipconfig0: "ip=10.10.10.50/24,gw=10.10.10.2",
      ciuser: "debian",
      cipassword: "first-pass",
    });
    const before = await client.post(`${vm}/agent/ping`);
    await client.exit(client.post(`${vm}/status/start`));
    const early = await client.post(`${vm}/agent/ping`);
    await agentUp();
    const { data } = await client.get(`${vm}/agent/network-get-interfaces`);
    const set = await client.post(`${vm}/agent/set-user-password`, {
      username: "root",
      password: "second-pass",
    });
    const unknown = await client.post(`${vm}/agent/set-user-password`, {
      username: "ghost",
      password: "second-pass",
    });

    expect(before.json.message).toBe("VM 200 is not running\n");
    expect(early.json.message).toBe("QEMU guest agent is not running\n");
    expect(data.result[1]).toMatchObject({
      name: "eth0",
      "ip-addresses": [{ "ip-address": "10.10.10.50", prefix: 24 }],
    });
    expect(set.data).toEqual({ result: {} });
    expect(unknown.json.message).toBe(
      "Agent error: child process has failed to set user password: chpasswd: unknown user ghost\n\n",
    );
    expect(seen().guest.passwords).toMatchObject({ debian: "first-pass", root: "second-pass" });
  });

  it("does not know of a cloud-init password before the next boot", async () => {
    await running();
    await client.put(`${vm}/config`, { cipassword: "later-pass" });
    expect(seen().guest.passwords["debian"]).toBe("");
    await client.exit(client.post(`${vm}/status/stop`));
    await client.exit(client.post(`${vm}/status/start`));
    expect(seen().guest.passwords["debian"]).toBe("later-pass");
  });

  it("runs commands, and is missing where it isn't configured or never comes", async () => {
    await running();
    await agentUp();
    const { data } = await client.post(`${vm}/agent/exec`, { command: ["echo", "a", "b"] });
    const done = await until(async () => {
      const status = await client.get(`${vm}/agent/exec-status`, { pid: data.pid });
      return status.data.exited === 1 ? status.data : undefined;
    });
    expect(done).toEqual({ exited: 1, exitcode: 0, "out-data": "a b\n" });
    await client.put(`${vm}/config`, { tags: "sim-no-agent" });
    await client.exit(client.post(`${vm}/status/stop`));
    await client.exit(client.post(`${vm}/status/start`));
    expect((await client.post(`${vm}/agent/ping`)).json.message).toBe("QEMU guest agent is not running\n");
    await client.put(`${vm}/config`, { delete: "agent" });
    await client.exit(client.post(`${vm}/status/stop`));
    expect((await client.post(`${vm}/agent/ping`)).json.message).toBe("No QEMU guest agent configured\n");
  });
});

describe("snapshots", () => {
  it("come back stopped without RAM and running with it", async () => {
    await running();
    const snapshot = (form: Record<string, string | number>): Promise<string> =>
      client.exit(client.post(`${vm}/snapshot`, form));
    expect(await snapshot({ snapname: "s1" })).toBe("OK");
    expect(await snapshot({ snapname: "s2", vmstate: 1 })).toBe("OK");
    expect(await snapshot({ snapname: "s2" })).toBe("snapshot name 's2' already used");
    const { data } = await client.get(`${vm}/snapshot`);
    expect(data.map(({ name, parent, vmstate }: Json) => [name, parent, vmstate])).toEqual([
      ["s1", undefined, 0],
      ["s2", "s1", 1],
      ["current", "s2", undefined],
    ]);
    await client.exit(client.post(`${vm}/snapshot/s2/rollback`));
    expect(seen().status).toBe("running");
    await client.exit(client.post(`${vm}/snapshot/s1/rollback`));
    expect(seen().status).toBe("stopped");
    await client.exit(client.del(`${vm}/snapshot/s2`));
    await client.exit(client.del(`${vm}/snapshot/s1`));
    expect(await client.exit(client.del(`${vm}/snapshot/s1`))).toBe("snapshot 's1' does not exist");
    expect(seen().snapshots).toEqual([]);
  });

  it("that die leave their lock", async () => {
    await client.clone(200, { name: "sim-fail-snapshot" });
    await client.exit(client.post(`${vm}/snapshot`, { snapname: "s1" }));
    expect(seen().lock).toBe("snapshot");
    expect(await client.exit(client.post(`${vm}/status/start`))).toBe("VM is locked (snapshot)");
  });
});

describe("tasks", () => {
  it("are listed running and finished, and count the running ones as unknown", async () => {
    const upid = (
      await client.post("/nodes/n1/qemu/9000/clone", { newid: 200, full: 1, name: "sim-slow-clone" })
    ).data;
    await client.exit(client.post("/nodes/n1/qemu/404/status/stop"));
    const list = async (form: Record<string, string | number>): Promise<Json> =>
      (await client.get("/nodes/n1/tasks", form)).json;
    const active = await list({ source: "active" });
    const archive = await list({});
    const all = await list({ source: "all", errors: 1 });

    expect(active).toMatchObject({
      total: 1,
      data: [{ upid, status: "RUNNING", user: "ratatosk@pve!ratatosk", id: "9000" }],
    });
    expect(archive).toMatchObject({
      total: 1,
      data: [{ type: "qmstop", user: "ratatosk@pve", tokenid: "ratatosk" }],
    });
    expect(archive.data[0].status).toContain("unable to find configuration file for VM 404");
    expect(all.total).toBe(2);
    expect((await list({ source: "all", vmid: 404 })).total).toBe(1);
    expect((await list({ source: "all", statusfilter: "ok" })).total).toBe(0);
  });

  it("are listed as running a while longer when the list lags", async () => {
    simulator.state.traps = { archiveLagMs: 1e9 };
    await start({ speed: 0.001, traps: { archiveLagMs: 1e9 } });
    const reply = await client.post("/nodes/n1/qemu/404/status/stop");
    await client.exit(reply);
    const { data } = await client.get("/nodes/n1/tasks", { source: "active" });
    expect(data[0]).toMatchObject({ upid: reply.data, status: "RUNNING" });
  });

  it("have a log of 50 lines at a time, and are nowhere but on their node", async () => {
    await client.clone(200);
    const upid = encodeURIComponent(simulator.state.tasks[0]?.upid ?? "");
    const two = await client.get(`/nodes/n1/tasks/${upid}/log`, { start: 1, limit: 2 });
    const elsewhere = await client.get(`/nodes/n2/tasks/${upid}/status`);
    const nonsense = await client.get("/nodes/n1/tasks/UPID:x/status");
    expect(two.json.total).toBe(simulator.state.tasks[0]?.log.length);
    expect(two.data.map(({ n }: Json) => n)).toEqual([2, 3]);
    expect(elsewhere.json.errors).toEqual({ upid: "no such task" });
    expect(nonsense.json.errors).toEqual({ upid: "unable to parse worker upid" });
  });

  it("are forgotten by the list, not by their UPID, when the index is rotated", async () => {
    const first = await client.post("/nodes/n1/qemu/404/status/stop");
    await client.exit(first);
    for (let round = 0; round < 14; round += 1) {
      const replies = await Promise.all(
        Array.from({ length: 60 }, () => client.post("/nodes/n1/qemu/404/status/stop")),
      );
      await Promise.all(replies.map((reply) => client.exit(reply)));
    }
    const { data } = await client.get("/nodes/n1/tasks", { limit: 5000 });
    expect(data.some(({ upid }: Json) => upid === first.data)).toBe(false);
    expect(await client.exit(first)).toContain("unable to find configuration file");
  });

  it.each([
    ["fail", "no luck", "stopped"],
    ["warn", "WARNINGS: 1", "running"],
    ["kill", "unexpected status", "stopped"],
  ] as const)("%s on demand", async (outcome, status, state) => {
    await client.clone(200);
    simulator.addTaskFault({ task: "qmstart", vmid: 200, outcome, message: "no luck" });
    expect(await client.exit(client.post(`${vm}/status/start`))).toBe(status);
    expect(seen().status).toBe(state);
    expect(await client.exit(client.put(`${vm}/resize`, { disk: "scsi0", size: "9G" }))).toBe("OK");
  });
});

describe("the cluster's cache", () => {
  it("does not know a new VM for a while", async () => {
    await start({ speed: 0.02 });
    await client.clone(200, { name: "web-1" });
    const row = async (): Promise<Json> =>
      (await client.get("/cluster/resources", { type: "vm" })).data.find(({ vmid }: Json) => vmid === 200);
    simulator.state.traps = { resourcesLagMs: 1e9 };
    expect(await row()).toEqual({ id: "qemu/200", vmid: 200, node: "n1", type: "qemu", status: "unknown" });
    expect((await client.get(`${vm}/status/current`)).data.status).toBe("stopped");
    simulator.state.traps = { resourcesLagMs: 0 };
    expect(await row()).toMatchObject({ name: "web-1", status: "stopped", template: 0 });
  });
});

describe("the firewall", () => {
  it("has options and IP sets, whose doubles are refused", async () => {
    await client.clone(200);
    const set = `${vm}/firewall/ipset`;
    await client.put(`${vm}/firewall/options`, { enable: 1, ipfilter: 1, policy_in: "ACCEPT" });
    await client.post(set, { name: "ipfilter-net0" });
    await client.post(`${set}/ipfilter-net0`, { cidr: "10.10.10.31" });
    const replies = [
      await client.post(set, { name: "ipfilter-net0" }),
      await client.post(`${set}/ipfilter-net0`, { cidr: "10.10.10.31" }),
      await client.del(`${set}/ipfilter-net0`),
    ];
    expect((await client.get(`${vm}/firewall/options`)).data).toMatchObject({
      enable: 1,
      policy_in: "ACCEPT",
    });
    expect(replies.map(({ status }) => status)).toEqual([400, 400, 500]);
    expect((await client.del(`${set}/ipfilter-net0/10.10.10.31`)).status).toBe(200);
    expect((await client.del(`${set}/ipfilter-net0`)).status).toBe(200);
  });
});

/** Every call of the client, recorded once, against PVE's own description of its API (when this machine has it). */
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createPveCloud } from "../../../src/clouds/pve/cloud.ts";
import { powerVerbs } from "../../../src/core/cloud.ts";
import { invalidRequests, loadPveApi } from "../../support/pve-schema.ts";
import { recordingLog } from "../recording-log.ts";
import { contextOf, definitionOf, type RunOptions, runAll } from "../run-step.ts";
import { type Opened, openSimulator, optionsOf } from "./open-simulator.ts";

/** All that the client ever asks; adding a call to it means adding it here. */
const CALLS = [
  "DELETE /nodes/{node}/qemu/{vmid}",
  "DELETE /nodes/{node}/qemu/{vmid}/snapshot/{snapname}",
  "DELETE /nodes/{node}/storage/{storage}/content/{volume}",
  "GET /access/permissions",
  "GET /cluster/nextid",
  "GET /cluster/resources",
  "GET /nodes/{node}/network",
  "GET /nodes/{node}/qemu/{vmid}/agent/get-osinfo",
  "GET /nodes/{node}/qemu/{vmid}/agent/network-get-interfaces",
  "GET /nodes/{node}/qemu/{vmid}/config",
  "GET /nodes/{node}/qemu/{vmid}/feature",
  "GET /nodes/{node}/qemu/{vmid}/firewall/options",
  "GET /nodes/{node}/qemu/{vmid}/pending",
  "GET /nodes/{node}/qemu/{vmid}/snapshot",
  "GET /nodes/{node}/qemu/{vmid}/snapshot/{snapname}/config",
  "GET /nodes/{node}/qemu/{vmid}/status/current",
  "GET /nodes/{node}/qemu/{vmid}/vncwebsocket",
  "GET /nodes/{node}/storage",
  "GET /nodes/{node}/storage/{storage}/content",
  "GET /nodes/{node}/tasks",
  "GET /nodes/{node}/tasks/{upid}/log",
  "GET /nodes/{node}/tasks/{upid}/status",
  "GET /version",
  "POST /access/ticket",
  "POST /nodes/{node}/qemu/{vmid}/agent/ping",
  "POST /nodes/{node}/qemu/{vmid}/agent/set-user-password",
  "POST /nodes/{node}/qemu/{vmid}/clone",
  "POST /nodes/{node}/qemu/{vmid}/snapshot",
  "POST /nodes/{node}/qemu/{vmid}/snapshot/{snapname}/rollback",
  "POST /nodes/{node}/qemu/{vmid}/status/reboot",
  "POST /nodes/{node}/qemu/{vmid}/status/reset",
  "POST /nodes/{node}/qemu/{vmid}/status/resume",
  "POST /nodes/{node}/qemu/{vmid}/status/shutdown",
  "POST /nodes/{node}/qemu/{vmid}/status/start",
  "POST /nodes/{node}/qemu/{vmid}/status/stop",
  "POST /nodes/{node}/qemu/{vmid}/status/suspend",
  "POST /nodes/{node}/qemu/{vmid}/vncproxy",
  "PUT /nodes/{node}/qemu/{vmid}/cloudinit",
  "PUT /nodes/{node}/qemu/{vmid}/config",
  "PUT /nodes/{node}/qemu/{vmid}/resize",
];

const SECRET = "a Secret+1%&=ü";
const KEY = `ssh-rsa ${"A".repeat(372)}+/== ada+laptop@example.com`;

describe("each call of the PVE client", () => {
  let opened: Opened;
  const rows: NonNullable<RunOptions["rows"]> = new Map();
  let made: Opened["simulator"]["state"]["vms"][number] | undefined;

  beforeAll(async () => {
    opened = await openSimulator(
      {},
      {
        storage: "local-lvm",
        nameservers: ["9.9.9.9", "2620:fe::fe"],
        searchDomain: "example.com",
        isos: { "help-disk": "local:iso/rescue.iso" },
      },
    );
    await wholeLife();
  }, 60_000);
  afterAll(() => opened.close());

  function options(): RunOptions {
    return {
      operationId: randomUUID(),
      database: opened.database,
      rows,
      secret: SECRET,
      everyMs: 5,
    };
  }

  async function wholeLife(): Promise<void> {
    const { cloud, simulator, order } = opened;
    await Promise.all([cloud.check(), cloud.listImages(), cloud.listNetworks(), cloud.listServers()]);
    await cloud.traffic?.();
    await cloud.examine?.();
    await cloud.preflightProvision(order, new AbortController().signal);
    simulator.addTaskFault({ task: "qmstart", outcome: "warn" });
    await runAll(
      cloud,
      cloud.provision({
        ...order,
        metadata: { ticket: "5+5 %2B\n&x=y" },
        sshKeys: [KEY, KEY],
        sockets: 1,
        storage: "shared",
        address: { cidr: "10.1.2.3/24", gateway: "10.1.2.1" },
      }),
      options(),
    );
    const externalId = "100000";
    made = simulator.state.vms.find((vm) => vm.vmid === 100_000);
    const after = { vcpus: 4, memoryMib: 2048, diskGib: 16 };
    await runAll(cloud, cloud.resize({ externalId, before: order.size, after }), options());
    const later = { externalId, before: after, after: { ...after, vcpus: 8 }, sockets: 2 };
    await runAll(cloud, cloud.resize({ ...later, restart: "later" }), options());
    await runAll(cloud, cloud.keys?.({ externalId, sshKeys: [KEY] }) ?? [], options());
    await runAll(cloud, cloud.restart?.({ externalId }) ?? [], options());
    const password = cloud.password({ externalId, secretId: "secret" });
    await runAll(cloud, password, options());
    simulator.changeVm(100_000, { config: { agent: null } });
    await runAll(cloud, password, options());
    simulator.changeVm(100_000, { config: { agent: "1" } });
    for (const verb of [
      "suspend",
      "resume",
      "reboot",
      "reset",
      "shutdown",
      "start",
      "stop",
      "start",
      "kill",
      "start",
    ]) {
      const known = powerVerbs.find((one) => one === verb);
      if (known !== undefined) await runAll(cloud, cloud.power({ externalId, verb: known }), options());
    }
    for (const on of [true, false]) {
      await runAll(cloud, cloud.protect?.({ externalId, on }) ?? [], options());
    }
    await screen(externalId);
    simulator.addBackup({ vmid: 100_000, takenAt: Date.now() + 2_000, storage: "local" });
    await isoAndAddress(externalId);
    await snapshotsAndRescue(externalId);
    await lookedAtByAnother(externalId);
    await runAll(cloud, cloud.remove({ externalId, backups: true }), options());
    await rebuilt();
    const { username, password: secret } = simulator.root;
    const { log } = recordingLog();
    const byTicket = createPveCloud(
      { ...optionsOf(simulator), credential: { kind: "password", username, password: secret } },
      { log },
    );
    await byTicket.check();
    await byTicket.close();
  }

  async function screen(externalId: string): Promise<void> {
    const { cloud, database } = opened;
    const signal = new AbortController().signal;
    const order = { id: randomUUID(), externalId, serverData: rows.get(externalId) ?? {}, database, signal };
    const shown = await cloud.console?.(order);
    shown?.stream.destroy();
  }

  /** A task that this process's watcher has not seen the end of is asked for itself. */
  async function lookedAtByAnother(externalId: string): Promise<void> {
    const { simulator } = opened;
    const another = createPveCloud(optionsOf(simulator), { log: recordingLog().log });
    const [planned] = another.power({ externalId, verb: "start" });
    if (planned === undefined) throw new Error("no step");
    const context = contextOf(another, planned, options());
    const upid = simulator.state.tasks.findLast((task) => task.type === "qmstart")?.upid;
    const looked = { ...context, reference: { upid } };
    expect(await definitionOf(another, planned.name).verify?.(looked)).toMatchObject({ kind: "done" });
    await another.close();
  }

  /** Another server, with all that a rebuild hands on. */
  async function rebuilt(): Promise<void> {
    const { cloud, simulator, order } = opened;
    await runAll(cloud, cloud.provision(order), options());
    const old = simulator.state.vms.find((vm) => vm.vmid > 100_000);
    if (old === undefined) throw new Error("nothing was built");
    const { net0 = "" } = old.config;
    simulator.changeVm(old.vmid, {
      config: {
        net0: `${net0},firewall=1,rate=12.5,tag=7`,
        net1: "e1000=BC:24:11:AA:BB:02,bridge=vmbr1",
        ipconfig0: "ip=192.0.2.10/24,gw=192.0.2.1",
        nameserver: null,
        onboot: "1",
        startup: "order=3,up=5",
        cpulimit: "1.5",
        description: `${old.description}\nticket = 5+5`,
      },
    });
    const { name, size, imageId, passwordSecretId, defaultUser } = order;
    const externalId = String(old.vmid);
    const planned = { externalId, name, size, imageId, passwordSecretId, defaultUser, inPlace: false };
    await runAll(cloud, cloud.rebuild?.(planned) ?? [], { ...options(), externalId });
    const now = simulator.state.vms.find((vm) => vm.vmid > old.vmid);
    expect(now?.config).toMatchObject({ startup: "order=3,up=5", cpulimit: "1.5" });
    await runAll(cloud, cloud.remove({ externalId: String(now?.vmid) }), options());
  }

  async function isoAndAddress(externalId: string): Promise<void> {
    const { isos, addresses } = opened.cloud;
    if (isos === undefined || addresses === undefined) throw new Error("PVE has both");
    for (const steps of [
      isos.mount({ externalId, iso: "help-disk", boot: true }),
      isos.unmount({ externalId }),
      addresses.assign({ externalId, cidr: "2001:db8::10/64", gateway: "fe80::1" }),
      addresses.release({ externalId, versions: [4, 6] }),
    ])
      await runAll(opened.cloud, steps, options());
  }

  async function snapshotsAndRescue(externalId: string): Promise<void> {
    const { snapshots, rescue } = opened.cloud;
    if (snapshots === undefined || rescue === undefined) throw new Error("PVE has both");
    const order = { externalId, name: "before-upgrade", description: "5+5 %2B ü", withMemory: true };
    for (const steps of [
      snapshots.create(order),
      snapshots.rollback({ externalId, name: order.name }),
      snapshots.remove({ externalId, name: order.name }),
      rescue.enter({ externalId, media: "local:iso/rescue.iso" }),
      rescue.leave({ externalId }),
    ])
      await runAll(opened.cloud, steps, options());
  }

  it("was recorded, and no other", () => {
    const recorded = opened.simulator.state.requests.flatMap(({ method, template }) =>
      template === undefined ? [] : [`${method} ${template}`],
    );
    expect([...new Set(recorded)].toSorted()).toEqual(CALLS);
    expect(opened.simulator.state.requests.filter((request) => request.template === undefined)).toEqual([]);
  });

  it("was accepted: what was refused is no more than what a refusal tells", () => {
    const refused = opened.simulator.state.requests.filter(({ status }) => status >= 400);
    expect(refused.map(({ method, template, status }) => `${method} ${template} ${status}`)).toSatisfy(
      (calls: string[]) =>
        calls.every((call) => /^GET \/cluster\/nextid 400$|\/agent\/.* 500$|\/config 500$/u.test(call)),
    );
  });

  it("brought every character to the other side: plus signs, spaces, line breaks, percent signs", () => {
    expect(made?.guest.passwords["debian"]).toBe(SECRET);
    expect(made?.guest.sshKeys).toEqual([KEY, KEY]);
    expect(made?.description.split("\n")).toContain("ticket = 5+5 %2B &x=y");
    expect(made?.config).toMatchObject({ nameserver: "9.9.9.9 2620:fe::fe", searchdomain: "example.com" });
  });

  const api = loadPveApi();
  it.skipIf(api === undefined)("has the parameters that PVE 9.2 describes", () => {
    expect(invalidRequests(api ?? new Map(), opened.simulator.state.requests)).toEqual([]);
  });
});

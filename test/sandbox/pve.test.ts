import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { connect } from "node:tls";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  faultPresets,
  type PveSimulator,
  type PveSimulatorOptions,
  sentinelNames,
  startPveSimulator,
} from "../../src/sandbox/pve/index.ts";
import { type PveClient, pveClient, until } from "./pve-client.ts";

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
});

const vm = "/nodes/n1/qemu/200";
const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB6tU0V7v7tyb1sBZ0nM8V0l8hYg3b1m1u1Y1Q1Z1a1b a@b";

describe("the connection", () => {
  it("is TLS with a certificate of the cluster's CA, whose fingerprint /nodes lists", async () => {
    await start({ tls: true });
    const { port, hostname } = new URL(simulator.url);
    const seen = await new Promise<string>((resolve, reject) => {
      const socket = connect({ port: Number(port), host: hostname, ca: simulator.ca }, () => {
        resolve(socket.getPeerCertificate().fingerprint256);
        socket.end();
      });
      socket.on("error", reject);
    });
    const { data } = await client.get("/nodes");

    expect(simulator.url).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/);
    expect(seen).toBe(simulator.fingerprint);
    expect(data[0]).toMatchObject({ node: "n1", ssl_fingerprint: simulator.fingerprint });
    expect(new X509Certificate(simulator.ca).ca).toBe(true);
  });

  it("is refused by a client that knows another CA", async () => {
    await start({ tls: true });
    const other = await startPveSimulator({ speed: 0 });
    const stranger = pveClient({ ...simulator, ca: other.ca });
    await expect(stranger.get("/version")).rejects.toThrow(/certificate|signature|self/i);
    stranger.close();
    await other.close();
  });

  it.each([
    ["8.4", "8.4.21"],
    ["9.2", "9.2.11"],
  ] as const)("says that it is %s", async (version, full) => {
    await start({ version });
    expect((await client.get("/version")).data).toMatchObject({ release: version, version: full });
  });

  it("closes after 100 requests", async () => {
    const closes: unknown[] = [];
    for (let count = 0; count < 100; count += 1)
      closes.push((await client.get("/version")).headers["connection"]);
    expect(closes.filter((value) => value === "close")).toHaveLength(1);
  });
});

describe("who is asking", () => {
  it("is told why not in the reason phrase alone", async () => {
    const nobody = pveClient(simulator, { id: "x@y!z", secret: "q" });
    const without = await client.call("GET", "/version", { headers: { Authorization: "" } });
    const wrong = await nobody.get("/version");
    nobody.close();

    expect([without.status, without.reason, without.text]).toEqual([401, "No ticket", ""]);
    expect([wrong.status, wrong.reason, wrong.text]).toEqual([401, "Authentication failed!", ""]);
  });

  it("waits three seconds for that", async () => {
    await start({ speed: 0.01 });
    const before = performance.now();
    await client.call("GET", "/version", { headers: { Authorization: "" } });
    expect(performance.now() - before).toBeGreaterThan(29);
  });

  it("logs in with a password, then needs the CSRF token for every write", async () => {
    const { username, password } = simulator.root;
    const good = await client.post("/access/ticket", { username, password });
    const bad = await client.post("/access/ticket", { username, password: "x" });
    const cookie = { Authorization: "", Cookie: `PVEAuthCookie=${encodeURIComponent(good.data.ticket)}` };
    const read = await client.call("GET", "/version", { headers: cookie });
    const unprotected = await client.call("POST", `${vm}/status/start`, { headers: cookie });
    const write = await client.call("POST", `${vm}/status/start`, {
      headers: { ...cookie, CSRFPreventionToken: good.data.CSRFPreventionToken },
    });

    expect([bad.status, bad.reason, bad.json.message]).toEqual([
      401,
      "authentication failure",
      "authentication failure\n",
    ]);
    expect(read.status).toBe(200);
    expect([unprotected.status, unprotected.reason]).toEqual([401, "Permission denied - invalid csrf token"]);
    expect(write.data).toMatch(/^UPID:n1:.*:qmstart:200:root@pam:$/);
  });

  it("renews a ticket with the ticket, until tickets are worth nothing", async () => {
    const { username, password } = simulator.root;
    const first = await client.post("/access/ticket", { username, password });
    const second = await client.post("/access/ticket", { username, password: first.data.ticket });
    simulator.expireTickets();
    const third = await client.post("/access/ticket", { username, password: second.data.ticket });
    expect([second.status, third.status]).toEqual([200, 401]);
  });

  it("sees empty lists without rights, and is refused one by one", async () => {
    simulator.addStranger({ vmid: 100 });
    const blind = pveClient(simulator, simulator.tokens.blind);
    const lists = await Promise.all(
      ["/nodes/n1/qemu", "/cluster/resources?type=vm", "/nodes/n1/storage", "/nodes/n1/tasks?source=all"].map(
        (path) => blind.get(path),
      ),
    );
    const config = await blind.get("/nodes/n1/qemu/100/config");
    const permissions = await blind.get("/access/permissions");
    blind.close();

    expect(lists.map(({ status, data }) => [status, data])).toEqual(lists.map(() => [200, []]));
    expect([config.status, config.json.message]).toEqual([
      403,
      "Permission check failed (/vms/100, VM.Audit)\n",
    ]);
    expect(permissions.data).toEqual({});
  });

  it("may look but not touch with a read-only token, and the right is asked before the parameters", async () => {
    const readonly = pveClient(simulator, simulator.tokens.readonly);
    const touched = await readonly.post("/nodes/n1/qemu/9000/clone", { newid: "x", nonsense: 1 });
    expect((await readonly.get("/nodes/n1/qemu/9000/config")).status).toBe(200);
    expect([touched.status, touched.reason]).toEqual([403, "Permission check failed (/vms/9000, VM.Clone)"]);
    readonly.close();
  });

  it("is not root with a token of root", async () => {
    await client.clone(200);
    simulator.changeVm(200, { lock: "clone" });
    const root = pveClient(simulator, simulator.tokens.root);
    const skip = await root.put(`${vm}/config`, { delete: "lock", skiplock: 1 });
    const drop = await root.put(`${vm}/config`, { delete: "lock" });
    root.close();
    const { username, password } = simulator.root;
    const { data } = await client.post("/access/ticket", { username, password });
    const headers = {
      Authorization: `PVEAuthCookie=${encodeURIComponent(data.ticket)}`,
      CSRFPreventionToken: data.CSRFPreventionToken,
    };
    const unlocked = await client.call("PUT", `${vm}/config`, {
      form: { delete: "lock", skiplock: 1 },
      headers,
    });

    expect([skip.status, skip.json.errors]).toEqual([400, { skiplock: "Only root may use this option." }]);
    expect([drop.status, drop.json.message]).toEqual([500, "only root can set 'lock' config\n"]);
    expect(unlocked.status).toBe(200);
    expect(simulator.state.vms.find(({ vmid }) => vmid === 200)?.lock).toBeUndefined();
  });
});

describe("what is sent", () => {
  it.each([
    ["a body on DELETE", "DELETE", vm, { raw: "purge=1" }, 501, "Unexpected content for method 'DELETE'"],
    [
      "JSON without a body",
      "POST",
      `${vm}/status/start`,
      { raw: "", headers: { "Content-Type": "application/json" } },
      500,
      "malformed JSON string",
    ],
    [
      "bad JSON",
      "POST",
      `${vm}/status/start`,
      { raw: "{bad", headers: { "Content-Type": "application/json" } },
      500,
      "expected",
    ],
    [
      "another type",
      "POST",
      `${vm}/status/start`,
      { raw: "x", headers: { "Content-Type": "text/plain" } },
      506,
      "upload 'Content-Type 'text/plain' not implemented",
    ],
    ["another method", "PATCH", "/version", {}, 501, "method 'PATCH' not available"],
  ])("is refused in plain text: %s", async (_, method, path, sending, status, message) => {
    const reply = await client.call(method, path, sending);
    expect(reply.status).toBe(status);
    expect(reply.text).toContain(message);
    expect(reply.json).toBeUndefined();
  });

  it("may not be chunked", async () => {
    const reply = await client.call("POST", `${vm}/status/start`, {
      headers: { "Transfer-Encoding": "chunked" },
    });
    expect([reply.status, reply.text]).toEqual([501, "chunked transfer encoding not supported"]);
  });

  it("is refused with every error at once", async () => {
    const reply = await client.post("/nodes/n1/qemu", { vmid: "abc", memory: 1, nonsense: 1 });
    expect(reply.status).toBe(400);
    expect(reply.json).toEqual({
      data: null,
      message: "Parameter verification failed.\n",
      errors: {
        vmid: "type check ('integer') failed - got 'abc'",
        memory: "invalid format - format error\nmemory.current: value must have a minimum value of 16\n",
        nonsense: "property is not defined in schema and the schema does not allow additional properties",
      },
    });
  });

  it.each([
    [
      "POST",
      "/nodes/n1/qemu/9000/clone",
      { newid: 50 },
      { newid: "invalid format - value does not look like a valid VM ID\n" },
    ],
    ["POST", "/nodes/n1/qemu/9000/clone", {}, { newid: "property is missing and it is not optional" }],
    [
      "POST",
      "/nodes/n1/qemu/9000/clone",
      { newid: 300, name: "bad_name" },
      { name: "invalid format - value does not look like a valid DNS name\n" },
    ],
    [
      "PUT",
      "/nodes/n1/qemu/9000/config",
      { cores: "x" },
      { cores: "type check ('integer') failed - got 'x'" },
    ],
    [
      "PUT",
      "/nodes/n1/qemu/9000/config",
      { sshkeys: key },
      { sshkeys: `invalid format - invalid urlencoded string: ${key}\n` },
    ],
    [
      "PUT",
      "/nodes/n1/qemu/9000/config",
      { cpulimit: 999 },
      { cpulimit: "value must have a maximum value of 128" },
    ],
    [
      "PUT",
      "/nodes/n1/qemu/9000/config",
      { vmid: 1 },
      { vmid: "duplicate parameter (already defined in URI) with conflicting values!" },
    ],
    [
      "PUT",
      "/nodes/n1/qemu/9000/resize",
      { disk: "scsi99", size: "1G" },
      { disk: expect.stringContaining("value 'scsi99' does not have a value in the enumeration") },
    ],
    [
      "POST",
      "/nodes/n1/qemu/9000/agent/set-user-password",
      { username: "root", password: "x" },
      { password: "value must be at least 5 characters long" },
    ],
  ])("%s %s %o", async (method, path, form, errors) => {
    const reply = await client.call(method, path, { form });
    expect(reply.status).toBe(400);
    expect(reply.json.errors).toEqual(errors);
  });

  it("loses a plus that is not encoded", async () => {
    const reply = await client.call("PUT", "/nodes/n1/qemu/9000/resize", { raw: "disk=scsi0&size=+1G" });
    expect(reply.json.errors).toEqual({ size: "value does not match the regex pattern" });
  });

  it("may be JSON, with booleans", async () => {
    await client.clone(200);
    const reply = await client.call("PUT", `${vm}/config`, {
      json: { onboot: true, cores: 2 },
      headers: { "Content-Type": "application/json; charset=utf-8" },
    });
    expect(reply.status).toBe(200);
    expect((await client.get(`${vm}/config`)).data).toMatchObject({ onboot: 1, cores: 2, memory: "512" });
  });

  it("meets the options of its release only", async () => {
    await start({ version: "8.4" });
    const reply = await client.put("/nodes/n1/qemu/9000/config", { "allow-ksm": 1 });
    expect(Object.keys(reply.json.errors)).toEqual(["allow-ksm"]);
  });
});

describe("errors", () => {
  it("carry the message in the reason phrase and, since 5.2.0, in the body", async () => {
    const modern = await client.get("/nodes/n1/qemu/404/config");
    simulator.state.traps = { errorStyle: "reason" };
    const old = await client.get("/nodes/n1/qemu/404/config");
    const text = "Configuration file 'nodes/n1/qemu-server/404.conf' does not exist";

    expect([modern.status, modern.reason, modern.json]).toEqual([
      500,
      text,
      { data: null, message: `${text}\n` },
    ]);
    expect([old.status, old.reason, old.json]).toEqual([500, text, { data: null }]);
  });

  it("of paths are 501, of nodes 500", async () => {
    const path = await client.get("/nope");
    const node = await client.get("/nodes/nope/qemu");
    expect([path.status, path.json.message]).toEqual([501, "Method 'GET /nope' not implemented"]);
    expect([node.status, node.json.message]).toEqual([
      500,
      expect.stringContaining("hostname lookup 'nope' failed"),
    ]);
  });
});

describe("faults of requests", () => {
  it.each([
    ["proxy_595", 595, "Connection refused", false],
    ["proxy_596", 596, "Connection timed out", false],
    ["proxy_596_after", 596, "Connection timed out", true],
    ["proxy_599_after", 599, "Broken pipe", true],
  ])("%s", async (preset, status, reason, done) => {
    await client.clone(200);
    const reply = await client.call("POST", `${vm}/status/start`, {
      form: {},
      headers: { "X-Sim-Fault": preset },
    });
    expect([reply.status, reply.reason, reply.text]).toEqual([status, reason, ""]);
    if (done)
      await until(() =>
        simulator.state.vms.find(({ vmid }) => vmid === 200)?.status === "running" ? true : undefined,
      );
    expect(simulator.state.tasks.some(({ type }) => type === "qmstart")).toBe(done);
  });

  it("cut the connection before or after", async () => {
    simulator.addFault({ kind: "drop", method: "POST", path: "clone" });
    simulator.addFault({ kind: "drop_after", method: "POST", path: "clone" });
    await expect(client.clone(200)).rejects.toThrow("socket hang up");
    expect(simulator.state.tasks).toHaveLength(0);
    await expect(client.clone(200)).rejects.toThrow("socket hang up");
    await until(() => (simulator.state.tasks[0]?.exitstatus === "OK" ? true : undefined));
  });

  it("are set from another process, and refused when they are misspelt", async () => {
    const set = await client.call("POST", "/_sim/faults", {
      json: { preset: "no_worker_upid", method: "POST", times: 1 },
    });
    const reply = await client.post(`${vm}/status/start`);
    const wrong = await client.call("POST", "/_sim/faults", { json: { preset: "proxy_595", tims: 1 } });
    expect([set.status, wrong.status]).toEqual([201, 400]);
    expect([reply.status, reply.reason]).toEqual([500, "got no worker upid - start worker failed"]);
  });
});

describe("nodes that are away", () => {
  it("switched off: 595, offline in lists, its VMs unknown", async () => {
    simulator.addStranger({ vmid: 100, node: "n2" });
    simulator.state.traps = { offlineNodes: ["n2"] };
    const reply = await client.get("/nodes/n2/qemu/100/status/current");
    const nodes = await client.get("/nodes");
    const vms = await client.get("/cluster/resources", { type: "vm" });

    expect([reply.status, reply.reason, reply.text]).toEqual([595, "No route to host", ""]);
    expect(nodes.data.map(({ status }: { status: string }) => status)).toEqual(["online", "offline"]);
    expect(vms.data.find(({ vmid }: { vmid: number }) => vmid === 100)).toEqual({
      id: "qemu/100",
      vmid: 100,
      node: "n2",
      type: "qemu",
      status: "unknown",
    });
  });

  it("hanging: 596, and what was asked is done when it wakes up", async () => {
    await client.clone(200);
    simulator.state.traps = { frozenNodes: ["n1"] };
    const reply = await client.post(`${vm}/status/start`);
    const answeredByProxy = await client.get(`${vm}/config`);
    expect([reply.status, reply.reason, reply.text]).toEqual([596, "Connection timed out", ""]);
    expect(answeredByProxy.status).toBe(200);
    expect(simulator.state.vms.find(({ vmid }) => vmid === 200)?.status).toBe("stopped");

    simulator.state.traps = {};
    await until(() =>
      simulator.state.vms.find(({ vmid }) => vmid === 200)?.status === "running" ? true : undefined,
    );
  });
});

describe("control from another process", () => {
  it("makes, changes and removes a stranger's VM", async () => {
    const made = await client.call("POST", "/_sim/vms", { json: { vmid: 150, name: "mail", tags: "prod" } });
    await client.call("PUT", "/_sim/vms/150", { json: { lock: "backup", node: "n2" } });
    const moved = await client.get("/nodes/n2/qemu/150/config");
    const here = await client.get("/nodes/n1/qemu/150/config");
    await client.call("DELETE", "/_sim/vms/150");

    expect(made.json.vm).toMatchObject({ vmid: 150, stranger: true, status: "running" });
    expect(moved.data).toMatchObject({ lock: "backup", name: "mail" });
    expect(here.json.message).toContain("does not exist");
    expect(simulator.state.vms.some(({ vmid }) => vmid === 150)).toBe(false);
  });

  it("shows requests with their methods, and hides secrets", async () => {
    await client.put("/nodes/n1/qemu/9000/config", { cipassword: "hidden-1" });
    const { json } = await client.call("GET", "/_sim/requests");
    expect(json.requests[0]).toMatchObject({
      template: "/nodes/{node}/qemu/{vmid}/config",
      status: 200,
      params: { cipassword: "<hidden>" },
    });
    expect(JSON.stringify(json)).not.toContain("hidden-1");
  });

  it("sets traps, storages and task faults", async () => {
    await client.call("PUT", "/_sim/traps", { json: { noQuorum: true } });
    const refused = await client.post("/nodes/n1/qemu/9000/clone", { newid: 200 });
    await client.call("PUT", "/_sim/traps", { json: {} });
    await client.call("PUT", "/_sim/storages/local", { json: { totalBytes: 1 } });
    const full = await client.clone(201);
    await client.call("POST", "/_sim/task-faults", {
      json: { task: "qmstart", outcome: "fail", at: "start", message: "no" },
    });
    const started = await client.exit(client.post("/nodes/n1/qemu/9100/status/start"));

    expect(refused.json.message).toBe("cluster not ready - no quorum?\n");
    expect(full).toContain("No space left on device");
    expect(started).toBe("no");
  });
});

it("is documented: every word, preset and way to fail", async () => {
  const page = await readFile("docs/simulators.md", "utf8");
  const names = [...Object.keys(sentinelNames), ...Object.keys(faultPresets)];
  expect(names.filter((name) => !page.includes(`\`${name}\``))).toEqual([]);
});

it("clones 300 VMs at once, each with its own MAC and disk", async () => {
  const ids = Array.from({ length: 300 }, (_, index) => 1000 + index);
  expect(new Set(await Promise.all(ids.map((newid) => client.clone(newid))))).toEqual(new Set(["OK"]));
  const made = simulator.state.vms.filter(({ vmid }) => ids.includes(vmid));
  expect(new Set(made.map(({ config }) => config["net0"])).size).toBe(300);
  expect(new Set(made.map(({ disks }) => disks["scsi0"]?.volid)).size).toBe(300);
});

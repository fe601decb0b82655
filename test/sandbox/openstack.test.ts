import { readFile } from "node:fs/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  faultPresets,
  type OpenStackSimulator,
  type OpenStackSimulatorOptions,
  sentinelNames,
  startOpenStackSimulator,
} from "../../src/sandbox/openstack/index.ts";
import { type Client, type Json, login, request, until } from "./client.ts";

let simulator: OpenStackSimulator;
let client: Client;

async function start(options: OpenStackSimulatorOptions = {}): Promise<void> {
  await simulator?.close();
  simulator = await startOpenStackSimulator({ speed: 0, ...options });
  client = await login(simulator);
}

beforeEach(() => start());
afterEach(() => simulator.close());

function auth(body: unknown): ReturnType<typeof request> {
  return request(`${simulator.authUrl}/auth/tokens`, "POST", { body: { auth: body } });
}

describe("Keystone", () => {
  it("takes a password with the domain by id or by name, but no name where an id is meant", async () => {
    const { password, username } = simulator.credentials;
    const identity = (domain: object) => ({
      identity: { methods: ["password"], password: { user: { name: username, domain, password } } },
    });

    expect((await auth(identity({ id: "default" }))).status).toBe(201);
    expect((await auth(identity({ name: "Default" }))).status).toBe(201);
    expect((await auth(identity({ id: "Default" }))).status).toBe(401);
  });

  it("answers wrong password, unknown project and wrong secret with one and the same 401", async () => {
    const { username, password, applicationCredentialId } = simulator.credentials;
    const user = { name: username, domain: { id: "default" } };
    const scope = { project: { name: "nope", domain: { id: "default" } } };
    const failures = await Promise.all([
      auth({ identity: { methods: ["password"], password: { user: { ...user, password: "x" } } } }),
      auth({ identity: { methods: ["password"], password: { user: { ...user, password } } }, scope }),
      auth({
        identity: {
          methods: ["application_credential"],
          application_credential: { id: applicationCredentialId, secret: "x" },
        },
      }),
    ]);

    expect(failures.map(({ status }) => status)).toEqual([401, 401, 401]);
    expect(new Set(failures.map(({ text }) => text)).size).toBe(1);
  });

  it("takes an application credential, and refuses a scope with it", async () => {
    const {
      applicationCredentialId: id,
      applicationCredentialSecret: secret,
      projectId,
    } = simulator.credentials;
    const identity = { methods: ["application_credential"], application_credential: { id, secret } };

    const good = await auth({ identity });
    const scoped = await auth({ identity, scope: { project: { id: projectId } } });

    expect(good.status).toBe(201);
    expect(good.json.token.project.id).toBe(projectId);
    expect(good.json.token.catalog.map((entry: Json) => entry.type)).toEqual([
      "compute",
      "network",
      "identity",
      "image",
    ]);
    expect(scoped.status).toBe(401);
    expect(scoped.json.error.message).toContain("cannot request a scope");
  });

  it("answers 300 at its root, and 401 with a revoked or an expired token", async () => {
    expect((await request(`${simulator.url}/identity/`, "GET")).status).toBe(300);
    const revoked = await client.call("DELETE", "/identity/v3/auth/tokens", {
      headers: { "X-Subject-Token": client.token },
    });
    expect(revoked.status).toBe(204);
    expect((await client.compute("GET", "/servers")).status).toBe(401);

    await start({ tokenTtlSeconds: 0.2 });
    const refused = await until(async () => {
      const { status } = await client.compute("GET", "/servers");
      return status === 401 ? status : undefined;
    });
    expect(refused).toBe(401);
  });
});

describe("Nova's microversions", () => {
  it("announces 2.1 to 2.93", async () => {
    const { json } = await request(`${simulator.url}/compute/v2.1/`, "GET");
    expect(json.version).toMatchObject({ min_version: "2.1", version: "2.93" });
  });

  it.each([
    ["2.94", 406],
    ["2.0", 406],
    ["abc", 400],
    ["2.01", 400],
    ["latest", 200],
    ["2.93", 200],
  ])("%s is %i", async (version, status) => {
    expect((await client.compute("GET", "/flavors", undefined, version)).status).toBe(status);
  });

  it("behaves as each version does", async () => {
    const { networks: _, ...withoutNetworks } = client.createBody().server;
    const refused = await client.compute("POST", "/servers", { server: withoutNetworks });
    expect(refused.json.badRequest.message).toContain("'networks' is a required property");
    const early = await client.compute("POST", "/servers", client.createBody({ tags: ["a"] }), "2.51");
    expect(early.json.badRequest.message).toContain("('tags' was unexpected)");

    const { id } = await client.create({ tags: ["b", "a"] });
    await client.settled(id);
    const old = await client.call("GET", `/compute/v2.1/servers/${id}`);
    const modern = await client.server(id);

    expect(old.headers.get("openstack-api-version")).toBe("compute 2.1");
    expect(old.json.server.flavor.id).toBe("1");
    expect(old.json.server.tags).toBeUndefined();
    expect(modern.flavor).toMatchObject({ original_name: "m1.tiny", ram: 512 });
    expect(modern.flavor.id).toBeUndefined();
    expect(modern.tags).toEqual(["a", "b"]);
    expect((await client.compute("GET", "/servers?nonsense=1", undefined, "2.74")).status).toBe(200);
    expect((await client.compute("GET", "/servers?nonsense=1", undefined, "2.75")).status).toBe(400);
  });
});

describe("Nova's create", () => {
  it("answers 202 with the password, then builds to ACTIVE with an address", async () => {
    const made = await client.compute("POST", "/servers", client.createBody({ adminPass: "Initial-1" }));

    expect(made.status).toBe(202);
    expect(made.json.server.adminPass).toBe("Initial-1");
    expect(made.headers.get("location")).toContain(made.json.server.id);
    const server = await client.settled(made.json.server.id);
    expect(server.status).toBe("ACTIVE");
    expect(server.addresses.private[0]["OS-EXT-IPS:type"]).toBe("fixed");
  });

  it("records the build under the request id of the POST", async () => {
    const { id, requestId } = await client.create();
    await client.settled(id);

    const record = await client.record(id, requestId);

    expect(record).toMatchObject({ action: "create", message: null });
    expect(record.events).toMatchObject([{ event: "compute__do_build_and_run_instance", result: "Success" }]);
  });

  it("quotes the refused body back, password and all", async () => {
    const refused = await client.compute(
      "POST",
      "/servers",
      client.createBody({ adminPass: "S3cret", nope: 1 }),
    );

    expect(refused.status).toBe(400);
    expect(refused.json.badRequest.message).toContain("'adminPass': 'S3cret', 'nope': 1}");
    expect(refused.json.badRequest.message).toContain(
      "Additional properties are not allowed ('nope' was unexpected)",
    );
  });

  it.each([
    ["an emoji in the name", { name: "web 😀" }, 400, "printable characters"],
    ["an empty name", { name: "" }, 400, "is too short"],
    ["an unknown flavor", { flavorRef: "nope" }, 400, "Flavor nope could not be found."],
    [
      "an unknown image",
      { imageRef: "00000000-0000-0000-0000-000000000000" },
      400,
      "Can not find requested image",
    ],
    [
      "an unknown network",
      { networks: [{ uuid: "00000000-0000-0000-0000-000000000000" }] },
      400,
      "could not be found",
    ],
    ["two candidate networks", { networks: "auto" }, 409, "Multiple possible networks"],
    ["a tag with a slash", { tags: ["a/b"] }, 400, "does not match '^[^,/]*$'"],
    ["a metadata number", { metadata: { k: 5 } }, 400, "5 is not of type 'string'"],
    ["an underscore in the hostname", { hostname: "a_b" }, 400, "does not match"],
    ["bad user data", { user_data: "not base64!" }, 400, "is not a 'base64'"],
    [
      "more than the quota",
      { min_count: 13 },
      403,
      "Quota exceeded for instances: Requested 13, but already used 0 of 12",
    ],
  ])("refuses %s", async (_, change, status, message) => {
    const refused = await client.compute("POST", "/servers", client.createBody(change));

    expect(refused.status).toBe(status);
    expect(refused.text).toContain(message);
    expect(simulator.state.servers).toEqual([]);
  });

  it("refuses an image that does not fit the flavor, accepts accents, and the same name twice", async () => {
    const ubuntu = { imageRef: client.images.get("ubuntu-24.04") };
    const small = await client.compute("POST", "/servers", client.createBody(ubuntu));
    expect(small.json.badRequest.message).toBe("Flavor's memory is too small for requested image.");

    await client.create({ name: "café" });
    await client.create({ name: "café" });

    expect(simulator.state.servers.map(({ name }) => name)).toEqual(["café", "café"]);
  });

  it("accepts an external network and fails the build later", async () => {
    const { id } = await client.create({ networks: [{ uuid: client.networks.get("public") }] });

    const server = await client.settled(id);

    expect(server.status).toBe("ERROR");
    expect(server.fault.message).toContain("Failed to allocate the network(s), not rescheduling.");
  });

  it.each([
    [{ flavorRef: "4" }, "No valid host was found. ", "Error"],
    [{ metadata: { osr_fail: "spawn" } }, "Exceeded maximum number of retries.", null],
    [{ metadata: { osr_fail: "abort" } }, "aborted: osr: build aborted on request", null],
    [{ name: "sim-fail-spawn-7" }, "Exceeded maximum number of retries.", null],
    [{ name: "sim-no-host" }, "No valid host was found. ", "Error"],
  ])("fails the build of %j", async (change, fault, message) => {
    const { id, requestId } = await client.create(change);

    const server = await client.settled(id);

    expect(server.status).toBe("ERROR");
    expect(server.fault.message).toContain(fault);
    expect((await client.record(id, requestId)).message).toBe(message);
  });
});

describe("Nova's lists", () => {
  it("pages by marker, and refuses an unknown one", async () => {
    const made = [await client.create(), await client.create(), await client.create()];
    const first = await client.compute("GET", "/servers/detail?limit=2&sort_key=created_at&sort_dir=asc");
    const next = new URL(first.json.servers_links[0].href);
    const second = await client.compute("GET", `/servers/detail${next.search}`);

    const ids = [...first.json.servers, ...second.json.servers].map(({ id }: { id: string }) => id);
    expect(ids.toSorted()).toEqual(made.map(({ id }) => id).toSorted());
    expect(second.json.servers_links).toBeUndefined();
    expect((await client.compute("GET", "/servers?marker=nope")).status).toBe(400);
  });

  it("finds by exact tag at once, by name as an expression, and by time with what was deleted", async () => {
    const { id } = await client.create({ name: "web-1", tags: ["op=01.1"] });
    await client.create({ name: "other" });
    const found = await client.compute("GET", "/servers?tags=op=01.1");
    expect(found.json.servers.map((row: Json) => row.id)).toEqual([id]);
    expect((await client.compute("GET", "/servers?tags=op=01")).json.servers).toEqual([]);
    expect((await client.compute("GET", "/servers?name=EB-")).json.servers).toHaveLength(1);

    await client.settled(id);
    await client.compute("DELETE", `/servers/${id}`);
    expect(await client.settled(id)).toBeUndefined();

    expect((await client.compute("GET", "/servers")).json.servers).toHaveLength(1);
    const changed = await client.compute(
      "GET",
      "/servers/detail?changes-since=2020-01-01T00:00:00Z&name=web",
    );
    expect(changed.json.servers[0]).toMatchObject({ id, status: "DELETED", metadata: {} });
  });

  it("hides another project's servers as if they were absent", async () => {
    const { id } = await client.create();
    const other = await login(simulator, "other");

    expect((await other.compute("GET", "/servers")).json.servers).toEqual([]);
    const foreign = await other.compute("GET", `/servers/${id}`);
    const absent = await other.compute("GET", "/servers/00000000-0000-0000-0000-000000000000");
    expect(foreign.status).toBe(404);
    expect(foreign.text.replaceAll(id, "ID")).toBe(absent.text.replaceAll(/0{8}-[0-]+0{12}/g, "ID"));
    expect((await client.compute("GET", "/servers?all_tenants=1")).status).toBe(403);
  });

  it("keeps tags out of `updated`, and tags and metadata out of a building server", async () => {
    const { id } = await client.create();
    const busy = await client.compute("PUT", `/servers/${id}/tags/x`);
    expect(busy.status).toBe(409);
    await client.settled(id);

    expect((await client.compute("PUT", `/servers/${id}/tags/x`)).status).toBe(201);
    expect((await client.compute("PUT", `/servers/${id}/tags/x`)).status).toBe(204);
    const put = await client.compute("PUT", `/servers/${id}/tags`, { tags: ["b", "a", "b"] });
    expect(put.json.tags).toEqual(["a", "b"]);
    const posted = await client.compute("POST", `/servers/${id}/metadata`, { metadata: { k: "v" } });
    expect(posted.json.metadata).toEqual({ k: "v" });
    expect((await client.compute("GET", `/servers/${id}/tags`)).json.tags).toEqual(["a", "b"]);
  });
});

describe("Nova's actions", () => {
  let id: string;

  async function make(change: Record<string, unknown> = {}): Promise<void> {
    ({ id } = await client.create(change));
    await client.settled(id);
  }

  beforeEach(() => make());

  it("resizes by way of VERIFY_RESIZE, refusing everything else there, and confirms with 204", async () => {
    const accepted = await client.action(id, { resize: { flavorRef: "2" } });
    expect(accepted.status).toBe(202);
    const busy = await client.action(id, { "os-stop": null });
    expect(busy.status).toBe(409);
    expect(busy.json.conflictingRequest.message).toContain("while it is in task_state resize_");
    expect((await client.settled(id)).status).toBe("VERIFY_RESIZE");
    expect((await client.action(id, { reboot: { type: "SOFT" } })).text).toContain("vm_state resized");

    expect((await client.action(id, { confirmResize: null })).status).toBe(204);
    const server = await until(async () => {
      const seen = await client.server(id);
      return seen.status === "ACTIVE" ? seen : undefined;
    });
    expect(server.flavor.original_name).toBe("m1.small");
    const record = await client.record(id, accepted.headers.get("x-openstack-request-id") ?? "");
    expect(record.events.map((event: Json) => event.event)).toEqual([
      "compute_finish_resize",
      "compute_resize_instance",
      "compute_prep_resize",
      "cold_migrate",
      "conductor_migrate_server",
    ]);
    expect((await client.action(id, { confirmResize: null })).status).toBe(409);
  });

  it("returns to SHUTOFF after a resize of a stopped server, and to the old flavor on revert", async () => {
    await client.action(id, { "os-stop": null });
    expect((await client.settled(id)).status).toBe("SHUTOFF");
    await client.action(id, { resize: { flavorRef: "2" } });
    await client.settled(id);
    expect((await client.action(id, { revertResize: null })).status).toBe(202);

    const server = await client.settled(id);

    expect(server.status).toBe("SHUTOFF");
    expect(server.flavor.original_name).toBe("m1.tiny");
  });

  it.each([
    ["a smaller disk", "2", "1"],
    ["no host that is big enough", "1", "4"],
  ])("fails a resize silently for %s: only the action record tells", async (_, from, to) => {
    await make({ flavorRef: from });
    const accepted = await client.action(id, { resize: { flavorRef: to } });
    expect(accepted.status).toBe(202);

    const server = await client.settled(id);

    expect(server.status).toBe("ACTIVE");
    expect(server.fault).toBeUndefined();
    const record = await client.record(id, accepted.headers.get("x-openstack-request-id") ?? "");
    expect(record.message).toBe("Error");
  });

  it("ends a resize that fails on the target in ERROR, and a hard reboot brings it back", async () => {
    await make({ metadata: { osr_fail: "resize" } });
    await client.action(id, { resize: { flavorRef: "2" } });
    const broken = await client.settled(id);
    expect(broken).toMatchObject({ status: "ERROR", fault: { message: "osr: resize failed on request" } });

    await client.action(id, { reboot: { type: "HARD" } });

    expect((await client.settled(id)).status).toBe("ACTIVE");
  });

  it("refuses the same and an unknown flavor", async () => {
    expect((await client.action(id, { resize: { flavorRef: "1" } })).text).toContain("must change flavor");
    expect((await client.action(id, { resize: { flavorRef: "nope" } })).status).toBe(400);
  });

  it("lets one of three simultaneous resizes win; the others are 500", async () => {
    const answers = await Promise.all([1, 2, 3].map(() => client.action(id, { resize: { flavorRef: "2" } })));

    expect(answers.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([202, 500, 500]);
    expect(answers.find(({ status }) => status === 500)?.text).toContain("UnexpectedTaskStateError");
  });

  it("stops and starts, and answers 409 when it is there already", async () => {
    expect((await client.action(id, { "os-start": null })).status).toBe(409);
    expect((await client.action(id, { "os-stop": null })).status).toBe(202);
    expect(await client.settled(id)).toMatchObject({ status: "SHUTOFF", "OS-EXT-STS:power_state": 4 });
    expect((await client.action(id, { "os-stop": null })).text).toContain("vm_state stopped");
    expect((await client.action(id, { "os-start": null })).status).toBe(202);
    expect((await client.settled(id)).status).toBe("ACTIVE");
  });

  it("stays ACTIVE without a fault when a stop fails", async () => {
    await make({ metadata: { osr_fail: "power" } });
    const accepted = await client.action(id, { "os-stop": null });
    const server = await client.settled(id);

    expect(server.status).toBe("ACTIVE");
    const record = await client.record(id, accepted.headers.get("x-openstack-request-id") ?? "");
    expect(record.message).toBe("Error");
  });

  it("changes the password, or says why not", async () => {
    expect((await client.action(id, { changePassword: { adminPass: "New-1" } })).status).toBe(202);
    expect(simulator.state.servers.at(-1)?.adminPassword).toBe("New-1");

    await make({ metadata: { osr_no_agent: "1" } });
    const refused = await client.action(id, { changePassword: { adminPass: "New-1" } });
    expect(refused.json.conflictingRequest).toEqual({
      code: 409,
      message: "QEMU guest agent is not enabled",
    });
    await make({ metadata: { osr_fail: "password" } });
    expect((await client.action(id, { changePassword: { adminPass: "x" } })).status).toBe(409);
  });

  it("locks against its owner", async () => {
    await client.action(id, { lock: { locked_reason: "billing" } });
    expect(await client.server(id)).toMatchObject({ locked: true, locked_reason: "billing" });
    expect((await client.compute("DELETE", `/servers/${id}`)).text).toContain("is locked");
    await client.action(id, { unlock: null });
    expect((await client.compute("DELETE", `/servers/${id}`)).status).toBe(204);
  });

  it.each([
    [{}, 400, "Malformed request body"],
    [{ frobnicate: null }, 400, "There is no such action: frobnicate"],
    [{ "os-start": null, "os-stop": null }, 400, "Malformed request body"],
    [{ resize: { flavorRef: "2", x: 1 } }, 400, "('x' was unexpected)"],
    [{ "os-resetState": { state: "active" } }, 403, "Policy doesn't allow"],
    [{ "os-getVNCConsole": { type: "novnc" } }, 404, "could not be found"],
  ])("refuses %j", async (body, status, message) => {
    const refused = await client.action(id, body);

    expect(refused.status).toBe(status);
    expect(refused.text).toContain(message);
  });

  it("deletes to 404, keeps the records, and answers 404 to the next delete", async () => {
    const deleted = await client.compute("DELETE", `/servers/${id}`);
    expect(deleted.status).toBe(204);
    expect(await client.settled(id)).toBeUndefined();

    expect((await client.compute("DELETE", `/servers/${id}`)).status).toBe(404);
    const list = await client.compute("GET", `/servers/${id}/os-instance-actions`);
    expect(list.json.instanceActions.map((row: Json) => row.action)).toEqual(["delete", "create"]);
    expect((await client.call("GET", `/network/v2.0/ports?device_id=${id}`)).json.ports).toEqual([]);
  });
});

describe("the catalogue", () => {
  it("lists flavors, limits, quota and keys", async () => {
    const flavors = await client.compute("GET", "/flavors/detail");
    expect(flavors.json.flavors.map((row: Json) => row.name)).toEqual([
      "m1.tiny",
      "m1.small",
      "m1.medium",
      "m1.huge",
      "c1.pinned",
    ]);
    await client.create();
    expect((await client.compute("GET", "/limits")).json.limits.absolute).toMatchObject({
      maxTotalInstances: 12,
      totalInstancesUsed: 1,
    });
    const detail = await client.compute("GET", `/os-quota-sets/${simulator.credentials.projectId}/detail`);
    expect(detail.json.quota_set.instances).toEqual({ limit: 12, in_use: 1, reserved: 0 });
    expect((await client.compute("GET", "/os-keypairs")).json.keypairs[0].keypair.name).toBe("bot-key");
  });

  it("pages images by a path without a host, and answers HTML to who does not ask for JSON", async () => {
    const json = { headers: { Accept: "application/json" } };
    const first = await client.call("GET", "/image/v2/images?limit=2&sort=name:asc", json);
    expect(first.json.next).toMatch(/^\/v2\/images\?/);
    const second = await client.call("GET", `/image${first.json.next}`, json);

    expect([...first.json.images, ...second.json.images].map(({ name }) => name)).toEqual([
      "cirros-tiny",
      "debian-12",
      "ubuntu-24.04",
    ]);
    const missing = "/image/v2/images/00000000-0000-0000-0000-000000000000";
    expect((await client.call("GET", missing, json)).json.code).toBe("404 Not Found");
    expect((await client.call("GET", missing)).headers.get("content-type")).toContain("text/html");
  });

  it("pages networks only when asked to, and refuses an unknown filter", async () => {
    const all = await client.call("GET", "/network/v2.0/networks");
    expect(all.json.networks).toHaveLength(3);
    expect(all.json.networks_links).toBeUndefined();
    const first = await client.call("GET", "/network/v2.0/networks?limit=2");
    expect(first.json.networks_links.map((link: Json) => link.rel)).toEqual(["next", "previous"]);
    const refused = await client.call("GET", "/network/v2.0/networks?nonsense=1");
    expect(refused.json.NeutronError.message).toBe("['nonsense'] is invalid attribute for filtering");
  });

  it("wants a token everywhere, in each service's own words", async () => {
    const paths = [
      "/compute/v2.1/servers",
      "/network/v2.0/networks",
      "/image/v2/images",
      "/identity/v3/projects",
    ];
    const refused = await Promise.all(paths.map((path) => request(simulator.url + path, "GET")));
    expect(refused.map(({ status }) => status)).toEqual([401, 401, 401, 401]);
    expect(refused[2]?.headers.get("x-openstack-request-id")).toBeNull();
  });
});

describe("faults", () => {
  it("cuts before doing it, or after", async () => {
    simulator.addFault({ kind: "drop", method: "POST", path: "/servers$" });
    await expect(client.create()).rejects.toThrow(/fetch failed|timeout/);
    expect(simulator.state.servers).toHaveLength(0);

    simulator.addFault({ kind: "drop_after", method: "POST", path: "/servers$" });
    await expect(client.create({ tags: ["op=9.1"] })).rejects.toThrow(/fetch failed|timeout/);
    expect(simulator.state.servers).toMatchObject([{ tags: ["op=9.1"], deleted: false }]);

    await expect(client.create()).resolves.toBeDefined();
  });

  it("counts, limits and forgets faults; and takes one by header for a single call", async () => {
    simulator.addFault({ kind: "status", status: 503, path: "/flavors", times: 2 });
    const seen = [1, 2, 3].map(() => client.compute("GET", "/flavors"));
    const statuses = (await Promise.all(seen)).map(({ status }) => status);
    expect(statuses.toSorted((a, b) => a - b)).toEqual([200, 503, 503]);

    simulator.addFault({ kind: "status", status: 500, times: 0 });
    simulator.clearFaults();
    const throttled = await client.call("GET", "/compute/v2.1/flavors", {
      headers: { "X-Sim-Fault": "gateway_429" },
    });
    expect(throttled.status).toBe(429);
    expect(throttled.headers.get("retry-after")).toBe("1");
    expect((await client.compute("GET", "/flavors")).status).toBe(200);
  });

  it("hangs until the client gives up, and trickles", async () => {
    const url = `${simulator.url}/identity/v3`;
    const hung = fetch(url, { headers: { "X-Sim-Fault": "hang" }, signal: AbortSignal.timeout(30) });
    await expect(hung).rejects.toThrow(/fetch failed|timeout/);
    expect((await request(url, "GET", { headers: { "X-Sim-Fault": "trickle=1" } })).json.version.id).toBe(
      "v3.14",
    );
  });

  it("can be seen and steered from another process", async () => {
    const sim = (method: string, path: string, body?: unknown) =>
      request(`${simulator.url}/_sim${path}`, method, body === undefined ? {} : { body });
    expect((await sim("POST", "/faults", { preset: "nova_500", path: "/limits" })).status).toBe(201);
    expect((await client.compute("GET", "/limits")).status).toBe(500);
    expect((await sim("POST", "/faults", { kind: "status", pth: "x" })).status).toBe(400);
    expect((await sim("DELETE", "/faults")).status).toBe(204);

    const stranger = await sim("POST", "/servers", { name: "theirs", tags: ["op=1.1"], flavor: "m1.small" });
    expect(stranger.json.server).toMatchObject({ name: "theirs", status: "ACTIVE", stranger: true });
    expect((await client.server(stranger.json.server.id)).flavor.original_name).toBe("m1.small");
    expect((await sim("GET", "/servers")).json.servers).toHaveLength(1);
    const { counts } = (await sim("GET", "/requests")).json;
    expect(counts["GET /compute/v2.1/limits 500"]).toBe(1);
    expect((await sim("PUT", "/quota", { instances: 1 })).json.quota).toMatchObject({
      instances: 1,
      cores: 200,
    });
    expect((await client.compute("POST", "/servers", client.createBody())).status).toBe(403);
    expect((await sim("PUT", "/quota", { instances: 5 })).status).toBe(200);
    expect((await sim("PUT", "/traps", { noCapacity: true })).status).toBe(200);
    const { id } = await client.create();
    expect((await client.settled(id)).fault.message).toBe("No valid host was found. ");
    expect((await sim("DELETE", "/tokens")).status).toBe(204);
    expect((await client.compute("GET", "/servers")).status).toBe(401);
  });

  it.each([
    ["sim-quota", 403],
    ["sim-429", 429],
    ["sim-messaging-timeout", 500],
    ["sim-gateway-timeout", 504],
  ])("a server named %s is %i", async (name, status) => {
    const answer = await client.compute("POST", "/servers", client.createBody({ name }));

    expect(answer.status).toBe(status);
    expect(simulator.state.servers).toHaveLength(status === 504 ? 1 : 0);
  });
});

describe("traps", () => {
  it("resizeConfirmWindowMs: the resize confirms itself", async () => {
    await start({ traps: { resizeConfirmWindowMs: 0 } });
    const { id } = await client.create();
    await client.settled(id);
    await client.action(id, { resize: { flavorRef: "2" } });

    const server = await until(async () => {
      const seen = await client.server(id);
      return seen.status === "ACTIVE" && seen.flavor.original_name === "m1.small" ? seen : undefined;
    });

    expect(server["OS-EXT-STS:vm_state"]).toBe("active");
    expect((await client.action(id, { confirmResize: null })).status).toBe(409);
  });

  it("listLagMs: found by id at once, in lists only later", async () => {
    await start({ traps: { listLagMs: 100 } });
    const { id } = await client.create({ tags: ["late"] });
    expect((await client.compute("GET", "/servers?tags=late")).json.servers).toEqual([]);
    expect((await client.server(id)).id).toBe(id);
    const found = await until(async () => {
      const { servers } = (await client.compute("GET", "/servers?tags=late")).json;
      return servers.length > 0 ? servers : undefined;
    });
    expect(found).toHaveLength(1);
  });

  it("deadCompute: stop hangs, changePassword is 500 and stuck, delete works", async () => {
    const { id } = await client.create();
    const { id: second } = await client.create();
    await client.settled(id);
    await client.settled(second);
    simulator.state.traps = { deadCompute: true };

    expect((await client.action(id, { "os-stop": null })).status).toBe(202);
    const blocked = await client.action(second, { changePassword: { adminPass: "x" } });

    expect(blocked.status).toBe(500);
    expect(blocked.text).toContain("MessagingTimeout");
    simulator.state.traps = {};
    expect((await client.server(id))["OS-EXT-STS:task_state"]).toBe("powering-off");
    expect((await client.server(second)).status).toBe("PASSWORD");
    expect((await client.compute("DELETE", `/servers/${id}`)).status).toBe(204);
    expect(await client.settled(id)).toBeUndefined();
  });

  it("softDelete: SOFT_DELETED, and back", async () => {
    await start({ traps: { softDelete: true } });
    const { id } = await client.create();
    await client.settled(id);
    await client.compute("DELETE", `/servers/${id}`);
    expect((await client.settled(id)).status).toBe("SOFT_DELETED");
    expect((await client.action(id, { restore: null })).status).toBe(202);
    expect((await client.settled(id)).status).toBe("ACTIVE");
  });

  it("neutronDown, glanceDown: Nova says 500 with a Python class, nothing is made", async () => {
    for (const [trap, name] of [
      ["neutronDown", "ConnectFailure"],
      ["glanceDown", "GlanceConnectionFailed"],
    ] as const) {
      simulator.state.traps = { [trap]: true };
      const answer = await client.compute("POST", "/servers", client.createBody());
      expect(answer.json.computeFault.message).toContain(name);
    }
    await expect(client.call("GET", "/image/v2/images")).rejects.toThrow(/fetch failed|timeout/);
    expect(simulator.state.servers).toEqual([]);
  });

  it("keystone 503: Nova and Neutron 503, Glance 401; hang: nobody answers", async () => {
    simulator.state.traps = { keystone: "503" };
    expect((await client.compute("GET", "/servers")).text).toContain(
      "Keystone service is temporarily unavailable",
    );
    expect((await client.call("GET", "/network/v2.0/networks")).status).toBe(503);
    expect((await client.call("GET", "/image/v2/images")).status).toBe(401);
    simulator.state.traps = { keystone: "hang" };
    const headers = { "X-Auth-Token": client.token };
    const hung = fetch(`${simulator.url}/compute/v2.1/servers`, { headers, signal: AbortSignal.timeout(30) });
    await expect(hung).rejects.toThrow(/fetch failed|timeout/);
  });
});

describe("docs/simulators.md", () => {
  it("names every sentinel and preset", async () => {
    const page = await readFile("docs/simulators.md", "utf8");
    const names = [...Object.keys(sentinelNames), ...Object.keys(faultPresets)];

    expect(names.filter((name) => !page.includes(`\`${name}\``))).toEqual([]);
  });
});

describe("under load", () => {
  it("builds 300 servers at once, each with its own address", async () => {
    await start({ quota: { instances: 300, cores: 300 } });

    const made = await Promise.all(
      Array.from({ length: 300 }, (_, n) => client.create({ tags: [`op=${n}.1`] })),
    );
    await until(async () =>
      simulator.state.servers.every((row) => row.status === "ACTIVE") ? true : undefined,
    );

    expect(new Set(made.map(({ id }) => id)).size).toBe(300);
    expect(new Set(simulator.state.servers.flatMap((row) => row.addresses)).size).toBe(300);
    expect((await client.compute("POST", "/servers", client.createBody())).status).toBe(403);
  });
});

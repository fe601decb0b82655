/** What goes over the wire and what comes back, by the transcripts of the real Zed cloud. */
import { afterEach, describe, expect, it } from "vitest";
import { createOpenStackCloud } from "../../../src/clouds/openstack/cloud.ts";
import { errorOf } from "../../../src/clouds/openstack/errors.ts";
import type { OpenStackCloudOptions } from "../../../src/clouds/openstack/options.ts";
import { userDataOf } from "../../../src/clouds/openstack/user-data.ts";
import type { Cloud } from "../../../src/core/cloud.ts";
import { ServiceError } from "../../../src/core/errors.ts";
import { mockHttp, nock } from "../../support/http-mock.ts";
import { recordingLog } from "../recording-log.ts";
import { contextOf, definitionOf } from "../run-step.ts";

mockHttp();

const AUTH = "https://keystone.test";
const NOVA = "https://nova.test";
const GLANCE = "https://glance.test";
const NEUTRON = "https://neutron.test";
const CANARY = "S3cret-in-body";

const opened: Cloud[] = [];
afterEach(async () => {
  await Promise.all(opened.splice(0).map((cloud) => cloud.close()));
});

function open(more: Partial<OpenStackCloudOptions> = {}, now?: () => number) {
  const { log, logged } = recordingLog();
  const cloud = createOpenStackCloud(
    {
      name: "wire",
      region: "RegionOne",
      auth: {
        authUrl: `${AUTH}/v3`,
        username: "bot",
        userDomainName: "Default",
        password: "keystone-password",
        projectName: "hostops",
        projectDomainId: "default",
      },
      ...more,
    },
    { log, sleep: () => Promise.resolve(), ...(now === undefined ? {} : { now }) },
  );
  opened.push(cloud);
  return { cloud, logged };
}

const endpoint = (url: string, region = "RegionOne", kind = "public") => ({
  interface: kind,
  region_id: region,
  region,
  url,
});

function tokenBody(more: Record<string, unknown> = {}) {
  return {
    token: {
      expires_at: new Date(Date.now() + 3_600_000).toISOString(),
      project: { id: "p", name: "hostops" },
      catalog: [
        {
          type: "compute",
          endpoints: [
            endpoint("https://wrong.test/v2.1", "RegionTwo"),
            endpoint("https://wrong.test/v2.1", "RegionOne", "internal"),
            endpoint(`${NOVA}/v2.1`),
          ],
        },
        { type: "image", endpoints: [endpoint(GLANCE)] },
        { type: "network", endpoints: [endpoint(`${NEUTRON}/`)] },
      ],
      ...more,
    },
  };
}

function keystone(token = "token-1", more: Record<string, unknown> = {}) {
  return nock(AUTH).post("/v3/auth/tokens").reply(201, tokenBody(more), { "X-Subject-Token": token });
}

function versions(max = "2.93") {
  return nock(NOVA)
    .get("/v2.1/")
    .reply(200, { version: { id: "v2.1", status: "CURRENT", version: max, min_version: "2.1" } });
}

async function problemOf(work: Promise<unknown>): Promise<ServiceError> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof ServiceError) return error;
  throw new Error(`no ServiceError: ${String(error)}`);
}

describe("identity", () => {
  it("sends user, project and their domains by name or id as they were given", async () => {
    nock(AUTH)
      .post("/v3/auth/tokens", {
        auth: {
          identity: {
            methods: ["password"],
            password: { user: { name: "bot", domain: { name: "Default" }, password: "keystone-password" } },
          },
          scope: { project: { name: "hostops", domain: { id: "default" } } },
        },
      })
      .reply(201, tokenBody(), { "X-Subject-Token": "t" });
    nock(GLANCE)
      .get("/v2/images")
      .query({ limit: "200" })
      .matchHeader("X-Auth-Token", "t")
      .reply(200, { images: [] });
    expect(await open().cloud.listImages()).toEqual([]);
  });

  it("an application credential asks for no scope, and the address may lack /v3", async () => {
    nock(AUTH)
      .post("/v3/auth/tokens", {
        auth: {
          identity: {
            methods: ["application_credential"],
            application_credential: { id: "ac", secret: "ac-secret" },
          },
        },
      })
      .reply(201, tokenBody(), { "X-Subject-Token": "t" });
    nock(NEUTRON).get("/v2.0/networks").reply(200, { networks: [] });
    const auth = {
      authUrl: `${AUTH}/`,
      applicationCredentialId: "ac",
      applicationCredentialSecret: "ac-secret",
    };
    expect(await open({ auth }).cloud.listNetworks()).toEqual([]);
  });

  it("a refused credential is asked for once a minute, not at every call", async () => {
    let now = Date.now();
    const refused = {
      error: {
        code: 401,
        message: "The request you have made requires authentication.",
        title: "Unauthorized",
      },
    };
    nock(AUTH).post("/v3/auth/tokens").twice().reply(401, refused);
    const { cloud, logged } = open({}, () => now);
    for (let call = 0; call < 5; call += 1) {
      expect((await problemOf(cloud.listNetworks())).code).toBe("unauthorized");
    }
    now += 61_000;
    expect((await problemOf(cloud.listNetworks())).code).toBe("unauthorized");
    expect(logged()).not.toContain("keystone-password");
  });

  it("renews two minutes before the end, by the cloud's own clock", async () => {
    const start = Date.parse("2026-11-21T12:00:00Z");
    // Our clock is a day behind.
    let now = start - 86_400_000;
    const issue = (token: string, at: number) =>
      nock(AUTH)
        .post("/v3/auth/tokens")
        .reply(201, tokenBody({ expires_at: new Date(at + 3_600_000).toISOString() }), {
          "X-Subject-Token": token,
          Date: new Date(at).toUTCString(),
        });
    const networks = (token: string) =>
      nock(NEUTRON).get("/v2.0/networks").matchHeader("X-Auth-Token", token).reply(200, { networks: [] });
    issue("first", start);
    networks("first");
    const { cloud } = open({}, () => now);
    await cloud.listNetworks();
    now += 3_479_000;
    networks("first");
    await cloud.listNetworks();
    now += 2_000;
    issue("second", start + 3_481_000);
    networks("second");
    expect(await cloud.listNetworks()).toEqual([]);
  });

  it("a 401 of a service is answered by one new token, and a second 401 is final", async () => {
    const unauthorized = {
      error: {
        code: 401,
        title: "Unauthorized",
        message: "The request you have made requires authentication.",
      },
    };
    keystone("old");
    keystone("new");
    nock(NEUTRON).get("/v2.0/networks").matchHeader("X-Auth-Token", "old").reply(401, unauthorized);
    nock(NEUTRON).get("/v2.0/networks").matchHeader("X-Auth-Token", "new").reply(401, unauthorized);
    const error = await problemOf(open().cloud.listNetworks());
    expect(error.code).toBe("unauthorized");
    expect(error.message).toMatch(/not allowed/u);
  });

  it("names the regions when the configured one is not there", async () => {
    keystone();
    const error = await problemOf(open({ region: "Mars" }).cloud.listNetworks());
    expect(error.code).toBe("unsupported");
    expect(error.message).toMatch(/region Mars.*one of RegionOne/u);
  });

  it("takes an endpoint from the configuration before the catalogue's", async () => {
    keystone();
    nock("https://inside.test").get("/neutron/v2.0/networks").reply(200, { networks: [] });
    const { cloud } = open({ endpointOverrides: { network: "https://inside.test/neutron" } });
    expect(await cloud.listNetworks()).toEqual([]);
  });

  it("something that is not Keystone is told as such", async () => {
    nock(AUTH).post("/v3/auth/tokens").reply(200, "<html>Welcome</html>");
    expect((await problemOf(open().cloud.listNetworks())).message).toMatch(
      /not OpenStack's identity service/u,
    );
  });
});

describe("microversion", () => {
  it.each([
    ["2.93", "2.90"],
    ["2.104", "2.90"],
    ["2.90", "2.90"],
    ["2.87", "2.87"],
    ["2.53", "2.53"],
  ])("a cloud that speaks %s is spoken to in %s", async (max, used) => {
    keystone();
    versions(max);
    nock(NOVA)
      .get("/v2.1/servers/detail")
      .matchHeader("OpenStack-API-Version", `compute ${used}`)
      .reply(200, { servers: [] });
    expect(await open().cloud.listServers()).toEqual([]);
  });

  it.each(["2.51", "2.1", ""])(
    "a cloud that speaks only %j is refused, because it has no tags at creation",
    async (max) => {
      keystone();
      versions(max);
      const error = await problemOf(open().cloud.listServers());
      expect(error.code).toBe("unsupported");
      expect(error.message).toMatch(/2\.52 is needed/u);
    },
  );

  it("is sent to Nova only", async () => {
    keystone();
    nock(GLANCE, { badheaders: ["OpenStack-API-Version"] })
      .get("/v2/images")
      .query({ limit: "200" })
      .reply(200, { images: [] });
    nock(NEUTRON, { badheaders: ["OpenStack-API-Version"] })
      .get("/v2.0/networks")
      .reply(200, { networks: [] });
    const { cloud } = open();
    expect([await cloud.listImages(), await cloud.listNetworks()]).toEqual([[], []]);
  });

  it("is asked for again after a 406", async () => {
    keystone();
    versions("2.93");
    nock(NOVA)
      .get("/v2.1/servers/detail")
      .reply(406, { computeFault: { code: 406, message: "Version 2.90 is not supported by the API." } });
    versions("2.60");
    nock(NOVA)
      .get("/v2.1/servers/detail")
      .matchHeader("OpenStack-API-Version", "compute 2.60")
      .reply(200, { servers: [] });
    const { cloud } = open();
    expect((await problemOf(cloud.listServers())).code).toBe("unsupported");
    expect(await cloud.listServers()).toEqual([]);
  });
});

describe("images", () => {
  it("leaves out what was made of a customer's server", async () => {
    keystone();
    const image = (id: string) => ({ id, name: id, status: "active" });
    nock(GLANCE)
      .get("/v2/images")
      .query({ limit: "200" })
      .reply(200, {
        images: [
          image("debian"),
          { ...image("adas-disk"), image_type: "snapshot", instance_uuid: "i" },
          { ...image("adas-backup"), image_type: "backup" },
        ],
      });
    expect((await open().cloud.listImages()).map(({ externalId }) => externalId)).toEqual(["debian"]);
  });
});

describe("pages", () => {
  const row = (id: string) => ({ id, name: id, status: "ACTIVE" });

  it("Nova's link is used for its query only, and a row that comes twice counts once", async () => {
    keystone();
    versions();
    nock(NOVA)
      .get("/v2.1/servers/detail")
      .reply(200, {
        servers: [row("a"), row("b")],
        servers_links: [{ rel: "next", href: "http://10.0.0.1:8774/v2.1/servers/detail?marker=b&limit=2" }],
      });
    nock(NOVA)
      .get("/v2.1/servers/detail")
      .query({ marker: "b", limit: "2" })
      .reply(200, { servers: [row("b"), row("c")] });
    expect((await open().cloud.listServers()).map((server) => server.externalId)).toEqual(["a", "b", "c"]);
  });

  it("Glance's link is a path with its own /v2", async () => {
    keystone();
    const image = (id: string) => ({ id, name: id, status: "active", min_ram: 0, min_disk: 0 });
    nock(GLANCE)
      .get("/v2/images")
      .query({ limit: "200" })
      .reply(200, {
        images: [{ ...image("a"), hw_qemu_guest_agent: "yes" }],
        next: "/v2/images?limit=200&marker=a",
      });
    nock(GLANCE)
      .get("/v2/images")
      .query({ limit: "200", marker: "a" })
      .reply(200, { images: [{ ...image("b"), os_admin_user: "ubuntu" }] });
    expect(await open().cloud.listImages()).toMatchObject([
      { externalId: "a", hasAgent: true, defaultUser: null },
      { externalId: "b", hasAgent: null, defaultUser: "ubuntu" },
    ]);
  });

  it("Neutron's link to the previous page leads nowhere", async () => {
    keystone();
    nock(NEUTRON)
      .get("/v2.0/networks")
      .reply(200, {
        networks: [{ id: "n", name: "private", status: "ACTIVE", "router:external": false, shared: false }],
        networks_links: [{ rel: "previous", href: `${NEUTRON}/v2.0/networks?marker=n&page_reverse=True` }],
      });
    expect(await open().cloud.listNetworks()).toHaveLength(1);
  });

  it("a list that runs in circles is refused", async () => {
    keystone();
    versions();
    const next = [{ rel: "next", href: `${NOVA}/v2.1/flavors/detail?marker=1` }];
    nock(NOVA).get("/v2.1/flavors/detail").reply(200, { flavors: [], flavors_links: next });
    nock(NOVA)
      .get("/v2.1/flavors/detail")
      .query({ marker: "1" })
      .reply(200, { flavors: [], flavors_links: next });
    expect((await problemOf(open().cloud.listFlavors())).message).toMatch(/does not end/u);
  });

  it("an answer of another shape is not an empty list", async () => {
    keystone();
    versions();
    nock(NOVA).get("/v2.1/servers/detail").reply(200, { instances: [] });
    expect((await problemOf(open().cloud.listServers())).code).toBe("unreachable");
  });

  it("a server of an unreachable cell is kept as unknown", async () => {
    keystone();
    versions();
    nock(NOVA)
      .get("/v2.1/servers/detail")
      .reply(200, {
        servers: [{ id: "a", status: "UNKNOWN", tenant_id: "p", created: "2026-11-20T09:56:46Z", links: [] }],
      });
    expect(await open().cloud.listServers()).toMatchObject([{ externalId: "a", state: "unknown", name: "" }]);
  });
});

describe("error bodies", () => {
  const fault = (name: string, code: number, message: string) => ({ [name]: { code, message } });
  const neutron = (type: string, message = type) => ({ NeutronError: { type, message, detail: "" } });
  const quota = "Quota exceeded for instances: Requested 12, but already used 4 of 12 instances";

  it.each([
    [
      400,
      fault("badRequest", 400, "Flavor's disk is too small for requested image."),
      "read",
      "cloud_invalid",
    ],
    [
      400,
      fault("badRequest", 400, "When resizing, instances must change flavor!"),
      "change",
      "cloud_invalid",
    ],
    [401, { error: { code: 401, message: "no", title: "Unauthorized" } }, "read", "unauthorized"],
    [
      403,
      fault("forbidden", 403, "Policy doesn't allow os_compute_api:servers:create"),
      "change",
      "cloud_forbidden",
    ],
    [403, fault("forbidden", 403, quota), "change", "cloud_quota"],
    [
      403,
      fault("forbidden", 403, "Project p is over a limit for [Resource servers is over limit of 10]"),
      "change",
      "cloud_quota",
    ],
    [404, fault("itemNotFound", 404, "Instance x could not be found."), "read", "cloud_not_found"],
    [
      404,
      { message: "No image found with ID x<br /><br />\n", code: "404 Not Found", title: "Not Found" },
      "read",
      "cloud_not_found",
    ],
    [
      404,
      "<html><head><title>404 Not Found</title></head><body><h1>404</h1></body></html>",
      "read",
      "cloud_not_found",
    ],
    [405, fault("badMethod", 405, "no"), "change", "unsupported"],
    [406, fault("computeFault", 406, "Version 2.999 is not supported by the API."), "read", "unsupported"],
    [
      409,
      fault("conflictingRequest", 409, "Cannot 'stop' instance x while it is in vm_state stopped"),
      "change",
      "cloud_conflict",
    ],
    [409, fault("conflictingRequest", 409, "Instance x is locked"), "change", "cloud_conflict"],
    [409, fault("conflictingRequest", 409, "QEMU guest agent is not enabled"), "change", "unsupported"],
    [409, neutron("OverQuota", "Quota exceeded for resources: ['floatingip']."), "change", "cloud_quota"],
    [409, neutron("NetworkInUse"), "change", "cloud_conflict"],
    [413, fault("overLimit", 413, "VolumeSizeExceedsAvailableQuota"), "change", "cloud_quota"],
    [429, "<html>slow down</html>", "change", "unreachable"],
    [
      500,
      fault("computeFault", 500, "<class 'oslo_messaging.exceptions.MessagingTimeout'>"),
      "change",
      "unknown_outcome",
    ],
    [500, fault("computeFault", 500, "boom"), "read", "unreachable"],
    [501, fault("notImplemented", 501, "no"), "change", "unsupported"],
    [502, "<html><h1>502 Bad Gateway</h1></html>", "change", "unknown_outcome"],
    [
      503,
      {
        message: "<br />The Keystone service is temporarily unavailable.",
        code: "503 Service Unavailable",
        title: "x",
      },
      "change",
      "unreachable",
    ],
    [503, "<html><h1>503</h1></html>", "change", "unknown_outcome"],
    [504, "", "change", "unknown_outcome"],
    [504, "", "read", "unreachable"],
  ] as const)("%i %j of a %s is %s", (status, body, kind, code) => {
    const error = failed(status, body, kind === "change");
    expect(error.code).toBe(code);
    expect(error.message).toMatch(/^[A-Z].*\.$/u);
    expect(error.staffDetail).toMatch(new RegExp(`HTTP ${status}.*\\(request req-1\\)$`, "u"));
    expect(error.staffDetail).not.toMatch(/<\w+|\n/u);
  });

  it("a rate limit of the old kind is not a quota, and Cinder's quota is no rate limit", () => {
    const body = fault("overLimit", 413, "This request was rate-limited.");
    expect(failed(413, body, true, { retryAfterMs: 1_000 }).code).toBe("unreachable");
    expect(failed(413, body, true, { retryAfterMs: 0 }).code).toBe("cloud_quota");
  });

  it("a quota comes with its numbers", () => {
    expect(failed(403, fault("forbidden", 403, quota), true).facts).toMatchObject({
      resource: "instances",
      requested: "12",
      used: "4",
      limit: "12",
    });
  });

  it.each([
    `Invalid input for field/attribute server. Value: {'name': 'bad', 'adminPass': '${CANARY}', 'nope': 1}. Additional properties are not allowed ('nope' was unexpected)`,
    `Invalid input for field/attribute adminPass. Value: ${CANARY}. '${CANARY}' is too long`,
    `something about adminPass=${CANARY} and 'user_data': '${Buffer.from(CANARY).toString("base64")}'`,
    `plainly ${CANARY}`,
  ])("what it quotes of our request is cut out: %s", (message) => {
    const error = failed(400, fault("badRequest", 400, message), true);
    const all = JSON.stringify([error.message, error.facts, error.staffDetail, String(error.cause)]);
    expect(all).not.toContain(CANARY);
    expect(all).not.toContain(Buffer.from(CANARY).toString("base64"));
  });

  function failed(status: number, body: unknown, changing: boolean, more: { retryAfterMs?: number } = {}) {
    return errorOf({
      cloud: "wire",
      label: "compute POST /servers",
      changing,
      secrets: [CANARY],
      response: {
        status,
        statusText: "",
        headers: {},
        text: typeof body === "string" ? body : JSON.stringify(body),
        requestId: "req-1",
        date: undefined,
        retryAfterMs: more.retryAfterMs,
      },
    });
  }
});

describe("a create on the wire", () => {
  const order = {
    name: "web-1",
    size: { vcpus: 1, memoryMib: 512, diskGib: 1, flavorId: "1" },
    imageId: "image",
    networkId: "network",
    metadata: { team: "a", ratatosk_operation: "forged" },
    passwordSecretId: "secret",
    defaultUser: "debian",
  };

  it("carries tags, the marker's copy and the password as user_data, and nothing secret is kept", async () => {
    keystone();
    versions();
    let sent: unknown;
    nock(NOVA)
      .post("/v2.1/servers", (body) => {
        sent = body;
        return true;
      })
      .reply(
        202,
        { server: { id: "new", adminPass: "nova-made-this" } },
        { "X-Openstack-Request-Id": "req-7" },
      );
    const { cloud, logged } = open();
    const [planned] = cloud.provision(order);
    if (planned === undefined) throw new Error("no step");
    const context = contextOf(cloud, planned, { operationId: "0197", secret: CANARY });
    const issued = await definitionOf(cloud, planned.name).issue(context);
    expect(sent).toMatchObject({
      server: {
        name: "web-1",
        flavorRef: "1",
        imageRef: "image",
        networks: [{ uuid: "network" }],
        tags: ["op=0197", "op=0197.1"],
        metadata: { team: "a", ratatosk_operation: "op=0197.1" },
      },
    });
    expect(sent).not.toHaveProperty("server.adminPass");
    expect(issued).toMatchObject({ kind: "wait", reference: { serverId: "new", requestId: "req-7" } });
    const kept = logged() + JSON.stringify([issued, planned]);
    for (const secret of [CANARY, "nova-made-this", "token-1", "keystone-password"])
      expect(kept).not.toContain(secret);
  });

  it("refused with our own request quoted back leaks nothing", async () => {
    keystone();
    versions();
    const userData = userDataOf({ user: "debian", password: CANARY });
    const quoted = `{'name': 'web-1', 'user_data': '${userData}', 'metadata': {}}`;
    const message = `Invalid input for field/attribute server. Value: ${quoted}. '${userData}' is too long`;
    nock(NOVA)
      .post("/v2.1/servers")
      .reply(400, { badRequest: { code: 400, message } });
    const { cloud, logged } = open();
    const [planned] = cloud.provision(order);
    if (planned === undefined) throw new Error("no step");
    const context = contextOf(cloud, planned, { operationId: "0197", secret: CANARY });
    const error = await problemOf(definitionOf(cloud, planned.name).issue(context));
    expect(error.code).toBe("cloud_invalid");
    const kept =
      logged() + JSON.stringify([error.message, error.staffDetail, error.facts]) + String(error.stack);
    expect(kept).not.toContain(CANARY);
    expect(kept).not.toContain("user_data");
  });

  it("answered with something unreadable is unknown", async () => {
    keystone();
    versions();
    nock(NOVA).post("/v2.1/servers").reply(202, "");
    const { cloud } = open();
    const [planned] = cloud.provision(order);
    if (planned === undefined) throw new Error("no step");
    const context = contextOf(cloud, planned, { operationId: "0197" });
    expect((await problemOf(definitionOf(cloud, planned.name).issue(context))).code).toBe("unknown_outcome");
  });
});

describe("a delete", () => {
  it("names what it leaves behind", async () => {
    keystone();
    versions();
    const volumes = [
      { id: "vol-1", delete_on_termination: false },
      { id: "vol-2", delete_on_termination: true },
    ];
    nock(NOVA)
      .get("/v2.1/servers/s")
      .reply(200, { server: { id: "s", status: "ACTIVE", "os-extended-volumes:volumes_attached": volumes } });
    nock(NEUTRON)
      .get("/v2.0/ports")
      .query({ device_id: "s" })
      .reply(200, { ports: [{ id: "made" }, { id: "novas" }] });
    nock(NEUTRON)
      .get("/v2.0/floatingips")
      .query({ port_id: "made" })
      .reply(200, { floatingips: [{ id: "f", floating_ip_address: "203.0.113.9" }] });
    nock(NEUTRON).get("/v2.0/floatingips").query({ port_id: "novas" }).reply(200, { floatingips: [] });
    nock(NOVA).delete("/v2.1/servers/s").reply(204);
    nock(NOVA)
      .get("/v2.1/servers/s")
      .reply(404, { itemNotFound: { code: 404, message: "gone" } });
    nock(NEUTRON)
      .get("/v2.0/ports")
      .query({ id: "made" })
      .reply(200, { ports: [{ id: "made" }] });
    nock(NEUTRON).get("/v2.0/ports").query({ id: "novas" }).reply(200, { ports: [] });
    const { cloud } = open();
    const [planned] = cloud.remove({ externalId: "s" });
    if (planned === undefined) throw new Error("no step");
    const step = definitionOf(cloud, planned.name);
    const context = contextOf(cloud, planned, { operationId: "0197" });
    const issued = await step.issue(context);
    if (issued.kind !== "wait") throw new Error("nothing to wait for");
    expect(await step.verify?.({ ...context, reference: issued.reference })).toEqual({
      kind: "done",
      gone: true,
      output: { leftBehind: { floatingIps: ["203.0.113.9"], ports: ["made"], volumes: ["vol-1"] } },
      staffNote: "Left behind in the cloud: floating IPs 203.0.113.9; ports made; volumes vol-1.",
    });
  });

  it("of a locked server says that it is locked", async () => {
    keystone();
    versions();
    nock(NOVA)
      .get("/v2.1/servers/s")
      .reply(200, { server: { id: "s", status: "ACTIVE", locked: true } });
    nock(NEUTRON).get("/v2.0/ports").query({ device_id: "s" }).reply(200, { ports: [] });
    nock(NOVA)
      .delete("/v2.1/servers/s")
      .reply(409, { conflictingRequest: { code: 409, message: "Instance s is locked" } });
    const { cloud } = open();
    const [planned] = cloud.remove({ externalId: "s" });
    if (planned === undefined) throw new Error("no step");
    const context = contextOf(cloud, planned, { operationId: "0197" });
    const error = await problemOf(definitionOf(cloud, planned.name).issue(context));
    expect(error).toMatchObject({ code: "cloud_conflict" });
    expect(error.message).toMatch(/locked/u);
  });
});

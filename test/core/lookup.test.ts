import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Principal } from "../../src/core/access.ts";
import type { LookupKind } from "../../src/core/action.ts";
import { lookup } from "../../src/core/lookup.ts";
import { syncPeople } from "../../src/core/people/sync.ts";
import type { Database } from "../../src/database/client.ts";
import { newId } from "../../src/database/id.ts";
import { testDatabase } from "../support/database.ts";

const SAM: Principal = { kind: "staff", id: "sam", name: "Sam", role: "viewer" };
let ada: Principal;
let database: Database;

beforeAll(async () => {
  database = await testDatabase();
  await database.transaction((tx) =>
    syncPeople(tx, {
      customers: [
        { ref: "ada", name: "Ada" },
        { ref: "bob", name: "Bob", email: "bob@bakery.example" },
      ],
      plans: [
        { code: "s", name: "Small", vcpus: 1, memoryMib: 512, diskGib: 1, targets: { main: {}, second: {} } },
        { code: "l", name: "Large", vcpus: 4, memoryMib: 8192, diskGib: 80, targets: { main: {} } },
      ],
      clouds: [
        { name: "main", type: "openstack", maxConcurrent: 1 },
        { name: "second", type: "openstack", maxConcurrent: 1 },
      ],
    }),
  );
  const [row] = await database.sql<{ id: string }>("SELECT id FROM customers WHERE ref = 'ada'");
  ada = { kind: "customer", id: "ada", name: "Ada", customerId: row?.id ?? "" };
  await server("web-1", "srv-adaweb22", "ada");
  await server("old-web", "srv-adaold22", "ada");
  await server("50%_off", "srv-adapct22", "ada");
  await server("web-secret", "srv-bobweb22", "bob");
  await server("found", "srv-nobody22", null);
  await server("web-deleted", "srv-adadel22", "ada", "now()");
  await operation("op-ada22222", "ada", "srv-adaweb22", "succeeded");
  await operation("op-ada33333", "ada", "srv-adaweb22", "running");
  await operation("op-bob22222", "bob", "srv-bobweb22", "running");
  await catalogue("images", "main", "i1", "debian-12", "'active', 512, 1");
  await catalogue("images", "second", "i2", "debian-12", "'active', 512, 1");
  await catalogue("images", "main", "i3", "ubuntu-24.04", "'ACTIVE', 1024, 5");
  await catalogue("images", "main", "i4", "twice", "'active', 0, 0");
  await catalogue("images", "main", "i5", "twice", "'active', 0, 0");
  await catalogue("images", "main", "i6", "queued", "'queued', 0, 0");
  await catalogue("networks", "main", "n1", "private", "'ACTIVE', false");
  await catalogue("networks", "main", "n2", "public", "'ACTIVE', true");
  await catalogue("networks", "second", "n3", "other", "'ACTIVE', false");
});
afterAll(() => database.close());

async function server(name: string, publicId: string, ref: string | null, deletedAt = "NULL"): Promise<void> {
  await database.sql(
    `INSERT INTO servers (id, public_id, customer_id, cloud_id, external_id, name, state, vcpus, memory_mib, disk_gib, deleted_at)
     SELECT $1, $2, (SELECT id FROM customers WHERE ref = $4), c.id, $2, $3, 'active', 1, 512, 1, ${deletedAt}
       FROM clouds c WHERE c.name = 'main'`,
    [newId(), publicId, name, ref],
  );
}

async function operation(
  publicId: string,
  ref: string,
  serverPublicId: string,
  state: string,
): Promise<void> {
  await database.sql(
    `INSERT INTO operations (id, public_id, action, spec_version, state, input, plan, plan_hash, idempotency_key,
       request_hash, requester_kind, requester_id, requester_name, source, server_id, customer_id, lock_key)
     SELECT $1, $2, 'server.resize', 1, $3, '{}', '{}', '', $2, '', 'staff', 'sam', 'Sam', 'console', s.id, k.id, $2
       FROM servers s, customers k WHERE s.public_id = $4 AND k.ref = $5`,
    [newId(), publicId, state, serverPublicId, ref],
  );
}

async function catalogue(
  table: "images" | "networks",
  cloud: string,
  externalId: string,
  name: string,
  rest: string,
) {
  const columns = table === "images" ? "status, min_memory_mib, min_disk_gib" : "status, is_external";
  await database.sql(
    `INSERT INTO ${table} (id, cloud_id, external_id, name, synced_at, ${columns})
     SELECT $1, id, $2, $3, clock(), ${rest} FROM clouds WHERE name = $4`,
    [newId(), externalId, name, cloud],
  );
}

async function values(
  kind: LookupKind,
  text: string,
  principal: Principal,
  options: Record<string, string> = {},
) {
  const choices = await lookup(database, { kind, text, limit: 25, options }, principal);
  return choices.map((choice) => choice.value);
}

describe("staff", () => {
  test("find servers by name, public id or owner; what begins with the text comes first; deleted ones are gone", async () => {
    expect(await values("server", "WEB", SAM)).toEqual(["srv-adaweb22", "srv-bobweb22", "srv-adaold22"]);
    expect(await values("server", "srv-bob", SAM)).toEqual(["srv-bobweb22"]);
    expect(await values("server", "bob", SAM)).toEqual(["srv-bobweb22"]);
    expect(await values("server", "found", SAM)).toEqual(["srv-nobody22"]);
  });

  test("see whose server it is", async () => {
    const [choice] = await lookup(database, { kind: "server", text: "web-1", limit: 5 }, SAM);

    expect(choice).toEqual({ value: "srv-adaweb22", label: "web-1 (srv-adaweb22), Ada, active" });
  });

  test.each(["%", "_", "\\", "'; DROP TABLE servers; --"])("%s is taken literally", async (text) => {
    const found = await values("server", text, SAM);

    expect(found).toEqual(["%", "_"].includes(text) ? ["srv-adapct22"] : []);
  });

  test("get no more than they asked for", async () => {
    expect(await lookup(database, { kind: "server", text: "", limit: 2 }, SAM)).toHaveLength(2);
    expect(await lookup(database, { kind: "server", text: "", limit: 0 }, SAM)).toEqual([]);
  });

  test("find operations, live ones first", async () => {
    expect(await values("operation", "op-ada", SAM)).toEqual(["op-ada33333", "op-ada22222"]);
    expect((await values("operation", "", SAM)).toSorted()).toEqual([
      "op-ada22222",
      "op-ada33333",
      "op-bob22222",
    ]);
  });

  test("find customers by reference, name or e-mail, clouds, and plans of a cloud", async () => {
    expect(await values("customer", "bakery", SAM)).toEqual(["bob"]);
    expect(await values("customer", "", SAM)).toEqual(["ada", "bob"]);
    expect(await values("cloud", "", SAM)).toEqual(["main", "second"]);
    expect(await values("plan", "", SAM)).toEqual(["s", "l"]);
    expect(await values("plan", "", SAM, { cloud: "second" })).toEqual(["s"]);
    expect(await values("plan", "larg", SAM)).toEqual(["l"]);
  });

  test("find images once for all clouds, by id where a name is not enough, and only active ones", async () => {
    expect(await values("image", "", SAM)).toEqual(["debian-12", "i4", "i5", "ubuntu-24.04"]);
    expect(await values("image", "", SAM, { cloud: "second" })).toEqual(["debian-12"]);
    expect(await values("image", "", SAM, { plan: "s" })).toEqual(["debian-12", "i4", "i5"]);
    expect(await values("image", "", SAM, { plan: "Large" })).toEqual([
      "debian-12",
      "i4",
      "i5",
      "ubuntu-24.04",
    ]);
    expect(await values("image", "", SAM, { plan: "nonsense" })).toEqual([]);
  });

  test("find networks that servers can be on", async () => {
    expect(await values("network", "", SAM)).toEqual(["other", "private"]);
    expect(await values("network", "", SAM, { plan: "l" })).toEqual(["private"]);
    expect(await values("network", "public", SAM)).toEqual([]);
  });
});

describe("a customer", () => {
  test("sees own servers and operations only, whatever is typed", async () => {
    for (const text of ["", "web", "bob", "srv-bobweb22", "web-secret", "op-bob", "%"]) {
      const found = [...(await values("server", text, ada)), ...(await values("operation", text, ada))];
      expect(found.filter((value) => value.includes("bob") || value.includes("nobody"))).toEqual([]);
    }
    expect(await values("server", "web", ada)).toEqual(["srv-adaweb22", "srv-adaold22"]);
    expect(await values("operation", "", ada)).toEqual(["op-ada33333", "op-ada22222"]);
  });

  test("gets labels without other people's names, and none of what is staff's", async () => {
    const [choice] = await lookup(database, { kind: "server", text: "web-1", limit: 5 }, ada);

    expect(choice).toEqual({ value: "srv-adaweb22", label: "web-1 (srv-adaweb22), active" });
    expect(await values("customer", "", ada)).toEqual(["ada"]);
    expect(await values("cloud", "", ada)).toEqual([]);
    expect(await values("network", "", ada)).toEqual([]);
    expect(await values("plan", "", ada)).toEqual(["s", "l"]);
  });
});

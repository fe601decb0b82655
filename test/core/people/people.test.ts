import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { createPeople } from "../../../src/core/people/identify.ts";
import { type Configured, syncPeople } from "../../../src/core/people/sync.ts";
import type { Database } from "../../../src/database/client.ts";
import { newId, newPublicId } from "../../../src/database/id.ts";
import { clean, testDatabase } from "../../support/database.ts";

const CONFIGURED: Configured = {
  customers: [
    {
      ref: "ada",
      name: "Ada",
      email: "ada@example.com",
      maxServers: 2,
      slack: ["UADA"],
      discord: ["100000000000000002"],
    },
    { ref: "bob", name: "Bob" },
  ],
  plans: [
    {
      code: "s",
      name: "Small",
      vcpus: 1,
      memoryMib: 2048,
      diskGib: 10,
      targets: { main: { flavor: "m1.small" } },
    },
    { code: "m", name: "Medium", vcpus: 2, memoryMib: 4096, diskGib: 20, targets: { main: {}, second: {} } },
    {
      code: "x",
      name: "With traffic",
      vcpus: 4,
      memoryMib: 4096,
      diskGib: 20,
      bandwidthGib: 2048,
      targets: {},
    },
  ],
  clouds: [
    { name: "main", type: "openstack", maxConcurrent: 3 },
    { name: "second", type: "openstack", maxConcurrent: 1 },
  ],
};

let database: Database;
beforeAll(async () => {
  database = await testDatabase();
});
afterAll(() => database.close());
beforeEach(async () => {
  await clean(database);
});

const sync = (configured: Configured) => database.transaction((tx) => syncPeople(tx, configured));

async function state() {
  return {
    customers: await database.sql(
      `SELECT ref, name, email, max_servers AS "maxServers", closed_at IS NOT NULL AS closed FROM customers ORDER BY ref`,
    ),
    plans: await database.sql(
      "SELECT code, vcpus, bandwidth_gib, targets, retired_at IS NOT NULL AS retired FROM plans ORDER BY code",
    ),
    clouds: await database.sql(
      `SELECT c.name, c.provider, c.retired_at IS NOT NULL AS retired,
              (SELECT array_agg(n ORDER BY n) FROM slots WHERE cloud_id = c.id) AS places FROM clouds c ORDER BY c.name`,
    ),
  };
}

describe("syncPeople", () => {
  test("makes what is configured, and doing it again changes nothing", async () => {
    await sync(CONFIGURED);
    const first = await state();
    const ids = await database.sql(
      "SELECT id FROM customers UNION SELECT id FROM plans UNION SELECT id FROM clouds ORDER BY id",
    );

    await sync(CONFIGURED);

    expect(first).toEqual({
      customers: [
        { ref: "ada", name: "Ada", email: "ada@example.com", maxServers: 2, closed: false },
        { ref: "bob", name: "Bob", email: null, maxServers: null, closed: false },
      ],
      plans: [
        { code: "m", vcpus: 2, bandwidth_gib: null, targets: { main: {}, second: {} }, retired: false },
        {
          code: "s",
          vcpus: 1,
          bandwidth_gib: null,
          targets: { main: { flavor: "m1.small" } },
          retired: false,
        },
        { code: "x", vcpus: 4, bandwidth_gib: 2048, targets: {}, retired: false },
      ],
      clouds: [
        { name: "main", provider: "openstack", retired: false, places: [1, 2, 3] },
        { name: "second", provider: "openstack", retired: false, places: [1] },
      ],
    });
    expect(await state()).toEqual(first);
    expect(
      await database.sql(
        "SELECT id FROM customers UNION SELECT id FROM plans UNION SELECT id FROM clouds ORDER BY id",
      ),
    ).toEqual(ids);
  });

  test("closes and retires what is gone without deleting, and brings it back", async () => {
    await sync(CONFIGURED);

    await sync({
      customers: [{ ref: "bob", name: "Robert" }],
      plans: [],
      clouds: CONFIGURED.clouds.slice(0, 1),
    });

    expect(await state()).toMatchObject({
      customers: [
        { ref: "ada", closed: true },
        { ref: "bob", name: "Robert", closed: false },
      ],
      plans: [{ retired: true }, { retired: true }, { retired: true }],
      clouds: [
        { name: "main", retired: false },
        { name: "second", retired: true },
      ],
    });
    await sync(CONFIGURED);
    const back = await state();
    expect(JSON.stringify(back)).not.toMatch(/"(closed|retired)":true/);
  });

  test("more places are added; of fewer, only free ones go", async () => {
    await sync(CONFIGURED);
    const operationId = newId();
    await database.sql(
      `INSERT INTO operations (id, public_id, action, spec_version, state, input, plan, plan_hash, idempotency_key,
         request_hash, requester_kind, requester_id, requester_name, source)
       VALUES ($1, $2, 'server.power', 1, 'running', '{}', '{}', '', $2, '', 'staff', 'sam', 'Sam', 'console')`,
      [operationId, newPublicId("op")],
    );
    await database.sql("UPDATE slots SET operation_id = $1 WHERE n = 3", [operationId]);

    await sync({ ...CONFIGURED, clouds: [{ name: "main", type: "openstack", maxConcurrent: 1 }] });
    expect((await state()).clouds[0]).toMatchObject({ places: [1, 3] });

    await database.sql("UPDATE slots SET operation_id = NULL");
    await sync({ ...CONFIGURED, clouds: [{ name: "main", type: "openstack", maxConcurrent: 2 }] });
    expect((await state()).clouds[0]).toMatchObject({ places: [1, 2] });
  });

  test("nothing configured at all is fine", async () => {
    await sync({ customers: [], plans: [], clouds: [] });

    expect(await state()).toEqual({ customers: [], plans: [], clouds: [] });
  });
});

describe("createPeople", () => {
  const people = () =>
    createPeople({
      database,
      staff: [
        { id: "sam", name: "Sam", role: "operator", slack: ["U1", "U2"], discord: ["100000000000000001"] },
        { id: "rita", name: "Rita", role: "admin", slack: [], discord: [] },
      ],
    });
  const SAM = { kind: "staff", id: "sam", name: "Sam", role: "operator" };

  test("knows staff by each of their ids, and nobody by another platform's", async () => {
    await expect(people().identify("slack", "U2")).resolves.toEqual(SAM);
    await expect(people().identify("discord", "100000000000000001")).resolves.toEqual(SAM);
    await expect(people().identify("discord", "U2")).resolves.toBeNull();
    await expect(people().identify("slack", "toString")).resolves.toBeNull();
  });

  test("knows customers with their row's id, until their account is closed", async () => {
    await sync(CONFIGURED);
    const [row] = await database.sql<{ id: string }>("SELECT id FROM customers WHERE ref = 'ada'");

    await expect(people().identify("slack", "UADA")).resolves.toEqual({
      kind: "customer",
      id: "ada",
      name: "Ada",
      customerId: row?.id,
      via: "slack:UADA",
    });
    await sync({ ...CONFIGURED, customers: [] });
    await expect(people().identify("slack", "UADA")).resolves.toBeNull();
    await expect(people().parsePrincipal("customer:ada")).rejects.toMatchObject({ code: "not_found" });
  });

  test("parses principals and says what is wrong with others", async () => {
    await sync(CONFIGURED);

    await expect(people().parsePrincipal(" staff:sam ")).resolves.toEqual(SAM);
    await expect(people().parsePrincipal("customer:bob")).resolves.toMatchObject({
      kind: "customer",
      name: "Bob",
    });
    await expect(people().parsePrincipal("staff:ritta")).rejects.toMatchObject({
      code: "not_found",
      message: expect.stringContaining("Did you mean staff:rita?"),
    });
    await expect(people().parsePrincipal("sam")).rejects.toMatchObject({ code: "invalid_input" });
    await expect(people().parsePrincipal("system:root")).rejects.toMatchObject({ code: "invalid_input" });
  });
});

/** A stranger becomes a customer by a code, and a stranger again. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Principal, Stranger } from "../../../src/core/access.ts";
import { createEntrance } from "../../../src/core/dispatch.ts";
import { ServiceError } from "../../../src/core/errors.ts";
import { createPeople } from "../../../src/core/people/identify.ts";
import {
  generateLinkCode,
  hashLinkCode,
  isLinkCode,
  readLinkCode,
  writeLinkCode,
} from "../../../src/core/people/link-code.ts";
import { syncPeople } from "../../../src/core/people/sync.ts";
import type { Entrance } from "../../../src/core/request.ts";
import type { View } from "../../../src/core/view.ts";
import type { Database } from "../../../src/database/client.ts";
import { newId, newPublicId } from "../../../src/database/id.ts";
import { moveClock, testDatabase } from "../../support/database.ts";
import { createWorld, type World } from "../../support/world.ts";

const MINUTE = 60_000;
const INVALID = { code: "not_found", message: "Code is not valid." };
const configured = {
  plans: [],
  clouds: [],
  customers: [
    { ref: "ada", name: "Ada", slack: ["UADA"] },
    { ref: "bob", name: "Bob" },
  ],
};

let database: Database;
let world: World;
let entrance: Entrance;
let people = 0;

beforeAll(async () => {
  database = await testDatabase();
  world = await createWorld({ database });
  const { identify } = createPeople({
    database,
    staff: [{ id: "sam", name: "Sam", role: "operator", slack: ["USAM"], discord: [] }],
  });
  entrance = createEntrance({ engine: world.engine, identify });
}, 60_000);
afterAll(async () => {
  await world?.close();
  await database?.close();
});
beforeEach(async () => {
  await moveClock(database, 0);
  await database.sql(`DELETE FROM identities`);
  await database.sql(`DELETE FROM link_codes`);
  await database.transaction((tx) => syncPeople(tx, configured));
});

function stranger(platform: Stranger["platform"] = "discord"): Stranger {
  people += 1;
  return { platform, userId: `${platform === "slack" ? "U" : "9000000000000"}${10_000 + people}` };
}

async function view(principal: Principal, action: string, options: Record<string, string>): Promise<View> {
  const answer = await entrance.dispatch({
    action,
    options,
    principal,
    source: "console",
    idempotencyKey: `test:${newId()}`,
    origin: null,
  });
  if (answer.kind !== "view") throw new Error(JSON.stringify(answer));
  return answer.view;
}

async function codeFor(customer = "ada"): Promise<string> {
  const { fields } = await view(world.sam, "account.code", { customer });
  return fields?.find(({ label }) => label === "Code")?.value ?? "";
}

async function outcome(who: Stranger, code: string): Promise<string> {
  try {
    return (await entrance.link(who, code)).title;
  } catch (error) {
    if (error instanceof ServiceError) return error.message;
    throw error;
  }
}

async function auditOf(who: Stranger) {
  return database.sql<{ outcome: string; reason: string | null; subject: string | null; source: string }>(
    `SELECT outcome, reason, subject, source FROM audit_entries WHERE principal_kind = 'stranger' AND principal_id = $1 ORDER BY seq`,
    [`${who.platform}:${who.userId}`],
  );
}

/** Of the right kind, and not this one. */
function wrongFor(code: string): string {
  const last = code.at(-1) === "0" ? "1" : "0";
  return `${code.slice(0, -1)}${last}`;
}

describe("link codes", () => {
  it("survive being copied by people, and nothing else passes", () => {
    const code = generateLinkCode();
    const text = writeLinkCode(code);
    expect(text).toMatch(/^([0-9A-HJKMNP-TV-Z]{4}-){3}[0-9A-HJKMNP-TV-Z]{4}$/);
    expect(readLinkCode(` ${text.toLowerCase().replaceAll("-", " ")} `)).toEqual(code);
    expect(readLinkCode("oooo-iiii-llll-0000")).toEqual({ selector: "0000", secret: "111111110000" });
    for (const wrong of ["", "ABCD-EFGH", `${text}0`, "UUUU-UUUU-UUUU-UUUU", "\u0000".repeat(16)]) {
      expect(readLinkCode(wrong)).toBeNull();
    }
    expect(isLinkCode(code, hashLinkCode(code))).toBe(true);
    expect(isLinkCode(generateLinkCode(), hashLinkCode(code))).toBe(false);
  });
});

describe("linking", () => {
  it("links a stranger by a code, once, at once and with an event", async () => {
    const who = stranger();
    expect(await entrance.identify(who.platform, who.userId)).toBeNull();
    const code = await codeFor();

    expect(await entrance.link(who, code)).toMatchObject({ title: "Linked to Ada.", tone: "success" });

    expect(await entrance.identify(who.platform, who.userId)).toEqual({
      ...world.ada,
      via: `discord:${who.userId}`,
    });
    const [event] = await database.sql(
      `SELECT customer_id AS "customerId", data FROM events WHERE type = 'customer.identity.linked' ORDER BY occurred_at DESC LIMIT 1`,
    );
    expect(event).toEqual({
      customerId: world.ada.customerId,
      data: { customer: "ada", platform: "discord", userId: who.userId },
    });
    expect(await auditOf(who)).toEqual([
      { outcome: "allowed", reason: null, subject: "ada", source: "discord" },
    ]);
    await expect(entrance.link(stranger(), code)).rejects.toMatchObject(INVALID);
    // Who is known has nothing to link, whatever the code.
    await expect(entrance.link(who, await codeFor("bob"))).rejects.toMatchObject({
      code: "conflict",
      message: expect.stringContaining("linked to Ada already"),
    });
  });

  it("takes a code for ten minutes and not longer", async () => {
    const [inTime, tooLate] = [await codeFor(), await codeFor()];
    await moveClock(database, 10 * MINUTE - 30_000);
    expect(await outcome(stranger(), inTime)).toBe("Linked to Ada.");
    await moveClock(database, 10 * MINUTE + 1_000);
    await expect(entrance.link(stranger(), tooLate)).rejects.toMatchObject(INVALID);
  });

  it("looks at no sixth try of a person within ten minutes, even of the right code", async () => {
    const who = stranger();
    const code = await codeFor();
    const wrong = ["", "nonsense", "0000-0000-0000-0000", "ABCD-EFGH-JKMN-PQRS", "x".repeat(5000)];
    for (const tried of wrong) expect(await outcome(who, tried)).toBe("Code is not valid.");

    await expect(entrance.link(who, code)).rejects.toMatchObject(INVALID);

    const reasons = (await auditOf(who)).map(({ reason }) => reason);
    expect(reasons).toEqual([...wrong.map(() => "code_not_valid"), "too_many_tries"]);
    // It was not even looked at: somebody else may use it.
    expect(await outcome(stranger(), code)).toBe("Linked to Ada.");
    const next = await codeFor();
    expect(await outcome(who, next)).toBe("Code is not valid.");
    await moveClock(database, 11 * MINUTE);
    expect(await outcome(who, await codeFor())).toBe("Linked to Ada.");
  });

  it("makes a code worthless after five wrong tries of it, by however many people", async () => {
    const code = await codeFor();
    for (let n = 0; n < 5; n += 1)
      expect(await outcome(stranger(), wrongFor(code))).toBe("Code is not valid.");
    expect(await outcome(stranger(), code)).toBe("Code is not valid.");
  });

  it("one of many who send a code at the same time is linked, and many codes of one person link once", async () => {
    const code = await codeFor();
    const crowd = Array.from({ length: 6 }, () => stranger());
    const told = await Promise.all(crowd.map((who) => outcome(who, code)));
    expect(told.toSorted()).toEqual([
      ...Array.from({ length: 5 }, () => "Code is not valid."),
      "Linked to Ada.",
    ]);

    const who = stranger();
    const codes = [await codeFor("ada"), await codeFor("bob"), await codeFor("bob")];
    const outcomes = await Promise.all(codes.map((one) => outcome(who, one)));
    expect(outcomes.filter((title) => title.startsWith("Linked to"))).toHaveLength(1);
    const lone = stranger();
    await Promise.all(Array.from({ length: 9 }, () => outcome(lone, "?")));
    expect((await auditOf(lone)).filter(({ reason }) => reason === "code_not_valid")).toHaveLength(5);
  });

  it("links nobody of the team and nobody whom the configuration names, and says so to them", async () => {
    const code = await codeFor("bob");
    await expect(entrance.link({ platform: "slack", userId: "USAM" }, code)).rejects.toMatchObject({
      code: "conflict",
      message: expect.stringContaining("belong to the team"),
    });
    await expect(entrance.link({ platform: "slack", userId: "UADA" }, code)).rejects.toMatchObject({
      code: "conflict",
      message: expect.stringContaining("linked to Ada already"),
    });
    for (const principal of [world.sam, world.ada]) {
      await expect(view(principal, "link", { code })).rejects.toMatchObject({ code: "conflict" });
    }
    expect(await outcome(stranger("slack"), code)).toBe("Linked to Bob.");
  });

  it("the configuration's word counts more than a code", async () => {
    const who = stranger("slack");
    await entrance.link(who, await codeFor("bob"));

    await database.transaction((tx) =>
      syncPeople(tx, {
        ...configured,
        customers: [
          { ref: "ada", name: "Ada", slack: [who.userId] },
          { ref: "bob", name: "Bob" },
        ],
      }),
    );

    expect(await entrance.identify("slack", who.userId)).toMatchObject({ id: "ada" });
    expect(await entrance.identify("slack", "UADA")).toBeNull();
    await database.transaction((tx) => syncPeople(tx, configured));
    expect(await entrance.identify("slack", who.userId)).toBeNull();
  });

  it("who belonged to a closed account may be linked to another one", async () => {
    const who = stranger();
    const early = await codeFor("bob");
    await entrance.link(who, await codeFor("bob"));
    await database.transaction((tx) =>
      syncPeople(tx, { ...configured, customers: configured.customers.slice(0, 1) }),
    );
    expect(await entrance.identify(who.platform, who.userId)).toBeNull();
    expect(await outcome(who, early)).toBe("Code is not valid.");

    expect(await outcome(who, await codeFor("ada"))).toBe("Linked to Ada.");

    await database.transaction((tx) => syncPeople(tx, configured));
    expect(await entrance.identify(who.platform, who.userId)).toMatchObject({ id: "ada" });
  });

  it("keeps a code nowhere", async () => {
    const who = stranger();
    const code = await codeFor();
    await entrance.link(who, code);
    const tables = await database.sql<{ name: string }>(
      `SELECT quote_ident(tablename) AS name FROM pg_tables WHERE schemaname = 'public'`,
    );
    for (const { name } of tables) {
      const rows = JSON.stringify(await database.sql(`SELECT t::text FROM public.${name} t`));
      expect(rows, name).not.toContain(code);
      expect(rows, name).not.toContain(code.replaceAll("-", "").slice(4));
    }
  });

  it("is for operators to allow, and for nobody below them", async () => {
    for (const role of ["viewer", "support"] as const) {
      const principal: Principal = { kind: "staff", id: role, name: role, role };
      await expect(view(principal, "account.code", { customer: "ada" })).rejects.toMatchObject({
        code: "forbidden",
      });
    }
    await expect(view(world.ada, "account.code", { customer: "ada" })).rejects.toMatchObject({
      code: "forbidden",
    });
    await expect(view(world.sam, "account.code", { customer: "adda" })).rejects.toMatchObject({
      code: "not_found",
      message: expect.stringContaining("Did you mean ada"),
    });
  });
});

describe("the account", () => {
  it("shows a customer what is theirs, and staff whichever they ask for", async () => {
    const who = stranger();
    await entrance.link(who, await codeFor());
    const principal = await entrance.identify(who.platform, who.userId);
    if (principal === null) throw new Error("not linked");
    await database.sql(`UPDATE customers SET max_servers = 3, email = 'ada@example.com' WHERE ref = 'ada'`);

    const shown = await view(principal, "account.show", {});

    expect(shown.title).toBe("Ada");
    expect(shown.fields).toEqual([
      { label: "Reference", value: "ada" },
      { label: "E-mail", value: "ada@example.com" },
      { label: "Servers", value: "0 of at most 3" },
      { label: "Authenticator app", value: "not set up" },
    ]);
    expect(shown.table?.rows.map(([identity, , by]) => [identity, by])).toEqual([
      ["slack:UADA", "our team"],
      [`discord:${who.userId} (this one)`, "a code"],
    ]);
    expect((await view(world.sam, "account.show", { customer: "bob" })).title).toBe("Bob");
    await expect(view(principal, "account.show", { customer: "bob" })).rejects.toMatchObject({
      code: "invalid_input",
    });
  });

  it("whom the configuration names no longer hears nothing more, and so does a closed account", async () => {
    const operationId = newId();
    await database.sql(
      `INSERT INTO operations (id, public_id, action, spec_version, state, input, plan, plan_hash, idempotency_key,
         request_hash, requester_kind, requester_id, requester_name, source, customer_id)
       VALUES ($1, $2, 'server.power', 1, 'running', '{}', '{}', '', $2, '', 'customer', 'ada', 'Ada', 'discord', $3)`,
      [operationId, newPublicId("op"), world.ada.customerId],
    );
    const customers = [
      { ref: "ada", name: "Ada", discord: ["700000000000000001", "700000000000000002"] },
      { ref: "bob", name: "Bob" },
    ];
    const named = { customers, plans: [], clouds: [] };
    await database.transaction((tx) => syncPeople(tx, named));
    for (const userId of customers[0]?.discord ?? []) {
      await database.sql(
        `INSERT INTO cards (id, operation_id, platform, workspace, channel, user_id, audience) VALUES ($1, $2, 'discord', 'dm', $3, $4, 'customer')`,
        [newId(), operationId, `dm:${userId}`, userId],
      );
    }
    const shown = async () => {
      const rows = await database.sql<{ userId: string }>(
        `SELECT user_id AS "userId" FROM cards WHERE operation_id = $1 ORDER BY user_id`,
        [operationId],
      );
      return rows.map(({ userId }) => userId);
    };
    const [ada, bob] = customers;
    if (ada === undefined || bob === undefined) throw new Error("no customers");
    const fewer = { ...named, customers: [{ ...ada, discord: ["700000000000000002"] }, bob] };
    await database.transaction((tx) => syncPeople(tx, fewer));
    expect(await shown()).toEqual(["700000000000000002"]);
    await database.transaction((tx) => syncPeople(tx, { ...named, customers: [bob] }));
    expect(await shown()).toEqual([]);
    await database.transaction((tx) =>
      syncPeople(tx, { ...named, customers: [{ ref: "ada", name: "Ada" }, bob] }),
    );
  });

  it("unlinking makes a stranger of them at once, and ends their cards", async () => {
    const who = stranger();
    await entrance.link(who, await codeFor());
    const principal = await entrance.identify(who.platform, who.userId);
    if (principal === null) throw new Error("not linked");
    const operationId = newId();
    await database.sql(
      `INSERT INTO operations (id, public_id, action, spec_version, state, input, plan, plan_hash, idempotency_key,
         request_hash, requester_kind, requester_id, requester_name, source, customer_id)
       VALUES ($1, $2, 'server.power', 1, 'running', '{}', '{}', '', $2, '', 'customer', 'ada', 'Ada', 'discord', $3)`,
      [operationId, newPublicId("op"), world.ada.customerId],
    );
    for (const [userId, audience] of [
      [who.userId, "customer"],
      ["900000000000000001", "customer"],
      [who.userId, "staff"],
    ] as const) {
      await database.sql(
        `INSERT INTO cards (id, operation_id, platform, workspace, channel, user_id, audience) VALUES ($1, $2, 'discord', 'dm', $3, $4, $5)`,
        [newId(), operationId, `dm:${userId}`, userId, audience],
      );
    }

    const { title, text } = await view(principal, "account.unlink", {});

    expect(title).toBe("Unlinked from Ada.");
    expect(text).toContain(`discord:${who.userId}`);
    expect(await entrance.identify(who.platform, who.userId)).toBeNull();
    expect(
      await database.sql(`SELECT user_id AS "userId", audience FROM cards ORDER BY audience, user_id`),
    ).toEqual([
      { userId: "900000000000000001", audience: "customer" },
      { userId: who.userId, audience: "staff" },
    ]);
    const [event] = await database.sql(
      `SELECT data FROM events WHERE type = 'customer.identity.unlinked' ORDER BY occurred_at DESC LIMIT 1`,
    );
    expect(event).toEqual({ data: { customer: "ada", platform: "discord", userId: who.userId } });
    expect(await outcome(who, await codeFor("bob"))).toBe("Linked to Bob.");
  });

  it("is unlinked by staff by name, and what the configuration names by nobody", async () => {
    const [first, second] = [stranger("slack"), stranger("slack")];
    for (const who of [first, second]) await entrance.link(who, await codeFor("bob"));
    const ask = (principal: Principal, options: Record<string, string>) =>
      view(principal, "account.unlink", options);

    await expect(ask(world.sam, { customer: "bob" })).rejects.toMatchObject({
      code: "invalid_input",
      message: expect.stringContaining(`slack:${first.userId}, slack:${second.userId}`),
    });
    await expect(ask(world.sam, { customer: "bob", identity: "slack:UADA" })).rejects.toMatchObject({
      code: "not_found",
    });
    await ask(world.sam, { customer: "bob", identity: `SLACK:${second.userId.toLowerCase()}` });
    await ask(world.sam, { customer: "bob" });
    await expect(ask(world.sam, { customer: "bob" })).rejects.toMatchObject({ code: "nothing_to_change" });
    expect(await entrance.identify("slack", first.userId)).toBeNull();

    await expect(ask(world.sam, { customer: "ada", identity: "UADA" })).rejects.toMatchObject({
      code: "wrong_state",
      message: expect.stringContaining("ratatosk.yaml"),
    });
    await expect(ask({ ...world.ada, via: "slack:UADA" }, {})).rejects.toMatchObject({
      code: "wrong_state",
      message: expect.stringContaining("Ask our team"),
    });
    expect(await entrance.identify("slack", "UADA")).toMatchObject({ id: "ada" });
  });
});

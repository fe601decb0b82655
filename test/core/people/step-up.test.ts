/** Before what hurts, a customer shows that it is them. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Principal } from "../../../src/core/access.ts";
import type { Source } from "../../../src/core/action.ts";
import type { StepUpPolicy } from "../../../src/core/people/step-up.ts";
import { generateTotpSecret, totpCode, totpStepOf, totpUri } from "../../../src/core/people/totp.ts";
import type { Answer } from "../../../src/core/request.ts";
import type { View } from "../../../src/core/view.ts";
import type { Database } from "../../../src/database/client.ts";
import { newId } from "../../../src/database/id.ts";
import { moveClock, testDatabase } from "../../support/database.ts";
import { createWorld, type World } from "../../support/world.ts";

describe("one-time passwords", () => {
  it("are those of RFC 6238", () => {
    // Appendix B, SHA-1; its eight digits end with our six.
    const secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
    for (const [seconds, code] of [
      [59, "94287082"],
      [1_111_111_109, "07081804"],
      [1_111_111_111, "14050471"],
      [1_234_567_890, "89005924"],
      [2_000_000_000, "69279037"],
      [20_000_000_000, "65353130"],
    ] as const) {
      const step = Math.floor(seconds / 30);
      expect(totpCode(secret, step)).toBe(code.slice(-6));
      expect(
        totpStepOf(` ${code.slice(2, 5)} ${code.slice(5)}`, secret, { nowSeconds: seconds, lastStep: 0 }),
      ).toBe(step);
    }
  });

  it("are taken one step early or late, never twice, and nothing else passes", () => {
    const secret = generateTotpSecret();
    expect(secret).toMatch(/^[A-Z2-7]{32}$/);
    expect(generateTotpSecret()).not.toBe(secret);
    const at = (step: number, lastStep = 0) =>
      totpStepOf(totpCode(secret, 1000), secret, { nowSeconds: step * 30, lastStep });
    expect([at(998), at(999), at(1000), at(1001), at(1002)]).toEqual([null, 1000, 1000, 1000, null]);
    expect(at(1000, 1000)).toBeNull();
    for (const wrong of ["", "12345", "1234567", "abcdef", "١٢٣٤٥٦"]) {
      expect(totpStepOf(wrong, secret, { nowSeconds: 30_000, lastStep: 0 })).toBeNull();
    }
    expect(totpUri(secret, "a b")).toBe(
      `otpauth://totp/Ratatosk%3Aa%20b?secret=${secret}&issuer=Ratatosk&digits=6&period=30`,
    );
  });
});

describe("before what hurts", () => {
  const MINUTE = 60_000;
  let database: Database;
  let world: World;
  let policy: StepUpPolicy = "enrolled";
  let ada: Principal & { kind: "customer" };
  let movedMs = 0;

  beforeAll(async () => {
    database = await testDatabase();
    world = await createWorld({ database });
    const { policies } = world.engine;
    world.engine.policies = {
      ...policies,
      get stepUp() {
        return policy;
      },
    };
    await world.run(world.sam, "server.provision", {
      name: "web-1",
      customer: "ada",
      plan: "s",
      image: "debian-12",
    });
    ada = { ...world.ada, via: "slack:UADA" };
  }, 60_000);
  afterAll(async () => {
    await world?.close();
    await database?.close();
  });
  beforeEach(async () => {
    policy = "enrolled";
    await move(0);
    await database.sql(`DELETE FROM customer_factors`);
    await database.sql(`DELETE FROM secrets WHERE kind = 'totp'`);
    await database.sql(`DELETE FROM identities`);
    await database.sql(
      `INSERT INTO identities (id, customer_id, platform, user_id, source)
       VALUES ($1, $3, 'slack', 'UADA', 'code'), ($2, $3, 'discord', '1', 'code')`,
      [newId(), newId(), ada.customerId],
    );
  });

  async function move(ms: number): Promise<void> {
    movedMs = ms;
    await moveClock(database, ms);
  }

  function ask(
    principal: Principal,
    action: string,
    options: Record<string, string> = {},
    source: Source = "slack",
  ): Promise<Answer> {
    return world.entrance.dispatch({
      action,
      options,
      principal,
      source,
      idempotencyKey: `test:${newId()}`,
      origin: null,
    });
  }

  async function view(
    principal: Principal,
    action: string,
    options: Record<string, string> = {},
  ): Promise<View> {
    const answer = await ask(principal, action, options);
    if (answer.kind !== "view") throw new Error(JSON.stringify(answer));
    return answer.view;
  }

  /** Sets an app up and answers with what makes its codes. */
  async function enrol(): Promise<{ codeOf: (shift?: number) => string; used: string }> {
    const { fields } = await view(ada, "account.secure");
    const secret = fields?.find(({ label }) => label === "Key")?.value ?? "";
    const codeOf = (shift = 0) => totpCode(secret, Math.floor((Date.now() + movedMs) / 30_000) + shift);
    const used = codeOf();
    expect(await view(ada, "account.verify", { code: used })).toMatchObject({ title: "It is you." });
    return { codeOf, used };
  }

  async function operations(): Promise<number> {
    const [row] = await database.sql<{ n: number }>(`SELECT count(*)::int AS n FROM operations`);
    return row?.n ?? 0;
  }

  async function password(principal: Principal = ada, source: Source = "slack"): Promise<string> {
    const answer = await ask(principal, "server.password", { server: "web-1" }, source);
    if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
    return (await world.settle(answer.operationId)).state;
  }

  it("is asked of customers for a new password, a rebuild and going back to a snapshot", () => {
    const asked = world.engine.registry.list().filter(({ stepUp }) => stepUp === true);
    expect(asked.map(({ name }) => name).toSorted()).toEqual([
      "server.console",
      "server.keys",
      "server.password",
      "server.rebuild",
      "server.reinstall",
      "server.resize",
      "snapshot.rollback",
    ]);
    // What customers cannot ask for at all needs no more.
    expect(world.engine.registry.get("server.delete").audience).toEqual(["staff"]);
  });

  it("is asked again where the secret is shown, and before another chat account is thrown out", async () => {
    const answer = await ask(ada, "server.password", { server: "web-1" });
    if (answer.kind !== "operation") throw new Error("no operation");
    await world.settle(answer.operationId);
    const { codeOf } = await enrol();
    await move(16 * MINUTE);
    const [button] = await database.sql<{ token: string }>(
      `SELECT token FROM capabilities WHERE operation_id = $1 AND action = 'secret.reveal'`,
      [answer.operationId],
    );
    const show = () => world.entrance.reveal(button?.token ?? "", ada, "slack");
    await expect(show()).rejects.toMatchObject({ code: "forbidden" });
    expect(await view(ada, "account.verify", { code: codeOf() })).toMatchObject({ title: "It is you." });
    expect((await show()).text).not.toBe("");

    // Nobody sits at one chat account and throws out the others by it.
    await move(40 * MINUTE);
    await expect(ask(ada, "account.unlink", { identity: "discord:1" })).rejects.toMatchObject({
      code: "forbidden",
    });
  });

  it("a customer with an authenticator app needs a code of the last 15 minutes, on this chat account", async () => {
    expect(await password()).toBe("succeeded");
    await enrol();
    expect(await password()).toBe("succeeded");

    await move(15 * MINUTE + 1_000);
    const before = await operations();
    await expect(password()).rejects.toMatchObject({
      code: "forbidden",
      message: expect.stringMatching(/\/account verify code:.*Nothing was done/),
    });
    await expect(ask(ada, "server.rebuild", { server: "web-1", image: "debian-12" })).rejects.toMatchObject({
      code: expect.stringMatching(/forbidden|unsupported/),
    });
    expect(await operations()).toBe(before);
    // What does no harm is not in the way.
    expect((await ask(ada, "server.show", { server: "web-1" })).kind).toBe("view");
    const dry = await world.entrance.dispatch({
      action: "server.password",
      options: { server: "web-1" },
      principal: ada,
      source: "slack",
      idempotencyKey: "dry",
      origin: null,
      dryRun: true,
    });
    expect(dry.kind).toBe("view");
    const [audit] = await database.sql(
      `SELECT action, outcome FROM audit_entries WHERE principal_id = 'ada' AND action = 'server.password' ORDER BY seq DESC LIMIT 1`,
    );
    expect(audit).toEqual({ action: "server.password", outcome: "denied" });
  });

  it("a code makes it good again for the account that sent it, and for no other", async () => {
    const { codeOf } = await enrol();
    await move(20 * MINUTE);
    await view(ada, "account.verify", { code: codeOf() });
    expect(await password()).toBe("succeeded");
    await expect(password({ ...ada, via: "discord:1" })).rejects.toMatchObject({ code: "forbidden" });
    const { via: _via, ...unknown } = ada;
    await expect(password(unknown)).rejects.toMatchObject({ code: "forbidden" });
    // The team and an operator's console have their own ways of knowing who it is.
    expect(await password(world.sam)).toBe("succeeded");
    expect(await password(unknown, "console")).toBe("succeeded");
  });

  it("a retry and a foreign server are no ways around it", async () => {
    await enrol();
    const answer = await ask(ada, "server.password", { server: "web-1" });
    if (answer.kind !== "operation") throw new Error("no operation");
    await ask(ada, "ops.cancel", { operation: answer.publicId });
    await world.settle(answer.operationId);
    await move(20 * MINUTE);
    await expect(ask(ada, "ops.retry", { operation: answer.publicId })).rejects.toMatchObject({
      code: "forbidden",
    });
    const [button] = await database.sql<{ token: string }>(
      `SELECT token FROM capabilities WHERE operation_id = $1 AND action = 'ops.retry'`,
      [answer.operationId],
    );
    await expect(world.entrance.press(button?.token ?? "", ada, "slack")).rejects.toMatchObject({
      code: "forbidden",
    });
    await expect(ask(ada, "server.password", { server: "srv-zzzzzzzz" })).rejects.toMatchObject({
      code: "not_found",
    });
  });

  it("no code counts twice, and after five wrong ones none does for ten minutes", async () => {
    const { codeOf, used } = await enrol();
    const wrong = used === "000000" ? "000001" : "000000";
    expect((await view(ada, "account.verify", { code: used })).title).toBe("Code is not valid.");
    const told = await Promise.all(
      Array.from({ length: 8 }, () => view(ada, "account.verify", { code: wrong })),
    );
    expect(new Set(told.map(({ title }) => title))).toEqual(new Set(["Code is not valid."]));
    expect((await view(ada, "account.verify", { code: codeOf(1) })).title).toBe("Code is not valid.");
    const denied = await database.sql(
      `SELECT reason FROM audit_entries WHERE action = 'account.verify' AND outcome = 'denied'`,
    );
    expect(denied.length).toBeGreaterThanOrEqual(10);
    await move(11 * MINUTE);
    expect((await view(ada, "account.verify", { code: codeOf() })).title).toBe("It is you.");
  });

  it("after twenty wrong codes none counts for a day, however slowly they came", async () => {
    const { codeOf, used } = await enrol();
    const wrong = used === "000000" ? "000001" : "000000";
    for (let tries = 1; tries <= 20; tries += 1) {
      await move(tries * 11 * MINUTE);
      await view(ada, "account.verify", { code: wrong });
    }
    await move(21 * 11 * MINUTE);
    expect((await view(ada, "account.verify", { code: codeOf() })).title).toBe("Code is not valid.");
    await move(24 * 60 * MINUTE + 12 * MINUTE);
    expect((await view(ada, "account.verify", { code: codeOf() })).title).toBe("It is you.");
  });

  it("by policy everybody needs one, or nobody", async () => {
    policy = "always";
    await expect(password()).rejects.toMatchObject({
      code: "forbidden",
      message: expect.stringContaining("/account secure"),
    });
    await view(ada, "account.secure");
    // An app that no code was seen of does not count.
    await expect(password()).rejects.toMatchObject({ message: expect.stringContaining("/account secure") });
    await enrol();
    expect(await password()).toBe("succeeded");
    await move(20 * MINUTE);
    policy = "off";
    expect(await password()).toBe("succeeded");
  });

  it("is taken out of use by its own code or by the team, not by the chat account alone", async () => {
    const { codeOf } = await enrol();
    await expect(view(ada, "account.secure")).rejects.toMatchObject({ code: "wrong_state" });
    expect((await view(ada, "account.unsecure", { code: "123" })).title).toBe("Code is not valid.");
    expect((await ask(ada, "account.unsecure")).kind).toBe("form");
    expect((await view(ada, "account.show")).fields).toContainEqual({
      label: "Authenticator app",
      value: "in use",
    });
    await view(ada, "account.unsecure", { code: codeOf(1) });
    expect((await view(ada, "account.show")).fields).toContainEqual({
      label: "Authenticator app",
      value: "not set up",
    });
    await expect(view(ada, "account.verify", { code: "123456" })).rejects.toMatchObject({
      code: "wrong_state",
    });

    await enrol();
    const viewer: Principal = { kind: "staff", id: "vera", name: "Vera", role: "viewer" };
    await expect(view(viewer, "account.unsecure", { customer: "ada" })).rejects.toMatchObject({
      code: "forbidden",
    });
    await view(world.sam, "account.unsecure", { customer: "ada" });
    await expect(view(world.sam, "account.unsecure", { customer: "ada" })).rejects.toMatchObject({
      code: "nothing_to_change",
    });
    // Nothing of it stays, and what was shown with it does not count any more.
    expect(await database.sql(`SELECT id FROM secrets WHERE kind = 'totp'`)).toEqual([]);
    expect(await database.sql(`SELECT id FROM identities WHERE verified_at IS NOT NULL`)).toEqual([]);
  });

  it("keeps the key encrypted, and shows it once", async () => {
    const { fields } = await view(ada, "account.secure");
    const secret = fields?.find(({ label }) => label === "Key")?.value ?? "";
    expect(secret).toMatch(/^[A-Z2-7]{32}$/);
    const tables = await database.sql<{ name: string }>(
      `SELECT quote_ident(tablename) AS name FROM pg_tables WHERE schemaname = 'public'`,
    );
    for (const { name } of tables) {
      const rows = JSON.stringify(await database.sql(`SELECT t::text FROM public.${name} t`));
      expect(rows, name).not.toContain(secret);
    }
    // Before its first code another one may be asked for, and the first is worth nothing.
    await Promise.all([view(ada, "account.secure"), view(ada, "account.secure")]);
    expect(await database.sql(`SELECT id FROM secrets WHERE kind = 'totp'`)).toHaveLength(1);
    const code = totpCode(secret, Math.floor(Date.now() / 30_000));
    expect((await view(ada, "account.verify", { code })).title).toBe("Code is not valid.");
  });
});

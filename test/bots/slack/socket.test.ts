/** Socket Mode without a network: the real SDK against slack-socket.ts. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { formOf } from "../../../src/core/form-of.ts";
import type { Answer } from "../../../src/core/request.ts";
import type { Database } from "../../../src/database/client.ts";
import { testDatabase } from "../../support/database.ts";
import { alice, carol } from "../../support/fake-entrance.ts";
import { sampleAction } from "../../support/sample-actions.ts";
import { fakeSlack } from "../../support/slack-api.ts";
import { createWorld, type World } from "../../support/world.ts";
import { type Rig, slackRig, textOf, until } from "./rig.ts";

const ingress = { kind: "socket", appToken: "xapp-test" } as const;
const started: Answer = {
  kind: "operation",
  operationId: "o1",
  publicId: "op-2345",
  existing: false,
  view: { title: "Resize web-1 to plan m", tone: "progress" },
};

let rig: Rig;
beforeEach(async () => {
  rig = await slackRig({ ingress, firstRetryMs: 20 });
});
afterEach(() => rig.stop());

async function connect(): Promise<void> {
  await rig.bot.start();
  await until(() => rig.bot.status().ok);
}

describe("requests by socket", () => {
  it("needs no HTTP receiver, and asks for the socket with the app's own token", async () => {
    expect(rig.bot.http).toBeUndefined();
    await connect();
    expect(rig.slack.of("apps.connections.open")).toHaveLength(1);
    expect(rig.bot.status()).toEqual({ ok: true, detail: "Connected to Acme as ratatosk." });
    expect(rig.log.join("")).not.toContain("xapp-test");
  });

  it("answers a command in the acknowledgement, with the key of its trigger", async () => {
    rig.entrance.script.dispatch = () => Promise.resolve(started);
    await connect();
    const answered = await rig.command("U1", "resize web-1 memory:8G", { trigger_id: "t.1" });
    expect(answered.body).toMatchObject({ response_type: "ephemeral" });
    expect(textOf(answered.body)).toContain("op-2345");
    expect(rig.entrance.requests).toMatchObject([
      { action: "server.resize", principal: alice, idempotencyKey: "slack:T1:t.1" },
    ]);
    expect((await rig.command("U9", "list")).body?.["text"]).toContain("(U9) is not linked");
  });

  it("carries forms, suggestions and buttons", async () => {
    await connect();
    rig.entrance.script.dispatch = () =>
      Promise.resolve({ kind: "form", form: formOf(sampleAction("server.provision"), {}, alice) });
    expect(await rig.command("U1", "provision")).toEqual({ status: 200, body: null });
    const [opened] = await until(() => rig.slack.of("views.open").length > 0 && rig.slack.of("views.open"));
    rig.entrance.script.lookup = () => Promise.resolve([{ value: "debian", label: "Debian" }]);
    expect((await rig.suggest("U1", opened?.["view"], "image", "deb")).body).toMatchObject({
      options: [{ value: "debian" }],
    });
    expect((await rig.submit("U1", opened?.["view"], { name: "web-1" })).body).toMatchObject({
      response_action: "update",
    });
    rig.entrance.script.dispatch = () => Promise.resolve(started);
    expect(await rig.submit("U1", opened?.["view"], { name: "web-1" })).toEqual({ status: 200, body: null });

    rig.entrance.script.press = () =>
      Promise.resolve({ kind: "view", view: { title: "Cancelled", tone: "success" } });
    expect(await rig.button("U3", "act:tok")).toEqual({ status: 200, body: null });
    expect(textOf(await until(() => rig.slack.responses[0]))).toContain("Cancelled");
    expect(rig.entrance.presses).toEqual([{ token: "tok", principal: carol }]);
  });

  it("tells by the response URL what the acknowledgement could not carry any more", async () => {
    let finish: (answer: Answer) => void = () => {};
    rig.entrance.script.dispatch = () => new Promise<Answer>((resolve) => (finish = resolve));
    await connect();
    // Never acknowledged, and so never answered.
    void rig.command("U1", "list");
    await until(() => rig.entrance.requests.length === 1);
    rig.slack.sockets.kill();
    await until(() => rig.slack.sockets.made() === 2);
    await until(() => rig.bot.status().ok);
    finish(started);
    expect((await until(() => rig.slack.responses[0]))["text"]).toContain("op-2345");
    // The late acknowledgement goes by no other socket than its own.
    expect(rig.log.join("")).toContain("an acknowledgement could not be sent");
    expect(rig.log.join("")).not.toContain("a listener failed");
  });
});

describe("the connection", () => {
  it("opens another one when it is cut, and when Slack asks for it", async () => {
    rig.entrance.script.dispatch = () => Promise.resolve(started);
    await connect();
    rig.slack.sockets.kill();
    await until(() => rig.slack.sockets.made() === 2 && rig.slack.sockets.open() === 1);
    await until(() => rig.bot.status().ok);
    expect(textOf((await rig.command("U1", "list")).body)).toContain("op-2345");

    rig.slack.sockets.say({ type: "disconnect", reason: "refresh_requested" });
    await until(() => rig.slack.sockets.made() === 3 && rig.slack.sockets.open() === 1);
    await until(() => rig.bot.status().ok);
    expect(textOf((await rig.command("U1", "list")).body)).toContain("op-2345");
    expect(rig.entrance.requests).toHaveLength(2);
  });

  it("starts while Slack is away, says so, and connects when it is back", async () => {
    const away = await fakeSlack();
    const port = Number(new URL(away.url).port);
    await away.close();
    await rig.stop();
    rig = await slackRig({ ingress, apiUrl: away.url, firstRetryMs: 20 });
    await rig.bot.start();
    const detail = await until(
      () => rig.bot.status().detail.includes("could not be reached") && rig.bot.status().detail,
    );
    expect(detail).toMatch(/^Socket Mode: .*trying again\.$/);
    expect(rig.bot.status().ok).toBe(false);

    const back = await fakeSlack(port);
    try {
      await until(() => rig.bot.status().ok);
      expect(back.sockets.open()).toBe(1);
      // One line for the outage, however many attempts it had.
      const lines = rig.log.filter((line) => line.includes("Socket Mode: Slack could not be reached"));
      expect(lines).toHaveLength(1);
    } finally {
      await back.close();
    }
  });

  it("survives a token that was revoked while it was connected, and says what to do", async () => {
    await connect();
    rig.slack.next("apps.connections.open", { body: { ok: false, error: "invalid_auth" } });
    rig.slack.sockets.kill();
    const detail = await until(
      () => rig.bot.status().detail.includes("invalid_auth") && rig.bot.status().detail,
    );
    expect(detail).toContain("SLACK_APP_TOKEN");
    expect(detail).toContain("connections:write");
    expect(rig.bot.status().ok).toBe(false);
  });

  it("waits as long as Slack asks when it opens connections too often", async () => {
    rig.slack.next("apps.connections.open", { status: 429, headers: { "retry-after": "1" } });
    await rig.bot.start();
    await until(() => rig.bot.status().detail.includes("rate limited for 1 s"));
    expect(rig.slack.of("apps.connections.open")).toHaveLength(1);
    await until(() => rig.bot.status().ok);
  });

  it("still counts a refused bot token, and an unconfirmed workspace, as not ok", async () => {
    await rig.stop();
    rig = await slackRig({ ingress, firstRetryMs: 60_000 });
    rig.slack.next("auth.test", { body: { ok: false, error: "invalid_auth" } });
    await rig.bot.start();
    await until(() => rig.bot.status().detail.includes("SLACK_BOT_TOKEN"));
    await until(() => rig.slack.sockets.open() === 1);
    expect(rig.bot.status().ok).toBe(false);
  });

  it("lets what it began be answered when it stops, takes nothing new, and closes the socket", async () => {
    let finish: (answer: Answer) => void = () => {};
    rig.entrance.script.dispatch = () => new Promise<Answer>((resolve) => (finish = resolve));
    await connect();
    const answered = rig.command("U1", "list");
    await until(() => rig.entrance.requests.length === 1);
    const stopped = rig.bot.stop();
    void rig.command("U1", "list");
    finish(started);
    expect(textOf((await answered).body)).toContain("op-2345");
    await stopped;
    expect(rig.entrance.requests).toHaveLength(1);
    await until(() => rig.slack.sockets.open() === 0);
    expect(rig.slack.sockets.made()).toBe(1);
    expect(rig.bot.status().ok).toBe(false);
  });

  it("makes no connection any more when it is stopped while Slack is slow", async () => {
    const release = rig.slack.hold("apps.connections.open");
    await rig.bot.start();
    await until(() => rig.slack.of("apps.connections.open").length === 1);
    const stopped = rig.bot.stop();
    release();
    await stopped;
    await until(() => rig.slack.sockets.open() === 0);
    expect(rig.bot.status()).toEqual({ ok: false, detail: "Socket Mode: stopped." });
  });
});

describe("an envelope that is delivered again", () => {
  let database: Database;
  let world: World;
  beforeEach(async () => {
    database = await testDatabase();
    world = await createWorld({ database });
  });
  afterEach(async () => {
    await world.close();
    await database.close();
  });

  it("makes one operation: before, while and after the first one runs", async () => {
    const { entrance, sam } = world;
    await world.run(sam, "server.provision", {
      name: "web-1",
      plan: "s",
      image: "debian-12",
      customer: "ada",
    });
    await rig.stop();
    rig = await slackRig({
      ingress,
      registry: world.engine.registry,
      entrance: { ...entrance, identify: () => Promise.resolve(sam) },
    });
    await connect();
    // A reboot may be asked for as often as one likes, so only the key can tell that this is the same one.
    const reboot = () => rig.command("U1", "power web-1 action:reboot", { trigger_id: "t.1" });
    const answers = [...(await Promise.all([reboot(), reboot()])), await reboot()];
    const [operation] = await database.sql<{ id: string; publicId: string }>(
      `SELECT id, public_id AS "publicId" FROM operations WHERE action = 'server.power'`,
    );
    expect(await world.settle(operation?.id ?? "")).toMatchObject({ state: "succeeded" });
    answers.push(await reboot());
    for (const { body } of answers) expect(textOf(body)).toContain(operation?.publicId);
    expect(answers.filter(({ body }) => textOf(body).includes("Already asked for"))).toHaveLength(3);
    expect(await database.sql(`SELECT 1 FROM operations WHERE action = 'server.power'`)).toHaveLength(1);

    await rig.command("U1", "power web-1 action:reboot", { trigger_id: "t.2" });
    expect(await database.sql(`SELECT 1 FROM operations WHERE action = 'server.power'`)).toHaveLength(2);
  });
});

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ServiceError } from "../../../src/core/errors.ts";
import { formOf } from "../../../src/core/form-of.ts";
import type { Answer } from "../../../src/core/request.ts";
import { alice } from "../../support/fake-entrance.ts";
import { sampleAction } from "../../support/sample-actions.ts";
import { fakeSlack, signed } from "../../support/slack-api.ts";
import { type Rig, SECRET, slackRig, textOf, until } from "./rig.ts";

let rig: Rig;
beforeEach(async () => {
  rig = await slackRig();
});
afterEach(() => rig.stop());

const started: Answer = {
  kind: "operation",
  operationId: "o1",
  publicId: "op-2345",
  existing: false,
  view: { title: "Resize web-1 to plan m", tone: "progress" },
};

function provisionForm(given: Record<string, string> = {}): Answer {
  return { kind: "form", form: { ...formOf(sampleAction("server.provision"), {}, alice), given } };
}

describe("signed requests", () => {
  it("refuses a wrong, an old and a missing signature, and runs nothing", async () => {
    const body = new URLSearchParams({ command: "/server", text: "list", user_id: "U1" }).toString();
    const wrong = await fetch(rig.url, signed(body, { secret: "other" }));
    const old = await fetch(rig.url, signed(body, { secret: SECRET, skewSeconds: -301 }));
    const missing = await fetch(rig.url, { method: "POST", body });
    expect([wrong.status, old.status, missing.status]).toEqual([401, 401, 401]);
    expect(rig.entrance.requests).toEqual([]);
  });

  it("refuses a timestamp more than a minute ahead, which Bolt would take", async () => {
    const body = new URLSearchParams({ command: "/server", text: "list", user_id: "U1" }).toString();
    expect((await fetch(rig.url, signed(body, { secret: SECRET, skewSeconds: 90 }))).status).toBe(401);
    expect(rig.entrance.requests).toEqual([]);
    rig.entrance.script.dispatch = () => Promise.resolve(started);
    expect((await rig.command("U1", "list")).status).toBe(200);
  });

  it("answers Slack's challenge only when it is signed", async () => {
    const body = JSON.stringify({ type: "url_verification", challenge: "abc" });
    const json = { ...signed(body, { secret: SECRET }) };
    const headers = { ...(json.headers as Record<string, string>), "content-type": "application/json" };
    expect(await (await fetch(rig.url, { ...json, headers })).json()).toEqual({ challenge: "abc" });
    expect(
      (await fetch(rig.url, { method: "POST", body, headers: { "content-type": "application/json" } }))
        .status,
    ).toBe(401);
  });
});

describe("commands", () => {
  it("dispatches what was typed, once per trigger, and answers in the acknowledgement", async () => {
    rig.entrance.script.dispatch = () => Promise.resolve(started);
    const answered = await rig.command("U1", "resize web-1 memory:8G --dry-run", { trigger_id: "t.1" });
    expect(rig.entrance.requests).toEqual([
      {
        action: "server.resize",
        options: { server: "web-1", memory: "8G" },
        principal: alice,
        source: "slack",
        idempotencyKey: "slack:T1:t.1",
        origin: { platform: "slack", workspace: "T1", channel: "C1", userId: "U1" },
        dryRun: true,
      },
    ]);
    expect(answered.body).toMatchObject({ response_type: "ephemeral" });
    expect(textOf(answered.body)).toContain("Resize web-1 to plan m");
    expect(textOf(answered.body)).toContain("op-2345");
    expect(rig.slack.calls).toEqual([]);
  });

  it("sends a customer's card to their direct messages, and staff's when there is no channel for us", async () => {
    rig.entrance.script.dispatch = () => Promise.resolve(started);
    const customer = await rig.command("U3", "power web-1 verb:stop");
    await rig.command("U1", "power web-1 verb:stop", { channel_id: "D9", channel_name: "directmessage" });
    expect(rig.entrance.requests.map(({ origin }) => origin?.channel)).toEqual(["U3", "U1"]);
    expect(textOf(customer.body)).toContain("direct messages");
  });

  it("tells a stranger their id and what to do, and nothing else", async () => {
    const answered = await rig.command("U9", "list");
    expect(answered.body?.["text"]).toMatch(
      /\(U9\) is not linked.*administrator.*support for a code.*: \/link code:…$/,
    );
    expect(rig.entrance.requests).toEqual([]);
  });

  it("hands a stranger's code on, and their other commands not", async () => {
    const sent: unknown[] = [];
    rig.entrance.script.link = (stranger, code) => {
      sent.push([stranger, code]);
      return code === "GOOD"
        ? Promise.resolve({ title: "Linked to Ada.", tone: "success" })
        : Promise.reject(new ServiceError("not_found", "Code is not valid."));
    };
    const good = await rig.command("U9", "code:GOOD", { command: "/link" });
    const bad = await rig.command("U9", "BAD-CODE", { command: "/link" });
    const none = await rig.command("U9", "", { command: "/link" });
    const help = await rig.command("U9", "link", { command: "/help" });
    expect(good.body).toMatchObject({ response_type: "ephemeral" });
    expect(textOf(good.body)).toContain("Linked to Ada.");
    expect(bad.body?.["text"]).toBe("Code is not valid.");
    expect(none.body?.["text"]).toContain("/link code:");
    expect(help.body?.["text"]).toMatch(/\(U9\) is not linked/);
    const stranger = { platform: "slack", userId: "U9" };
    expect(sent).toEqual([
      [stranger, "GOOD"],
      [stranger, "BAD-CODE"],
    ]);
    expect(rig.entrance.requests).toEqual([]);
  });

  it("answers unknown commands and verbs with the nearest one, and help without the entrance", async () => {
    const verb = await rig.command("U1", "resise web-1");
    expect(verb.body?.["text"]).toContain("Did you mean /server resize?");
    const group = await rig.command("U1", "", { command: "/servr" });
    expect(group.body?.["text"]).toContain("/server");
    const help = await rig.command("U1", "resize help");
    expect(textOf(help.body)).toContain("Memory with a unit");
    expect(rig.entrance.requests).toEqual([]);
  });

  it("knows its commands by the prefix", async () => {
    await rig.stop();
    rig = await slackRig({ commandPrefix: "rt-" });
    rig.entrance.script.dispatch = () => Promise.resolve(started);
    await rig.command("U1", "list", { command: "/rt-server" });
    expect(rig.entrance.requests[0]?.action).toBe("server.list");
    const stranger = await rig.command("U9", "list", { command: "/rt-server" });
    expect(stranger.body?.["text"]).toContain("/rt-link code:…");
  });

  it("shows staff the cloud's own words and a customer only the sentence", async () => {
    rig.entrance.script.dispatch = () =>
      Promise.reject(
        new ServiceError("cloud_failed", "The cloud failed.", { staffDetail: "req-123 No valid host" }),
      );
    expect(textOf((await rig.command("U1", "list")).body)).toContain("req-123");
    expect(textOf((await rig.command("U3", "list")).body)).not.toContain("req-123");
  });

  it("hides what an unexpected error says, and logs it", async () => {
    rig.entrance.script.dispatch = () => Promise.reject(new Error("password=hunter2"));
    const answered = await rig.command("U1", "list");
    expect(answered.body?.["text"]).toContain("our side");
    expect(textOf(answered.body)).not.toContain("hunter2");
    expect(rig.log.join("")).toContain("a request failed unexpectedly");
  });

  it("links to the card of an order that exists already", async () => {
    await rig.stop();
    rig = await slackRig({ cardOf: () => Promise.resolve("C7:1700000000.000100") });
    await rig.bot.start();
    await until(() => rig.bot.status().ok);
    rig.entrance.script.dispatch = () => Promise.resolve({ ...started, existing: true });
    const answered = await rig.command("U1", "list");
    expect(textOf(answered.body)).toContain("Already asked for");
    expect(textOf(answered.body)).toContain(
      "<https://acme.slack.com/archives/C7/p1700000000000100|Open its card>",
    );
  });

  it("still says that an order exists when its card cannot be looked up", async () => {
    await rig.stop();
    rig = await slackRig({ cardOf: () => Promise.reject(new Error("database away")) });
    rig.entrance.script.dispatch = () => Promise.resolve({ ...started, existing: true });
    const answered = await rig.command("U1", "list");
    expect(textOf(answered.body)).toContain("Already asked for");
    expect(rig.log.join("")).toContain("a card's address could not be read");
  });

  it("acknowledges in time and answers afterwards when the work takes long", async () => {
    await rig.stop();
    rig = await slackRig({ ackBudgetMs: 20 });
    let finish: (answer: Answer) => void = () => {};
    rig.entrance.script.dispatch = () => new Promise<Answer>((resolve) => (finish = resolve));
    const answered = await rig.command("U1", "list");
    expect(answered).toEqual({ status: 200, body: null });
    finish(started);
    const late = await until(() => rig.slack.responses[0]);
    expect(late).toMatchObject({ response_type: "ephemeral" });
    expect(textOf(late)).toContain("op-2345");
  });

  it("keeps names from pinging, linking or faking lines", async () => {
    rig.entrance.script.dispatch = () =>
      Promise.resolve({
        kind: "view",
        view: {
          title: "<!channel> *web*",
          tone: "neutral",
          text: "by <@U1> & <https://evil.example|ratatosk>",
          fields: [{ label: "Name", value: "a\n✓ paid\u202egnp.exe <!here>" }],
          table: { columns: ["Name"], rows: [["<!everyone>"]], empty: "none" },
          footer: "<!channel>",
        },
      });
    const { body } = await rig.command("U1", "list");
    const blocks = body?.["blocks"] as { type: string }[];
    expect(body?.["text"]).not.toMatch(/<[!@#h]/);
    // Only header and table cells may carry raw characters: they are plain text to Slack.
    const markup = JSON.stringify(blocks.filter(({ type }) => type !== "header" && type !== "table"));
    expect(markup).not.toMatch(/<[!@#h]/);
    expect(markup).toContain("a ✓ paidgnp.exe &lt;!here&gt;");
  });
});

describe("forms", () => {
  async function opened(given: Record<string, string> = {}): Promise<Record<string, unknown>> {
    rig.entrance.script.dispatch = () => Promise.resolve(provisionForm(given));
    const answered = await rig.command("U1", "provision");
    expect(answered).toEqual({ status: 200, body: null });
    const [call] = await until(() => rig.slack.of("views.open").length > 0 && rig.slack.of("views.open"));
    return call?.["view"] as Record<string, unknown>;
  }

  it("opens with the trigger, keeps what was given, and dispatches what was entered", async () => {
    const view = await opened({ labels: "a=1" });
    expect(rig.slack.of("views.open")[0]?.["trigger_id"]).toMatch(/^trigger-/);
    rig.entrance.requests.length = 0;
    rig.entrance.script.dispatch = () => Promise.resolve(started);
    const answered = await rig.submit("U1", view, {
      name: "web-1",
      plan: "m",
      image: "debian",
      customer: "",
    });
    expect(answered).toEqual({ status: 200, body: null });
    expect(rig.entrance.requests[0]).toMatchObject({
      action: "server.provision",
      options: { labels: "a=1", name: "web-1", plan: "m", image: "debian" },
      idempotencyKey: "slack:T1:V1",
      origin: { channel: "C1", userId: "U1" },
      dryRun: false,
    });
    expect(rig.entrance.requests[0]?.options).not.toHaveProperty("customer");
  });

  it("puts errors under their fields, and others on top of the form", async () => {
    const view = await opened();
    rig.entrance.script.dispatch = () =>
      Promise.reject(
        new ServiceError("invalid_input", "Bad name.", {
          facts: { option: "name", errors: { name: "Bad name." } },
        }),
      );
    expect((await rig.submit("U1", view, { name: "1" })).body).toEqual({
      response_action: "errors",
      errors: { name: "Bad name." },
    });
    rig.entrance.script.dispatch = () =>
      Promise.reject(new ServiceError("quota", "You have 5 of 5 servers."));
    const quota = await rig.submit("U1", view, { name: "web-1" });
    expect(quota.body).toMatchObject({ response_action: "push" });
    expect(textOf(quota.body)).toContain("You have 5 of 5 servers.");
    // Slack refuses errors for blocks the form does not have: the modal would show nothing at all.
    rig.entrance.script.dispatch = () =>
      Promise.reject(
        new ServiceError("invalid_input", "Bad labels.", { facts: { errors: { labels: "Bad labels." } } }),
      );
    expect((await rig.submit("U1", view, { name: "web-1" })).body).toMatchObject({ response_action: "push" });
  });

  it("shows a view in place, and that an order was there already", async () => {
    const view = await opened();
    rig.entrance.script.dispatch = () =>
      Promise.resolve({ kind: "view", view: { title: "Plan", tone: "neutral", text: "2 vCPUs" } });
    const shown = await rig.submit("U1", view, { name: "web-1" });
    expect(shown.body).toMatchObject({ response_action: "update" });
    rig.entrance.script.dispatch = () => Promise.resolve({ ...started, existing: true });
    expect(textOf((await rig.submit("U1", view, { name: "web-1" })).body)).toContain("Already asked for");
  });

  it("is told in place afterwards when the work takes long", async () => {
    await rig.stop();
    rig = await slackRig({ ackBudgetMs: 20 });
    const view = await opened();
    let finish: (answer: Answer) => void = () => {};
    rig.entrance.script.dispatch = () => new Promise<Answer>((resolve) => (finish = resolve));
    expect((await rig.submit("U1", view, { name: "web-1" })).body).toMatchObject({
      response_action: "update",
    });
    finish(started);
    const [update] = await until(
      () => rig.slack.of("views.update").length > 0 && rig.slack.of("views.update"),
    );
    expect(update).toMatchObject({ view_id: "V1" });
    expect(textOf(update)).toContain("Accepted");
  });

  it("says so when Slack does not open it", async () => {
    rig.slack.next("views.open", { body: { ok: false, error: "expired_trigger_id" } });
    await opened();
    const said = await until(() => rig.slack.responses[0]);
    expect(said["text"]).toContain("did not open the form");
  });

  it("suggests from the entrance, with the principal and what is known already", async () => {
    const view = await opened();
    const asked: unknown[] = [];
    rig.entrance.script.lookup = (query, principal) => {
      asked.push({ ...query, principal });
      return Promise.resolve([
        { value: "debian-12", label: "Debian 12 <!channel>" },
        { value: "x".repeat(80), label: "too long to be chosen" },
      ]);
    };
    const answered = await rig.suggest("U1", view, "image", "deb");
    expect(answered.body).toEqual({
      options: [
        { text: { type: "plain_text", text: "Debian 12 <!channel>", emoji: false }, value: "debian-12" },
      ],
    });
    expect(asked).toEqual([{ kind: "image", text: "deb", limit: 100, options: {}, principal: alice }]);
    expect((await rig.suggest("U9", view, "image", "deb")).body).toEqual({ options: [] });
    rig.entrance.script.lookup = () => Promise.reject(new Error("database away"));
    expect((await rig.suggest("U1", view, "image", "deb")).body).toEqual({ options: [] });
  });
});

describe("buttons", () => {
  it("presses with the clicker's own principal and answers them alone", async () => {
    rig.entrance.script.press = () =>
      Promise.resolve({ kind: "view", view: { title: "Cancelled", tone: "success" } });
    expect((await rig.button("U3", "act:tok")).status).toBe(200);
    const said = await until(() => rig.slack.responses[0]);
    expect(said).toMatchObject({ response_type: "ephemeral", replace_original: false });
    expect(rig.entrance.presses).toMatchObject([{ token: "tok", principal: { kind: "customer" } }]);
  });

  it("knows neither strangers nor people of another workspace in a shared channel", async () => {
    await rig.button("U9", "act:tok");
    await rig.button("U1", "act:tok", { user: { id: "U1", username: "alice", team_id: "T2" } });
    await until(() => rig.slack.responses.length === 2);
    for (const said of rig.slack.responses) expect(said["text"]).toContain("not linked");
    expect(rig.entrance.presses).toEqual([]);
  });

  it("reveals a secret in a modal and burns it only once that is open", async () => {
    const events: string[] = [];
    rig.entrance.script.reveal = () =>
      Promise.resolve({
        label: "Password of web-1",
        text: "S3cr<e>t&*_x_*",
        burn: async () => void events.push("burn"),
        release: async () => void events.push("release"),
      });
    rig.slack.next("views.open", { cut: "after" });
    await rig.button("U1", "reveal:tok");
    await until(() => events.length === 1);
    expect(events).toEqual(["release"]);
    await until(() => rig.slack.responses.length === 1);

    await rig.button("U1", "reveal:tok");
    await until(() => events.length === 2);
    expect(events).toEqual(["release", "burn"]);
    const view = rig.slack.of("views.open").at(-1)?.["view"];
    expect(textOf(view)).toContain(JSON.stringify("S3cr<e>t&*_x_*"));
    expect(rig.slack.responses).toHaveLength(1);
    expect(rig.log.join("")).not.toContain("S3cr");
  });
});

describe("a shown secret", () => {
  it("is not called a failure when only the burning failed", async () => {
    rig.entrance.script.reveal = () =>
      Promise.resolve({
        label: "Password",
        text: "x",
        burn: () => Promise.reject(new Error("database away")),
        release: () => Promise.resolve(),
      });
    await rig.button("U1", "reveal:tok");
    await until(() => rig.log.join("").includes("could not be burned"));
    expect(rig.slack.responses).toEqual([]);
  });
});

describe("connection", () => {
  it("starts and answers commands while Slack is down, and connects when it is back", async () => {
    const down = await fakeSlack();
    const port = Number(new URL(down.url).port);
    await down.close();
    await rig.stop();
    rig = await slackRig({ apiUrl: down.url, firstRetryMs: 20 });
    await rig.bot.start();
    await until(() => rig.bot.status().detail.includes("could not be reached"));
    expect(rig.bot.status().ok).toBe(false);
    rig.entrance.script.dispatch = () => Promise.resolve(started);
    expect(textOf((await rig.command("U1", "list")).body)).toContain("op-2345");

    const back = await fakeSlack(port);
    await until(() => rig.bot.status().ok);
    await back.close();
  });

  it("says what to do about a token that Slack refuses", async () => {
    rig.slack.next("auth.test", { body: { ok: false, error: "invalid_auth" } });
    await rig.bot.start();
    const detail = await until(
      () => rig.bot.status().detail.includes("invalid_auth") && rig.bot.status().detail,
    );
    expect(detail).toContain("SLACK_BOT_TOKEN");
  });
});

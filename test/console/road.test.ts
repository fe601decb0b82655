/** A server's screen in the browser: from the command to the first pixels, and who does not get there. */
import { once } from "node:events";
import { connect } from "node:net";
import { describe, expect, it } from "vitest";
import { newId } from "../../src/database/id.ts";
import { useStage } from "../support/stage.ts";
import { press, shakeHands, visit, wholeScreen } from "./browser.ts";
import { openScene, type SceneOptions } from "./stage.ts";

const stage = useStage();
const open = async (options?: SceneOptions) => stage.keep(await openScene(stage.database, options));

describe("the road", () => {
  it("a link opens the screen: the page, the token, RFB and its password, pixels, and keys the other way", async () => {
    const at = await open();
    const token = await at.link(at.ada);
    const page = await fetch(`${at.url}/console/${token}`);
    expect(page.status).toBe(200);
    expect(await page.text()).toContain("assets/console.js");

    const browser = await at.visit(token);
    const told = await browser.told();
    expect(told).toMatchObject({ state: "open", server: "web-1" });
    expect(await shakeHands(browser, told?.password ?? "")).toEqual({ status: 0, name: "QEMU (web-1)" });
    const before = await wholeScreen(browser);
    await press(browser, "ls");
    expect(Buffer.compare(before, await wholeScreen(browser))).not.toBe(0);
    expect(at.made()[0]?.guest.typed).toBe("ls");
    await browser.close();
  });

  it("a wrong VNC password shows nothing", async () => {
    const at = await open();
    const { browser } = await at.look(at.sam);
    expect(await shakeHands(browser, "wrong")).toMatchObject({ status: 1 });
    expect(await browser.told()).toMatchObject({ state: "ended" });
  });

  it("a page of another origin gets no connection", async () => {
    const at = await open();
    const token = await at.link(at.ada);
    await expect(visit({ url: at.url, token, origin: "https://evil.example" })).rejects.toThrow(/403/);
  });
});

describe("the link", () => {
  it("fetching the page, as previews do, leaves it good; opening the screen uses it up", async () => {
    const at = await open();
    const token = await at.link(at.ada);
    for (const method of ["GET", "HEAD", "GET"]) {
      const answer = await fetch(`${at.url}/console/${token}`, { method });
      expect(answer.status).toBe(200);
      await answer.arrayBuffer();
    }
    const first = await at.visit(token);
    expect(await first.told()).toMatchObject({ state: "open" });
    const second = await at.visit(token);
    expect(await second.told()).toEqual({
      state: "ended",
      reason: "This link was used or has expired: ask for another with /server console.",
    });
    expect(first.socket.readyState).toBe(first.socket.OPEN);
  });

  it("is for those who may: not for a stranger's server, a viewer, a server that is off", async () => {
    const at = await open();
    await expect(at.link(at.bob)).rejects.toMatchObject({ code: "not_found" });
    const viewer = { kind: "staff", id: "vera", name: "Vera", role: "viewer" } as const;
    await expect(at.link(viewer)).rejects.toMatchObject({ code: "forbidden" });
    await at.database.sql(`UPDATE servers SET state = 'stopped'`);
    await expect(at.link(at.ada)).rejects.toMatchObject({
      code: "wrong_state",
      message: expect.stringMatching(/is stopped, so it cannot be shown now\. It can when it is active/),
    });
  });

  it("a customer with an authenticator app shows a code first, and the link is then their account's", async () => {
    const at = await open();
    await at.database.sql(
      `INSERT INTO customer_factors (customer_id, secret_id, confirmed_at) VALUES ($1, $1, clock())`,
      [at.ada.customerId],
    );
    await at.database.sql(
      `INSERT INTO identities (id, customer_id, platform, user_id, source) VALUES ($1, $2, 'slack', 'UADA', 'code')`,
      [newId(), at.ada.customerId],
    );
    const ask = () =>
      at.entrance.dispatch({
        action: "server.console",
        options: { server: "web-1" },
        principal: { ...at.ada, via: "slack:UADA" },
        source: "slack",
        idempotencyKey: newId(),
        origin: null,
      });
    await expect(ask()).rejects.toMatchObject({ code: "forbidden", facts: { stepUp: "verify" } });
    expect(await at.database.sql(`SELECT FROM console_links`)).toEqual([]);
    await at.database.sql(`UPDATE identities SET verified_at = clock()`);
    expect(await ask()).toMatchObject({ kind: "view" });
    const links = await at.database.sql(`SELECT via, source, principal_id AS who FROM console_links`);
    expect(links).toEqual([{ via: "slack:UADA", source: "slack", who: "ada" }]);
  });

  it("without RATATOSK_PUBLIC_URL the team is told what to set, a customer that the team must", async () => {
    const at = await open({ engine: { address: () => undefined } });
    await expect(at.link(at.sam)).rejects.toMatchObject({
      code: "configuration",
      message: expect.stringContaining("RATATOSK_PUBLIC_URL"),
    });
    await expect(at.link(at.ada)).rejects.toMatchObject({
      code: "configuration",
      message: expect.not.stringContaining("RATATOSK"),
    });
  });

  it("is worth nothing when its holder was unlinked, or the server rebuilt or sold, before it was opened", async () => {
    const at = await open();
    const changes = [
      `UPDATE customers SET closed_at = clock() WHERE ref = 'ada'`,
      `UPDATE servers SET external_id = '100009'`,
      `UPDATE servers SET customer_id = (SELECT id FROM customers WHERE ref = 'bob')`,
    ];
    const tokens = [await at.link(at.ada), await at.link(at.rita), await at.link(at.rita)];
    const asked = at.simulator.state.requests.length;
    for (const [index, change] of changes.entries()) {
      await at.database.sql(change);
      const browser = await at.visit(tokens[index] ?? "");
      expect(await browser.told()).toMatchObject({ state: "ended" });
    }
    expect(at.simulator.state.requests.slice(asked)).toEqual([]);
    const [audit] = await at.database.sql<{ n: number }>(
      `SELECT count(*)::int AS n FROM audit_entries WHERE action = 'server.console' AND data->>'opened' = 'false'`,
    );
    expect(audit?.n).toBe(3);
  });
});

describe("limits", () => {
  it("one person has so many screens and no more, and all together so many", async () => {
    const at = await open({ limits: { screensOfOne: 2, screens: 3 } });
    const first = await at.look(at.ada);
    await at.look(at.ada);
    const third = await at.visit(await at.link(at.ada));
    expect(await third.told()).toMatchObject({
      reason: expect.stringMatching(/You have 2 screens open already/),
    });
    await at.look(at.sam);
    const late = await at.visit(await at.link(at.rita));
    expect(await late.told()).toMatchObject({ reason: expect.stringMatching(/Too many screens/) });
    await first.browser.close();
    await expect.poll(() => at.look(at.ada).then(() => "open", String), { timeout: 10_000 }).toBe("open");
  });

  it("pages that bring no token give way to those that do, the oldest first", async () => {
    const at = await open({ limits: { waiting: 2 } });
    const [first, second] = [await visit({ url: at.url }), await visit({ url: at.url })];
    const { browser } = await at.look(at.ada);
    await first.told();
    expect(first.socket.readyState).not.toBe(first.socket.OPEN);
    await at.pass(10_000);
    expect(await second.told()).toMatchObject({ reason: expect.stringMatching(/not be opened in time/) });
    await browser.close();
  });

  it("who is refused and does not hang up keeps no connection", async () => {
    const at = await open();
    for (const [path, status] of [
      ["/console/socket", 403],
      ["/console/elsewhere", 404],
    ] as const) {
      const { hostname, port } = new URL(at.url);
      const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true });
      socket.on("error", () => undefined);
      socket.write(
        `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\nmore`,
      );
      const [answer] = (await once(socket, "data")) as [Buffer];
      expect(answer.toString()).toContain(`HTTP/1.1 ${status} `);
      // Half-open as we are, only the end of everything there lets us see this: what we send is not taken any more.
      await expect
        .poll(() => {
          socket.write("x");
          return socket.destroyed || socket.errored !== null;
        })
        .toBe(true);
    }
  });

  it("a message that is too long ends the connection", async () => {
    const at = await open();
    const { browser } = await at.look(at.ada);
    browser.send(Buffer.alloc(64 * 1024 + 1));
    expect(await browser.told()).toBeNull();
  });
});

describe("what the pages may do", () => {
  it("an address that cannot be read is answered without a word of ours", async () => {
    const at = await open();
    const answer = await fetch(`${at.url}/console/%E0%A4%A`);
    expect(answer.status).toBe(404);
    expect(await answer.text()).toMatch(/^There is nothing at this address/);
  });

  it("no link leads over a connection that others can read", async () => {
    const at = await open({ engine: { address: () => "http://bot.example.com" } });
    await expect(at.link(at.rita)).rejects.toMatchObject({
      code: "configuration",
      message: expect.stringMatching(/without encryption.*RATATOSK_PUBLIC_URL/),
    });
  });

  it("nothing but their own scripts runs, nothing is kept, and nobody else's page shows them", async () => {
    const at = await open();
    const page = await fetch(`${at.url}/console/${"0".repeat(64)}`);
    const policy = page.headers.get("content-security-policy") ?? "";
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain("script-src 'self';");
    expect(policy).not.toMatch(/unsafe|\*/);
    expect(policy).toContain("frame-ancestors 'none'");
    expect(page.headers.get("cache-control")).toBe("no-store");
    expect(page.headers.get("referrer-policy")).toBe("no-referrer");
    expect(await page.text()).not.toMatch(/<script(?![^>]*\ssrc=)|\sstyle=|\son\w+=/);
  });

  it("every module that they load is there, and nothing else of the packages", async () => {
    const at = await open();
    const seen = new Set<string>();
    const load = async (url: string): Promise<void> => {
      if (seen.has(url)) return;
      seen.add(url);
      const answer = await fetch(url);
      expect(answer.status, url).toBe(200);
      expect(answer.headers.get("content-type"), url).toMatch(/^text\/javascript/);
      const text = await answer.text();
      for (const [, path = ""] of text.matchAll(/^(?:import|export)[^"';]*?from\s*["']([^"']+)["']/gm)) {
        await load(new URL(path, url).href);
      }
    };
    await load(`${at.url}/console/assets/console.js`);
    expect(seen.size).toBeGreaterThan(30);
    for (const path of [
      "assets/novnc/package.json",
      "assets/novnc/core/../package.json",
      "assets/novnc/core/..%2fpackage.json",
      "assets/console.ts",
      "assets/",
      "nonsense",
    ]) {
      expect((await fetch(`${at.url}/console/${path}`)).status, path).toBe(404);
    }
  });

  it("no other path becomes a WebSocket", async () => {
    const at = await open();
    await expect(visit({ url: at.url, path: "/console/elsewhere" })).rejects.toThrow(/404/);
    await expect(visit({ url: at.url, path: "/healthz" })).rejects.toThrow(/200|404/);
  });
});

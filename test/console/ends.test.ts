/** What ends a screen while somebody looks at it, and what they are told. */
import { once } from "node:events";
import { describe, expect, it } from "vitest";
import type { WebSocket } from "ws";
import type { Principal } from "../../src/core/access.ts";
import { newId } from "../../src/database/id.ts";
import { useStage } from "../support/stage.ts";
import { shakeHands } from "./browser.ts";
import { openScene, type Scene, type SceneOptions } from "./stage.ts";

const MINUTE_MS = 60_000;
const stage = useStage();
const open = async (options?: SceneOptions) => stage.keep(await openScene(stage.database, options));

/** Ada, as Slack knows her. */
async function linked(at: Scene): Promise<Principal> {
  await at.database.sql(
    `INSERT INTO identities (id, customer_id, platform, user_id, source) VALUES ($1, $2, 'slack', 'UADA', 'code')`,
    [newId(), at.ada.customerId],
  );
  return { ...at.ada, via: "slack:UADA" };
}

async function unlink(at: Scene): Promise<void> {
  await at.database.sql(`UPDATE identities SET revoked_at = clock()`);
}

/** What the next look finds, after half a minute. */
async function endOf(
  at: Scene,
  who: Principal,
  meanwhile: () => Promise<unknown>,
): Promise<string | undefined> {
  const { browser, password } = await at.look(who);
  expect(await shakeHands(browser, password)).toMatchObject({ status: 0 });
  await at.pass(31_000);
  expect(browser.socket.readyState).toBe(browser.socket.OPEN);
  await meanwhile();
  await at.pass(31_000);
  const told = await browser.told();
  expect(told?.state).toBe("ended");
  expect(await browser.told()).toBeNull();
  return told?.reason;
}

describe("every half minute it is looked whether it may still be seen", () => {
  it("the chat account was unlinked", async () => {
    const at = await open();
    const ada = await linked(at);
    expect(await endOf(at, ada, () => unlink(at))).toMatch(/no longer known here by that account/);
  });

  it("the server was handed to another customer: neither the old one nor staff who asked look on", async () => {
    const at = await open();
    const sell = () => at.database.sql(`UPDATE servers SET customer_id = $1`, [at.bob.customerId]);
    expect(await endOf(at, at.ada, sell)).toMatch(/gone, or no longer yours/);
    expect(
      await endOf(at, at.sam, () =>
        at.database.sql(`UPDATE servers SET customer_id = $1`, [at.ada.customerId]),
      ),
    ).toMatch(/gone, or no longer yours/);
  });

  it("billing suspended it, or it waits for its deletion", async () => {
    const at = await open();
    expect(
      await endOf(at, at.ada, () => at.database.sql(`UPDATE servers SET suspended_at = clock()`)),
    ).toMatch(/suspended by billing/);
    await at.database.sql(`UPDATE servers SET suspended_at = NULL`);
    expect(
      await endOf(at, at.ada, () =>
        at.database.sql(`UPDATE servers SET delete_at = clock() + interval '1 hour'`),
      ),
    ).toMatch(/is going to be deleted/);
  });

  it("the server was rebuilt: what is behind the link is another system by now", async () => {
    const at = await open();
    const rebuild = () => at.database.sql(`UPDATE servers SET external_id = '100007'`);
    expect(await endOf(at, at.sam, rebuild)).toMatch(/has got another system since.*\/server console/);
  });

  it("whether it may be seen cannot be told for two minutes", async () => {
    const at = await open();
    const { browser } = await at.look(at.ada);
    await at.database.sql(`ALTER TABLE servers RENAME TO servers_away`);
    try {
      await at.pass(90_000);
      expect(browser.socket.readyState).toBe(browser.socket.OPEN);
      await at.pass(31_000);
    } finally {
      await at.database.sql(`ALTER TABLE servers_away RENAME TO servers`);
    }
    expect(await browser.told()).toMatchObject({ reason: expect.stringMatching(/could not be checked/) });
  });
});

describe("the server's own end", () => {
  it("switched off or deleted in the cloud, the screen ends with a sentence", async () => {
    const at = await open();
    const { browser, password } = await at.look(at.ada);
    await shakeHands(browser, password);
    at.simulator.changeVm(100_000, { running: false });
    expect(await browser.told()).toMatchObject({
      state: "ended",
      reason: expect.stringMatching(/switched off/),
    });
    await expect(at.link(at.ada)).resolves.toHaveLength(64);
    await at.run(at.rita, "server.delete", { server: "web-1" });
    await expect(at.link(at.ada)).rejects.toMatchObject({ code: "not_found" });
  });
});

describe("time", () => {
  it("fifteen minutes without a key or a click, whatever the screen shows", async () => {
    const at = await open();
    const { browser } = await at.look(at.ada);
    await at.pass(14 * MINUTE_MS);
    browser.say({ active: true });
    await pong(browser.socket);
    await at.pass(14 * MINUTE_MS);
    expect(browser.socket.readyState).toBe(browser.socket.OPEN);
    await at.pass(MINUTE_MS);
    expect(await browser.told()).toMatchObject({ reason: expect.stringMatching(/15 minutes without a key/) });
  });

  it("two hours, however busy", async () => {
    const at = await open();
    const { browser } = await at.look(at.ada);
    for (let passed = 0; passed < 119; passed += 7) {
      await at.pass(7 * MINUTE_MS);
      browser.say({ active: true });
      await pong(browser.socket);
    }
    await at.pass(2 * MINUTE_MS);
    expect(await browser.told()).toMatchObject({ reason: expect.stringMatching(/^Closed after 2 hours/) });
  });

  it("a page that brings no token in ten seconds, and one that brings nonsense", async () => {
    const at = await open();
    const silent = await at.visit("");
    expect(await silent.told()).toMatchObject({
      state: "ended",
      reason: expect.stringMatching(/used or has expired/),
    });
    const { browser } = await at.look(at.ada);
    browser.say({ password: "?" });
    expect(await browser.told()).toMatchObject({ reason: expect.stringMatching(/not understood/) });
  });

  it("a browser that answers no ping is gone", async () => {
    const at = await open();
    const { browser } = await at.look(at.ada);
    browser.socket.pause();
    await at.pass(30_000);
    await at.pass(30_000);
    browser.socket.resume();
    expect(await browser.told()).toBeNull();
  });
});

it("a stop of Ratatosk tells everybody, and lets nobody in any more", async () => {
  const at = await open();
  const { browser } = await at.look(at.ada);
  const token = await at.link(at.sam);
  await at.screens.stop();
  expect(await browser.told()).toMatchObject({ reason: expect.stringMatching(/being restarted/) });
  await expect(at.visit(token)).rejects.toThrow(/503/);
});

/** What was sent before this has been read on the other side, and so has the answer to what it has sent: hence twice. */
async function pong(socket: WebSocket): Promise<void> {
  for (let round = 0; round < 2; round += 1) {
    const answered = once(socket, "pong");
    socket.ping();
    await answered;
  }
}

/** The screen of a VM on PVE: only of the VM that is provably the server, and nothing secret of it anywhere. */
import { once } from "node:events";
import { describe, expect, it } from "vitest";
import { createPveCloud } from "../../../src/clouds/pve/cloud.ts";
import type { Cloud, RemoteConsole } from "../../../src/core/cloud.ts";
import { shakeHands } from "../../console/browser.ts";
import { openScene, type Scene, type SceneOptions } from "../../console/stage.ts";
import { useStage } from "../../support/stage.ts";
import { silent } from "../../support/world.ts";
import { optionsOf } from "./open-simulator.ts";

const stage = useStage();
const open = async (options?: SceneOptions) => stage.keep(await openScene(stage.database, options));

/** What the page is told instead of a screen. */
async function refusalOf(at: Scene): Promise<string | undefined> {
  const browser = await at.visit(await at.link(at.sam));
  const told = await browser.told();
  expect(told?.state).toBe("ended");
  return told?.reason;
}

function tasksOf(at: Scene): (string | undefined)[] {
  return at.simulator.state.tasks.filter(({ type }) => type === "vncproxy").map((task) => task.exitstatus);
}

async function openDirectly(
  at: Scene,
  cloud: Cloud,
  signal = AbortSignal.timeout(20_000),
): Promise<RemoteConsole> {
  const [row] = await at.database.sql<{ data: Record<string, unknown> }>(
    `SELECT provider_data AS data FROM servers`,
  );
  const order = {
    id: "test",
    externalId: "100000",
    serverData: row?.data ?? {},
    database: at.database,
    signal,
  };
  const shown = await cloud.console?.(order);
  if (shown === undefined) throw new Error("PVE has screens");
  return shown;
}

describe("which VM", () => {
  it("another one under the server's number is not shown, and PVE is not asked for its screen", async () => {
    const at = await open();
    at.simulator.removeVm(100_000);
    at.simulator.addStranger({ vmid: 100_000, name: "web-1", running: true });
    expect(await refusalOf(at)).toMatch(/not provably this server/);
    expect(tasksOf(at)).toEqual([]);
    expect(at.logged()).toMatch(/never|marker|SMBIOS/);
  });

  it("one that is gone is told as gone", async () => {
    const at = await open();
    at.simulator.removeVm(100_000);
    expect(await refusalOf(at)).toMatch(/no longer there.*\/server console/);
  });

  it("one on another node is shown through the node that we talk to", async () => {
    const at = await open();
    at.simulator.changeVm(100_000, { node: "n2" });
    const { browser, password } = await at.look(at.ada);
    expect(await shakeHands(browser, password)).toMatchObject({ status: 0 });
  });
});

describe("what PVE says no to", () => {
  it("a VM that is off has no screen", async () => {
    const at = await open();
    at.simulator.changeVm(100_000, { running: false });
    expect(await refusalOf(at)).toMatch(/shows no screen of this server. If it is off, start it/);
    expect(at.logged()).toContain("Timeout while waiting for port");
  });

  it("a credential without VM.Console", async () => {
    const at = await open();
    at.simulator.addFault({
      method: "POST",
      path: "/vncproxy$",
      kind: "status",
      status: 403,
      body: { message: "Permission check failed (/vms/100000, VM.Console)\n", data: null },
    });
    expect(await refusalOf(at)).toMatch(/Our credential may not do this/);
    expect(at.logged()).toContain("VM.Console");
  });

  it("a ticket that it does not take says nothing about our credential", async () => {
    const at = await open();
    const refused = { status: 401, reason: "permission denied - invalid PVEVNC ticket" };
    at.simulator.addFault({ path: "/vncwebsocket", kind: "status", ...refused });
    await refusalOf(at);
    const { browser, password } = await at.look(at.ada);
    expect(await shakeHands(browser, password)).toMatchObject({ status: 0 });
  });
});

describe("PVE is away", () => {
  it("cut, late or behind a gateway, before and at the WebSocket: a sentence, and the next link works", async () => {
    const at = await open();
    for (const path of ["/vncproxy$", "/vncwebsocket"]) {
      at.simulator.addFault({ path, kind: "drop", times: 3 });
      expect(await refusalOf(at), path).toMatch(/connection to the cloud broke|cannot be reached/);
      at.simulator.clearFaults();
      at.simulator.addFault({ path, kind: "status", status: 596, reason: "Connection timed out" });
      expect(await refusalOf(at), path).toMatch(/did not answer in time/);
      at.simulator.clearFaults();
    }
    const { browser, password } = await at.look(at.ada);
    expect(await shakeHands(browser, password)).toMatchObject({ status: 0 });
  });

  it("a page that is closed while PVE is asked lets go of it", async () => {
    const at = await open();
    const asked = Promise.withResolvers<void>();
    at.simulator.addFault({ path: "/vncwebsocket", kind: "hang" });
    at.simulator.onRequest({ path: "/vncwebsocket" }, () => asked.resolve());
    const browser = await at.visit(await at.link(at.sam));
    await asked.promise;
    await browser.close();
    await expect.poll(() => at.logged(), { timeout: 10_000 }).toMatch(/given up|cloud call failed/);
    expect(await at.database.sql(`SELECT FROM events WHERE type = 'server.console.opened'`)).toEqual([]);
  });
});

describe("what is kept of it", () => {
  it("no token, password, ticket or credential in any log, row, event or answer; one event, two audit entries", async () => {
    const at = await open();
    const token = await at.link(at.ada);
    const browser = await at.visit(token);
    const { password = "" } = (await browser.told()) ?? {};
    await shakeHands(browser, password);
    await browser.close();
    await expect.poll(() => at.logged(), { timeout: 10_000 }).toContain("a screen was closed");
    const [ticket = ""] = at.simulator.state.requests.flatMap(({ path }) =>
      path.includes("vncticket=") ? [decodeURIComponent(path.split("vncticket=")[1] ?? "")] : [],
    );
    expect(ticket).toContain("PVEVNC");
    const tables = await at.database.sql<{ name: string }>(
      `SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'`,
    );
    const rows = await Promise.all(
      tables.map(({ name }) => at.database.sql(`SELECT t::text AS row FROM "${name}" t`)),
    );
    const kept = JSON.stringify(rows) + at.logged();
    expect(kept).toContain("server.console.opened");
    for (const secret of [token, password, ticket, at.simulator.tokenSecret]) {
      for (const form of [secret, encodeURIComponent(secret), Buffer.from(secret).toString("base64")]) {
        expect(kept.includes(form), form.slice(0, 6)).toBe(false);
      }
    }
    expect(
      await at.database.sql(
        `SELECT data->>'by' AS by, staff_data->>'person' AS person FROM events WHERE type LIKE '%console%'`,
      ),
    ).toEqual([{ by: "customer", person: "Ada" }]);
    const audit = await at.database.sql(
      `SELECT outcome, data->>'opened' AS opened FROM audit_entries WHERE action = 'server.console' ORDER BY seq`,
    );
    expect(audit).toEqual([
      { outcome: "allowed", opened: null },
      { outcome: "allowed", opened: "true" },
    ]);
  });
});

it("works with a ticket instead of an API token, also one that has run out", async () => {
  const at = await open();
  const { username, password } = at.simulator.root;
  const cloud = createPveCloud(
    { ...optionsOf(at.simulator), credential: { kind: "password", username, password } },
    { log: silent },
  );
  try {
    (await openDirectly(at, cloud)).stream.destroy();
    at.simulator.addFault({
      path: "/vncwebsocket",
      kind: "status",
      status: 401,
      reason: "Authentication failed!",
    });
    // Another ticket of the same user is as good, and the VNC ticket is theirs.
    const { stream } = await openDirectly(at, cloud);
    const [first] = await once(stream, "data");
    expect(String(first)).toContain("RFB 003.008");
    stream.destroy();
  } finally {
    await cloud.close();
  }
});

it("a certificate that is not the configured one gets nothing", async () => {
  const at = await open();
  const cloud = createPveCloud(
    { ...optionsOf(at.simulator), fingerprint: "00".repeat(32) },
    { log: silent, sleep: () => Promise.resolve() },
  );
  try {
    await expect(openDirectly(at, cloud)).rejects.toMatchObject({ code: "unreachable" });
  } finally {
    await cloud.close();
  }
});

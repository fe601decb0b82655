/**
 * The life of a server on the node of the TEST_PVE_ variables (live-variables.ts), as a person lives it: typed in Slack, through
 * the entrance and the engine to PVE, and what the card and the thread say in the end. PVE itself is asked, too, past our client.
 */
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseCommand } from "../../../src/bots/command.ts";
import { createPveCloud } from "../../../src/clouds/pve/cloud.ts";
import { ServiceError } from "../../../src/core/errors.ts";
import { readLines, renderCard } from "../../../src/core/operations/card.ts";
import type { OperationRow } from "../../../src/core/operations/rows.ts";
import { createWorker } from "../../../src/core/operations/worker.ts";
import type { Answer } from "../../../src/core/request.ts";
import type { View } from "../../../src/core/view.ts";
import type { Database } from "../../../src/database/client.ts";
import { testDatabase } from "../../support/database.ts";
import { ed25519Key } from "../../support/ssh-key.ts";
import { type CloudWorld, createCloudWorld, silent } from "../../support/world.ts";
import { type LiveNode, openNode } from "./live-node.ts";
import { isReal, rescueIso } from "./live-variables.ts";

/** The other half is live.test.ts's. */
const RANGE = [990_500, 990_999] as const;
const KEY = ed25519Key("live+test@example.com");
const pace = isReal ? { everyMs: 1_000, limitMs: 600_000 } : { everyMs: 5, limitMs: 15_000 };

let node: LiveNode;
let database: Database;
let world: CloudWorld;
let image: { name: string; diskGib: number };
let bridge: string;

beforeAll(async () => {
  node = await openNode(RANGE);
  database = await testDatabase();
  const { TEST_PVE_URL: url, TEST_PVE_CA: caFile, TEST_PVE_NODE, TEST_PVE_TEMPLATE } = node.variables;
  const { tokenId, tokenSecret } = node;
  const isos = rescueIso === undefined ? {} : { "live-disk": rescueIso };
  const options = { name: "live", url, caFile, vmidRange: RANGE, isos };
  const real = createPveCloud(
    { ...options, credential: { kind: "token", tokenId, tokenSecret } },
    isReal ? { log: silent } : { log: silent, lookEveryMs: 10, sleep: () => Promise.resolve() },
  );
  const [images, networks] = await Promise.all([real.listImages(), real.listNetworks()]);
  const found = images.find(({ externalId }) => externalId === `${TEST_PVE_NODE}/${TEST_PVE_TEMPLATE}`);
  const network = networks[0];
  if (found === undefined || network === undefined)
    throw new Error("there is no such template, or no bridge");
  // As small as the template allows: a node that lends itself to a test may be somebody's.
  image = { name: found.name, diskGib: Math.max(1, found.minDiskGib) };
  bridge = network.externalId;
  world = await createCloudWorld({
    database,
    cloud: isReal ? real : { ...real, watchEveryMs: 0 },
    targets: { s: { network: bridge }, m: { network: bridge } },
  });
}, 60_000);

afterAll(async () => {
  await node?.removeOwn(database);
  await world?.close();
  await node?.close();
  await database?.close();
}, 120_000);

describe("a server's life by the TEST_PVE_ variables", { timeout: isReal ? 900_000 : 20_000 }, () => {
  it("typed in Slack: a full copy and a linked one are built, as small as was asked for", async () => {
    const size = `cpu:1 memory:512M disk:${image.diskGib}G network:${bridge} node:${node.name}`;
    const full = await say(`/server build live-full customer:ada image:${image.name} ${size}`);
    expect(full.card).toMatchObject({ tone: "success", title: expect.stringContaining("live-full") });
    const linked = await say(
      `/server build live-linked customer:ada image:${image.name} ${size} clone:linked`,
    );
    expect(linked.card).toMatchObject({ tone: "success" });
    for (const [name, operation] of [
      ["live-full", full.operation],
      ["live-linked", linked.operation],
    ] as const) {
      const { vmid, addresses } = await server(name);
      expect(await node.config(vmid)).toMatchObject({
        name,
        memory: "512",
        description: expect.stringContaining(`op:${operation.id}.1`),
      });
      expect(addresses).not.toEqual([]);
    }
  });

  it("typed in Slack: a resize grows the disk and counts at once, or waits for the restart that is asked for", async () => {
    const disk = image.diskGib + 1;
    await succeeds(`/server resize live-full memory:1G disk:${disk}G`);
    const { vmid } = await server("live-full");
    expect(await node.config(vmid)).toMatchObject({ memory: "1024" });
    expect(await server("live-full")).toMatchObject({ memoryMib: 1024, diskGib: disk });
    expect(await node.pending(vmid)).toEqual([]);

    await succeeds("/server resize live-full cpu:2 restart:later");
    expect(await node.pending(vmid)).toContain("cores");
    await succeeds("/server restart live-full");
    expect(await node.pending(vmid)).toEqual([]);
    expect(await server("live-full")).toMatchObject({ vcpus: 2, memoryMib: 1024, diskGib: disk });
  });

  it("typed in Slack: a password and keys, and neither card nor thread shows the password", async () => {
    const { card, lines, operation } = await say("/server password live-full");
    expect(card).toMatchObject({ tone: "success" });
    expect(lines.join("\n")).toMatch(/new password/u);
    const password = await passwordOf(operation);
    expect(JSON.stringify([card, lines])).not.toContain(password);
    await succeeds(`/server keys live-full keys:"${KEY}"`);
    const { vmid } = await server("live-full");
    expect(decodeURIComponent((await node.wanted(vmid))["sshkeys"] ?? "")).toContain(KEY);
  });

  it("typed in Slack: every power verb brings the server where it says", async () => {
    const { vmid } = await server("live-full");
    for (const [verb, status] of [
      ["reboot", "running"],
      ["suspend", "stopped"],
      ["resume", "running"],
      ["shutdown", "stopped"],
      ["start", "running"],
      ["reset", "running"],
      ["kill", "stopped"],
      ["start", "running"],
      ["stop", "stopped"],
      ["start", "running"],
    ] as const) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await succeeds(`/server power live-full action:${verb}`);
      // oxlint-disable-next-line no-await-in-loop
      expect(await node.status(vmid), verb).toBe(status);
    }
  });

  it("typed in Slack: snapshots with and without memory are taken, gone back to and deleted", async () => {
    const { vmid } = await server("live-full");
    await succeeds("/snapshot create live-full name:live-disk");
    await succeeds("/snapshot create live-full name:live-memory memory:yes");
    expect(await node.snapshots(vmid)).toEqual(["live-disk", "live-memory"]);
    const { view } = await asked("/snapshot list live-full");
    expect(view.table?.rows.map(([name, , memory]) => [name, memory])).toEqual(
      expect.arrayContaining([
        ["live-disk", "no"],
        ["live-memory", "yes"],
      ]),
    );
    await succeeds("/snapshot rollback live-full snapshot:live-memory");
    expect(await node.status(vmid)).toBe("running");
    await succeeds("/snapshot delete live-full snapshot:live-memory");
    await succeeds("/snapshot rollback live-full snapshot:live-disk");
    await succeeds("/snapshot delete live-full snapshot:live-disk");
    expect(await node.snapshots(vmid)).toEqual([]);
  });

  it("typed in Slack: a rebuild makes a new system that is reached as the old one was", async () => {
    const old = await server("live-full");
    const before = await node.config(old.vmid);
    await succeeds(`/server rebuild live-full image:${image.name}`);
    const now = await server("live-full");
    expect(now.vmid).not.toBe(old.vmid);
    expect(await node.config(now.vmid)).toMatchObject({
      name: "live-full",
      net0: before["net0"],
      memory: before["memory"],
      cores: before["cores"],
    });
    await expect(node.config(old.vmid)).rejects.toThrow(/does not exist/u);
  });

  it.skipIf(rescueIso === undefined)(
    "typed in Slack: a rescue system is started, and the server's own again (skipped without TEST_PVE_ISO)",
    async () => {
      const { vmid } = await server("live-full");
      const before = (await node.config(vmid))["boot"];
      await succeeds(`/server rescue live-full iso:${rescueIso}`);
      expect(Object.values(await node.config(vmid)).join(" ")).toContain(rescueIso);
      await succeeds("/server unrescue live-full");
      expect(await node.config(vmid)).toMatchObject({ boot: before });
      expect(Object.values(await node.config(vmid)).join(" ")).not.toContain(rescueIso);
    },
  );

  it.skipIf(rescueIso === undefined)(
    "typed in Slack: an ISO is booted from after a restart, and taken out (skipped without TEST_PVE_ISO)",
    async () => {
      const { vmid } = await server("live-full");
      const before = (await node.config(vmid))["boot"];
      const { view } = await asked("/iso list live-full");
      expect(view.table?.rows).toEqual([["live-disk", "live"]]);
      await succeeds("/iso mount live-full iso:live-disk boot:yes");
      expect(await node.pending(vmid)).toContain("boot");
      await succeeds("/server restart live-full");
      expect(await node.pending(vmid)).toEqual([]);
      const [first = ""] = (await node.config(vmid))["boot"]?.replace("order=", "").split(";") ?? [];
      expect((await node.config(vmid))[first]).toContain(rescueIso);
      await succeeds("/iso unmount live-full");
      expect((await node.wanted(vmid))["boot"]).toBe(before);
      expect(Object.values(await node.wanted(vmid)).join(" ")).not.toContain(rescueIso);
      await succeeds("/server restart live-full");
      expect(await node.pending(vmid)).toEqual([]);
    },
  );

  it("typed in Slack: a fixed address counts from the restart on, and is released again", async () => {
    const { vmid } = await server("live-full");
    // Of a net for documentation: nobody on the node's own network has it.
    await succeeds("/ip assign live-full ip:198.51.100.10/24");
    expect(await node.config(vmid)).toMatchObject({ ipconfig0: "ip=198.51.100.10/24" });
    expect((await server("live-full")).addresses).not.toContain("198.51.100.10");
    await expect(say("/ip assign live-linked ip:198.51.100.10/24")).rejects.toThrow(/belongs to live-full/u);
    await succeeds("/server restart live-full");
    expect((await server("live-full")).addresses).toContain("198.51.100.10");
    await succeeds("/ip release live-full");
    expect(await node.config(vmid)).toMatchObject({ ipconfig0: "ip=dhcp" });
    await succeeds("/server restart live-full");
  });

  it("typed in Slack: a protected server is not deleted; without protection both are, with all that was theirs", async () => {
    await succeeds("/server protect live-full");
    const { vmid } = await server("live-full");
    expect(await node.config(vmid)).toMatchObject({ protection: "1" });
    await expect(say("/server delete live-full")).rejects.toThrow(ServiceError);
    await succeeds("/server protect live-full on:no");
    const other = await server("live-linked");
    for (const name of ["live-full", "live-linked"]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await succeeds(`/server delete ${name}`);
    }
    for (const gone of [vmid, other.vmid]) {
      // oxlint-disable-next-line no-await-in-loop
      await expect(node.config(gone)).rejects.toThrow(/does not exist/u);
    }
    expect(await node.own(database)).toEqual([]);
  });
});

interface Said {
  operation: OperationRow;
  card: View;
  /** Of the thread. */
  lines: string[];
}

function dispatch(text: string): Promise<Answer> {
  const [, group = "", rest = ""] = /^\/(\S+) (.*)$/u.exec(text) ?? [];
  const { action, options } = parseCommand(group, rest, world.engine.registry, { principal: world.rita });
  return world.entrance.dispatch({
    action,
    options,
    principal: world.rita,
    source: "slack",
    idempotencyKey: `slack:T1:${crypto.randomUUID()}`,
    origin: { platform: "slack", workspace: "T1", channel: "C1", userId: "U1" },
  });
}

async function asked(text: string) {
  const answer = await dispatch(text);
  if (answer.kind !== "view") throw new Error(`${text} was answered ${JSON.stringify(answer)}`);
  return answer;
}

/** Typed, confirmed where that is asked for, and run to its end. */
async function say(text: string): Promise<Said> {
  const answer = await dispatch(text);
  if (answer.kind !== "operation") throw new Error(`${text} was answered ${JSON.stringify(answer)}`);
  const first = await settled(answer.operationId);
  if (first.state === "awaiting_confirmation") await dispatch(`/ops confirm ${answer.publicId}`);
  const operation = await settled(answer.operationId);
  const { view } = await renderCard(database, operation.id, "staff");
  const lines = await readLines(database, operation.id, 0, "staff");
  return { operation, card: view, lines: lines.map((line) => line.text) };
}

async function succeeds(text: string): Promise<void> {
  const { operation, card } = await say(text);
  expect(operation.problem, text).toBeNull();
  expect(card.tone, text).toBe("success");
}

const open = new Set(["queued", "running", "waiting", "compensating"]);

async function settled(operationId: string): Promise<OperationRow> {
  const worker = createWorker(world.engine, { concurrency: 4 });
  const end = performance.now() + pace.limitMs;
  for (;;) {
    // oxlint-disable no-await-in-loop -- a poll of a cloud that moves by itself
    await worker.tick();
    const now = await world.operation(operationId);
    if (!open.has(now.state)) return now;
    if (performance.now() > end) throw new Error(`${now.publicId} is ${now.state} still`);
    await worker.watcher.tick();
    await delay(pace.everyMs);
    // oxlint-enable no-await-in-loop
  }
}

async function server(name: string) {
  const [row] = await database.sql<{
    vmid: number;
    vcpus: number;
    memoryMib: number;
    diskGib: number;
    addresses: string[];
  }>(
    `SELECT external_id::int AS vmid, vcpus, memory_mib AS "memoryMib", disk_gib AS "diskGib", addresses FROM servers
     WHERE name = $1 AND state <> 'deleted'`,
    [name],
  );
  if (row === undefined) throw new Error(`there is no server ${name}`);
  return row;
}

async function passwordOf({ plan }: OperationRow): Promise<string> {
  const { secretId } = plan.details as { secretId?: string };
  if (secretId === undefined) throw new Error("the operation names no secret");
  return world.engine.secrets.read(database, secretId);
}

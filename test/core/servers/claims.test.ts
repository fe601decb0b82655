/** Which server an address belongs to, when several ask at once: on one session, and on a real server with many. */
import { beforeEach, expect, it } from "vitest";
import { claimAddress, requireFreeAddress, settleClaims } from "../../../src/core/servers/claims.ts";
import type { Database } from "../../../src/database/client.ts";
import { newId, newPublicId } from "../../../src/database/id.ts";
import { clean, eachBackend } from "../../support/database.ts";

const ADDRESS = "192.0.2.10";

eachBackend("the claims of addresses", (database) => {
  beforeEach(async () => {
    await clean(database());
    await database().sql(
      `INSERT INTO clouds (id, name, provider) VALUES ($1, 'pve1', 'pve'), ($2, 'pve2', 'pve')`,
      [newId(), newId()],
    );
  });

  it("of many that claim one at the same moment one gets it, whoever that is", async () => {
    const servers = await Promise.all(
      Array.from({ length: 12 }, (_, nth) => addServer(database(), `web-${nth}`)),
    );
    const asked = await Promise.allSettled(
      servers.map((serverId, nth) => claim(database(), { serverId, held: nth % 2 === 0 })),
    );
    expect(asked.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    const refusals = asked.flatMap((one) => (one.status === "rejected" ? [String(one.reason.code)] : []));
    expect(new Set(refusals)).toEqual(new Set(["conflict"]));
    const winner = asked.findIndex(({ status }) => status === "fulfilled");
    expect(await owners(database())).toEqual([`web-${winner}`]);
  });

  it("one whose transaction is undone has claimed nothing", async () => {
    const [first, second] = [await addServer(database(), "web-1"), await addServer(database(), "web-2")];
    const undone = database().transaction(async (tx) => {
      await claimAddress(tx, { cloud: "pve1", address: ADDRESS, serverId: first, held: true });
      throw new Error("something else was refused");
    });
    await expect(undone).rejects.toThrow("something else");
    await claim(database(), { serverId: second, held: true });
    expect(await owners(database())).toEqual(["web-2"]);
  });

  it("an operation's is worth something for as long as that lives, unless it has settled it", async () => {
    const [first, second] = [await addServer(database(), "web-1"), await addServer(database(), "web-2")];
    const operationId = await claim(database(), { serverId: first, held: false });
    await expect(claim(database(), { serverId: second, held: false })).rejects.toMatchObject({
      message: expect.stringMatching(/^192\.0\.2\.10 belongs to web-1/u),
    });
    await endAll(database());
    await requireFreeAddress(database(), { cloud: "pve1", address: ADDRESS, serverId: second });
    await claim(database(), { serverId: second, held: false });
    await endAll(database());
    // The first one again, and this time it comes to its end.
    const again = await claim(database(), { serverId: first, held: false });
    await settleClaims(database(), { operationId: again, kept: ADDRESS, versions: [4] });
    await endAll(database());
    await expect(claim(database(), { serverId: second, held: false })).rejects.toMatchObject({
      code: "conflict",
    });
    // What a late worker of the first operation writes changes nothing.
    await settleClaims(database(), { operationId, kept: ADDRESS, versions: [4] });
    expect(await owners(database())).toEqual(["web-1"]);
  });

  it("settling lets go of what the server had of that version, and of nothing else", async () => {
    const serverId = await addServer(database(), "web-1");
    for (const address of ["2001:db8::10", "192.0.2.9"]) {
      await claim(database(), { serverId, held: true, address });
    }
    const operationId = await claim(database(), { serverId, held: false });
    await settleClaims(database(), { operationId, kept: ADDRESS, versions: [4] });
    const rows = await database().sql(`SELECT address FROM address_claims ORDER BY address`);
    expect(rows).toEqual([{ address: ADDRESS }, { address: "2001:db8::10" }]);
  });

  it("what a server has by the last look is its own, on its cloud, until it is deleted", async () => {
    const first = await addServer(database(), "web-1", [ADDRESS]);
    const second = await addServer(database(), "web-2");
    await expect(claim(database(), { serverId: second, held: true })).rejects.toMatchObject({
      code: "conflict",
    });
    await requireFreeAddress(database(), { cloud: "pve2", address: ADDRESS, serverId: null });
    await requireFreeAddress(database(), { cloud: "pve1", address: ADDRESS, serverId: first });
    await database().sql(`UPDATE servers SET deleted_at = clock() WHERE id = $1`, [first]);
    await claim(database(), { serverId: second, held: true });
    expect(await owners(database())).toEqual(["web-2"]);
  });
});

async function addServer(database: Database, name: string, addresses: string[] = []): Promise<string> {
  const id = newId();
  await database.sql(
    `INSERT INTO servers (id, public_id, cloud_id, external_id, name, state, vcpus, memory_mib, disk_gib, addresses)
     SELECT $1, $2, c.id, $2, $3, 'active', 1, 1024, 10, $4::text[] FROM clouds c WHERE c.name = 'pve1'`,
    [id, newPublicId("srv"), name, addresses],
  );
  return id;
}

/** As an operation that is entered: the claim and the operation in one transaction. */
async function claim(
  database: Database,
  { serverId, held, address = ADDRESS }: { serverId: string; held: boolean; address?: string },
): Promise<string> {
  const operationId = newId();
  await database.transaction(async (tx) => {
    await claimAddress(tx, { cloud: "pve1", address, serverId, held });
    await tx.sql(
      `INSERT INTO operations (id, public_id, action, spec_version, state, input, plan, plan_hash, server_id,
         idempotency_key, request_hash, requester_kind, requester_id, requester_name, source)
       VALUES ($1, $2, 'ip.assign', 1, 'queued', '{}', '{}', '', $3, $2, '', 'staff', 'sam', 'Sam', 'console')`,
      [operationId, newPublicId("op"), serverId],
    );
  });
  return operationId;
}

async function endAll(database: Database): Promise<void> {
  await database.sql(`UPDATE operations SET state = 'failed', finished_at = clock()`);
}

async function owners(database: Database): Promise<string[]> {
  const rows = await database.sql<{ name: string }>(
    `SELECT s.name FROM address_claims a JOIN servers s ON s.id = a.server_id WHERE a.address = $1`,
    [ADDRESS],
  );
  return rows.map(({ name }) => name);
}

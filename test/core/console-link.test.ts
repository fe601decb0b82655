/** The token of a link to a screen: good once, for a minute, and nowhere to be read. */
import { beforeEach, expect, it } from "vitest";
import { dropOldConsoleLinks, makeConsoleLink, takeConsoleLink } from "../../src/core/console/link.ts";
import { isServiceError } from "../../src/core/errors.ts";
import type { Database } from "../../src/database/client.ts";
import { newId } from "../../src/database/id.ts";
import { clean, eachBackend, moveClock } from "../support/database.ts";

eachBackend("a link to a screen", (database) => {
  let serverId = "";

  beforeEach(async () => {
    await moveClock(database(), 0);
    await clean(database());
    serverId = await addServer(database());
  });

  const make = () =>
    database().transaction((tx) =>
      makeConsoleLink(tx, {
        serverId,
        externalId: "100000",
        customerId: null,
        principalKind: "staff",
        principalId: "sam",
        via: null,
        source: "slack",
      }),
    );

  it("of twenty that come with it at once, one gets it", async () => {
    const token = await make();
    const outcomes = await Promise.allSettled(
      Array.from({ length: 20 }, () => takeConsoleLink(database(), token)),
    );
    const taken = outcomes.filter(({ status }) => status === "fulfilled");
    expect(taken).toHaveLength(1);
    expect(taken[0]).toMatchObject({ value: { serverId, principalId: "sam", source: "slack" } });
    const refusals = outcomes.flatMap((one) => (one.status === "rejected" ? [one.reason] : []));
    expect(refusals.every((reason) => isServiceError(reason, "expired"))).toBe(true);
  });

  it("is good for a minute, and says the same when it is too late as when it never was", async () => {
    const [early, late] = [await make(), await make()];
    await moveClock(database(), 59_000);
    await expect(takeConsoleLink(database(), early)).resolves.toMatchObject({ serverId });
    await moveClock(database(), 60_500);
    const told = {
      code: "expired",
      message: "This link was used or has expired: ask for another with /server console.",
    };
    await expect(takeConsoleLink(database(), late)).rejects.toMatchObject(told);
    await expect(takeConsoleLink(database(), "f".repeat(64))).rejects.toMatchObject(told);
    await expect(takeConsoleLink(database(), "' OR true --")).rejects.toMatchObject(told);
  });

  it("is in the database as a hash alone, and not for long", async () => {
    const token = await make();
    const rows = () => database().sql<{ row: string }>(`SELECT t::text AS row FROM console_links t`);
    const [kept] = await rows();
    expect(token).toMatch(/^[0-9a-f]{64}$/);
    expect(kept?.row).not.toContain(token);
    await moveClock(database(), 30 * 60_000);
    expect(await dropOldConsoleLinks(database())).toBe(0);
    await moveClock(database(), 62 * 60_000);
    expect(await dropOldConsoleLinks(database())).toBe(1);
    expect(await rows()).toEqual([]);
  });
});

async function addServer(database: Database): Promise<string> {
  const [cloud, server] = [newId(), newId()];
  await database.sql(`INSERT INTO clouds (id, name, provider) VALUES ($1, 'sim', 'pve')`, [cloud]);
  await database.sql(
    `INSERT INTO servers (id, public_id, cloud_id, external_id, name, state, vcpus, memory_mib, disk_gib)
     VALUES ($1, 'srv-1', $2, '100000', 'web-1', 'active', 1, 1024, 10)`,
    [server, cloud],
  );
  return server;
}

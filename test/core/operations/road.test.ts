import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Database } from "../../../src/database/client.ts";
import { clean, testDatabase } from "../../support/database.ts";
import { createWorld, type World } from "../../support/world.ts";

const order = { name: "web-1", customer: "ada", plan: "s", image: "debian-12" };

describe("the road of an order", () => {
  let database: Database | undefined;
  let world: World;

  beforeEach(async () => {
    database ??= await testDatabase();
    await clean(database);
    world = await createWorld({ database });
  });
  afterEach(() => world.close());
  afterAll(() => database?.close());

  it("provisions, resizes, sets a password, stops, starts and deletes a server", async () => {
    const provisioned = await world.run(world.sam, "server.provision", order);
    expect(provisioned.problem).toBeNull();
    expect(provisioned.state).toBe("succeeded");
    const [row] = await world.database.sql<{ state: string; externalId: string; planCode: string }>(
      `SELECT state, external_id AS "externalId", plan_code AS "planCode" FROM servers`,
    );
    expect(row).toMatchObject({ state: "active", planCode: "s" });
    expect(world.simulator.state.servers.map((server) => server.id)).toEqual([row?.externalId]);

    const resized = await world.run(world.sam, "server.resize", { server: "web-1", plan: "m" });
    expect(resized).toMatchObject({ state: "succeeded", problem: null });
    const password = await world.run(world.sam, "server.password", { server: "web-1" });
    expect(password.state === "succeeded" || password.problem?.code === "unsupported").toBe(true);
    expect(await world.run(world.sam, "server.power", { server: "web-1", action: "stop" })).toMatchObject({
      state: "succeeded",
    });
    expect(await world.run(world.sam, "server.power", { server: "web-1", action: "start" })).toMatchObject({
      state: "succeeded",
    });
    expect(await world.run(world.rita, "server.delete", { server: "web-1" })).toMatchObject({
      state: "succeeded",
    });

    const events = await world.events();
    const sequences = events
      .filter((event) => event.sequence !== null)
      .map((event) => Number(event.sequence));
    expect(sequences.toSorted((a, b) => a - b)).toEqual(sequences.map((_, index) => index + 1));
    expect(events.map((event) => event.type)).toEqual(
      expect.arrayContaining([
        "server.created",
        "server.building",
        "server.active",
        "server.provision.succeeded",
        "server.resize.succeeded",
        "server.deleted",
      ]),
    );
  });

  it("adopts the server of a create whose answer was lost", async () => {
    world.simulator.addFault({ method: "POST", path: "/servers$", kind: "drop_after" });

    const provisioned = await world.run(world.sam, "server.provision", order);

    expect(provisioned).toMatchObject({ state: "succeeded" });
    expect(world.simulator.state.servers).toHaveLength(1);
    expect((await world.lines(provisioned.id)).join("\n")).toContain(
      "answer was lost, but the server is there",
    );
  });

  it("answers an order typed twice with the first one's operation", async () => {
    const [first, second] = await Promise.all([
      world.ask(world.sam, "server.provision", order),
      world.ask(world.sam, "server.provision", { ...order, name: "WEB-1" }),
    ]);

    if (first.kind !== "operation" || second.kind !== "operation") throw new Error("not operations");
    expect(first.operationId).toBe(second.operationId);
    expect([first.existing, second.existing].filter(Boolean)).toHaveLength(1);
  });

  it("ends a failed build honestly and leaves nothing behind", async () => {
    const failed = await world.run(world.sam, "server.provision", { ...order, metadata: "osr_fail=spawn" });

    expect(failed.state).toBe("failed");
    expect(world.simulator.state.servers.filter((server) => server.status !== "DELETED")).toEqual([]);
    expect((await world.lines(failed.id)).join("\n")).toContain("Nothing of it is left in the cloud.");
  });
});

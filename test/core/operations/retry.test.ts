import { afterEach, beforeEach, expect, it } from "vitest";
import type { ServiceError } from "../../../src/core/errors.ts";
import { eachBackend } from "../../support/database.ts";
import { createScene, order, type Scene } from "./scene.ts";

eachBackend("retrying what failed", (database) => {
  let at: Scene;

  beforeEach(async () => {
    at = await createScene({ database: database() });
  });
  afterEach(() => at.close());

  async function operations() {
    return at.database.sql<{
      id: string;
      publicId: string;
      retriesOf: string | null;
      customerId: string;
      input: unknown;
    }>(
      `SELECT id, public_id AS "publicId", retries_of AS "retriesOf", customer_id AS "customerId", input
       FROM operations ORDER BY created_at, id`,
    );
  }

  /** Refused by the cloud before anything was done; it takes our credential again afterwards. */
  async function refused(principal: Scene["sam"], action: string, options: Record<string, string>) {
    const fault = { path: "/compute/", kind: "status", status: 401, times: 0 } as const;
    at.simulator.addFault(fault);
    const answer = await at.ask(principal, action, options);
    if (answer.kind !== "operation") throw new Error("no operation");
    expect(await at.finish("one", answer.operationId)).toMatchObject({
      state: "failed",
      problem: { code: "unauthorized" },
    });
    at.simulator.clearFaults();
    return answer;
  }

  it("is one new operation, whoever presses how often", async () => {
    const first = await refused(at.sam, "server.provision", { ...order, name: "web-1" });
    await Promise.all(
      [at.sam, at.rita, at.sam].map((person) => at.ask(person, "ops.retry", { operation: first.publicId })),
    );

    const [, again, third] = await operations();
    expect(again).toMatchObject({ retriesOf: first.operationId });
    expect(third).toBeUndefined();
    expect(await at.finish("one", again?.id ?? "")).toMatchObject({ state: "succeeded" });
    expect(at.simulator.state.servers).toHaveLength(1);
  });

  it("is not possible for what succeeded or still runs", async () => {
    const done = await at.order("web-1");
    const running = await at.ask(at.sam, "server.power", { server: "web-1", action: "stop" });
    if (running.kind !== "operation") throw new Error("no operation");
    for (const operation of [done.publicId, running.publicId]) {
      await expect(at.ask(at.sam, "ops.retry", { operation })).rejects.toMatchObject({ code: "wrong_state" });
    }
  });

  it("of a customer's order by our team makes the customer's server", async () => {
    const first = await refused(at.ada, "server.provision", { name: "web-1", plan: "s", image: "debian-12" });
    await at.ask(at.sam, "ops.retry", { operation: first.publicId });
    const [before, again] = await operations();
    expect(again).toMatchObject({ retriesOf: first.operationId, customerId: before?.customerId });
    expect(await at.finish("one", again?.id ?? "")).toMatchObject({ state: "succeeded" });
  });

  it("never hits another server that has the name by now", async () => {
    await at.order("web-1");
    const first = await refused(at.sam, "server.resize", { server: "web-1", plan: "m" });
    await at.run(at.rita, "server.delete", { server: "web-1" });
    await at.order("web-1", { customer: "bob" });

    const asked = await at
      .ask(at.sam, "ops.retry", { operation: first.publicId })
      .catch((error: unknown) => error as ServiceError);
    expect(asked).toMatchObject({ code: "not_found" });
    expect((await operations()).filter((row) => row.retriesOf !== null)).toEqual([]);
  });
});

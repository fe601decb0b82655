import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Cloud } from "../../../src/core/cloud.ts";
import type { ServiceError } from "../../../src/core/errors.ts";
import type { Database } from "../../../src/database/client.ts";
import { testDatabase } from "../../support/database.ts";
import type { WorldOptions } from "../../support/world.ts";
import { createScene, nothingLeft, order, type Scene } from "./scene.ts";

describe("cancelling", () => {
  let database: Database | undefined;
  let scene: Scene | undefined;

  beforeAll(async () => {
    database = await testDatabase();
  });
  afterEach(async () => {
    await scene?.close();
    scene = undefined;
  });
  afterAll(() => database?.close());

  async function open(options: Omit<WorldOptions, "database"> = {}): Promise<Scene> {
    if (database === undefined) throw new Error("no database");
    scene = await createScene({ database, ...options });
    return scene;
  }

  async function begin(at: Scene, action: string, options: Record<string, string>) {
    const answer = await at.ask(at.rita, action, options);
    if (answer.kind !== "operation") throw new Error(`${action}: ${JSON.stringify(answer)}`);
    return {
      id: answer.operationId,
      cancel: () => at.ask(at.sam, "ops.cancel", { operation: answer.publicId }),
    };
  }

  const web = { ...order, name: "web-1" };

  it("what waits for a confirmation ends it, and nothing was done", async () => {
    const at = await open();
    await at.order("web-1");
    const { id } = await begin(at, "server.delete", { server: "web-1" });
    await at.ask(at.rita, "ops.cancel", { operation: (await at.operation(id)).publicId });
    expect(await at.operation(id)).toMatchObject({ state: "cancelled" });
    expect(at.live()).toHaveLength(1);
    expect(await at.leftovers()).toEqual(nothingLeft);
  });

  it("what is queued ends it, and its name is free again", async () => {
    const at = await open();
    const { id, cancel } = await begin(at, "server.provision", web);
    await cancel();
    expect(await at.operation(id)).toMatchObject({ state: "cancelled" });
    expect(await at.database.sql(`SELECT 1 FROM secrets`)).toEqual([]);
    expect(await at.run(at.sam, "server.provision", web)).toMatchObject({ state: "succeeded" });
    expect(at.simulator.state.servers).toHaveLength(1);
    expect(await at.leftovers()).toEqual(nothingLeft);
  });

  it("during a create whose answer was lost waits until it can no longer arrive, then removes what it made", async () => {
    const at = await open({ cloud: { settleMs: 60_000 } });
    at.simulator.addFault({ method: "POST", path: "/servers$", kind: "drop_after" });
    const { id, cancel } = await begin(at, "server.provision", web);
    const worker = at.process("one");
    await worker.tick();
    expect((await at.steps(id))[1]).toMatchObject({ state: "intent", inDoubt: true });

    await cancel();
    await worker.tick();
    expect(await at.operation(id)).toMatchObject({ state: "compensating", endState: "cancelled" });
    // 75 s for the call and 60 s to settle.
    await at.later(130_000);
    await worker.tick();
    expect(at.live()).toHaveLength(1);
    await at.later(6_000);

    expect(await at.finish("one", id)).toMatchObject({ state: "cancelled" });
    expect(at.live()).toEqual([]);
    expect(await at.leftovers()).toEqual(nothingLeft);
  });

  it("a build deletes the unfinished server", async () => {
    const at = await open();
    const { id, cancel } = await begin(at, "server.provision", { ...web, metadata: "osr_delay=30" });
    await at.process("one").tick();
    expect(await at.operation(id)).toMatchObject({ state: "waiting" });
    expect(at.live()).toHaveLength(1);
    await cancel();

    expect(await at.finish("one", id)).toMatchObject({ state: "cancelled" });
    expect(at.live()).toEqual([]);
    expect(await at.database.sql(`SELECT state, deleted_at IS NOT NULL AS gone FROM servers`)).toEqual([
      { state: "deleted", gone: true },
    ]);
    expect((await at.events()).map((event) => event.type)).toContain("server.provision.cancelled");
    expect(await at.leftovers()).toEqual(nothingLeft);
  });

  it("while the cloud is being asked is looked at when it has answered, not when the build is over", async () => {
    const asked = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    const slow = (real: Cloud): Partial<Cloud> => ({
      steps: real.steps.map((step) => {
        if (step.name !== "openstack.create") return step;
        return Object.assign(
          { ...step },
          {
            issue: async (...[context]: Parameters<typeof step.issue>) => {
              const issued = await step.issue(context);
              asked.resolve();
              await gate.promise;
              return issued;
            },
          },
        );
      }),
    });
    const at = await open({ cloud: slow });
    const { id, cancel } = await begin(at, "server.provision", { ...web, metadata: "osr_delay=30" });
    const worker = at.process("one");
    const running = worker.tick();
    await asked.promise;
    await cancel();
    gate.resolve();
    await running;
    await worker.tick();

    expect(await at.operation(id)).toMatchObject({ state: "compensating" });
    expect(await at.finish("one", id)).toMatchObject({ state: "cancelled" });
    expect(at.live()).toEqual([]);
  });

  it("past the point of no return is refused with the reason", async () => {
    const at = await open();
    await at.order("web-1", { metadata: "osr_delay=1" });
    const { id, cancel } = await begin(at, "server.resize", { server: "web-1", plan: "m" });
    await at.process("one").tick();
    const refused = await cancel().catch((error: unknown) => error as ServiceError);
    expect(refused).toMatchObject({ code: "wrong_state" });
    expect((refused as ServiceError).message).toMatch(
      /^Too late to cancel op-\w+: The cloud is already moving/,
    );
    expect(await at.finish("one", id)).toMatchObject({ state: "succeeded" });
  });

  it("what is under way and cannot be undone follows it to its end, and says so", async () => {
    const at = await open();
    await at.order("web-1", { metadata: "osr_delay=1" });
    const { id, cancel } = await begin(at, "server.power", { server: "web-1", action: "stop" });
    await at.process("one").tick();
    await cancel();

    expect(await at.finish("one", id)).toMatchObject({ state: "succeeded" });
    expect(await at.lines(id)).toContain("Too late to cancel: it was done already.");
    expect(at.live()[0]).toMatchObject({ status: "SHUTOFF" });
  });

  it("twice, or what has ended, is told so", async () => {
    const at = await open();
    const { id, cancel } = await begin(at, "server.provision", { ...web, metadata: "osr_delay=30" });
    await at.process("one").tick();
    await cancel();
    expect(JSON.stringify(await cancel())).toContain("That was asked for already.");
    await at.finish("one", id);
    expect(await cancel().catch((error: unknown) => error)).toMatchObject({ code: "wrong_state" });
  });
});

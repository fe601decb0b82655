/** A worker that was away longer than its lease: nothing it does afterwards counts, and it asks the cloud for nothing. */
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import type { Cloud } from "../../../src/core/cloud.ts";
import type { CrashPoint } from "../../../src/core/operations/engine.ts";
import type { Database } from "../../../src/database/client.ts";
import { testDatabase } from "../../support/database.ts";
import { createScene, nothingLeft, order, type Scene } from "./scene.ts";

describe("a worker that was suspended", () => {
  let database: Database | undefined;
  let scene: Scene | undefined;

  beforeAll(async () => {
    database = await testDatabase();
  });
  afterEach(async () => {
    vi.restoreAllMocks();
    await scene?.close();
    scene = undefined;
  });
  afterAll(() => database?.close());

  async function everything(at: Scene) {
    return {
      operations: await at.database.sql(`SELECT * FROM operations ORDER BY id`),
      steps: await at.database.sql(`SELECT * FROM operation_steps ORDER BY operation_id, seq`),
      log: await at.database.sql(`SELECT * FROM operation_log ORDER BY operation_id, seq`),
      events: await at.database.sql(`SELECT id FROM events ORDER BY id`),
      servers: await at.database.sql(`SELECT * FROM servers ORDER BY id`),
    };
  }

  it("after its answer came writes nothing any more", async () => {
    if (database === undefined) throw new Error("no database");
    const gate = Promise.withResolvers<void>();
    const answered = Promise.withResolvers<void>();
    const paused = (real: Cloud): Partial<Cloud> => ({
      steps: real.steps.map((step) => {
        if (step.name !== "openstack.create") return step;
        return Object.assign(
          { ...step },
          {
            issue: async (...[context]: Parameters<typeof step.issue>) => {
              const issued = await step.issue(context);
              answered.resolve();
              await gate.promise;
              return issued;
            },
          },
        );
      }),
    });
    scene = await createScene({ database, cloud: paused });
    const at = scene;
    const answer = await at.ask(at.sam, "server.provision", { ...order, name: "web-1" });
    if (answer.kind !== "operation") throw new Error("no operation");

    const zombie = at.process("first").tick();
    await answered.promise;
    await at.later(16_000);
    expect(await at.finish("second", answer.operationId)).toMatchObject({ state: "succeeded" });
    const before = await everything(at);
    gate.resolve();
    await zombie;

    expect(await everything(at)).toEqual(before);
    expect(at.live()).toHaveLength(1);
    expect(await at.leftovers()).toEqual(nothingLeft);
  });

  it("between its intent and its call does not ask when the others may have concluded that it never did", async () => {
    if (database === undefined) throw new Error("no database");
    const real = performance.now.bind(performance);
    let awayMs = 0;
    vi.spyOn(performance, "now").mockImplementation(() => real() + awayMs);
    const reached = vi.fn<(point: CrashPoint) => void>((point) => {
      // The second intent is that of the create.
      if (point === "after_intent" && reached.mock.calls.length === 3) awayMs = 80_000;
    });
    scene = await createScene({ database, engine: { reached } });
    const at = scene;
    const answer = await at.ask(at.sam, "server.provision", { ...order, name: "web-1" });
    if (answer.kind !== "operation") throw new Error("no operation");

    await at.process("first").tick();
    const [, create] = await at.steps(answer.operationId);
    expect(create).toMatchObject({
      name: "openstack.create",
      state: "planned",
      attempt: 1,
      problem: { code: "timeout" },
    });
    expect(at.simulator.state.servers).toEqual([]);

    expect(await at.finish("first", answer.operationId)).toMatchObject({ state: "succeeded" });
    expect(at.simulator.state.servers).toHaveLength(1);
  });

  it("has its call cut off when the time for it is over", async () => {
    if (database === undefined) throw new Error("no database");
    scene = await createScene({
      database,
      cloud: (real) => ({
        steps: real.steps.map((step) =>
          step.name === "openstack.create" ? Object.assign({ ...step }, { callTimeoutMs: 200 }) : step,
        ),
      }),
    });
    const at = scene;
    at.simulator.addFault({ method: "POST", path: "/servers$", kind: "hang" });
    const answer = await at.ask(at.sam, "server.provision", { ...order, name: "web-1" });
    if (answer.kind !== "operation") throw new Error("no operation");

    await at.process("first").tick();
    const [, create] = await at.steps(answer.operationId);

    expect(create).toMatchObject({ state: "intent", inDoubt: true, problem: { code: "unknown_outcome" } });
    expect(await at.finish("first", answer.operationId)).toMatchObject({ state: "succeeded" });
    expect(at.simulator.state.servers).toHaveLength(1);
  });

  it("while it looked takes no early look for a late one", async () => {
    if (database === undefined) throw new Error("no database");
    const looks: string[] = [];
    const slow = (real: Cloud): Partial<Cloud> => ({
      steps: real.steps.map((step) => {
        if (step.name !== "openstack.create") return step;
        return Object.assign(
          { ...step },
          {
            probe: async (...[context]: Parameters<NonNullable<typeof step.probe>>) => {
              const found = await step.probe?.(context);
              looks.push(found?.effect ?? "none");
              if (looks.length > 1) return found;
              // The request arrives after all, and our answer "absent" is as old as can be when it is looked at.
              const { id } = context.operation;
              scene?.simulator.addStranger({
                name: "web-1",
                flavor: "m1.small",
                tags: [`op=${id}`, `op=${id}.1`],
              });
              await scene?.later(10 * 60_000);
              return found;
            },
          },
        );
      }),
    });
    scene = await createScene({ database, cloud: slow });
    const at = scene;
    at.simulator.addFault({ method: "POST", path: "/servers$", kind: "drop" });
    const answer = await at.ask(at.sam, "server.provision", { ...order, name: "web-1" });
    if (answer.kind !== "operation") throw new Error("no operation");

    expect(await at.finish("one", answer.operationId)).toMatchObject({ state: "succeeded" });
    expect(looks).toEqual(["absent", "present"]);
    expect(at.live()).toHaveLength(1);
  });
});

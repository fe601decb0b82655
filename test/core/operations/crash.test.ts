/** A worker dies at each moment that matters, of each operation, and another one takes over. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { OperationRow } from "../../../src/core/operations/rows.ts";
import type { Database } from "../../../src/database/client.ts";
import { testDatabase } from "../../support/database.ts";
import { stride } from "../../support/thorough.ts";
import { createScene, nothingLeft, type Scene } from "./scene.ts";

interface Case {
  action: string;
  options: Record<string, string>;
  /** Of the new server, before the operation. */
  metadata?: string;
  ends: OperationRow["state"];
  /** What Nova has recorded on the server, and no more. */
  recorded: string[];
  gone?: true;
}

const cases: Record<string, Case> = {
  resize: {
    action: "server.resize",
    options: { plan: "m" },
    ends: "succeeded",
    recorded: ["create", "resize", "confirmResize"],
  },
  "a silent failure of a resize": {
    action: "server.resize",
    options: { plan: "m" },
    metadata: "osr_fail=migrate",
    ends: "failed",
    recorded: ["create", "resize"],
  },
  stop: {
    action: "server.power",
    options: { action: "stop" },
    ends: "succeeded",
    recorded: ["create", "stop"],
  },
  reboot: {
    action: "server.power",
    options: { action: "reboot" },
    ends: "succeeded",
    recorded: ["create", "reboot"],
  },
  delete: {
    action: "server.delete",
    options: {},
    ends: "succeeded",
    recorded: ["create", "delete"],
    gone: true,
  },
};

describe("a worker that dies", () => {
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

  async function open(): Promise<Scene> {
    if (database === undefined) throw new Error("no database");
    scene = await createScene({ database });
    return scene;
  }

  /** The first worker goes on until it dies, or until there is nothing left to die of. */
  async function untilDeath(at: Scene, operationId: string): Promise<void> {
    const worker = at.process("first");
    // The watch of the cloud was another process's.
    await at.later(16_000);
    const resting = new Set(["succeeded", "failed", "cancelled", "needs_attention"]);
    await expect
      .poll(
        async () => {
          await worker.tick();
          await worker.watcher.tick();
          return at.died() || resting.has((await at.operation(operationId)).state);
        },
        { interval: 4, timeout: 5_000 },
      )
      .toBe(true);
  }

  async function begin(at: Scene, action: string, options: Record<string, string>): Promise<string> {
    const answer = await at.ask(at.rita, action, options);
    if (answer.kind !== "operation") throw new Error(`${action}: ${JSON.stringify(answer)}`);
    if ((await at.operation(answer.operationId)).state === "awaiting_confirmation") {
      await at.ask(at.rita, "ops.confirm", { operation: answer.publicId });
    }
    return answer.operationId;
  }

  it("while provisioning leaves one server, at whatever moment", { timeout: 60_000 }, async () => {
    const at = await open();
    await at.order("plain");
    const moments = at.trace.length;
    expect(new Set(at.trace)).toEqual(
      new Set(["after_intent", "answer_before_reference", "reference_stored", "waiting", "verifying"]),
    );
    for (let nth = 1; nth <= moments; nth += stride(3)) {
      at.dieAtStep(nth);
      const id = await begin(at, "server.provision", {
        customer: "ada",
        plan: "s",
        image: "debian-12",
        name: `web-${nth}`,
      });
      await untilDeath(at, id);
      expect(at.died()).toBe(true);
      await at.later(16_000);
      expect(await at.finish("second", id)).toMatchObject({ state: "succeeded", problem: null });
      expect(at.live().filter((server) => server.name === `web-${nth}`)).toHaveLength(1);
    }
    expect(at.simulator.state.servers).toHaveLength(Math.ceil(moments / stride(3)) + 1);
    expect(await at.leftovers()).toEqual(nothingLeft);
  });

  it("while undoing a failed build leaves nothing, at whatever moment", { timeout: 60_000 }, async () => {
    const at = await open();
    const failing = { customer: "ada", plan: "s", image: "debian-12", metadata: "osr_fail=spawn" };
    const plain = await begin(at, "server.provision", { ...failing, name: "plain" });
    await at.finish("plain", plain);
    const moments = at.trace.length;
    expect(at.trace).toContain("compensating");
    for (let nth = 1; nth <= moments; nth += stride(3)) {
      at.dieAtStep(nth);
      const id = await begin(at, "server.provision", { ...failing, name: `web-${nth}` });
      await untilDeath(at, id);
      expect(at.died()).toBe(true);
      await at.later(16_000);
      expect(await at.finish("second", id)).toMatchObject({
        state: "failed",
        problem: { code: "cloud_failed" },
      });
      expect(at.live()).toEqual([]);
    }
    expect(at.simulator.state.servers).toHaveLength(Math.ceil(moments / stride(3)) + 1);
    expect(await at.leftovers()).toEqual(nothingLeft);
  });

  it.each(Object.entries(cases))(
    "during %s does it once, at whatever moment",
    { timeout: 60_000 },
    async (_name, what) => {
      const at = await open();
      const metadata = what.metadata === undefined ? {} : { metadata: what.metadata };
      await at.order("plain", metadata);
      at.trace.length = 0;
      await at.finish("plain", await begin(at, what.action, { server: "plain", ...what.options }));
      const moments = at.trace.length;
      expect(moments).toBeGreaterThan(4);
      for (let nth = 1; nth <= moments; nth += stride(3)) {
        const name = `web-${nth}`;
        await at.order(name, metadata);
        const id = await begin(at, what.action, { server: name, ...what.options });
        at.dieAtStep(nth);
        await untilDeath(at, id);
        expect(at.died()).toBe(true);
        await at.later(16_000);
        const ended = await at.finish("second", id);
        expect({ nth, state: ended.state, problem: ended.problem?.code }).toMatchObject({
          nth,
          state: what.ends,
        });
        const server = at.simulator.state.servers.find((row) => row.name === name);
        expect({ nth, recorded: server?.actions.map((row) => row.action) }).toEqual({
          nth,
          recorded: what.recorded,
        });
        expect(server?.deleted).toBe(what.gone === true);
      }
      expect(await at.leftovers()).toEqual(nothingLeft);
    },
  );

  it("while setting a password leaves the one that is handed over in the guest", {
    timeout: 60_000,
  }, async () => {
    const at = await open();
    await at.order("plain");
    at.trace.length = 0;
    await at.finish("plain", await begin(at, "server.password", { server: "plain" }));
    const moments = at.trace.length;
    for (let nth = 1; nth <= moments; nth += stride(3)) {
      at.dieAtStep(nth);
      const id = await begin(at, "server.password", { server: "plain" });
      await untilDeath(at, id);
      expect(at.died()).toBe(true);
      await at.later(16_000);
      expect(await at.finish("second", id)).toMatchObject({ state: "succeeded" });
      const [offered] = await at.database.sql<{ token: string }>(
        `SELECT token FROM capabilities WHERE operation_id = $1 AND action = 'secret.reveal'`,
        [id],
      );
      const shown = await at.entrance.reveal(offered?.token ?? "", at.rita, "console");
      expect(at.simulator.state.servers[0]?.adminPassword).toBe(shown.text);
    }
  });

  it("and whose lease nobody has taken yet is left alone", async () => {
    const at = await open();
    at.dieAtStep(3);
    const id = await begin(at, "server.provision", {
      customer: "ada",
      plan: "s",
      image: "debian-12",
      name: "web-1",
    });
    await untilDeath(at, id);
    const before = await at.operation(id);
    await at.later(14_000);
    await at.process("second").tick();
    expect((await at.operation(id)).fence).toBe(before.fence);
  });

  it("of an operation with a step that the next release does not know leaves it to a person", async () => {
    const at = await open();
    at.dieAtStep(2);
    const id = await begin(at, "server.provision", {
      customer: "ada",
      plan: "s",
      image: "debian-12",
      name: "web-1",
    });
    await untilDeath(at, id);
    await at.database.sql(
      `UPDATE operation_steps SET name = 'openstack.create_v0' WHERE name = 'openstack.create'`,
    );
    await at.later(16_000);
    const ended = await at.finish("second", id);
    expect(ended).toMatchObject({ state: "needs_attention", problem: { code: "internal" } });
    expect(ended.problem?.message).toContain("openstack.create_v0");
    expect(at.live()).toEqual([]);
  });
});

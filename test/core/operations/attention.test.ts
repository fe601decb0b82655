/** The honest "unknown", and what people do about it. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { OperationRow } from "../../../src/core/operations/rows.ts";
import type { Database } from "../../../src/database/client.ts";
import { testDatabase } from "../../support/database.ts";
import { createScene, nothingLeft, order, type Scene } from "./scene.ts";

const minuteMs = 60_000;
const gatewayAway = {
  kind: "status",
  status: 503,
  headers: { "Retry-After": "1" },
  body: "<html>away</html>",
  times: 0,
} as const;

describe("an operation that needs attention", () => {
  let database: Database | undefined;
  let at: Scene;

  beforeAll(async () => {
    database = await testDatabase();
  });
  afterEach(() => at.close());
  afterAll(() => database?.close());

  async function open(): Promise<void> {
    if (database === undefined) throw new Error("no database");
    at = await createScene({ database });
  }

  async function begin(
    action: string,
    options: Record<string, string>,
  ): Promise<{ id: string; publicId: string }> {
    const answer = await at.ask(at.rita, action, options);
    if (answer.kind !== "operation") throw new Error(`${action}: ${JSON.stringify(answer)}`);
    return { id: answer.operationId, publicId: answer.publicId };
  }

  /** The create never arrived, and the cloud's lists are away until its time is over. */
  async function lostCreate(): Promise<{ id: string; publicId: string }> {
    await open();
    at.simulator.addFault({ method: "POST", path: "/servers$", kind: "drop" });
    at.simulator.addFault({ method: "GET", path: "/servers/detail", kind: "status", status: 500, times: 0 });
    const begun = await begin("server.provision", { ...order, name: "web-1" });
    const worker = at.process("one");
    await worker.tick();
    await at.later(40 * minuteMs);
    await worker.tick();
    expect(await at.operation(begun.id)).toMatchObject({
      state: "needs_attention",
      problem: { code: "unknown_outcome" },
    });
    at.simulator.clearFaults();
    return begun;
  }

  /** The answer of the resize was lost, and the cloud's record of it is away until its time is over. */
  async function lostResize(): Promise<{ id: string; publicId: string }> {
    await open();
    await at.order("web-1");
    const begun = await begin("server.resize", { server: "web-1", plan: "m" });
    at.simulator.addFault({ method: "POST", path: "/action$", kind: "drop_after" });
    at.simulator.addFault({
      method: "GET",
      path: "/os-instance-actions",
      kind: "status",
      status: 500,
      times: 0,
    });
    const worker = at.process("one");
    await worker.tick();
    await at.later(3 * 60 * minuteMs);
    await worker.tick();
    expect(await at.operation(begun.id)).toMatchObject({
      state: "needs_attention",
      problem: { code: "unknown_outcome" },
    });
    return begun;
  }

  async function lastLines(id: string): Promise<string> {
    return (await at.lines(id)).slice(-4).join("\n");
  }

  it("is what a passed deadline leads to, never a guessed failure; no watch and no place is kept", async () => {
    await open();
    const { id } = await begin("server.provision", { ...order, name: "web-1", metadata: "osr_delay=30" });
    const worker = at.process("one");
    await worker.tick();
    await at.later(29 * minuteMs);
    await worker.tick();
    expect(await at.operation(id)).toMatchObject({ state: "waiting" });
    await at.later(2 * minuteMs);
    await worker.tick();

    expect(await at.operation(id)).toMatchObject({
      state: "needs_attention",
      problem: { code: "unknown_outcome" },
    });
    expect(at.live()).toHaveLength(1);
    expect(await at.database.sql(`SELECT 1 FROM slots WHERE operation_id IS NOT NULL`)).toEqual([]);
    expect(await at.database.sql(`SELECT 1 FROM waits WHERE resolved_at IS NULL`)).toEqual([]);
    expect((await at.events()).map((event) => event.type)).toContain("operation.needs_attention");
  });

  it("goes on where it was when somebody retries, looking first", async () => {
    const { id, publicId } = await lostCreate();
    await at.ask(at.rita, "ops.retry", { operation: publicId });
    expect(await at.finish("two", id)).toMatchObject({ state: "succeeded", problem: null });
    expect(at.simulator.state.servers).toHaveLength(1);
    expect(await at.leftovers()).toEqual(nothingLeft);
  });

  it("finds the server when the retry looks and the create had arrived", async () => {
    await open();
    at.simulator.addFault({ method: "POST", path: "/servers$", kind: "drop_after" });
    at.simulator.addFault({ method: "GET", path: "/servers/detail", kind: "status", status: 500, times: 0 });
    const { id, publicId } = await begin("server.provision", { ...order, name: "web-1" });
    await at.process("one").tick();
    await at.later(40 * minuteMs);
    await at.process("one").tick();
    at.simulator.clearFaults();
    await at.ask(at.rita, "ops.retry", { operation: publicId });
    expect(await at.finish("two", id)).toMatchObject({ state: "succeeded" });
    expect(at.simulator.state.servers).toHaveLength(1);
  });

  it("takes the server that a person names", async () => {
    const { id, publicId } = await lostCreate();
    const made = at.simulator.addStranger({ name: "web-1", flavor: "m1.small" });
    await at.ask(at.rita, "ops.adopt", { operation: publicId, id: made.id });
    expect(await at.finish("two", id)).toMatchObject({ state: "succeeded" });
    expect(await at.database.sql(`SELECT external_id AS id, state FROM servers`)).toEqual([
      { id: made.id, state: "active" },
    ]);
    expect(at.simulator.state.servers).toHaveLength(1);
  });

  it("takes no server that is another row's, and none without a name for it", async () => {
    const { publicId } = await lostCreate();
    await at.order("web-2");
    const taken = at.live()[0]?.id ?? "";
    const codes = await Promise.all(
      [{ operation: publicId, id: taken }, { operation: publicId }].map((options) =>
        at.ask(at.rita, "ops.adopt", options).then(
          () => "done",
          (error: { code?: string }) => error.code,
        ),
      ),
    );
    expect(codes).toEqual(["conflict", "invalid_input"]);
  });

  it("ends as failed when somebody gives it up, and staff read what may be left", async () => {
    const { id, publicId } = await lostCreate();
    await at.ask(at.rita, "ops.abandon", { operation: publicId });
    expect(await at.operation(id)).toMatchObject({ state: "failed", problem: { code: "unknown_outcome" } });
    expect(await lastLines(id)).toContain(`marked op=${id}`);
    expect(await lastLines(id)).not.toContain("Nothing of it is left");
    expect(await at.leftovers()).toEqual(nothingLeft);
  });

  it("is what a clean-up leads to that does not work, and a retry finishes it", async () => {
    await open();
    at.simulator.addFault({ ...gatewayAway, method: "DELETE", path: "/servers/" });
    const { id, publicId } = await begin("server.provision", {
      ...order,
      name: "web-1",
      metadata: "osr_fail=spawn",
    });
    const stuck = await at.finish("one", id);
    expect(stuck).toMatchObject({
      state: "needs_attention",
      endState: "failed",
      problem: { code: "unreachable" },
    });
    expect(at.live()).toHaveLength(1);

    at.simulator.clearFaults();
    await at.ask(at.rita, "ops.retry", { operation: publicId });
    const ended: OperationRow = await at.finish("two", id);
    expect(ended.state).toBe("failed");
    expect(at.live()).toEqual([]);
    expect(await at.leftovers()).toEqual(nothingLeft);
  });

  it("gives way to a deletion", async () => {
    const { id } = await lostResize();
    at.simulator.clearFaults();
    await expect.poll(() => at.live()[0]?.status, { interval: 5, timeout: 5_000 }).toBe("VERIFY_RESIZE");
    const deletion = await begin("server.delete", { server: "web-1" });
    await at.ask(at.rita, "ops.confirm", { operation: deletion.publicId });
    expect(await at.operation(id)).toMatchObject({ state: "failed", problem: { code: "cancelled" } });
    expect(await at.finish("two", deletion.id)).toMatchObject({ state: "succeeded" });
    expect(at.live()).toEqual([]);
    expect(await at.leftovers()).toEqual(nothingLeft);
  });

  it("does not give way to a deletion while nobody knows what there is to delete", async () => {
    const { id } = await lostCreate();
    const deletion = await begin("server.delete", { server: "web-1" }).catch((error: unknown) => error);
    expect(deletion).toMatchObject({ code: "busy" });
    expect(await at.operation(id)).toMatchObject({ state: "needs_attention" });
  });

  it("is where a lost stop leads to while the cloud stays away, not a failure: it may have been done", async () => {
    await open();
    await at.order("web-1");
    const { id, publicId } = await begin("server.power", { server: "web-1", action: "stop" });
    at.simulator.addFault({ method: "POST", path: "/action$", kind: "drop_after" });
    await at.process("one").tick();
    expect((await at.steps(id))[1]).toMatchObject({ state: "intent", inDoubt: true });
    at.simulator.addFault({ ...gatewayAway, path: "/compute/" });
    // Longer than the patience with a call that did nothing: until the step's own deadline.
    for (let minute = 0; minute < 6; minute += 1) {
      await at.later(60_000);
      await at.process("one").tick();
    }
    expect((await at.operation(id)).state).toBe("waiting");

    const stuck = await at.finish("one", id);
    expect(stuck).toMatchObject({ state: "needs_attention", problem: { code: "unknown_outcome" } });
    at.simulator.clearFaults();
    await at.ask(at.rita, "ops.retry", { operation: publicId });
    expect(await at.finish("two", id)).toMatchObject({ state: "succeeded" });
  });
});

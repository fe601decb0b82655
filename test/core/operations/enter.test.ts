import { afterEach, beforeEach, expect, it } from "vitest";
import type { Principal } from "../../../src/core/access.ts";
import { ServiceError } from "../../../src/core/errors.ts";
import type { Answer } from "../../../src/core/request.ts";
import { eachBackend } from "../../support/database.ts";
import { createScene, order, type Scene } from "./scene.ts";

eachBackend("entering", (database) => {
  let at: Scene;

  beforeEach(async () => {
    at = await createScene({ database: database() });
  });
  afterEach(() => at.close());

  const web = { ...order, name: "web-1" };

  function idOf(answer: Answer): string {
    if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
    return answer.operationId;
  }

  async function codeOf(asked: Promise<unknown>): Promise<string> {
    return asked.then(
      () => "done",
      (error: unknown) => (error instanceof ServiceError ? error.code : String(error)),
    );
  }

  it("answers the same key with the same operation, and refuses it for another request", async () => {
    const first = await at.ask(at.sam, "server.provision", web, "key-1");
    const again = await at.ask(at.sam, "server.provision", web, "key-1");
    expect(again).toMatchObject({ operationId: idOf(first), existing: true });
    expect(await codeOf(at.ask(at.sam, "server.provision", { ...web, plan: "m" }, "key-1"))).toBe(
      "idempotency_mismatch",
    );
    expect(await codeOf(at.ask(at.rita, "server.provision", web, "key-1"))).toBe("idempotency_mismatch");
    expect(await at.database.sql(`SELECT 1 FROM operations`)).toHaveLength(1);
  });

  it.each([
    ["twenty people", (n: number) => `key-${n}`],
    ["one impatient client", () => "the same key"],
  ])("makes one operation and one server of the same order from %s at once", async (_who, key) => {
    const asked = Array.from({ length: 20 }, (_, n) => at.ask(at.sam, "server.provision", web, key(n)));
    const ids = (await Promise.all(asked)).map(idOf);
    expect(new Set(ids).size).toBe(1);
    expect(await at.finish("one", ids[0] ?? "")).toMatchObject({ state: "succeeded" });
    expect(at.simulator.state.servers).toHaveLength(1);
    expect(await at.database.sql(`SELECT 1 FROM servers`)).toHaveLength(1);
    expect(await at.database.sql(`SELECT 1 FROM secrets`)).toHaveLength(1);
  });

  it("lets one of two operations on a server in, and tells the other who holds it, since when, at which step", async () => {
    await at.order("web-1");
    const asked = await Promise.allSettled([
      at.ask(at.sam, "server.resize", { server: "web-1", plan: "m" }),
      at.ask(at.rita, "server.power", { server: "web-1", action: "stop" }),
    ]);
    const refused = asked
      .filter((result) => result.status === "rejected")
      .map((result) => result.reason as ServiceError);
    expect(refused).toHaveLength(1);
    expect(refused[0]?.code).toBe("busy");
    expect(refused[0]?.message).toMatch(
      /^op-\w+ \(server\.(resize|power), queued\) holds it since \d\d:\d\d UTC for (Sam|Rita), step 1 of \d: Check the server\./,
    );
  });

  it("refuses to delete a server that is still being made", async () => {
    const id = idOf(await at.ask(at.sam, "server.provision", { ...web, metadata: "osr_delay=20" }));
    const early = await at
      .ask(at.rita, "server.delete", { server: "web-1" })
      .catch((error: unknown) => error as ServiceError);
    expect(early).toMatchObject({ code: "busy" });
    await at.process("one").tick();
    expect(await codeOf(at.ask(at.rita, "server.delete", { server: "web-1" }))).toBe("busy");
    expect(await at.operation(id)).toMatchObject({ state: "waiting" });
  });

  async function askDelete(): Promise<{ id: string; publicId: string }> {
    await at.order("web-1");
    const answer = await at.ask(at.rita, "server.delete", { server: "web-1" });
    if (answer.kind !== "operation") throw new Error("no operation");
    expect(await at.operation(answer.operationId)).toMatchObject({ state: "awaiting_confirmation" });
    return { id: answer.operationId, publicId: answer.publicId };
  }

  const otto: Principal = { kind: "staff", id: "otto", name: "Otto", role: "admin" };

  it("has one effect when two people confirm at once", async () => {
    const { id, publicId } = await askDelete();
    const codes = await Promise.all(
      [at.rita, otto].map((person) => codeOf(at.ask(person, "ops.confirm", { operation: publicId }))),
    );
    expect(codes.toSorted()).toEqual(["done", "wrong_state"]);
    expect(await at.finish("one", id)).toMatchObject({ state: "succeeded" });
    const winner = codes[0] === "done" ? "Rita" : "Otto";
    expect(await at.operation(id)).toMatchObject({ confirmedBy: winner });
    const lines = (await at.lines(id)).join("\n");
    expect(lines).toContain(`Confirmed by ${winner}.`);
    expect(lines).not.toContain(`Confirmed by ${winner === "Rita" ? "Otto" : "Rita"}.`);
  });

  it("has one effect when two people press the button at once, and names who was first", async () => {
    const { id } = await askDelete();
    const [button] = await at.database.sql<{ token: string }>(
      `SELECT token FROM capabilities WHERE operation_id = $1 AND action = 'ops.confirm'`,
      [id],
    );
    const pressed = await Promise.allSettled(
      [at.rita, otto].map((person) => at.entrance.press(button?.token ?? "", person, "console")),
    );
    const refused = pressed
      .filter((result) => result.status === "rejected")
      .map((result) => result.reason as ServiceError);
    expect(refused).toHaveLength(1);
    expect(refused[0]?.code).toBe("conflict");
    const first = pressed[0]?.status === "fulfilled" ? "Rita" : "Otto";
    expect(refused[0]?.message).toContain(`${first} was first`);
    expect(await at.operation(id)).toMatchObject({ confirmedBy: first });
  });

  it("expires when what was asked for is not what would be done now", async () => {
    const { id, publicId } = await askDelete();
    await at.database.sql(`UPDATE servers SET name = 'web-9'`);
    await at.ask(at.rita, "ops.confirm", { operation: publicId }).catch(() => undefined);
    expect(await at.operation(id)).toMatchObject({ state: "expired", problem: { code: "drifted" } });
    expect(at.live()).toHaveLength(1);
  });

  it("expires rather than hit another server that has got the name meanwhile", async () => {
    const { id, publicId } = await askDelete();
    await at.database.sql(`UPDATE servers SET name = 'old-1'`);
    await at.run(at.sam, "server.provision", { ...web, customer: "bob" });
    await at.ask(at.rita, "ops.confirm", { operation: publicId });
    expect(await at.operation(id)).toMatchObject({ state: "expired" });
    expect(at.live()).toHaveLength(2);
  });

  it("expires when nobody confirms in time", async () => {
    const { id, publicId } = await askDelete();
    await at.later(29 * 60_000);
    await at.process("one").tick();
    expect(await at.operation(id)).toMatchObject({ state: "awaiting_confirmation" });
    await at.later(2 * 60_000);
    await Promise.all([at.process("one").tick(), at.process("two").tick()]);
    expect(await at.operation(id)).toMatchObject({ state: "expired", problem: { code: "expired" } });
    expect(await codeOf(at.ask(at.rita, "ops.confirm", { operation: publicId }))).toBe("wrong_state");
    const ends = (await at.events()).filter((event) => event.type === "server.delete.expired");
    expect(ends).toHaveLength(1);
  });
});

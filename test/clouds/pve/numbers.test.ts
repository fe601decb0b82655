/** VMIDs come from a range that ends: which of them somebody else may get, and which never again. */
import { afterEach, expect, it } from "vitest";
import { spoil } from "../../../src/clouds/pve/reservation.ts";
import type { OperationState } from "../../../src/core/operations/state.ts";
import type { StepDefinition } from "../../../src/core/operations/step.ts";
import type { Database } from "../../../src/database/client.ts";
import { newId, newPublicId } from "../../../src/database/id.ts";
import { clean, eachBackend } from "../../support/database.ts";
import { contextOf } from "../run-step.ts";
import { type Opened, openSimulator } from "./open-simulator.ts";
import { BUILD, createPveWorld, type PveWorld } from "./world.ts";

const FROM = 100_000;
const rangeOf = (count: number) => [FROM, FROM + count - 1] as const;

interface Past {
  /** Of the operation. */
  state: OperationState;
  /** Of its step that makes the VM: how often its intent was recorded; null: it has none. */
  attempt: number | null;
  spoilt?: boolean;
}

eachBackend("numbers", (database) => {
  let opened: Opened | undefined;
  let world: PveWorld | undefined;
  afterEach(async () => {
    await opened?.close();
    await world?.close();
    opened = undefined;
    world = undefined;
  });

  async function open(count: number): Promise<Opened> {
    await clean(database());
    opened = await openSimulator({}, { vmidRange: rangeOf(count) }, database());
    return opened;
  }

  async function openWorld(count: number): Promise<PveWorld> {
    await clean(database());
    world = await createPveWorld({ database: database(), client: { vmidRange: rangeOf(count) } });
    return world;
  }

  /** The number that this operation reserves now. */
  async function reserve({ cloud }: Opened, operationId: string): Promise<unknown> {
    const step = reserveStepOf(cloud.steps);
    const context = contextOf(
      cloud,
      { name: step.name, label: "", input: {} },
      { operationId, database: database() },
    );
    const issued = await step.issue(context);
    return issued.kind === "done" ? issued.output?.["vmid"] : issued;
  }

  async function numbers(): Promise<{ vmid: number; operationId: string }[]> {
    return database().sql(`SELECT vmid, operation_id AS "operationId" FROM vmid_reservations ORDER BY vmid`);
  }

  it("a number whose order was cancelled before anything was asked for is the next one's: nobody uses up the range so", async () => {
    const { ask, settle, sam, made, cloud } = await openWorld(5);
    const step = reserveStepOf(cloud.steps);
    const { issue } = step;
    let cancels: (() => Promise<unknown>) | null = null;
    Object.assign(step, {
      async issue(...parameters: Parameters<typeof issue>) {
        const issued = await issue(...parameters);
        await cancels?.();
        return issued;
      },
    });
    const build = async (options: Record<string, string>) => {
      const answer = await ask(sam, "server.build", { ...BUILD, ...options });
      if (answer.kind !== "operation") throw new Error("no operation");
      const operation = answer.publicId;
      return { operation, end: () => settle(answer.operationId) };
    };
    for (let n = 1; n <= 6; n += 1) {
      const { operation, end } = await build({ name: `web-${n}` });
      cancels = () => ask(sam, "ops.cancel", { operation });
      expect(await end()).toMatchObject({ state: "cancelled" });
    }
    cancels = null;
    expect(await numbers()).toHaveLength(5);
    const bobs = await build({ name: "shop", customer: "bob" });
    expect(await bobs.end()).toMatchObject({ state: "succeeded", problem: null });
    expect(made()).toHaveLength(1);
  });

  it("a number that a clone was asked for under is never given again, whatever became of the clone", async () => {
    const { run, sam, simulator, made } = await openWorld(1);
    simulator.addTaskFault({ task: "qmclone", outcome: "fail", message: "no space left on device" });
    expect(await run(sam, "server.build", BUILD)).toMatchObject({ state: "failed" });
    const before = await numbers();
    expect(await run(sam, "server.build", { ...BUILD, name: "web-2" })).toMatchObject({
      state: "failed",
      problem: { code: "capacity" },
    });
    expect(await numbers()).toEqual(before);
    expect(made()).toEqual([]);
  });

  const free: Past[] = [
    { state: "failed", attempt: 0 },
    { state: "cancelled", attempt: 0 },
  ];
  const kept: Past[] = [
    { state: "failed", attempt: 1 },
    { state: "cancelled", attempt: 1 },
    { state: "cancelled", attempt: 0, spoilt: true },
    { state: "cancelled", attempt: null },
    { state: "succeeded", attempt: 1 },
    ...(["queued", "running", "waiting", "compensating", "needs_attention"] as const).map((state) => ({
      state,
      attempt: 0,
    })),
  ];

  it("which numbers are free again: those of ended operations that never came to ask for a clone, and no others", async () => {
    const all = [...kept, ...free];
    const at = await open(all.length);
    for (const [index, past] of all.entries()) await remember(database(), FROM + index, past);
    const before = await numbers();
    const got = [await reserve(at, newId()), await reserve(at, newId())];
    expect(got).toEqual([FROM + kept.length, FROM + kept.length + 1]);
    await expect(reserve(at, newId())).rejects.toMatchObject({ code: "capacity" });
    expect((await numbers()).slice(0, kept.length)).toEqual(before.slice(0, kept.length));
    // Its age is the new one's: whatever a backup of this number is of, it is not of who had it before.
    const old = await database().sql(
      `SELECT vmid FROM vmid_reservations WHERE vmid >= $1 AND created_at <= clock() - interval '1 hour'`,
      [FROM + kept.length],
    );
    expect(old).toEqual([]);
  });

  it("fresh numbers come first, and one that a stranger uses meanwhile is left to them", async () => {
    const at = await open(3);
    await remember(database(), FROM, { state: "cancelled", attempt: 0 });
    await remember(database(), FROM + 1, { state: "cancelled", attempt: 0 });
    expect(await reserve(at, newId())).toBe(FROM + 2);
    at.simulator.addStranger({ vmid: FROM });
    expect(await reserve(at, newId())).toBe(FROM + 1);
    await expect(reserve(at, newId())).rejects.toMatchObject({ code: "capacity" });
  });

  it("many at once get each number once, and who comes too late is told that there is none", async () => {
    const at = await open(12);
    for (let n = 0; n < 12; n += 1) await remember(database(), FROM + n, { state: "cancelled", attempt: 0 });
    const operations = Array.from({ length: 20 }, () => newId());
    const settled = await Promise.allSettled(operations.map((id) => reserve(at, id)));
    const given = settled.flatMap((one, index) =>
      one.status === "fulfilled" ? [{ vmid: one.value, operationId: operations[index] }] : [],
    );
    // Each was told the number that is its own.
    expect(given.toSorted((a, b) => Number(a.vmid) - Number(b.vmid))).toEqual(await numbers());
    expect(new Set(given.map(({ vmid }) => vmid)).size).toBe(12);
    const late = settled.flatMap((one) => (one.status === "rejected" ? [String(one.reason)] : []));
    expect(late).toHaveLength(8);
    expect(
      late.every((message) => message.includes("All numbers for servers of this cloud are used up")),
    ).toBe(true);
  });

  it("an operation that two workers run at once gets one number, and the others stay free", async () => {
    const at = await open(3);
    for (let n = 0; n < 3; n += 1) await remember(database(), FROM + n, { state: "cancelled", attempt: 0 });
    const operationId = newId();
    const told = await Promise.all([1, 2, 3].map(() => reserve(at, operationId)));
    const own = (await numbers()).filter((one) => one.operationId === operationId);
    expect(own).toHaveLength(1);
    expect(told).toEqual([own[0]?.vmid, own[0]?.vmid, own[0]?.vmid]);
    const others = [await reserve(at, newId()), await reserve(at, newId())];
    expect(new Set([...others, own[0]?.vmid]).size).toBe(3);
  });

  it("a worker that wakes up late spoils nothing that is another operation's by now", async () => {
    const at = await open(1);
    const late = await remember(database(), FROM, { state: "cancelled", attempt: 0 });
    const now = newId();
    expect(await reserve(at, now)).toBe(FROM);
    at.simulator.addStranger({ vmid: FROM, name: "made by the other operation" });
    const client = { cloud: "sim", log: { warn: () => undefined } };
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- all that it needs of a client
    await spoil(
      client as unknown as Parameters<typeof spoil>[0],
      { database: database(), operationId: late },
      FROM,
    );
    const rows = await database().sql(
      `SELECT operation_id AS "operationId", spoilt_at AS "spoiltAt" FROM vmid_reservations`,
    );
    expect(rows).toEqual([{ operationId: now, spoiltAt: null }]);
  });
});

function reserveStepOf(steps: readonly StepDefinition[]): StepDefinition {
  const step = steps.find(({ name }) => name === "pve.reserve");
  if (step === undefined) throw new Error("no step pve.reserve");
  return step;
}

/** An operation of a while ago, with its number. */
async function remember(database: Database, vmid: number, past: Past): Promise<string> {
  const id = newId();
  const publicId = newPublicId("op");
  await database.sql(
    `INSERT INTO operations (id, public_id, action, spec_version, state, input, plan, plan_hash, idempotency_key,
       request_hash, requester_kind, requester_id, requester_name, source)
     VALUES ($1, $2, 'server.build', 1, $3, '{}', '{}', '', $2, '', 'staff', 'sam', 'Sam', 'console')`,
    [id, publicId, past.state],
  );
  if (past.attempt !== null) {
    await database.sql(
      `INSERT INTO operation_steps (operation_id, seq, name, label, input, attempt, state)
       VALUES ($1, 3, 'pve.clone', 'Copy the image', '{}', $2, $3)`,
      [id, past.attempt, past.attempt === 0 ? "skipped" : "failed"],
    );
  }
  await database.sql(
    `INSERT INTO vmid_reservations (cloud_id, vmid, operation_id, spoilt_at, created_at)
     SELECT c.id, $1, $2, CASE WHEN $3 THEN clock() END, clock() - interval '2 hours' FROM clouds c WHERE c.name = 'sim'`,
    [vmid, id, past.spoilt === true],
  );
  return id;
}

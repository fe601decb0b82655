import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { type Action, defineOperation } from "../../../src/core/action.ts";
import { createRegistry } from "../../../src/core/actions/index.ts";
import { ServiceError } from "../../../src/core/errors.ts";
import type { StepDefinition } from "../../../src/core/operations/step.ts";
import { findServer } from "../../../src/core/servers/find.ts";
import { applyObserved } from "../../../src/core/servers/observe.ts";
import { eachBackend } from "../../support/database.ts";
import { createScene, nothingLeft, type Scene } from "./scene.ts";

type Part = "make" | "switch" | "retire";

/** An action that makes something, puts it in place, and takes the old thing away: each part fails as often as told. */
function replacing(done: string[], failures: Partial<Record<Part, number>>): Action {
  const part = (name: Part, more: Partial<StepDefinition> = {}): StepDefinition => ({
    name: `test.${name}`,
    deadlineMs: 60_000,
    callTimeoutMs: 10_000,
    evidence: "repeatable",
    issue() {
      const left = failures[name] ?? 0;
      if (left > 0) {
        failures[name] = left - 1;
        throw new ServiceError("cloud_failed", `The cloud could not ${name} it.`);
      }
      done.push(name);
      return Promise.resolve({ kind: "done" });
    },
    ...more,
  });
  const undo: StepDefinition = {
    name: "test.undo",
    deadlineMs: 60_000,
    callTimeoutMs: 10_000,
    evidence: "repeatable",
    issue() {
      done.push("undo");
      return Promise.resolve({ kind: "done" });
    },
  };
  return defineOperation<{ server: string }>({
    name: "server.replace",
    summary: "Replace a server",
    audience: ["staff", "customer"],
    permission: "server.change",
    risk: "change",
    specVersion: 1,
    input: z.object({ server: z.string() }),
    options: [
      {
        name: "server",
        field: "server",
        label: "Server",
        help: "Which",
        type: "text",
        required: true,
        subject: true,
      },
    ],
    async plan({ database, principal }, input) {
      const server = await findServer(database, principal, input.server);
      return {
        title: `Replace ${server.name}`,
        serverId: server.id,
        customerId: server.customerId,
        cloud: server.cloudName,
        lockKey: `server:${server.id}`,
        before: {},
        after: {},
        downtime: null,
        irreversible: [],
        notes: [],
        dataAsOf: null,
        details: { publicId: server.publicId },
      };
    },
    steps: () =>
      (["make", "switch", "retire"] as const).map((name) => ({
        name: `test.${name}`,
        label: name,
        input: {},
      })),
    definitions: [
      part("make", { compensation: () => ({ name: "test.undo", label: "undo", input: {} }) }),
      part("switch", { pointOfNoReturn: "The new one is in place." }),
      part("retire"),
      undo,
    ],
    onEnd: (end, { plan }) =>
      end === "succeeded"
        ? {
            offers: [
              { action: "server.power", input: { server: plan.details["publicId"], action: "reboot" } },
            ],
          }
        : {},
  });
}

eachBackend("past the point of no return", (database) => {
  let at: Scene;
  const done: string[] = [];
  const failures: Partial<Record<Part, number>> = {};

  beforeEach(async () => {
    done.length = 0;
    for (const name of ["make", "switch", "retire"] as const) delete failures[name];
    const registry = createRegistry([...createRegistry().list(), replacing(done, failures)]);
    at = await createScene({ database: database(), registry });
    await at.order("web-1");
  });
  afterEach(() => at.close());

  it("a failure undoes nothing, says so, and a retry goes on from there", async () => {
    failures.retire = 1;
    const parked = await at.run(at.sam, "server.replace", { server: "web-1" });
    expect(parked).toMatchObject({ state: "needs_attention", problem: { code: "cloud_failed" } });
    expect(parked.problem?.message).toContain(
      "The new one is in place. Nothing is undone; a retry goes on from here.",
    );
    expect(done).toEqual(["make", "switch"]);

    await at.ask(at.sam, "ops.retry", { operation: parked.publicId });
    expect(await at.finish("second", parked.id)).toMatchObject({ state: "succeeded", problem: null });
    expect(done).toEqual(["make", "switch", "retire"]);
    expect(await at.leftovers()).toEqual(nothingLeft);
  });

  it("fails again as often as it must, and gives up only when a person does", async () => {
    failures.retire = 2;
    const parked = await at.run(at.sam, "server.replace", { server: "web-1" });
    await at.ask(at.sam, "ops.retry", { operation: parked.publicId });
    expect(await at.finish("second", parked.id)).toMatchObject({ state: "needs_attention" });
    await at.ask(at.rita, "ops.abandon", { operation: parked.publicId });
    expect(await at.operation(parked.id)).toMatchObject({ state: "failed" });
    expect(done).toEqual(["make", "switch"]);
  });

  it("is not there yet while its step has failed: what was made is undone", async () => {
    failures.switch = 1;
    const failed = await at.run(at.sam, "server.replace", { server: "web-1" });
    expect(failed).toMatchObject({ state: "failed" });
    expect(done).toEqual(["make", "undo"]);
  });

  describe("what an end offers to do next", () => {
    async function offered() {
      const { id, state } = await at.run(at.sam, "server.replace", { server: "web-1" });
      expect(state).toBe("succeeded");
      return { id, tokens: await tokensOf(id) };
    }
    async function tokensOf(id: string) {
      const rows = await at.database.sql<{ token: string }>(
        `SELECT token FROM capabilities WHERE operation_id = $1 AND action = 'server.power'`,
        [id],
      );
      return rows.map(({ token }) => token);
    }

    it("is done once, however many press, and is shown where the first one was", async () => {
      const { id, tokens } = await offered();
      const [token = ""] = tokens;
      const pressed = await Promise.allSettled(
        [at.sam, at.rita].map((person) => at.entrance.press(token, person, "console")),
      );
      expect(pressed.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected"]);
      const next = await at.database.sql<{ id: string; channel: string; same: boolean }>(
        `SELECT o.id, c.channel, c.channel = (SELECT channel FROM cards WHERE operation_id = $1 LIMIT 1) AS same
         FROM operations o JOIN cards c ON c.operation_id = o.id WHERE o.action = 'server.power'`,
        [id],
      );
      expect(next).toHaveLength(1);
      expect(next[0]?.same).toBe(true);
      expect(await at.finish("second", next[0]?.id ?? "")).toMatchObject({ state: "succeeded" });
    });

    it("is refused to another customer as a button that never was", async () => {
      const { tokens } = await offered();
      await expect(at.entrance.press(tokens[0] ?? "", at.bob, "console")).rejects.toMatchObject({
        code: "expired",
      });
    });
  });

  it("a server's row goes over to the one that replaces it, and to no other", async () => {
    const [row] = await at.database.sql<{ id: string; externalId: string }>(
      `SELECT id, external_id AS "externalId" FROM servers WHERE name = 'web-1'`,
    );
    if (row === undefined) throw new Error("no server");
    const now = await at.cloud.inspect(row.externalId);
    const seen = {
      serverId: row.id,
      operationId: null,
      remote: { ...now, externalId: "new-one", data: { disk: "b" } },
    };
    await expect(applyObserved(at.database, seen)).rejects.toThrow("not new-one");
    await applyObserved(at.database, { ...seen, replaces: row.externalId });
    const after = await at.database.sql(
      `SELECT external_id AS id, provider_data AS data FROM servers WHERE id = $1`,
      [row.id],
    );
    expect(after).toEqual([{ id: "new-one", data: { disk: "b" } }]);
  });
});

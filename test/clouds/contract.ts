/** What every Cloud must do. Run on each simulator, and on real clouds when there is one. */
import { randomUUID } from "node:crypto";

// What a cloud can do decides what is expected of it.
// oxlint-disable vitest/no-conditional-expect
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type Cloud,
  type OpenWait,
  type PowerVerb,
  type ProvisionOrder,
  powerVerbs,
  type TargetSize,
} from "../../src/core/cloud.ts";
import { type ErrorCode, ServiceError } from "../../src/core/errors.ts";
import type { Database } from "../../src/database/client.ts";
import { contextOf, createStepOf, definitionOf, type RunOptions, runAll, runStep } from "./run-step.ts";

export interface CloudUnderTest {
  cloud: Cloud;
  /** An order that can be carried out. */
  order: ProvisionOrder;
  /** A size that the order's server can be moved to. */
  bigger: TargetSize;
  /** How often to look, and how long a step may take here. */
  pace: { everyMs: number; limitMs: number };
  /** A server of the same project that is none of ours; returns its external id. */
  makeStranger(): Promise<string>;
  /** Metadata that makes a build fail; absent when the cloud has no such thing. */
  failingBuild?: Record<string, string>;
  /** What is not there; default a random UUID. */
  absent?: { externalId: string; imageId: string; networkId: string };
  /** What a rescue may boot from; absent when there is nothing here. */
  rescueMedia?: string;
  /** For clouds whose steps keep rows of their own. */
  database?: Database;
  /** Power verbs that the far side cannot play, though the real thing can. */
  unplayed?: readonly PowerVerb[];
  /** Absent on a real cloud. */
  faults?: {
    /** The next create is carried out, its answer is lost. */
    loseAnswerOfCreate(): void;
    /** The next create is cut off before anything was done. */
    cutCreate(): void;
    /** The next call of this kind is answered so. */
    answerNext(what: "read" | "change", status: number, headers?: Record<string, string>): void;
    /** Lists are cut in pages of two, and the second one fails, for good. */
    breakSecondPage(): void;
    clear(): void;
  };
  /** Everything that was logged since it was opened. */
  logged(): string;
  cleanup(): Promise<void>;
}

/** Must not appear in any log, error, reference or condition. */
const CANARY = "Canary'1\"#: pässword";

export interface ContractOptions {
  name: string;
  skip?: boolean;
  /** Of one test; default vitest's. */
  timeoutMs?: number;
  open(): Promise<CloudUnderTest>;
}

export function cloudContract({ name, skip = false, timeoutMs = 20_000, open }: ContractOptions): void {
  describe.skipIf(skip)(
    `cloud contract: ${name}${skip ? " (skipped: not configured)" : ""}`,
    { timeout: timeoutMs },
    () => {
      let under: CloudUnderTest;
      const seen: unknown[] = [];
      const rows: NonNullable<RunOptions["rows"]> = new Map();

      beforeAll(async () => {
        under = await open();
      });
      afterAll(async () => {
        await under?.cleanup();
      });

      const options = (operationId: string = randomUUID()): RunOptions => ({
        operationId,
        secret: CANARY,
        database: under.database,
        rows,
        ...under.pace,
      });

      /** The create step of an order, after everything that comes before it. */
      async function startCreate(order: ProvisionOrder, operationId: string) {
        const { before, create } = createStepOf(under.cloud, under.cloud.provision(order));
        await runAll(under.cloud, before, options(operationId));
        return create;
      }

      async function build(overrides: Partial<ProvisionOrder> = {}, operationId: string = randomUUID()) {
        const { cloud, order } = under;
        const steps = cloud.provision({ ...order, name: `t-${operationId.slice(-8)}`, ...overrides });
        const runs = await runAll(cloud, steps, options(operationId));
        seen.push(runs);
        const [server] = await cloud.findByMarker(operationId);
        if (server === undefined) throw new Error("the server was built, but its marker does not find it");
        return { server, operationId, runs, create: runs[createStepOf(cloud, steps).before.length] };
      }

      async function remove(externalId: string): Promise<void> {
        await runAll(under.cloud, under.cloud.remove({ externalId }), options());
      }

      async function problemOf(work: Promise<unknown>): Promise<ServiceError> {
        try {
          await work;
        } catch (error) {
          seen.push(describeError(error));
          if (error instanceof ServiceError) return error;
          throw error;
        }
        throw new Error("it was expected to fail");
      }

      const codeOf = async (work: Promise<unknown>): Promise<ErrorCode> => (await problemOf(work)).code;

      it("lists its catalogue", async () => {
        const { cloud, order } = under;
        const [flavors, images, networks] = await Promise.all([
          cloud.listFlavors(),
          cloud.listImages(),
          cloud.listNetworks(),
        ]);
        if (cloud.usesFlavors)
          expect(flavors.map((flavor) => flavor.externalId)).toContain(order.size.flavorId);
        expect(images.map((image) => image.externalId)).toContain(order.imageId);
        expect(networks.map((network) => network.externalId)).toContain(order.networkId);
        expect(await cloud.check()).toSatisfy((checks: { ok: boolean }[]) =>
          checks.every((check) => check.ok),
        );
      });

      it("has steps with a name of its provider, a deadline and a way to find out what happened", () => {
        const { cloud } = under;
        expect(new Set(cloud.steps.map((step) => step.name)).size).toBe(cloud.steps.length);
        for (const step of cloud.steps) {
          expect(step.name).toMatch(new RegExp(`^${cloud.provider}\\.[a-z_]+$`, "u"));
          expect(step.callTimeoutMs).toBeLessThan(step.deadlineMs);
          if (step.evidence === "probe" || step.evidence === "record")
            expect(step.probe, step.name).toBeDefined();
        }
      });

      it("builds one server, with our marker, and finds it again", async () => {
        const { cloud, order } = under;
        await cloud.preflightProvision(order, new AbortController().signal);
        const { server, operationId, runs } = await build();
        const last = runs.at(-1)?.verdict;
        expect(last?.kind).toBe("done");
        expect(server).toMatchObject({
          state: "active",
          busy: false,
          vcpus: order.size.vcpus,
          memoryMib: order.size.memoryMib,
          diskGib: order.size.diskGib,
          markers: [`op=${operationId}.1`],
        });
        expect(server.addresses).not.toEqual([]);
        expect(await cloud.inspect(server.externalId)).toEqual(server);
        expect((await cloud.listServers()).map((row) => row.externalId)).toContain(server.externalId);
        await remove(server.externalId);
        expect(await codeOf(cloud.inspect(server.externalId))).toBe("cloud_not_found");
        expect(await cloud.findByMarker(operationId)).toEqual([]);
      });

      it("finds nothing under the marker of another operation", async () => {
        expect(await under.cloud.findByMarker(randomUUID())).toEqual([]);
      });

      it("moves a server to another size and keeps it", async () => {
        const { cloud, order, bigger } = under;
        const { server } = await build();
        const change = { externalId: server.externalId, before: order.size, after: bigger };
        const runs = await runAll(cloud, cloud.resize(change), options());
        seen.push(runs);
        const after = await cloud.inspect(server.externalId);
        expect(after).toMatchObject({
          state: "active",
          busy: false,
          vcpus: bigger.vcpus,
          memoryMib: bigger.memoryMib,
          diskGib: bigger.diskGib,
        });
        // Asked for again it changes nothing and says so.
        const again = await runAll(cloud, cloud.resize(change), options());
        expect(again.every((run) => run.verdict.kind === "done")).toBe(true);
        await remove(server.externalId);
      });

      it("rebuilds a server if it claims to: name, size and addresses stay, the old system is gone", async ({
        skip: skipWith,
      }) => {
        const { cloud, order } = under;
        const rebuild = cloud.rebuild ?? skipWith("it does not claim to");
        const { server } = await build();
        const { externalId } = server;
        const { size, imageId, passwordSecretId, defaultUser } = order;
        const steps = rebuild({
          externalId,
          name: server.name,
          size,
          imageId,
          passwordSecretId,
          defaultUser,
          inPlace: false,
        });
        const operationId = randomUUID();
        const runs = await runAll(cloud, steps, { ...options(operationId), externalId });
        seen.push(runs);
        expect(runs.every((run) => run.verdict.kind === "done")).toBe(true);
        const switches = runs.flatMap(({ verdict }) =>
          verdict.kind === "done" && verdict.replaces !== undefined ? [verdict] : [],
        );
        // As another server of the cloud, which is said once, or as the same one.
        expect(switches.map((verdict) => verdict.replaces)).toEqual(
          switches.length === 0 ? [] : [externalId],
        );
        const now = switches[0]?.server?.externalId ?? externalId;
        expect(await cloud.inspect(now)).toMatchObject({
          name: server.name,
          state: "active",
          busy: false,
          vcpus: size.vcpus,
          memoryMib: size.memoryMib,
          diskGib: size.diskGib,
          addresses: server.addresses,
        });
        if (now !== externalId) {
          expect(await codeOf(cloud.inspect(externalId))).toBe("cloud_not_found");
          expect((await cloud.findByMarker(operationId)).map((row) => row.externalId)).toEqual([now]);
        }
        await remove(now);
      });

      it("takes, lists, goes back to and deletes snapshots if it claims to", async ({ skip: skipWith }) => {
        const snapshots = under.cloud.snapshots ?? skipWith("it has no snapshots");
        const { server } = await build();
        const { externalId } = server;
        const order = { externalId, name: "s1", description: "why, 5+5", withMemory: false };
        const taken = await runAll(under.cloud, snapshots.create(order), options());
        expect(taken.at(-1)?.verdict).toMatchObject({ kind: "done", snapshots: [{ name: "s1" }] });
        const [one, ...others] = await snapshots.list(externalId);
        expect(others).toEqual([]);
        expect(one).toMatchObject({ name: "s1", description: "why, 5+5", withMemory: false });
        expect(one?.markers).toHaveLength(1);
        // Another order of that name is not given the first one's.
        expect(await codeOf(runAll(under.cloud, snapshots.create(order), options()))).toBe("cloud_conflict");
        const meant = { externalId, name: "s1", takenAt: one?.takenAt?.toISOString() };
        const other = { ...meant, takenAt: new Date(0).toISOString() };
        for (const steps of [snapshots.rollback(other), snapshots.remove(other)])
          expect(await codeOf(runAll(under.cloud, steps, options()))).toBe("drifted");
        const back = await runAll(under.cloud, snapshots.rollback(meant), options());
        expect(back.every((run) => run.verdict.kind === "done")).toBe(true);
        const { markers, state } = await under.cloud.inspect(externalId);
        expect({ markers, state }).toEqual({ markers: server.markers, state: "active" });
        for (const steps of [snapshots.remove(meant), snapshots.remove(meant)])
          expect((await runAll(under.cloud, steps, options())).at(-1)?.verdict.kind).toBe("done");
        expect(await snapshots.list(externalId)).toEqual([]);
        await remove(externalId);
        expect(await codeOf(snapshots.list(externalId))).toBe("cloud_not_found");
      });

      it("boots from rescue media if it claims to, and from its own disk again", async ({
        skip: skipWith,
      }) => {
        const { cloud } = under;
        const rescue = cloud.rescue ?? skipWith("it has no rescue");
        const media = under.rescueMedia ?? skipWith("there is nothing to boot from");
        const { server } = await build();
        const { externalId } = server;
        const enter = rescue.enter({ externalId, media });
        for (const [steps, state] of [
          [enter, "rescue"],
          [rescue.leave({ externalId }), "active"],
        ] as const) {
          const runs = await runAll(cloud, steps, options());
          expect(runs.every((run) => run.verdict.kind === "done")).toBe(true);
          expect(await cloud.inspect(externalId)).toMatchObject({ state, markers: server.markers });
        }
        expect(await codeOf(runAll(cloud, rescue.leave({ externalId }), options()))).toBe("cloud_conflict");
        await remove(externalId);
      });

      it("carries out each power verb it claims, and refuses the others with an alternative", async () => {
        const { cloud } = under;
        const { server } = await build();
        const { externalId } = server;
        const run = async (verb: PowerVerb) => {
          const [done] = (await runAll(cloud, cloud.power({ externalId, verb }), options())).slice(-1);
          return { state: (await cloud.inspect(externalId)).state, notes: done?.notes ?? [] };
        };
        const has = (verb: PowerVerb) => cloud.powerVerbs.includes(verb);
        expect((await run("start")).notes.join(" ")).toMatch(/already/u);
        expect((await run("stop")).state).toBe("stopped");
        expect((await run("stop")).notes.join(" ")).toMatch(/already/u);
        expect((await run("start")).state).toBe("active");
        for (const verb of ["reboot", "reset"] as const) {
          if (has(verb)) expect((await run(verb)).state).toBe("active");
        }
        if (has("suspend") && has("resume") && under.unplayed?.includes("suspend") !== true) {
          expect((await run("suspend")).state).toMatch(/suspended|paused/u);
          expect((await run("resume")).state).toBe("active");
        }
        if (has("shutdown")) expect((await run("shutdown")).state).toBe("stopped");
        for (const verb of powerVerbs.filter((one) => !has(one))) {
          const problem = await problemOf((async () => cloud.power({ externalId, verb }))());
          expect(problem.code).toBe("unsupported");
          expect(problem.message).toMatch(/Use "/u);
        }
        await remove(externalId);
      });

      it("sets a password in a running server, and in one that is off only where its next start brings it", async () => {
        const { cloud } = under;
        const { server } = await build();
        const steps = cloud.password({ externalId: server.externalId, secretId: "secret" });
        const runs = await runAll(cloud, steps, options());
        seen.push(runs);
        expect(runs.at(-1)?.verdict.kind).toBe("done");
        await runAll(cloud, cloud.power({ externalId: server.externalId, verb: "stop" }), options());
        if (cloud.passwordAtBoot === true) {
          const atBoot = await runAll(cloud, steps, options());
          expect(atBoot.at(-1)?.verdict).toMatchObject({ output: { passwordActive: "at_next_start" } });
        } else {
          const refused = await codeOf(runAll(cloud, steps, options()));
          expect(["cloud_conflict", "unsupported"]).toContain(refused);
        }
        await remove(server.externalId);
      });

      it("deletes what is gone already without a complaint", async () => {
        const { cloud } = under;
        const [run] = await runAll(cloud, cloud.remove({ externalId: randomUUID() }), options());
        expect(run?.verdict).toMatchObject({ kind: "done", gone: true });
        expect(await codeOf(cloud.inspect(randomUUID()))).toBe("cloud_not_found");
      });

      it("answers all waits with one look", async () => {
        const { cloud } = under;
        const ids = [randomUUID(), randomUUID(), randomUUID()];
        const waits = await Promise.all(
          ids.map(async (operationId, index): Promise<OpenWait> => {
            const order = { ...under.order, name: `t-${operationId.slice(-8)}` };
            const planned = await startCreate(order, operationId);
            const context = contextOf(cloud, planned, options(operationId));
            const issued = await definitionOf(cloud, planned.name).issue(context);
            if (issued.kind !== "wait") throw new Error("nothing to wait for");
            return {
              id: ids[index] ?? "",
              condition: issued.condition,
              since: context.issuedAt,
              observedAt: null,
            };
          }),
        );
        const settled = new Set<string>();
        await expect
          .poll(
            async () => {
              const left = waits.filter((wait) => !settled.has(wait.id));
              for (const observation of await cloud.watch(left)) {
                if (observation.result?.outcome === "settled") settled.add(observation.waitId);
                const wait = waits.find((one) => one.id === observation.waitId);
                if (wait !== undefined) wait.observedAt = new Date();
              }
              return settled.size;
            },
            { interval: under.pace.everyMs, timeout: under.pace.limitMs },
          )
          .toBe(3);
        for (const id of ids) {
          const [server] = await cloud.findByMarker(id);
          if (server === undefined) continue;
          rows.set(server.externalId, server.data ?? {});
          await remove(server.externalId);
        }
        expect(await cloud.watch([])).toEqual([]);
      });

      it("undoes a build by removing the servers of this operation and no other", async () => {
        const { cloud } = under;
        const stranger = await under.makeStranger();
        const other = await build();
        const { server, operationId } = await build();
        const { create: planned } = createStepOf(cloud, cloud.provision(under.order));
        const undo = definitionOf(cloud, planned.name).compensation?.({
          operation: contextOf(cloud, planned, options(operationId)).operation,
          input: planned.input,
          reference: { serverId: server.externalId },
        });
        if (undo === undefined) throw new Error("a create step must be able to undo");
        const run = await runStep(cloud, undo, options(operationId));
        expect(run.verdict.kind).toBe("done");
        expect(await cloud.findByMarker(operationId)).toEqual([]);
        // Pointed at somebody else's server by a wrong row, it must still not touch it.
        const wrong = definitionOf(cloud, planned.name).compensation?.({
          operation: contextOf(cloud, planned, options(operationId)).operation,
          input: planned.input,
          reference: { serverId: stranger },
        });
        if (wrong !== undefined) await runStep(cloud, wrong, options(operationId));
        const left = (await cloud.listServers()).map((row) => row.externalId);
        expect(left).toContain(stranger);
        expect(left).toContain(other.server.externalId);
        await remove(other.server.externalId);
      });

      it("tells a failed build with a reason and the server it left", async ({ skip: skipWith }) => {
        const failingBuild = under.failingBuild ?? skipWith("no way to make a build fail here");
        const operationId = randomUUID();
        const order = { ...under.order, name: `t-${operationId.slice(-8)}`, metadata: failingBuild };
        const planned = await startCreate(order, operationId);
        const { verdict } = await runStep(under.cloud, planned, options(operationId));
        expect(verdict.kind).toBe("failed");
        if (verdict.kind !== "failed") throw new Error("the build did not fail");
        seen.push(describeError(verdict.error));
        expect(["cloud_failed", "capacity"]).toContain(verdict.error.code);
        expect(verdict.error.message).toMatch(/^The cloud .*\.$/u);
        expect(verdict.server?.state).toBe("error");
        if (verdict.server !== undefined) await remove(verdict.server.externalId);
      });

      it("refuses an order with things the cloud does not have", async () => {
        const { cloud, order } = under;
        const { signal } = new AbortController();
        expect(await codeOf(cloud.preflightProvision({ ...order, imageId: randomUUID() }, signal))).toBe(
          "cloud_invalid",
        );
        expect(await codeOf(cloud.preflightProvision({ ...order, networkId: randomUUID() }, signal))).toBe(
          "cloud_invalid",
        );
      });

      it("finds the server whose answer was lost, and makes no second one", async ({ skip: skipWith }) => {
        const faults = under.faults ?? skipWith("needs a simulator");
        const operationId = randomUUID();
        faults.loseAnswerOfCreate();
        const { create, server } = await build({}, operationId);
        expect(create?.lost?.code).toBe("unknown_outcome");
        expect(create?.issued).toBe(1);
        expect(await under.cloud.findByMarker(operationId)).toHaveLength(1);
        await remove(server.externalId);
      });

      it("finds nothing after a call that was cut before it did anything", async ({ skip: skipWith }) => {
        const faults = under.faults ?? skipWith("needs a simulator");
        const operationId = randomUUID();
        faults.cutCreate();
        const { create, server } = await build({}, operationId);
        expect(create?.lost?.code).toBe("unknown_outcome");
        expect(create?.issued).toBe(2);
        expect(await under.cloud.findByMarker(operationId)).toHaveLength(1);
        await remove(server.externalId);
      });

      it("never returns a shorter list as the whole", async ({ skip: skipWith }) => {
        const faults = under.faults ?? skipWith("needs a simulator");
        await Promise.all([under.makeStranger(), under.makeStranger(), under.makeStranger()]);
        faults.breakSecondPage();
        expect(await codeOf(under.cloud.listServers())).toBe("unreachable");
        faults.clear();
        expect((await under.cloud.listServers()).length).toBeGreaterThanOrEqual(3);
      });

      it("repeats a read that a gateway refused, and never a change", async ({ skip: skipWith }) => {
        const faults = under.faults ?? skipWith("needs a simulator");
        const { server } = await build();
        faults.answerNext("read", 503);
        expect((await under.cloud.inspect(server.externalId)).state).toBe("active");
        faults.answerNext("change", 502);
        const [planned] = under.cloud.power({ externalId: server.externalId, verb: "stop" });
        if (planned === undefined) throw new Error("no step");
        const context = contextOf(under.cloud, planned, options());
        expect(await codeOf(definitionOf(under.cloud, planned.name).issue(context))).toBe("unknown_outcome");
        faults.answerNext("change", 429, { "Retry-After": "7" });
        const refused = await problemOf(definitionOf(under.cloud, planned.name).issue(context));
        expect(refused).toMatchObject({
          code: "unreachable",
          retryable: true,
          facts: { retryAfterMs: 7000 },
        });
        faults.clear();
        await remove(server.externalId);
      });

      it("stops a call that nobody waits for any more", async () => {
        const controller = new AbortController();
        controller.abort();
        expect(await codeOf(under.cloud.listServers(controller.signal))).toBe("unreachable");
      });

      it("leaks no password into logs, errors, references or conditions", () => {
        const everything = under.logged() + JSON.stringify(seen);
        expect(under.logged()).not.toBe("");
        for (const form of [CANARY, Buffer.from(CANARY).toString("base64"), CANARY.slice(-12)]) {
          expect(everything).not.toContain(form);
          expect(everything).not.toContain(JSON.stringify(form).slice(1, -1));
        }
      });
    },
  );
}

/** All of an error that could be printed. */
function describeError(error: unknown): unknown {
  if (!(error instanceof ServiceError)) return String(error);
  const { code, message, facts, staffDetail, cause } = error;
  return { code, message, facts, staffDetail, cause: String(cause) };
}

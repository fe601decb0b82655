/** On OpenStack, too, nobody has a size that billing has not heard of. */
import { expect, it } from "vitest";
import { runSync } from "../../../src/core/sync/run.ts";
import { useStage } from "../../support/stage.ts";
import { silent } from "../../support/world.ts";
import { createScene, type Scene } from "./scene.ts";

const M = { plan: "m", vcpus: 2, memoryMib: 4096, diskGib: 20 };
const stage = useStage();

/** What billing hears of the size, in order: the type, and the plan that it is told with. */
async function told(at: Scene): Promise<[string, unknown][]> {
  return (await at.events())
    .filter(({ type }) => /^server\.(?:resize\.(?!started)|size\.)/u.test(type))
    .map(({ type, data }) => [type, (data["server"] as Record<string, unknown>)["plan"]]);
}

it("a resize is not cancelled between the move to the new size and keeping it", async () => {
  const { database } = stage;
  const refused: unknown[] = [];
  const asking: { cancel(): Promise<unknown> } = { cancel: () => Promise.resolve() };
  const at = stage.keep(
    await createScene({
      database,
      cloud: (real) => ({
        steps: real.steps.map((step) =>
          step.name === "openstack.confirm_resize"
            ? {
                ...step,
                async issue(context) {
                  await asking.cancel().catch((error: unknown) => refused.push(error));
                  return step.issue(context);
                },
              }
            : step,
        ),
      }),
    }),
  );
  await at.order("web-1");
  const answer = await at.ask(at.ada, "server.resize", { server: "web-1", plan: "m" });
  if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
  asking.cancel = () => at.ask(at.ada, "ops.cancel", { operation: answer.publicId });
  expect(await at.finish("one", answer.operationId)).toMatchObject({ state: "succeeded", problem: null });
  expect(refused).toMatchObject([
    { code: "wrong_state", message: expect.stringMatching(/^Too late to cancel/u) },
  ]);
  expect((await told(at)).at(-1)).toEqual(["server.resize.succeeded", "m"]);
});

it("a resize that the team gives up, and that was done in the cloud, has its plan as soon as a synchronisation finds it", async () => {
  const { database } = stage;
  const at = stage.keep(await createScene({ database, simulator: { traps: { resizeConfirmWindowMs: 0 } } }));
  await at.order("web-1");
  const answer = await at.ask(at.ada, "server.resize", { server: "web-1", plan: "m" });
  if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
  at.simulator.addFault({ method: "POST", path: "/action$", kind: "drop_after" });
  at.simulator.addFault({ path: "/os-instance-actions", kind: "status", status: 500, times: 0 });
  const worker = at.process("one");
  await worker.tick();
  await at.later(3 * 60 * 60_000);
  await worker.tick();
  expect(await at.operation(answer.operationId)).toMatchObject({ state: "needs_attention" });
  at.simulator.clearFaults();
  await at.ask(at.rita, "ops.abandon", { operation: answer.publicId });
  expect(await told(at)).toEqual([["server.resize.failed", "s"]]);
  await expect
    .poll(() => at.live()[0], { interval: 5, timeout: 5_000 })
    .toMatchObject({ status: "ACTIVE", flavor: "m1.medium" });
  await at.later(1_000);
  await runSync({ database, cloud: at.cloud, resource: "servers", requester: "test", log: silent });
  expect((await told(at)).slice(1)).toEqual([["server.size.changed", "m"]]);
  const [row] = await database.sql(
    `SELECT plan_code AS plan, vcpus, memory_mib AS "memoryMib", disk_gib AS "diskGib", plan_waits AS waits FROM servers`,
  );
  expect(row).toEqual({ ...M, waits: null });
});

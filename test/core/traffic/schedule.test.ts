import { expect, it } from "vitest";
import type { Cloud } from "../../../src/core/cloud.ts";
import { scheduleTraffic } from "../../../src/core/traffic/schedule.ts";
import { localWake } from "../../../src/core/wake.ts";
import { useStage } from "../../support/stage.ts";
import { silent } from "../../support/world.ts";
import { createScene, running } from "./scene.ts";

const stage = useStage();

it("each cloud that has counters is looked at by a job of its own, and only those", async () => {
  const scene = await createScene(stage.database);
  const id = await scene.server();
  const without = { name: "os1" } as unknown as Cloud;
  const clouds = { list: () => [scene.cloud, without], get: () => scene.cloud };
  const jobs: { name: string; everyMs: number; run: () => Promise<void> }[] = [];
  scheduleTraffic({
    database: stage.database,
    clouds,
    wake: localWake(),
    log: silent,
    everyMs: 60_000,
    schedule: (name, everyMs, run) => void jobs.push({ name, everyMs, run }),
  });
  expect(jobs.map(({ name, everyMs }) => ({ name, everyMs }))).toEqual([
    { name: "traffic:pve1", everyMs: 60_000 },
  ]);
  scene.says(running(2_000_000, { in: 5n }));
  await jobs[0]?.run();
  await scene.at("2026-11-10T12:01:00Z");
  scene.says(running(2_000_060, { in: 9n }));
  await jobs[0]?.run();
  expect(await scene.months(id)).toEqual([{ month: "2026-11", inBytes: 4n, outBytes: 0n }]);
});

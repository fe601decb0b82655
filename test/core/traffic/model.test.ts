/**
 * Hours around a month's end of servers that stop, start and restart as they please, in a cloud whose figures are late, stand
 * still or do not come at all: what is counted is compared with what PVE showed of each life. The same numbers at every run.
 */
import { expect, it } from "vitest";
import type { TrafficSample } from "../../../src/core/cloud.ts";
import { useStage } from "../../support/stage.ts";
import { isThorough } from "../../support/thorough.ts";
import { createScene, type Scene } from "./scene.ts";

const stage = useStage();

const BEGIN_S = Date.parse("2026-11-30T22:00:00Z") / 1000;
const END_S = BEGIN_S + (isThorough ? 12 : 3) * 3600;
/** How long a cloud that no longer hears of a VM shows its last figures. */
const STUCK_S = 280;

interface Life {
  fromS: number;
  toS: number;
  bytesPerS: number;
  /** The highest that was shown of it, and when. */
  shown: number;
  shownS: number;
}

interface Machine {
  id: string;
  externalId: string;
  lives: Life[];
  /** Of when its figures are. */
  figuresS: number;
}

function random(seed: number): () => number {
  let state = seed;
  return () => {
    // Park and Miller's minimal standard.
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
}

function livesOf(next: () => number, { least, most }: { least: number; most: number }): Life[] {
  const lives: Life[] = [];
  for (let fromS = BEGIN_S + 5; fromS < END_S; ) {
    const toS = fromS + least + next() * (most - least);
    lives.push({ fromS, toS, bytesPerS: Math.ceil(next() * 1e8), shown: 0, shownS: 0 });
    // Half of the time it is a restart.
    fromS = toS + (next() < 0.5 ? 3 : next() * most);
  }
  return lives;
}

function sampleOf({ externalId, lives, figuresS }: Machine): TrafficSample | null {
  const life = lives.find(({ fromS, toS }) => fromS <= figuresS && figuresS < toS);
  if (life === undefined) return { externalId, uptimeS: 0, inBytes: 0n, outBytes: 0n };
  const uptimeS = Math.floor(figuresS - life.fromS);
  if (uptimeS < 1) return null;
  const bytes = Math.floor((figuresS - life.fromS) * life.bytesPerS);
  Object.assign(life, { shown: bytes, shownS: figuresS });
  return { externalId, uptimeS, inBytes: BigInt(bytes), outBytes: 0n };
}

async function addMachines(
  scene: Scene,
  next: () => number,
  { count, first, ...pace }: { count: number; first: number; least: number; most: number },
): Promise<Machine[]> {
  const machines: Machine[] = [];
  for (let index = 0; index < count; index += 1) {
    const externalId = String(first + index);
    const createdAt = new Date(BEGIN_S * 1000).toISOString();
    const id = await scene.server({ name: `web-${externalId}`, externalId, createdAt });
    machines.push({ id, externalId, lives: livesOf(next, pace), figuresS: BEGIN_S });
  }
  return machines;
}

/** A look a minute, a synchronisation every five; now and then the cloud is away, and then no life is proven either. */
async function run(
  scene: Scene,
  next: () => number,
  { machines, outages }: { machines: readonly Machine[]; outages: boolean },
): Promise<void> {
  let awayUntilS = 0;
  for (let nowS = BEGIN_S + 60; nowS < END_S; nowS += 60) {
    if (outages && next() < 0.02) awayUntilS = nowS + next() * 2400;
    if (nowS < awayUntilS) continue;
    await scene.at(new Date(nowS * 1000).toISOString());
    if ((nowS / 60) % 5 === 0) await scene.database.sql(`UPDATE servers SET synced_at = clock()`);
    for (const machine of machines) {
      const lateS = outages && next() < 0.03 ? next() * STUCK_S : next() * 10;
      machine.figuresS = Math.max(machine.figuresS, nowS - lateS);
    }
    scene.says(...machines.flatMap((machine) => sampleOf(machine) ?? []));
    expect(await scene.count()).toMatchObject({ outcome: "counted" });
  }
}

async function countedOf(scene: Scene): Promise<Map<string, number>> {
  const rows = await scene.database.sql<{ id: string; bytes: number }>(
    `SELECT server_id AS id, sum(in_bytes)::float8 AS bytes FROM traffic_months GROUP BY server_id`,
  );
  return new Map(rows.map(({ id, bytes }) => [id, bytes]));
}

it("servers that restart now and then are counted to the byte that PVE showed last of each life", async () => {
  const scene = await createScene(stage.database);
  const next = random(20_261_130);
  const machines = await addMachines(scene, next, { count: 25, first: 100_000, least: 900, most: 20_000 });
  await run(scene, next, { machines, outages: false });
  const counted = await countedOf(scene);
  const open = END_S - 360;
  for (const { id, lives } of machines) {
    // The last one may have begun too late to be proven.
    const whole = lives.filter(({ fromS }) => fromS < open).reduce((sum, { shown }) => sum + shown, 0);
    const late = lives.filter(({ fromS }) => fromS >= open).reduce((sum, { shown }) => sum + shown, 0);
    expect(counted.get(id)).toBeGreaterThanOrEqual(whole);
    expect(counted.get(id)).toBeLessThanOrEqual(whole + late);
  }
  expect(await scene.database.sql(`SELECT FROM traffic_gaps`)).toEqual([]);
}, 600_000);

it("whatever servers and cloud do, nothing is counted twice, and losses of minutes are listed", async () => {
  const scene = await createScene(stage.database);
  const next = random(4_711);
  const machines = await addMachines(scene, next, { count: 25, first: 100_000, least: 20, most: 5_000 });
  await run(scene, next, { machines, outages: true });
  const counted = await countedOf(scene);
  let [countedInAll, shownInAll] = [0, 0];
  for (const { id, lives } of machines) {
    const shown = lives.reduce((sum, life) => sum + life.shown, 0);
    expect(counted.get(id) ?? 0).toBeLessThanOrEqual(shown);
    countedInAll += counted.get(id) ?? 0;
    shownInAll += shown;
  }
  expect(countedInAll).toBeGreaterThan(shownInAll / 2);
  const [{ gaps } = { gaps: 0 }] = await scene.database.sql<{ gaps: number }>(
    `SELECT count(*)::int AS gaps FROM traffic_gaps WHERE kind = 'lost' AND to_at > from_at`,
  );
  expect(gaps).toBeGreaterThan(0);
}, 600_000);

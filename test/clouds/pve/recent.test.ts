/** What is not asked again, and what always is. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { createRecent } from "../../../src/clouds/pve/recent.ts";
import type { Database } from "../../../src/database/client.ts";
import { clean, testDatabase } from "../../support/database.ts";
import { BUILD, createPveWorld, type PveWorld } from "./world.ts";

const VM = "/nodes/n1/qemu/100000";
const CONFIG = `${VM}/config`;

function memory() {
  let at = 1_000;
  const recent = createRecent(() => at);
  let answers = 0;
  return {
    recent,
    pass: (ms: number) => void (at += ms),
    ask: (path = CONFIG) => recent.keep(path, path, () => Promise.resolve((answers += 1))),
  };
}

describe("what PVE has just answered", () => {
  it("serves whoever is content with its age, counted from the question", async () => {
    const { recent, pass, ask } = memory();
    await ask();
    pass(500);
    expect(recent.find(CONFIG, 1_000)).toEqual({ answer: 1 });
    expect(recent.find(CONFIG, 1_001)).toBeUndefined();
  });

  it("is forgotten when we write to that VM, before and after, and when another VM is written to it is not", async () => {
    const { recent, ask } = memory();
    await ask();
    recent.wrote("/nodes/n1/qemu/100001/status/start");
    expect(recent.find(CONFIG, 0)).toEqual({ answer: 1 });
    recent.wrote(`${VM}/status/start`);
    expect(recent.find(CONFIG, 0)).toBeUndefined();
    // Asked while the write was on its way.
    await ask();
    recent.wrote(`${VM}/status/start`);
    expect(recent.find(CONFIG, 0)).toBeUndefined();
  });

  it("is not kept when a write came between the question and its answer", async () => {
    const { recent } = memory();
    await recent.keep(CONFIG, CONFIG, () => {
      recent.wrote(VM);
      return Promise.resolve("from before");
    });
    expect(recent.find(CONFIG, 0)).toBeUndefined();
  });

  it("goes when it is old, and a failure is no answer", async () => {
    const { recent, pass, ask } = memory();
    await ask();
    await expect(
      recent.keep(`${VM}/pending`, `${VM}/pending`, () => Promise.reject(new Error("595"))),
    ).rejects.toThrow("595");
    expect(recent.find(`${VM}/pending`, 0)).toBeUndefined();
    pass(10_001);
    await ask("/cluster/resources");
    expect(recent.find(CONFIG, 0)).toBeUndefined();
  });
});

describe("an operation", () => {
  let database: Database;
  let world: PveWorld | undefined;

  beforeAll(async () => {
    database = await testDatabase();
  });
  afterEach(async () => {
    await world?.close();
    world = undefined;
  });
  afterAll(() => database.close());

  it("asks PVE once before its change and once after it, and its task not at all", async () => {
    await clean(database);
    world = await createPveWorld({ database });
    const { run, sam, simulator } = world;
    await run(sam, "server.build", BUILD);
    const { requests } = simulator.state;
    const from = requests.length;
    const stopped = await run(sam, "server.power", { server: "web-1", action: "stop" });
    expect(stopped).toMatchObject({ state: "succeeded", problem: null });
    const calls = requests.slice(from).map(({ method, template }) => `${method} ${template}`);
    const V = "/nodes/{node}/qemu/{vmid}";
    expect(calls.filter((call) => call !== "GET /nodes/{node}/tasks")).toEqual([
      `GET ${V}/config`,
      `GET ${V}/status/current`,
      `POST ${V}/status/shutdown`,
      `GET ${V}/config`,
      `GET ${V}/status/current`,
    ]);
  });

  it("looks anew when somebody has changed the VM since another operation", async () => {
    await clean(database);
    world = await createPveWorld({ database });
    const { run, sam, simulator, made } = world;
    await run(sam, "server.build", BUILD);
    const vmid = made()[0]?.vmid ?? 0;
    simulator.changeVm(vmid, { config: { smbios1: "uuid=00000000-0000-4000-8000-000000000000" } });
    const refused = await run(sam, "server.power", { server: "web-1", action: "stop" });
    expect(refused).toMatchObject({ state: "failed", problem: { code: "cloud_conflict" } });
    expect(made()[0]).toMatchObject({ status: "running" });
  });
});

/** One server on the simulator that is to be rebuilt, and what its customers and the cluster see of it. */
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import https from "node:https";
import { expect } from "vitest";
import type { Principal } from "../../../src/core/access.ts";
import type { Engine } from "../../../src/core/operations/engine.ts";
import type { OperationRow } from "../../../src/core/operations/rows.ts";
import type { StepContext } from "../../../src/core/operations/step.ts";
import type { Database } from "../../../src/database/client.ts";
import type { PveSimulator, PveSimulatorOptions, SimulatedVm } from "../../../src/sandbox/pve/index.ts";
import { clean } from "../../support/database.ts";
import { createTime, finish, type Time } from "./time.ts";
import { BUILD, createPveWorld, type PveWorld, type PveWorldOptions } from "./world.ts";

export const GIB = 2 ** 30;
export const OLD = 100_000;
export const NEW = 100_001;
/** Its image is on a storage that all nodes reach. */
export const UBUNTU = { image: "ubuntu-24.04" };
/** One node with room for the templates and a server of 10 GiB. */
export const TIGHT = { simulator: { storageBytes: 20 * GIB, nodes: ["n1"] }, client: { storage: "local" } };

export interface Scene extends PveWorld {
  time: Time;
  /** The server starts with its node. */
  onboot: boolean;
  /** Asked, confirmed, and run until it rests. */
  order(command: string, options?: Record<string, string>, by?: Principal): Promise<OperationRow>;
  /** Asked and confirmed. */
  begin(command: string, options?: Record<string, string>, by?: Principal): Promise<string>;
  finish(operationId: string, worker?: string): Promise<OperationRow>;
  retry(operation: Pick<OperationRow, "id" | "publicId">): Promise<OperationRow>;
  vm(vmid: number): SimulatedVm | undefined;
  server(name?: string): Promise<ServerFacts>;
  /** "METHOD path" of all but reading calls since this was last asked. */
  changes(): string[];
  /** Once, right before this step's next call. */
  beforeStep(name: string, work: () => unknown): void;
  /** Once, right before it is looked whether what this step has begun is done. */
  beforeVerify(name: string, work: () => unknown): void;
  /** Somebody else's call, with our token. */
  asSomebody(method: string, path: string, body?: string): Promise<void>;
}

export interface ServerFacts {
  id: string;
  externalId: string;
  state: string;
  image: string;
  addresses: string[];
  data: Record<string, unknown>;
}

export interface SceneOptions {
  database: Database;
  simulator?: PveSimulatorOptions;
  client?: PveWorldOptions["client"];
  engine?: Partial<Engine>;
  /** Of the server's order. */
  build?: Record<string, string>;
  /** The server starts with its node. */
  onboot?: boolean;
}

function hookSteps({ cloud }: PveWorld): Map<string, () => unknown> {
  const hooks = new Map<string, () => unknown>();
  const run = async (key: string) => {
    const hook = hooks.get(key);
    hooks.delete(key);
    await hook?.();
  };
  Object.assign(cloud, {
    steps: cloud.steps.map((step) => {
      const { issue, verify } = step;
      const hooked: typeof step = {
        ...step,
        async issue(context) {
          await run(`issue ${step.name}`);
          return issue(context);
        },
      };
      if (verify === undefined) return hooked;
      return {
        ...hooked,
        async verify(context: StepContext) {
          await run(`verify ${step.name}`);
          return verify(context);
        },
      };
    }),
  });
  return hooks;
}

/** With the server web-1, which runs as VM 100000. */
export async function createScene({
  database,
  simulator,
  client,
  engine,
  build: extras,
  onboot = false,
}: SceneOptions): Promise<Scene> {
  await clean(database);
  const time = await createTime(database);
  const world = await createPveWorld({
    database,
    runtime: { now: time.now },
    ...(simulator === undefined ? {} : { simulator }),
    ...(client === undefined ? {} : { client }),
    ...(engine === undefined ? {} : { engine }),
  });
  const hooks = hookSteps(world);
  const { requests } = world.simulator.state;
  let seen = 0;
  const begin: Scene["begin"] = async (command, options = {}, by = world.rita) => {
    const answer = await world.ask(by, command, { server: "web-1", ...options });
    if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
    if ((await world.operation(answer.operationId)).state === "awaiting_confirmation")
      await world.ask(world.rita, "ops.confirm", { operation: answer.publicId });
    return answer.operationId;
  };
  const end: Scene["finish"] = (operationId, worker = "finisher") =>
    finish(world, time, { operationId, worker });
  const scene: Scene = {
    ...world,
    time,
    onboot,
    begin,
    finish: end,
    order: async (command, options, by) => end(await begin(command, options, by)),
    async retry({ id, publicId }) {
      await world.ask(world.rita, "ops.retry", { operation: publicId });
      return end(id);
    },
    vm: (vmid) => world.simulator.state.vms.find((vm) => vm.vmid === vmid),
    server: (name = "web-1") => factsOf(database, name),
    beforeStep: (name, work) => void hooks.set(`issue ${name}`, work),
    beforeVerify: (name, work) => void hooks.set(`verify ${name}`, work),
    asSomebody: (method, path, body) => callPve(world.simulator, { method, path, body }),
    changes() {
      const since = requests.slice(seen);
      seen = requests.length;
      return since
        .filter(({ method, template }) => method !== "GET" && !(template ?? "").includes("/agent/"))
        .map(({ method, template }) => `${method} ${template}`);
    },
  };
  await build(scene, "web-1", extras);
  if (onboot) world.simulator.changeVm(OLD, { config: { onboot: "1" } });
  scene.changes();
  return scene;
}

export async function build(
  scene: Scene,
  name: string,
  extras: Record<string, string> = {},
): Promise<SimulatedVm> {
  const answer = await scene.ask(scene.sam, "server.build", { ...BUILD, ...extras, name });
  if (answer.kind !== "operation") throw new Error(JSON.stringify(answer));
  expect(await scene.finish(answer.operationId)).toMatchObject({ state: "succeeded", problem: null });
  const made = scene.made().find((vm) => vm.name === name);
  if (made === undefined) throw new Error(`${name} was not built`);
  return made;
}

async function callPve(
  { url, ca, tokenId, tokenSecret }: PveSimulator,
  { method, path, body }: { method: string; path: string; body: string | undefined },
): Promise<void> {
  const request = https.request(`${url}/api2/json${path}`, {
    method,
    ca,
    checkServerIdentity: () => undefined,
    headers: {
      authorization: `PVEAPIToken=${tokenId}=${tokenSecret}`,
      ...(body === undefined ? {} : { "content-type": "application/x-www-form-urlencoded" }),
    },
  });
  request.end(body);
  const [response] = (await once(request, "response")) as [IncomingMessage];
  response.resume();
  await once(response, "end");
  if (response.statusCode !== 200) throw new Error(`${method} ${path}: ${response.statusCode}`);
}

async function factsOf(database: Database, name: string): Promise<ServerFacts> {
  const [row] = await database.sql<ServerFacts>(
    `SELECT id, external_id AS "externalId", state, image_name AS image, addresses, provider_data AS data
     FROM servers WHERE name = $1`,
    [name],
  );
  if (row === undefined) throw new Error(`no server ${name}`);
  return row;
}

/** Nothing else fits anywhere. */
export function fillUp({ simulator }: Pick<Scene, "simulator">): void {
  for (const storage of simulator.state.storages) {
    const used = simulator.state.volumes
      .filter((volume) => volume.storage === storage.id)
      .reduce((sum, volume) => sum + volume.sizeBytes, 0);
    storage.totalBytes = used + GIB;
  }
}

/** The last of our VMs is the server, runs since one start, and is the only one. */
export async function expectOne(at: Scene, what: unknown, end: OperationRow, net0: string | undefined) {
  expect({ what, state: end.state, problem: end.problem }).toEqual({
    what,
    state: "succeeded",
    problem: null,
  });
  const made = at.made();
  expect({ what, made }).toMatchObject({
    what,
    made: [{ status: "running", guest: { boots: 1 }, config: { net0, memory: "2048" } }],
  });
  expect(made[0]?.description.split("\n")[0]).toMatch(new RegExp(`^op:${end.id}\\.`, "u"));
  expect(made[0]?.disks["scsi0"]?.sizeBytes).toBe(10 * GIB);
  expect(await at.server()).toMatchObject({ externalId: String(made[0]?.vmid), state: "active" });
  expect({ what, onboot: made[0]?.config["onboot"] === "1" }).toEqual({ what, onboot: at.onboot });
  expect(at.simulator.state.macClashes).toEqual([]);
  const own = at.simulator.state.volumes.filter((volume) => volume.vmid >= OLD);
  expect(new Set(own.map((volume) => volume.vmid))).toEqual(new Set([made[0]?.vmid]));
}

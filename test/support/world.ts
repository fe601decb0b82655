/** A whole Ratatosk without processes: a real database, the OpenStack simulator over HTTP, the engine driven by ticks. */
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { type Logger, pino } from "pino";
import { createOpenStackCloud } from "../../src/clouds/openstack/cloud.ts";
import type { OpenStackCloudOptions } from "../../src/clouds/openstack/options.ts";
import type { Principal } from "../../src/core/access.ts";
import type { ActionRegistry, Policies } from "../../src/core/action.ts";
import { createRegistry } from "../../src/core/actions/index.ts";
import type { Cloud, Clouds } from "../../src/core/cloud.ts";
import { createEntrance } from "../../src/core/dispatch.ts";
import { ServiceError } from "../../src/core/errors.ts";
import type { Engine } from "../../src/core/operations/engine.ts";
import { type OperationRow, operationColumns, readSteps } from "../../src/core/operations/rows.ts";
import { createWorker } from "../../src/core/operations/worker.ts";
import type { Answer, Entrance } from "../../src/core/request.ts";
import { createSecretBox } from "../../src/core/secrets/box.ts";
import { loadMasterKey } from "../../src/core/secrets/master-key.ts";
import { runSync } from "../../src/core/sync/run.ts";
import { localWake } from "../../src/core/wake.ts";
import type { Database } from "../../src/database/client.ts";
import { newId } from "../../src/database/id.ts";
import {
  type OpenStackSimulator,
  type OpenStackSimulatorOptions,
  startOpenStackSimulator,
} from "../../src/sandbox/openstack/index.ts";

export const policies: Policies = {
  confirmDestructive: true,
  confirmWithinMs: 30 * 60_000,
  secretLifetimeMs: 24 * 3_600_000,
  operationChannels: [],
  alertChannels: [],
  deleteGraceMs: 0,
};

export const silent = pino({ level: process.env["TEST_LOG"] ?? "silent" });

/** Everything but the far side. */
export interface CloudWorld {
  database: Database;
  cloud: Cloud;
  clouds: Clouds;
  engine: Engine;
  entrance: Entrance;
  sam: Principal;
  rita: Principal;
  ada: Principal & { kind: "customer" };
  bob: Principal & { kind: "customer" };
  ask(principal: Principal, command: string, options?: Record<string, string>, key?: string): Promise<Answer>;
  /** Asks, and runs the operation until it rests (final, or with a person). */
  run(principal: Principal, command: string, options?: Record<string, string>): Promise<OperationRow>;
  /** Runs everything until this operation rests. */
  settle(operationId: string): Promise<OperationRow>;
  operation(operationId: string): Promise<OperationRow>;
  steps(operationId: string): ReturnType<typeof readSteps>;
  lines(operationId: string): Promise<string[]>;
  events(): Promise<{ type: string; sequence: bigint | null; data: Record<string, unknown> }[]>;
  close(): Promise<void>;
}

export interface World extends CloudWorld {
  simulator: OpenStackSimulator;
}

export interface CloudWorldOptions {
  database: Database;
  cloud: Cloud;
  /** Of the plans s and m on this cloud. */
  targets: Record<"s" | "m", { flavor?: string; network: string }>;
  registry?: ActionRegistry | undefined;
  engine?: Partial<Engine> | undefined;
  /** Of the engine; silent by default. */
  log?: Logger | undefined;
}

export interface WorldOptions {
  database: Database;
  simulator?: OpenStackSimulatorOptions;
  registry?: ActionRegistry;
  engine?: Partial<Engine>;
  /** Applied over the real client: settle and watch at once by default. */
  cloud?: Partial<Cloud> | ((real: Cloud) => Partial<Cloud>);
  client?: Pick<OpenStackCloudOptions, "timeoutMs" | "connectTimeoutMs">;
  /** What our process takes for the time; tests that move the database's clock move it along. */
  now?: () => number;
  /** Of the engine and the client; silent by default. */
  log?: Logger;
}

const resting = new Set([
  "succeeded",
  "failed",
  "cancelled",
  "expired",
  "needs_attention",
  "awaiting_confirmation",
]);

export async function createWorld(options: WorldOptions): Promise<World> {
  const simulator = await startOpenStackSimulator({
    speed: 0,
    quota: { instances: 1000, cores: 4000 },
    ...options.simulator,
  });
  const real = clientFor(simulator, options);
  const changes = typeof options.cloud === "function" ? options.cloud(real) : options.cloud;
  const cloud: Cloud = { ...real, settleMs: 0, watchEveryMs: 0, ...changes };
  const world = await createCloudWorld({
    database: options.database,
    cloud,
    targets: {
      s: { flavor: "m1.small", network: "private" },
      m: { flavor: "m1.medium", network: "private" },
    },
    registry: options.registry,
    engine: options.engine,
    log: options.log,
  });
  return { ...world, simulator, close: () => closeAll(simulator, cloud) };
}

/** The same on any cloud; closing it closes the cloud's client. */
export async function createCloudWorld(options: CloudWorldOptions): Promise<CloudWorld> {
  const { database, cloud } = options;
  const clouds: Clouds = {
    list: () => [cloud],
    get(name) {
      if (name === cloud.name) return cloud;
      throw new ServiceError("configuration", "The cloud that this is on is no longer configured.", {
        staffDetail: `There is no cloud ${name}.`,
      });
    },
  };
  const engine: Engine = {
    database,
    clouds,
    registry: options.registry ?? createRegistry(),
    secrets: createSecretBox(
      loadMasterKey({ secretKey: Buffer.alloc(32, 7).toString("base64"), dataDir: "/nonexistent" }),
    ),
    wake: localWake(),
    log: options.log ?? silent,
    policies,
    address: () => "https://bot.example.com",
    worker: `test-${randomUUID()}`,
    patienceMs: 60_000,
    reached: () => undefined,
    ...options.engine,
  };
  const people = await seed(options);
  for (const resource of ["flavors", "images", "networks"] as const) {
    await runSync({ database, cloud, resource, requester: "test", log: options.log ?? silent });
  }
  return { ...people, ...drive(engine, people), database, cloud, clouds, engine, close: () => cloud.close() };
}

async function closeAll(simulator: OpenStackSimulator, cloud: Cloud) {
  await cloud.close();
  await simulator.close();
}

function clientFor(simulator: OpenStackSimulator, { client, now, log = silent }: WorldOptions): Cloud {
  const { credentials } = simulator;
  return createOpenStackCloud(
    {
      ...client,
      name: "os1",
      region: credentials.region,
      auth: {
        authUrl: simulator.authUrl,
        applicationCredentialId: credentials.applicationCredentialId,
        applicationCredentialSecret: credentials.applicationCredentialSecret,
      },
    },
    { log, sleep: () => Promise.resolve(), ...(now === undefined ? {} : { now }) },
  );
}

async function seed({ database, cloud, targets }: CloudWorldOptions) {
  const ids = { ada: newId(), bob: newId(), cloud: newId() };
  await database.sql(`INSERT INTO customers (id, ref, name) VALUES ($1, 'ada', 'Ada'), ($2, 'bob', 'Bob')`, [
    ids.ada,
    ids.bob,
  ]);
  await database.sql(`INSERT INTO clouds (id, name, provider) VALUES ($1, $2, $3)`, [
    ids.cloud,
    cloud.name,
    cloud.provider,
  ]);
  await database.sql(`INSERT INTO slots (cloud_id, n) SELECT $1, n FROM generate_series(1, 50) n`, [
    ids.cloud,
  ]);
  await database.sql(
    `INSERT INTO plans (id, code, name, vcpus, memory_mib, disk_gib, targets) VALUES
       ($1, 's', 'Small', 1, 2048, 10, $3::jsonb), ($2, 'm', 'Medium', 2, 4096, 20, $4::jsonb)`,
    [newId(), newId(), { [cloud.name]: targets.s }, { [cloud.name]: targets.m }],
  );
  return {
    sam: { kind: "staff", id: "sam", name: "Sam", role: "operator" } as const,
    rita: { kind: "staff", id: "rita", name: "Rita", role: "admin" } as const,
    ada: { kind: "customer", id: "ada", name: "Ada", customerId: ids.ada } as const,
    bob: { kind: "customer", id: "bob", name: "Bob", customerId: ids.bob } as const,
  };
}

function drive(engine: Engine, people: Awaited<ReturnType<typeof seed>>) {
  const { database } = engine;
  const entrance = createEntrance({ engine, identify: () => Promise.resolve(null) });
  const worker = createWorker(engine, { concurrency: 4 });
  const ask: CloudWorld["ask"] = (principal, action, options = {}, key = `test:${randomUUID()}`) =>
    entrance.dispatch({
      action,
      options,
      principal,
      source: "console",
      idempotencyKey: key,
      origin: { platform: "console", workspace: "local", channel: "test", userId: principal.id },
    });
  const operation: CloudWorld["operation"] = async (id) => {
    const rows = await database.sql<OperationRow>(
      `SELECT ${operationColumns} FROM operations o WHERE o.id = $1`,
      [id],
    );
    if (rows[0] === undefined) throw new Error(`no operation ${id}`);
    return rows[0];
  };
  const settle: CloudWorld["settle"] = async (id) => {
    for (let round = 0; round < 1500; round += 1) {
      await worker.tick();
      const now = await operation(id);
      if (resting.has(now.state)) return now;
      await worker.watcher.tick();
      // The simulator moves by itself; there is no clock of its to turn.
      await delay(5);
    }
    const stuck = await operation(id);
    throw new Error(
      `operation did not rest: ${stuck.state} ${JSON.stringify(await readSteps(database, id))}`,
    );
  };
  const run: CloudWorld["run"] = async (principal, action, options) => {
    const answer = await ask(principal, action, options);
    if (answer.kind !== "operation") throw new Error(`${action} answered ${JSON.stringify(answer)}`);
    const first = await settle(answer.operationId);
    if (first.state !== "awaiting_confirmation") return first;
    await ask(people.rita, "ops.confirm", { operation: answer.publicId });
    return settle(answer.operationId);
  };
  return {
    entrance,
    ask,
    run,
    settle,
    operation,
    steps: (id: string) => readSteps(database, id),
    async lines(id: string) {
      const rows = await database.sql<{ text: string }>(
        `SELECT text FROM operation_log WHERE operation_id = $1 ORDER BY seq`,
        [id],
      );
      return rows.map(({ text }) => text);
    },
    events: () =>
      database.sql<{ type: string; sequence: bigint | null; data: Record<string, unknown> }>(
        `SELECT type, sequence, data FROM events ORDER BY occurred_at, sequence`,
      ),
  };
}

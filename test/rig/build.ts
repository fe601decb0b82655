/** What the rig's processes share: the same real modules over the same database and the same simulated cloud. */
import { pino } from "pino";
import { createOpenStackCloud } from "../../src/clouds/openstack/cloud.ts";
import { createRegistry } from "../../src/core/actions/index.ts";
import type { Cloud, Clouds } from "../../src/core/cloud.ts";
import { ServiceError } from "../../src/core/errors.ts";
import type { CrashPoint, Engine } from "../../src/core/operations/engine.ts";
import { createSecretBox } from "../../src/core/secrets/box.ts";
import { loadMasterKey } from "../../src/core/secrets/master-key.ts";
import { localWake } from "../../src/core/wake.ts";
import { type Database, openDatabase } from "../../src/database/client.ts";
import { createJobs } from "../../src/jobs/jobs.ts";

export interface SimulatorAddress {
  url: string;
  authUrl: string;
  region: string;
  applicationCredentialId: string;
  applicationCredentialSecret: string;
}

export interface RigConfig {
  databaseUrl: string;
  /** Nudges between the processes; without it each looks by itself. */
  redisUrl: string | null;
  simulator: SimulatorAddress;
  worker: string;
  withoutProbe: boolean;
  concurrency: number;
  /** The worker ends itself with SIGKILL when it comes to this point for the nth time. */
  crashAt: { point: CrashPoint; nth: number } | null;
}

/**
 * How long the simulator may hold a request and still carry it out. The proof is honest only while this is shorter than
 * the time after which the engine takes "not there" for "never arrived".
 */
export const longestHoldMs = 1_500;
const callTimeoutMs = 4_000;
export const settleMs = 8_000;

export interface Built {
  database: Database;
  engine: Engine;
  close(): Promise<void>;
}

export async function build(config: RigConfig, reached: Engine["reached"]): Promise<Built> {
  const log = pino({ level: process.env["RIG_LOG"] ?? "silent" });
  const database = await openDatabase({ url: config.databaseUrl, migrate: false, maxConnections: 12 });
  const cloud = cloudOf(config.simulator, log);
  const clouds: Clouds = {
    list: () => [cloud],
    get(name) {
      if (name === cloud.name) return cloud;
      throw new ServiceError("configuration", `The rig has no cloud ${name}.`);
    },
  };
  const { redisUrl } = config;
  const jobs = redisUrl === null ? null : await createJobs({ database, redisUrl, log });
  const key = loadMasterKey({ secretKey: Buffer.alloc(32, 7).toString("base64"), dataDir: "/nonexistent" });
  const engine: Engine = {
    database,
    clouds,
    log,
    reached,
    registry: createRegistry(),
    secrets: createSecretBox(key),
    wake: jobs?.wake ?? localWake(),
    policies: {
      confirmDestructive: true,
      confirmWithinMs: 30 * 60_000,
      secretLifetimeMs: 24 * 3_600_000,
      operationChannels: [],
      alertChannels: [],
    },
    worker: config.worker,
    patienceMs: 60_000,
    withoutProbe: config.withoutProbe,
  };
  return {
    database,
    engine,
    async close() {
      await jobs?.close();
      await cloud.close();
      await database.close();
    },
  };
}

function cloudOf(simulator: SimulatorAddress, log: Engine["log"]): Cloud {
  const { region, authUrl, applicationCredentialId, applicationCredentialSecret } = simulator;
  const cloud = createOpenStackCloud(
    { name: "os1", region, auth: { authUrl, applicationCredentialId, applicationCredentialSecret } },
    { log },
  );
  if (longestHoldMs >= settleMs)
    throw new Error("the rig would prove nothing: requests outlive the settle time");
  return {
    ...cloud,
    settleMs,
    watchEveryMs: 250,
    steps: cloud.steps.map((step) => Object.assign({}, step, { callTimeoutMs })),
  };
}

/** What the rig's processes share: the same real modules over the same database and the same simulated clouds. */
import { pino } from "pino";
import { createOpenStackCloud } from "../../src/clouds/openstack/cloud.ts";
import { createPveCloud } from "../../src/clouds/pve/cloud.ts";
import { createRegistry } from "../../src/core/actions/index.ts";
import type { Cloud, Clouds } from "../../src/core/cloud.ts";
import { ServiceError } from "../../src/core/errors.ts";
import type { Engine } from "../../src/core/operations/engine.ts";
import { createSecretBox } from "../../src/core/secrets/box.ts";
import { loadMasterKey } from "../../src/core/secrets/master-key.ts";
import { localWake } from "../../src/core/wake.ts";
import { type Database, openDatabase } from "../../src/database/client.ts";
import { createJobs } from "../../src/jobs/jobs.ts";
import { type CloudAddress, vmidRange } from "./address.ts";
import type { RigPoint } from "./points.ts";

export interface RigConfig {
  databaseUrl: string;
  /** Nudges between the processes; without it each looks by itself. */
  redisUrl: string | null;
  clouds: readonly CloudAddress[];
  worker: string;
  withoutProbe: boolean;
  concurrency: number;
  /** The worker ends itself with SIGKILL when it comes to this point for the nth time. */
  crashAt: { point: RigPoint; nth: number } | null;
  /** How wrong this process's clock is. */
  clockOffMs: number;
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
  const database = await openDatabase({
    url: config.databaseUrl,
    migrate: false,
    maxConnections: 12,
    onError: (error) => log.warn({ err: error }, "database"),
  });
  const list = config.clouds.map((address) => cloudOf(address, log));
  const clouds: Clouds = {
    list: () => list,
    get(name) {
      const cloud = list.find((one) => one.name === name);
      if (cloud !== undefined) return cloud;
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
      deleteGraceMs: 0,
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
      await Promise.all(list.map((cloud) => cloud.close()));
      await database.close();
    },
  };
}

function cloudOf(address: CloudAddress, log: Engine["log"]): Cloud {
  const cloud = clientOf(address, log);
  if (longestHoldMs >= settleMs)
    throw new Error("the rig would prove nothing: requests outlive the settle time");
  return {
    ...cloud,
    settleMs,
    watchEveryMs: 500,
    steps: cloud.steps.map((step) => Object.assign({}, step, { callTimeoutMs })),
  };
}

function clientOf(address: CloudAddress, log: Engine["log"]): Cloud {
  if (address.kind === "openstack") {
    const { name, region, authUrl, applicationCredentialId, applicationCredentialSecret } = address;
    const auth = { authUrl, applicationCredentialId, applicationCredentialSecret };
    return createOpenStackCloud({ name, region, auth }, { log });
  }
  const { name, url, tokenId, tokenSecret, fingerprint } = address;
  const credential = { kind: "token" as const, tokenId, tokenSecret };
  return createPveCloud({ name, url, credential, fingerprint, vmidRange }, { log, lookEveryMs: 500 });
}

import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createPveCloud } from "../../../src/clouds/pve/cloud.ts";
import type { PveCloudOptions } from "../../../src/clouds/pve/options.ts";
import type { Cloud, ProvisionOrder } from "../../../src/core/cloud.ts";
import type { Database } from "../../../src/database/client.ts";
import { newId } from "../../../src/database/id.ts";
import {
  type PveSimulator,
  type PveSimulatorOptions,
  startPveSimulator,
} from "../../../src/sandbox/pve/index.ts";
import { testDatabase } from "../../support/database.ts";
import type { CloudUnderTest } from "../contract.ts";
import { recordingLog } from "../recording-log.ts";

export interface Opened {
  cloud: Cloud;
  simulator: PveSimulator;
  database: Database;
  order: ProvisionOrder;
  logged(): string;
  close(): Promise<void>;
}

export const RANGE = [100_000, 100_999] as const;

export function optionsOf(simulator: PveSimulator): PveCloudOptions {
  return {
    name: "sim",
    url: simulator.url,
    credential: { kind: "token", tokenId: simulator.tokenId, tokenSecret: simulator.tokenSecret },
    fingerprint: simulator.fingerprint,
    vmidRange: RANGE,
  };
}

/** A PEM file, as an operator has one. */
export function caFileOf(simulator: PveSimulator): string {
  const path = join(mkdtempSync(join(tmpdir(), "ratatosk-pve-")), "pve-root-ca.pem");
  writeFileSync(path, simulator.ca);
  return path;
}

export async function addCloudRow(database: Database, name: string): Promise<void> {
  await database.sql(
    `INSERT INTO clouds (id, name, provider) VALUES ($1, $2, 'pve') ON CONFLICT DO NOTHING`,
    [newId(), name],
  );
}

/** Fast: a clone takes some milliseconds, and a repeated read does not pause. A database that is given stays open. */
export async function openSimulator(
  options: PveSimulatorOptions = {},
  overrides: Partial<PveCloudOptions> = {},
  given?: Database,
): Promise<Opened> {
  const simulator = await startPveSimulator({ speed: 0, ...options });
  const { log, logged } = recordingLog();
  const cloud = createPveCloud(
    { ...optionsOf(simulator), ...overrides },
    { log, sleep: () => Promise.resolve(), lookEveryMs: 10 },
  );
  const database = given ?? (await testDatabase());
  await addCloudRow(database, cloud.name);
  return {
    cloud,
    simulator,
    database,
    order: orderOf(),
    logged,
    async close() {
      await cloud.close();
      await simulator.close();
      if (given === undefined) await database.close();
    },
  };
}

export function orderOf(): ProvisionOrder {
  return {
    name: "web-1",
    size: { vcpus: 1, memoryMib: 1024, diskGib: 8 },
    imageId: "n1/9000",
    networkId: "vmbr0",
    metadata: {},
    passwordSecretId: "secret",
    defaultUser: "debian",
  };
}

export const BIGGER = { vcpus: 2, memoryMib: 2048, diskGib: 12 };

export async function underTest(options: PveSimulatorOptions = {}): Promise<CloudUnderTest> {
  // A lost create is looked for at once here, without the settle time that the engine gives it.
  const { traps, ...rest } = options;
  const opened = await openSimulator({ ...rest, traps: { forkDelayMs: 0, ...traps } });
  const { cloud, simulator, database, order, logged, close } = opened;
  return {
    cloud,
    order,
    bigger: BIGGER,
    rescueMedia: "local:iso/rescue.iso",
    database,
    pace: { everyMs: 15, limitMs: 15_000 },
    makeStranger: () => Promise.resolve(String(simulator.addStranger({ name: "web-1" }).vmid)),
    faults: {
      loseAnswerOfCreate: () => {
        simulator.addFault({ method: "POST", path: "/clone$", kind: "drop_after" });
      },
      cutCreate: () => {
        simulator.addFault({ method: "POST", path: "/clone$", kind: "drop" });
      },
      answerNext: (what, status, headers) => {
        simulator.addFault({
          method: what === "read" ? "GET" : "POST",
          path: what === "read" ? "/config" : "/status/",
          kind: "status",
          status,
          body: "<html><body>gateway</body></html>",
          headers: { "Content-Type": "text/html", ...headers },
        });
      },
      breakSecondPage: () => {
        // PVE has no pages: its one list is what fails. Of one VM's details see list.test.ts.
        simulator.addFault({ path: "/cluster/resources$", kind: "status", status: 595, times: 0 });
      },
      clear: () => simulator.clearFaults(),
    },
    logged,
    cleanup: close,
  };
}

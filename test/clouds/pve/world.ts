/** A whole Ratatosk on the PVE simulator: the engine driven by ticks, the client over HTTPS. */
import { createPveCloud } from "../../../src/clouds/pve/cloud.ts";
import type { PveCloudOptions, PveRuntime } from "../../../src/clouds/pve/options.ts";
import type { Cloud } from "../../../src/core/cloud.ts";
import type { Engine } from "../../../src/core/operations/engine.ts";
import type { Database } from "../../../src/database/client.ts";
import {
  type PveSimulator,
  type PveSimulatorOptions,
  startPveSimulator,
} from "../../../src/sandbox/pve/index.ts";
import { type CloudWorld, createCloudWorld, silent } from "../../support/world.ts";
import { optionsOf } from "./open-simulator.ts";

export interface PveWorld extends CloudWorld {
  simulator: PveSimulator;
  /** Those that the simulator did not begin with. */
  made(): PveSimulator["state"]["vms"];
}

export interface PveWorldOptions {
  database: Database;
  simulator?: PveSimulatorOptions;
  client?: Partial<PveCloudOptions>;
  runtime?: Partial<PveRuntime>;
  cloud?: Partial<Cloud>;
  engine?: Partial<Engine>;
}

export async function createPveWorld(options: PveWorldOptions): Promise<PveWorld> {
  const simulator = await startPveSimulator({ speed: 0, ...options.simulator });
  const before = new Set(simulator.state.vms.map((vm) => vm.vmid));
  const real = createPveCloud(
    { ...optionsOf(simulator), ...options.client },
    { log: silent, sleep: () => Promise.resolve(), lookEveryMs: 5, ...options.runtime },
  );
  const cloud: Cloud = { ...real, settleMs: 0, watchEveryMs: 0, ...options.cloud };
  const world = await createCloudWorld({
    database: options.database,
    cloud,
    targets: { s: { network: "vmbr0" }, m: { network: "vmbr0" } },
    engine: options.engine,
  });
  return {
    ...world,
    simulator,
    made: () => simulator.state.vms.filter((vm) => !before.has(vm.vmid) && !vm.stranger),
    async close() {
      await world.close();
      await simulator.close();
    },
  };
}

export const BUILD = {
  name: "web-1",
  customer: "ada",
  image: "debian-12",
  cpu: "2",
  memory: "2G",
  disk: "10G",
  network: "vmbr0",
};

/** Every cloud that has counters, regularly. */
import type { Logger } from "pino";
import type { Database } from "../../database/client.ts";
import type { Clouds } from "../cloud.ts";
import type { Wake } from "../wake.ts";
import { countTraffic } from "./count.ts";

export interface TrafficScheduleOptions {
  database: Database;
  clouds: Clouds;
  wake: Wake;
  log: Logger;
  everyMs: number;
  /** From jobs/: runs `run` in one of all processes every so often. */
  schedule(name: string, everyMs: number, run: () => Promise<void>): void;
}

export function scheduleTraffic({ clouds, schedule, ...options }: TrafficScheduleOptions): void {
  for (const cloud of clouds.list()) {
    if (cloud.traffic === undefined) continue;
    schedule(`traffic:${cloud.name}`, options.everyMs, async () => {
      await countTraffic({ ...options, cloud });
    });
  }
}

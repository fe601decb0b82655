/** A world on the simulator whose time is moved, so that nothing that is put off is waited for. */
import type { Principal } from "../../../src/core/access.ts";
import type { ServerState } from "../../../src/core/cloud.ts";
import type { OperationRow } from "../../../src/core/operations/rows.ts";
import type { SimulatedVm } from "../../../src/sandbox/pve/index.ts";
import { clean } from "../../support/database.ts";
import { createTime, finish, type Time } from "./time.ts";
import { createPveWorld, type PveWorld, type PveWorldOptions } from "./world.ts";

export interface TimedWorld extends PveWorld {
  time: Time;
  /** Asked, and run until it rests. */
  order(command: string, options: Record<string, string>, by?: Principal): Promise<OperationRow>;
  /** Asked; it has not begun. */
  begin(command: string, options: Record<string, string>, by?: Principal): Promise<string>;
  rest(operationId: string, worker?: string): Promise<OperationRow>;
  /** The only VM that was made. */
  vm(): SimulatedVm;
  row(): Promise<ServerFacts>;
  /** "METHOD V/call" of the changing calls since this was last asked. */
  changes(): string[];
  /** What an operation's card offers. */
  offersOf(operationId: string): Promise<{ action: string; token: string }[]>;
}

export interface ServerFacts {
  publicId: string;
  state: ServerState;
  vcpus: number;
  memoryMib: number;
  diskGib: number;
  planCode: string | null;
  addresses: string[];
}

export async function openTimedWorld(options: PveWorldOptions): Promise<TimedWorld> {
  const { database } = options;
  await clean(database);
  const time = await createTime(database);
  const world = await createPveWorld({ ...options, runtime: { now: time.now, ...options.runtime } });
  let seen = 0;
  const begin: TimedWorld["begin"] = async (command, given, by = world.sam) => {
    const answer = await world.ask(by, command, given);
    if (answer.kind !== "operation") throw new Error(`${command} answered ${JSON.stringify(answer)}`);
    return answer.operationId;
  };
  const rest: TimedWorld["rest"] = (operationId, worker = "finisher") =>
    finish(world, time, { operationId, worker });
  return {
    ...world,
    time,
    begin,
    rest,
    order: async (command, given, by) => rest(await begin(command, given, by)),
    vm() {
      const [vm, ...others] = world.made();
      if (vm === undefined || others.length > 0) throw new Error(`${others.length + 1} VMs were made`);
      return vm;
    },
    async row() {
      const [row] = await database.sql<ServerFacts>(
        `SELECT public_id AS "publicId", state, vcpus, memory_mib AS "memoryMib", disk_gib AS "diskGib",
           plan_code AS "planCode", addresses FROM servers`,
      );
      if (row === undefined) throw new Error("there is no server");
      return row;
    },
    changes() {
      const requests = world.simulator.state.requests.slice(seen);
      seen += requests.length;
      return requests
        .filter(({ method, path }) => method !== "GET" && !path.includes("/agent/ping"))
        .map(({ method, path }) => `${method} ${path.replace(/^.*\/qemu\/\d+/u, "V")}`);
    },
    offersOf: (operationId) =>
      database.sql(
        `SELECT action, token FROM capabilities WHERE operation_id = $1 AND used_at IS NULL
           AND action NOT LIKE 'ops.%' AND action <> 'secret.reveal' ORDER BY action`,
        [operationId],
      ),
  };
}

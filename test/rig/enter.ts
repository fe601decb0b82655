/** Has the orders entered by processes that may die right after a commit; whoever comes next asks for the same again. */
import { once } from "node:events";
import type { RigConfig } from "./build.ts";
import type { Entered } from "./entrance.ts";
import type { Order, PlannedOrder } from "./stage.ts";
import { spawn } from "./supervise.ts";

export interface EnterOptions {
  config: Omit<RigConfig, "worker" | "crashAt" | "clockOffMs">;
  /** How many of the processes die after a commit. */
  crashes: number;
  random: () => number;
}

export interface EnteredOrders {
  orders: Order[];
  crashes: number;
  /** Orders that were asked for a second time and answered with the first one. */
  recognised: number;
}

export async function enterOrders(
  planned: readonly PlannedOrder[],
  { config, crashes: wanted, random }: EnterOptions,
): Promise<EnteredOrders> {
  const done = new Map<number, Order>();
  const byIndex = new Map(planned.map((order) => [order.index, order]));
  let crashes = 0;
  let recognised = 0;
  let failures = 0;
  for (let turn = 1; done.size < planned.length; turn += 1) {
    const left = planned.filter(({ index }) => !done.has(index));
    const crashAt =
      crashes < wanted ? { point: "after_commit" as const, nth: 1 + Math.floor(random() * 3) } : null;
    const own: RigConfig = { ...config, worker: `rig-entrance-${turn}`, crashAt, clockOffMs: 0 };
    const child = spawn("./entrance.ts", { RIG_CONFIG: JSON.stringify(own) });
    child.on("message", (message: "ready" | Entered) => {
      if (message === "ready") child.send(left);
      else {
        const order = byIndex.get(message.index);
        if (order !== undefined) done.set(message.index, { ...order, operationId: message.operationId });
        if (message.existing) recognised += 1;
      }
    });
    // oxlint-disable-next-line no-await-in-loop -- one entrance after the other
    const [, signal] = await once(child, "exit");
    if (signal === "SIGKILL") crashes += 1;
    else if (done.size < planned.length) {
      // The database was away.
      failures += 1;
      if (failures > 10) throw new Error("the orders cannot be entered");
    }
  }
  return { orders: [...done.values()].toSorted((a, b) => a.index - b.index), crashes, recognised };
}

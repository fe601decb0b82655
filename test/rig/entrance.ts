/** The process that enters the orders, as chat would. It may die right after a commit; the next one asks the same again. */
import { createEntrance } from "../../src/core/dispatch.ts";
import { build, type RigConfig } from "./build.ts";
import { enterOrder, type Order } from "./stage.ts";

export type Entered = Pick<Order, "index" | "operationId"> & { existing: boolean };

const config = JSON.parse(process.env["RIG_CONFIG"] ?? "") as RigConfig;
const { engine, close } = await build(config, () => undefined);
let nudges = 0;

const entrance = createEntrance({
  engine: {
    ...engine,
    wake: {
      ...engine.wake,
      nudge(topic) {
        // The first word that the transaction has committed.
        if (topic === "operations") nudges += 1;
        if (config.crashAt?.point === "after_commit" && nudges === config.crashAt.nth) {
          process.kill(process.pid, "SIGKILL");
        }
        engine.wake.nudge(topic);
      },
    },
  },
  identify: () => Promise.resolve(null),
});

process.on("message", (orders: Omit<Order, "operationId">[]) => {
  void (async () => {
    const left = orders.toReversed();
    const enterSome = async () => {
      for (let order = left.pop(); order !== undefined; order = left.pop()) {
        // oxlint-disable-next-line no-await-in-loop -- one lane of a few
        const answer = await enterOrder(entrance, order);
        const entered: Entered = { index: order.index, ...answer };
        process.send?.(entered);
      }
    };
    await Promise.all(Array.from({ length: 4 }, enterSome));
    await close();
    process.disconnect();
  })();
});
process.on("disconnect", () => process.exit(0));
process.send?.("ready");

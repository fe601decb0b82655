/** One worker process of the rig: claims and runs until it is told to stop, or killed. */
import { createWorker } from "../../src/core/operations/worker.ts";
import { build, type RigConfig } from "./build.ts";
import { shiftClock } from "./clock.ts";
import { onBytesSent, type RigPoint } from "./points.ts";

const config = JSON.parse(process.env["RIG_CONFIG"] ?? "") as RigConfig;
let seen = 0;
let told = false;

function reached(point: RigPoint): void {
  if (!told) process.send?.("claimed");
  told = true;
  if (config.crashAt?.point !== point) return;
  seen += 1;
  if (seen === config.crashAt.nth) process.kill(process.pid, "SIGKILL");
}

if (config.clockOffMs !== 0) shiftClock(config.clockOffMs);
onBytesSent(() => reached("bytes_sent"));
const { engine, close } = await build(config, reached);
const worker = createWorker(engine, { concurrency: config.concurrency });
worker.start();

process.on("message", (message) => {
  if (message !== "stop") return;
  void worker
    .stop()
    .then(close)
    .then(() => process.disconnect());
});
// The rig itself was ended: nobody would stop us.
process.on("disconnect", () => process.exit(0));

/** One worker process of the rig: claims and runs until it is told to stop, or killed. */
import type { CrashPoint } from "../../src/core/operations/engine.ts";
import { createWorker } from "../../src/core/operations/worker.ts";
import { build, type RigConfig } from "./build.ts";

const config = JSON.parse(process.env["RIG_CONFIG"] ?? "") as RigConfig;
let seen = 0;
let told = false;

function reached(point: CrashPoint): void {
  if (!told) process.send?.("claimed");
  told = true;
  if (config.crashAt?.point !== point) return;
  seen += 1;
  if (seen === config.crashAt.nth) process.kill(process.pid, "SIGKILL");
}

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

/** The process that brings events to the receiver, until it is told to stop, or killed. */
import { assertOutsideTransaction } from "../../src/database/transaction.ts";
import { createConnector } from "../../src/net/connector.ts";
import { createDispatcher } from "../../src/webhooks/dispatcher.ts";
import { build, type RigConfig } from "./build.ts";

const config = JSON.parse(process.env["RIG_CONFIG"] ?? "") as RigConfig;
const { database, engine, close } = await build(config, () => undefined);
const connector = createConnector({
  allow: ["127.0.0.0/8"],
  guard: () => assertOutsideTransaction("a webhook call"),
});
const { secrets, log, wake } = engine;
const dispatcher = createDispatcher({ database, secrets, connector, log, wake, leaseMs: 10_000 });
dispatcher.start();
process.send?.("ready");

process.on("message", (message) => {
  if (message !== "stop") return;
  void dispatcher
    .stop()
    .then(() => connector.close())
    .then(close)
    .then(() => process.disconnect());
});
process.on("disconnect", () => process.exit(0));

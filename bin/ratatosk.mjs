#!/usr/bin/env node
// Starts the command line with the Node that npm installed, whatever Node this file itself is run by.
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { ownNode } from "../scripts/own-node.mjs";

const main = fileURLToPath(new URL("../src/cli/main.ts", import.meta.url));
const flags = ["--liftoff-only", "--disable-warning=ExperimentalWarning"];
const child = spawn(ownNode() ?? process.execPath, [...flags, main, ...process.argv.slice(2)], {
  stdio: "inherit",
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => child.kill(signal));
}
child.on("exit", (code, signal) => {
  process.exitCode = code ?? (signal ? 1 : 0);
});

// Runs after `npm ci` (also on Node 20, which is why this is plain JavaScript).
// 1. npm 10 drops node_modules/.bin/node when it skips the other platforms' packages that share that bin name: put it back.
// 2. Generate the Prisma client, unless this is an install without dev dependencies.
import { spawnSync } from "node:child_process";
import { existsSync, symlinkSync } from "node:fs";
import { ownNode } from "./own-node.mjs";

const own = ownNode();
if (own && process.platform !== "win32" && !existsSync("node_modules/.bin/node")) {
  symlinkSync(`../node-${process.platform}-${process.arch}/bin/node`, "node_modules/.bin/node");
}
if (!existsSync("node_modules/@prisma/internals")) {
  console.log("prepare: no dev dependencies here, the database client is not generated");
  process.exit(0);
}
const { status } = spawnSync(own ?? process.execPath, ["scripts/generate.mjs"], { stdio: "inherit" });
process.exit(status ?? 1);

// The Prisma client is generated, not committed: make it when it is missing or older than its schema.
import { spawnSync } from "node:child_process";
import { statSync } from "node:fs";

const modified = (path) => statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
if (modified("src/database/generated/client.ts") < modified("prisma/schema.prisma")) {
  const { status } = spawnSync(process.execPath, ["scripts/generate.mjs"], { stdio: "inherit" });
  process.exit(status ?? 1);
}

// npm run check: everything that can be said about the code without running it, plus the test of the folders' direction and
// a look at what the last run of the tests says of those that the documentation names.
// All checks run even when one fails, so that one run tells all.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";

const FOLDERS = ["src", "test", "scripts", "bench", "bin"].filter((folder) => existsSync(folder));
const node = ["node", "--liftoff-only", "--disable-warning=ExperimentalWarning"];

const checks: Record<string, string[]> = {
  client: ["node", "scripts/ensure-generated.mjs"],
  types: ["tsc", "--project", "."],
  lint: ["oxlint", "--deny-warnings", ...FOLDERS, "vitest.config.ts"],
  format: ["biome", "check", "."],
  "dead code": ["knip"],
  migrations: [...node, "scripts/migration.ts", "--check"],
  architecture: ["vitest", "run", "--reporter=dot", "test/architecture.test.ts"],
  "documented tests": [...node, "scripts/documented-tests.ts"],
};

const failed: string[] = [];
for (const [name, [command = "", ...args]] of Object.entries(checks)) {
  console.log(`\n── ${name}: ${command} ${args.join(" ")}`);
  const { status } = spawnSync(command, args, { stdio: "inherit" });
  if (status !== 0) {
    failed.push(name);
  }
}
console.log(failed.length === 0 ? "\ncheck: all passed" : `\ncheck: failed: ${failed.join(", ")}`);
process.exitCode = failed.length === 0 ? 0 : 1;

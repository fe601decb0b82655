import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/global-setup.ts"],
    pool: "forks",
    // The default, one less than the cores, leaves a two-core machine with one.
    maxWorkers: Math.max(2, availableParallelism() - 1),
    // Compiling PGlite's WebAssembly the optimising way costs 0.6 GB and half a second per file.
    execArgv: ["--liftoff-only", "--disable-warning=ExperimentalWarning"],
    testTimeout: 20_000,
    hookTimeout: 30_000,
    reporters: ["default", "json"],
    outputFile: { json: "reports/tests.json" },
  },
});

import { globSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { defineConfig } from "vitest/config";

const TESTS = "test/**/*.test.ts";
// A test that replaces modules has a process to itself. The others share theirs, one file after the other: our modules keep
// nothing that a test could meet, and what is loaded and compiled (PGlite above all) is so once: a second for each file.
const replacing = globSync(TESTS, { cwd: import.meta.dirname }).filter((path) =>
  /\bvi\.(mock|doMock|resetModules)\(/u.test(readFileSync(join(import.meta.dirname, path), "utf8")),
);

const shared = {
  pool: "forks" as const,
  // The default, one less than the cores, leaves a two-core machine with one.
  maxWorkers: Math.max(2, availableParallelism() - 1),
  // Compiling PGlite's WebAssembly the optimising way costs 0.6 GB and half a second per file.
  execArgv: ["--liftoff-only", "--disable-warning=ExperimentalWarning"],
  testTimeout: 20_000,
  hookTimeout: 30_000,
  // Whatever a file has put in the place of something is gone when the next one begins.
  restoreMocks: true,
  unstubEnvs: true,
};

export default defineConfig({
  test: {
    globalSetup: ["test/support/global-setup.ts"],
    maxWorkers: shared.maxWorkers,
    reporters: ["default", "json"],
    outputFile: { json: "reports/tests.json" },
    projects: [
      { test: { ...shared, name: "shared", isolate: false, include: [TESTS], exclude: replacing } },
      { test: { ...shared, name: "alone", isolate: true, include: replacing } },
    ],
  },
});

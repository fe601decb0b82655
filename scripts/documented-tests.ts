// docs/pve.md promises a test for each row of its table. This compares the promise with vitest's own report: every test
// that the table names is one test, ran and passed, every command of it exists, and no row that was asked for is missing. A
// test is named by its title, or by "describe › title" where several have that title or it says nothing by itself.
import { spawnSync } from "node:child_process";
import { existsSync, globSync, readFileSync, statSync } from "node:fs";
import { relative } from "node:path";
import { z } from "zod";
import { createRegistry } from "../src/core/actions/index.ts";

const DOC = "docs/pve.md";
const REPORT = "reports/tests.json";
const OWN_REPORT = "reports/documented-tests.json";
const FOLDERS = [
  "test/clouds",
  "test/core",
  "test/cli",
  "test/config",
  "test/console",
  "test/licences.test.ts",
];

/** What was asked of Proxmox VE, by the ids in the table's first column. */
const ROWS = [...range(1, 35), 47, 51, 53, ...range(57, 61)].map((n) => `J-${String(n).padStart(2, "0")}`);

const Report = z.object({
  startTime: z.number(),
  testResults: z.array(
    z.object({
      name: z.string(),
      assertionResults: z.array(
        z.object({ title: z.string(), ancestorTitles: z.array(z.string()), status: z.string() }),
      ),
    }),
  ),
});

interface Outcome {
  title: string;
  /** The title with its last describe, as the table may write it. */
  name: string;
  /** File and describes: tests of one title in several places are several tests. */
  place: string;
  status: string;
}

interface TableRow {
  rows: string[];
  commands: string[];
  tests: string[];
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, index) => from + index);
}

/** The lines of the one table whose first column is called "row": ids, commands in backticks, tests between <br>. */
function readTable(): TableRow[] {
  const lines = readFileSync(DOC, "utf8").split("\n");
  const head = lines.findIndex((line) => line.startsWith("| row |"));
  if (head < 0) throw new Error(`${DOC} has no table that begins with "| row |"`);
  const body = lines.slice(head + 2);
  const end = body.findIndex((line) => !line.startsWith("|"));
  return body.slice(0, end < 0 ? undefined : end).map((line) => {
    const cells = line.split("|").map((cell) => cell.trim());
    return {
      rows: idsOf(cells[1] ?? ""),
      commands: [...(cells[2] ?? "").matchAll(/`\/([a-z]+(?: [a-z]+)+)/gu)].map(([, words = ""]) => words),
      tests: (cells.at(-2) ?? "")
        .split("<br>")
        .map((title) => title.trim())
        .filter(Boolean),
    };
  });
}

/** "J-04, J-15..J-17" */
function idsOf(cell: string): string[] {
  return [...cell.matchAll(/J-(\d+)(?:\.\.J-(\d+))?/gu)].flatMap(([, from, to]) =>
    range(Number(from), Number(to ?? from)).map((n) => `J-${String(n).padStart(2, "0")}`),
  );
}

/** The last whole run's report when nothing has changed since, else one of our own. */
function outcomes(tests: readonly string[]): Outcome[] {
  const known = existsSync(REPORT) ? outcomesIn(REPORT) : [];
  if (existsSync(REPORT) && isFresh() && tests.every((test) => known.some(isCalled(test)))) return known;
  console.log(
    `${REPORT} is missing, older than the code, or not of a whole run: running ${FOLDERS.join(", ")}`,
  );
  spawnSync(
    "vitest",
    ["run", "--reporter=dot", "--reporter=json", `--outputFile.json=${OWN_REPORT}`, ...FOLDERS],
    { stdio: "inherit" },
  );
  return outcomesIn(OWN_REPORT);
}

function isFresh(): boolean {
  const { startTime } = Report.parse(JSON.parse(readFileSync(REPORT, "utf8")));
  const files = globSync(["src/**/*.ts", "test/**/*.ts", "prisma/**/*.sql"]).filter(
    (file) => !file.includes("generated"),
  );
  return files.every((file) => statSync(file).mtimeMs < startTime);
}

function outcomesIn(file: string): Outcome[] {
  return Report.parse(JSON.parse(readFileSync(file, "utf8"))).testResults.flatMap(
    ({ name: path, assertionResults }) =>
      assertionResults.map(({ title, ancestorTitles, status }) => {
        const describes = ancestorTitles.map(withoutDatabase);
        const name = [...describes.slice(-1), title].join(" › ");
        return { title, name, place: [relative("", path), ...describes].join(" › "), status };
      }),
  );
}

/** eachBackend runs one test on two databases. */
function withoutDatabase(describe: string): string {
  return describe.replace(/ \((?:embedded|PostgreSQL)[^)]*\)$/u, "");
}

function isCalled(test: string): (outcome: Outcome) => boolean {
  return ({ title, name }) => test === title || test === name;
}

function problemOf(test: string, all: readonly Outcome[]): string | null {
  const found = all.filter(isCalled(test));
  if (found.length === 0) return `no test is called "${test}"`;
  const places = [...new Set(found.map(({ place }) => place))];
  if (places.length > 1) return `several tests are called "${test}": ${places.join("; ")}`;
  const results = found.map(({ status }) => status);
  if (results.includes("failed")) return `the test "${test}" failed`;
  return results.includes("passed") ? null : `the test "${test}" did not run (${results.join(", ")})`;
}

const table = readTable();
const named = [...new Set(table.flatMap(({ tests }) => tests))];
const ran = outcomes(named);
const registry = createRegistry();
const problems = [
  ...ROWS.filter((id) => !table.some(({ rows }) => rows.includes(id))).map(
    (id) => `no line has the row ${id}`,
  ),
  ...table.filter(({ tests }) => tests.length === 0).map(({ rows }) => `${rows.join(", ")} names no test`),
  ...table
    .flatMap(({ commands }) => commands)
    .filter((words) => registry.find(words.replaceAll(" ", ".")) === undefined)
    .map((words) => `there is no command /${words}`),
  ...named.map((test) => problemOf(test, ran)).filter((problem) => problem !== null),
];
for (const problem of problems) console.error(`${DOC}: ${problem}`);
console.log(`${DOC}: ${table.length} lines, ${named.length} tests, ${problems.length} problems`);
process.exitCode = problems.length === 0 ? 0 : 1;

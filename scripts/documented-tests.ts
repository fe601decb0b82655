// docs/pve.md promises a test for each row of its table. This compares the promise with vitest's own report: every title
// that the table names ran and passed, every command of it exists, and no row that was asked for is missing.
import { spawnSync } from "node:child_process";
import { existsSync, globSync, readFileSync, statSync } from "node:fs";
import { z } from "zod";
import { createRegistry } from "../src/core/actions/index.ts";

const DOC = "docs/pve.md";
const REPORT = "reports/tests.json";
const OWN_REPORT = "reports/documented-tests.json";
const FOLDERS = ["test/clouds", "test/core", "test/cli", "test/config"];

/** Rows of the inventory that Proxmox VE's actions answer for; J-35, bandwidth, comes with usage. */
const ROWS = [...range(1, 34), 47, 51, 53, ...range(57, 61)].map((n) => `J-${String(n).padStart(2, "0")}`);

const Report = z.object({
  startTime: z.number(),
  testResults: z.array(
    z.object({ assertionResults: z.array(z.object({ title: z.string(), status: z.string() })) }),
  ),
});

interface TableRow {
  rows: string[];
  commands: string[];
  tests: string[];
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, index) => from + index);
}

/** The lines of the one table whose first column is called "row": ids, commands in backticks, titles between <br>. */
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
function outcomes(titles: readonly string[]): Map<string, string[]> {
  const known = existsSync(REPORT) ? statuses(REPORT) : new Map<string, string[]>();
  if (existsSync(REPORT) && isFresh() && titles.every((title) => known.has(title))) return known;
  console.log(
    `${REPORT} is missing, older than the code, or not of a whole run: running ${FOLDERS.join(", ")}`,
  );
  spawnSync(
    "vitest",
    ["run", "--reporter=dot", "--reporter=json", `--outputFile.json=${OWN_REPORT}`, ...FOLDERS],
    {
      stdio: "inherit",
    },
  );
  return statuses(OWN_REPORT);
}

function isFresh(): boolean {
  const { startTime } = Report.parse(JSON.parse(readFileSync(REPORT, "utf8")));
  const files = globSync(["src/**/*.ts", "test/**/*.ts", "prisma/**/*.sql"]).filter(
    (file) => !file.includes("generated"),
  );
  return files.every((file) => statSync(file).mtimeMs < startTime);
}

function statuses(file: string): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const { assertionResults } of Report.parse(JSON.parse(readFileSync(file, "utf8"))).testResults) {
    for (const { title, status } of assertionResults) found.set(title, [...(found.get(title) ?? []), status]);
  }
  return found;
}

const table = readTable();
const titles = [...new Set(table.flatMap(({ tests }) => tests))];
const ran = outcomes(titles);
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
  ...titles.flatMap((title) => {
    const results = ran.get(title);
    if (results === undefined) return [`no test is called "${title}"`];
    if (results.includes("failed")) return [`the test "${title}" failed`];
    return results.includes("passed") ? [] : [`the test "${title}" did not run (${results.join(", ")})`];
  }),
];
for (const problem of problems) console.error(`${DOC}: ${problem}`);
console.log(`${DOC}: ${table.length} lines, ${titles.length} tests, ${problems.length} problems`);
process.exitCode = problems.length === 0 ? 0 : 1;

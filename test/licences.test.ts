/** What we ship stands under licences that let a company sell what it builds on us, and none of it is a Convoy package. */
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { z } from "zod";

const permissive = new Set([
  "0BSD",
  "Apache-2.0",
  "BSD-2-Clause",
  "BSD-3-Clause",
  "BlueOak-1.0.0",
  "ISC",
  "MIT",
  "PostgreSQL",
  "Unlicense",
]);

/**
 * Others that come with us, each for a reason. Mozilla's licence asks for the source of files that were changed, file by file;
 * noVNC's are served as they are in its package.
 */
const excepted = new Map([["node_modules/@novnc/novnc", "MPL-2.0"]]);

const Lock = z.object({
  packages: z.record(
    z.string(),
    z.object({
      license: z.string().optional(),
      dev: z.boolean().optional(),
      os: z.union([z.string(), z.array(z.string())]).optional(),
    }),
  ),
});

it("every package that comes with us has a permissive licence", () => {
  const { packages } = Lock.parse(JSON.parse(readFileSync("package-lock.json", "utf8")));
  const shipped = Object.entries(packages).filter(([path, { dev }]) => path !== "" && dev !== true);
  expect(shipped.length).toBeGreaterThan(50);
  // The lock file tells no licence of binaries for other systems; their parent package's is theirs.
  const unclear = shipped.filter(
    ([path, { license, os }]) =>
      !permissive.has(license ?? "") &&
      !(license === undefined && os !== undefined) &&
      excepted.get(path) !== license,
  );
  expect(unclear.map(([path, { license }]) => `${path}: ${license ?? "none"}`)).toEqual([]);
});

it("nothing of Convoy Panel is among our packages or imports", () => {
  expect(readFileSync("package-lock.json", "utf8")).not.toMatch(/convoy(?:panel|-panel)/i);
});

/** Who may import whom (ARCHITECTURE.md, "The house"). The map is the documentation; a new folder is added here on purpose. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { expect, it } from "vitest";

const mayImport: Record<string, readonly string[]> = {
  config: [],
  database: [],
  net: [],
  core: ["database"],
  jobs: ["core", "database", "net"],
  clouds: ["core", "database", "net"],
  bots: ["core", "database", "net"],
  webhooks: ["core", "database", "net"],
  api: ["core", "database", "net"],
  console: ["core", "database", "net"],
  sandbox: [],
};
const freeFolders = new Set(["", "cli", "demo"]);
const siblings = ["bots/slack", "bots/discord", "bots/console", "clouds/pve", "clouds/openstack"];

const imports = sourceFiles("src").flatMap((file) =>
  [...readFileSync(file, "utf8").matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g)].map(([, target = ""]) => ({
    file,
    target,
  })),
);

function sourceFiles(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((file) => !file.includes("/generated/"));
}

function place(file: string): string {
  const [top = "", ...rest] = relative("src", file).split("/");
  return rest.length === 0 ? "" : top;
}

it("imports only in the decided direction", () => {
  const wrong = imports
    .filter(({ target }) => target.startsWith("."))
    .map(({ file, target }) => ({ file, to: join(dirname(file), target) }))
    .filter(({ file, to }) => {
      const from = place(file);
      if (freeFolders.has(from) || from === place(to)) return false;
      const allowed = mayImport[from];
      // Types of the configuration may be used by core; at run time there is nothing to import from it.
      return allowed === undefined || !allowed.includes(place(to));
    });

  expect(wrong).toEqual([]);
});

it("keeps platforms and providers from importing each other", () => {
  const wrong = imports.filter(({ file, target }) => {
    const own = siblings.find((folder) => file.startsWith(`src/${folder}/`));
    const to = join(dirname(file), target);
    return own !== undefined && siblings.some((other) => other !== own && to.startsWith(`src/${other}/`));
  });

  expect(wrong).toEqual([]);
});

it("has bullmq in jobs, undici in net and clouds, the chat clients in their own folders", () => {
  const homes: Record<string, readonly string[]> = {
    bullmq: ["src/jobs/"],
    undici: ["src/net/", "src/clouds/"],
    "@slack/bolt": ["src/bots/slack/"],
    "discord.js": ["src/bots/discord/"],
    "@electric-sql/pglite": ["src/database/"],
    "@novnc/novnc": ["src/console/"],
    ws: ["src/console/", "src/clouds/", "src/sandbox/"],
  };
  const wrong = imports.filter(({ file, target }) => {
    const allowed = homes[target];
    return allowed !== undefined && !allowed.some((home) => file.startsWith(home));
  });

  expect(wrong).toEqual([]);
});

it("names actions only in their registry", () => {
  const wrong = imports.filter(
    ({ file, target }) =>
      /core\/actions\/(?!index)/.test(join(dirname(file), target)) && !file.startsWith("src/core/actions/"),
  );

  expect(wrong).toEqual([]);
});

/**
 * The sweep of isolation.test.ts proves something only if it fails when isolation does. Here each filter is taken out in
 * turn, at each place that uses it, and the sweep must notice.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type * as Access from "../../src/core/access.ts";
import type * as Card from "../../src/core/operations/card.ts";
import type { Database } from "../../src/database/client.ts";
import type * as Standard from "../../src/webhooks/formats/standard.ts";
import { testDatabase } from "../support/database.ts";
import { createTenants, type Tenants } from "../support/tenants.ts";
import { stride } from "../support/thorough.ts";
import { Violation } from "./isolation-facts.ts";
import { sweep } from "./isolation-sweep.ts";

// What is broken now: the place of a filter ("lookup.ts:76:17"), or one of the named mutants below.
const seam = vi.hoisted(() => {
  const places = new Set<string>();
  return {
    mutant: "none",
    places,
    /** The place in src/core that called the filter. */
    place(): string {
      const frames = (new Error("where").stack ?? "").split("\n");
      const frame = frames.find((line) => line.includes("/src/core/") && !line.includes("/access.ts"));
      const found = /\/src\/core\/([^)]*)/.exec(frame ?? "")?.[1];
      if (found === undefined) throw new Error(`a filter was called from nowhere: ${frames.join("\n")}`);
      places.add(found);
      return found;
    },
  };
});

vi.mock("../../src/core/access.ts", async (original) => {
  const real = await original<typeof Access>();
  const everybody = (parameter: number) => `(TRUE OR $${parameter}::uuid IS NULL)`;
  return {
    ...real,
    ownRows: (column: string, parameter: number) =>
      seam.place() === seam.mutant ? everybody(parameter) : real.ownRows(column, parameter),
    ownOperations(parameter: number) {
      if (seam.place() === seam.mutant) return everybody(parameter);
      if (seam.mutant === "operations on any server") return real.ownRows("o.customer_id", parameter);
      if (seam.mutant === "operations of any customer") {
        return real.ownOperations(parameter).replace(real.ownRows("o.customer_id", parameter), "TRUE");
      }
      return real.ownOperations(parameter);
    },
    tenantOf: (principal: Access.Principal) =>
      seam.mutant === "no tenant" ? null : real.tenantOf(principal),
    requirePermission(...given: Parameters<typeof real.requirePermission>) {
      if (seam.mutant !== "no permissions") real.requirePermission(...given);
    },
    nameFor: (...[viewer, person]: Parameters<typeof real.nameFor>) =>
      seam.mutant === "names of the team" ? person.name : real.nameFor(viewer, person),
  } satisfies typeof Access;
});

vi.mock("../../src/core/operations/card.ts", async (original) => {
  const real = await original<typeof Card>();
  return {
    ...real,
    renderCard: (...[database, id, audience]: Parameters<typeof real.renderCard>) =>
      real.renderCard(database, id, seam.mutant === "staff's cards" ? "staff" : audience),
    readLines: (...[database, id, after, audience]: Parameters<typeof real.readLines>) =>
      real.readLines(database, id, after, seam.mutant === "staff's threads" ? "staff" : audience),
  } satisfies typeof Card;
});

vi.mock("../../src/webhooks/formats/standard.ts", async (original) => {
  const { standardFormat } = await original<typeof Standard>();
  return {
    standardFormat: {
      ...standardFormat,
      render: (...[event, recipient]: Parameters<typeof standardFormat.render>) =>
        standardFormat.render(event, seam.mutant === "staff's webhooks" ? { audience: "staff" } : recipient),
    },
  } satisfies typeof Standard;
});

const named = [
  "operations on any server",
  "operations of any customer",
  "no tenant",
  "no permissions",
  "staff's cards",
  "staff's threads",
  "staff's webhooks",
];

/** How often the sources call a filter. */
function usesInSource(): number {
  const root = new URL("../../src/core/", import.meta.url).pathname;
  const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter(
    (path) => path.endsWith(".ts") && path !== "access.ts",
  );
  return files
    .map((path) => readFileSync(join(root, path), "utf8").match(/\bown(Rows|Operations)\(/g)?.length ?? 0)
    .reduce((sum, count) => sum + count, 0);
}

describe("the sweep notices", () => {
  let database: Database;
  let tenants: Tenants;

  beforeAll(async () => {
    database = await testDatabase();
    tenants = await createTenants(database);
    await sweep(tenants, tenants.bob);
  }, 120_000);
  afterAll(async () => {
    await tenants?.world.close();
    await database?.close();
  });

  async function attack(mutant: string): Promise<unknown> {
    seam.mutant = mutant;
    try {
      for (const attacker of [tenants.bob, tenants.ada]) await sweep(tenants, attacker);
      return null;
    } catch (error) {
      return error;
    } finally {
      seam.mutant = "none";
    }
  }

  it("when any one use of a filter is taken out, and it knows them all", { timeout: 300_000 }, async () => {
    const places = [...seam.places].toSorted();
    expect(places).toHaveLength(usesInSource());
    const unnoticed: string[] = [];
    for (const place of places.filter((_, nth) => nth % stride(4) === 0)) {
      if (!((await attack(place)) instanceof Violation)) unnoticed.push(place);
    }
    expect(unnoticed).toEqual([]);
  });

  it.each(named)("%s", { timeout: 60_000 }, async (mutant) => {
    expect(await attack(mutant)).toBeInstanceOf(Violation);
  });
});

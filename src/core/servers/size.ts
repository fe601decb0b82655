/** From a plan, or sizes as typed, to what one cloud can make: from the catalogue in the database only. */
import type { Queryable } from "../../database/client.ts";
import type { Cloud, Size, TargetSize } from "../cloud.ts";
import { ServiceError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { shortened } from "../option-values.ts";

export interface PlanRow {
  code: string;
  name: string;
  vcpus: number;
  memoryMib: number;
  diskGib: number;
  targets: Record<string, { flavor?: string; network?: string }>;
}

/** Throws `not_found` with the nearest plan. */
export async function findPlan(database: Queryable, typed: string): Promise<PlanRow> {
  const rows = await database.sql<PlanRow>(
    `SELECT code, name, vcpus, memory_mib AS "memoryMib", disk_gib AS "diskGib", targets FROM plans
     WHERE retired_at IS NULL ORDER BY vcpus, memory_mib`,
  );
  const lower = typed.toLowerCase();
  const found = rows.find((row) => row.code.toLowerCase() === lower || row.name.toLowerCase() === lower);
  if (found !== undefined) return found;
  const guess = nearest(
    typed,
    rows.map((row) => row.code),
  );
  const advice =
    guess === undefined ? `There are ${rows.map((row) => row.code).join(", ")}.` : `Did you mean ${guess}?`;
  throw new ServiceError("not_found", `No plan "${shortened(typed)}". ${advice}`, {
    facts: { option: "plan" },
  });
}

interface FlavorRow extends Required<TargetSize> {
  name: string;
  syncedAt: Date;
}

async function flavorsOf(database: Queryable, cloudName: string): Promise<FlavorRow[]> {
  return database.sql<FlavorRow>(
    `SELECT f.external_id AS "flavorId", f.name, f.vcpus, f.memory_mib AS "memoryMib", f.disk_gib AS "diskGib",
       f.synced_at AS "syncedAt"
     FROM flavors f JOIN clouds c ON c.id = f.cloud_id
     WHERE c.name = $1 AND f.disabled_at IS NULL ORDER BY f.vcpus, f.memory_mib, f.disk_gib, f.name`,
    [cloudName],
  );
}

export interface ResolvedSize {
  size: TargetSize;
  /** How old the catalogue is that decided it; null where sizes apply directly. */
  asOf: Date | null;
}

/** The size of a plan on a cloud. Throws `unsupported` when the plan is not offered there. */
export async function sizeOfPlan(database: Queryable, cloud: Cloud, plan: PlanRow): Promise<ResolvedSize> {
  const target = plan.targets[cloud.name];
  if (target === undefined) {
    throw new ServiceError("unsupported", `The plan ${plan.code} is not offered on this server's cloud.`);
  }
  const wanted = sizesOf(plan);
  if (!cloud.usesFlavors) return { size: wanted, asOf: null };
  if (target.flavor === undefined) return exactFlavor(database, cloud, wanted);
  const flavors = await flavorsOf(database, cloud.name);
  const found = flavors.find((flavor) => flavor.name === target.flavor);
  if (found === undefined) {
    throw new ServiceError(
      "unsupported",
      `The plan ${plan.code} is not available at the moment: our catalogue does not have its size.`,
      { staffDetail: `Cloud ${cloud.name} has no flavor "${target.flavor}" (see /sync status).` },
    );
  }
  return { size: sizeOf(found), asOf: found.syncedAt };
}

/** The flavor with exactly these sizes. Throws `unsupported` with the nearest ones. */
export async function exactFlavor(database: Queryable, cloud: Cloud, wanted: Size): Promise<ResolvedSize> {
  if (!cloud.usesFlavors) return { size: wanted, asOf: null };
  const flavors = await flavorsOf(database, cloud.name);
  const found = flavors.find(
    (flavor) =>
      flavor.vcpus === wanted.vcpus &&
      flavor.memoryMib === wanted.memoryMib &&
      flavor.diskGib === wanted.diskGib,
  );
  if (found !== undefined) return { size: sizeOf(found), asOf: found.syncedAt };
  const offers = flavors.slice(0, 6).map(describeSize).join("; ");
  throw new ServiceError(
    "unsupported",
    `There is no size with ${describeSize(wanted)} on this cloud. It has: ${offers === "" ? "none yet (see /sync status)" : offers}.`,
  );
}

function sizeOf(flavor: FlavorRow): TargetSize {
  return { ...sizesOf(flavor), flavorId: flavor.flavorId };
}

/** The sizes alone, of whatever has them. */
export function sizesOf({ vcpus, memoryMib, diskGib }: Size): Size {
  return { vcpus, memoryMib, diskGib };
}

export function describeSize(size: Size): string {
  return `${size.vcpus} vCPU, ${describeMemory(size.memoryMib)}, ${size.diskGib} GiB disk`;
}

export function describeMemory(memoryMib: number): string {
  return memoryMib % 1024 === 0 ? `${memoryMib / 1024} GiB` : `${memoryMib} MiB`;
}

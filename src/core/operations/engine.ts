/** What the engine's parts share. Built once in app.ts. */
import type { Logger } from "pino";
import type { Database } from "../../database/client.ts";
import type { ActionRegistry, Policies } from "../action.ts";
import type { Clouds } from "../cloud.ts";
import { ServiceError } from "../errors.ts";
import type { SecretBox } from "../secrets/box.ts";
import type { Wake } from "../wake.ts";
import type { Claim } from "./claim.ts";
import { coreSteps } from "./preflight.ts";
import type { OperationRow } from "./rows.ts";
import type { StepDefinition } from "./step.ts";

/** Where the kill rig ends a worker; in production nobody listens. */
export const crashPoints = [
  "after_intent",
  "answer_before_reference",
  "reference_stored",
  "waiting",
  "verifying",
  "compensating",
] as const;
export type CrashPoint = (typeof crashPoints)[number];

export interface Engine {
  database: Database;
  clouds: Clouds;
  registry: ActionRegistry;
  secrets: SecretBox;
  wake: Wake;
  log: Logger;
  policies: Policies;
  /** Under which browsers reach us, without a slash at its end; undefined while nobody has said. */
  address?: () => string | undefined;
  /** Unique among all processes. */
  worker: string;
  /** How long an unreachable cloud is asked again before the operation ends. Milliseconds. */
  patienceMs: number;
  /** The kill rig's counter-proof only: after a crash, ask again without looking first. */
  withoutProbe?: boolean;
  reached(point: CrashPoint, operationId: string): void;
}

/** `next`: look again at once. `parked`: released, with a time to look again. `ended`: final or with a person. */
export type Progress = "next" | "parked" | "ended";

export interface Run {
  engine: Engine;
  claim: Claim;
  /** Aborted when the lease is lost. */
  signal: AbortSignal;
  /** Aborted when the process stops: the call in flight is finished, and no other begun. */
  stopping: AbortSignal;
}

/** A step's definition by its pinned name, or undefined when this release does not know it. */
export function stepDefinition(
  engine: Engine,
  operation: OperationRow,
  name: string,
): StepDefinition | undefined {
  const own = engine.registry.find(operation.action);
  if (own?.kind === "operation") {
    const found = own.definitions?.find((step) => step.name === name);
    if (found !== undefined) return found;
  }
  const core = coreSteps.find((step) => step.name === name);
  if (core !== undefined) return core;
  if (operation.cloudName === null) return undefined;
  return engine.clouds.get(operation.cloudName).steps.find((step) => step.name === name);
}

export function cloudOf(engine: Engine, operation: OperationRow) {
  if (operation.cloudName === null) {
    throw new ServiceError("configuration", `The operation ${operation.publicId} belongs to no cloud.`);
  }
  return engine.clouds.get(operation.cloudName);
}

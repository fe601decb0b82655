/**
 * The contract between the engine and a step.
 *
 * The engine runs: intent row (`issued_at`, `call_deadline`) → `issue` (at most ONE changing remote call) → the
 * reference → wait → `verify` → done. When the answer of `issue` is lost, or a worker dies in between, `evidence` says
 * how the engine finds out whether the effect is there:
 * - `probe`       `probe()` looks for the effect itself (our marker on a server)
 * - `record`      `probe()` reads the cloud's own log of actions since the intent
 * - `repeatable`  the effect is absolute (set, delete), so it is asked for again; `probe` is optional
 * - `none`        nothing in the cloud is changed: it is simply done again
 */
import type { Logger } from "pino";
import type { Database } from "../../database/client.ts";
import type { Cloud, RemoteServer, RemoteSnapshot } from "../cloud.ts";
import type { ServiceError } from "../errors.ts";

/** A step as it is pinned on an operation: computed once, stored by name with its input. No secrets in the input. */
export interface PlannedStep {
  name: string;
  /** What a person reads on the card: "Create the server". */
  label: string;
  input: Record<string, unknown>;
}

export interface StepContext {
  operation: {
    id: string;
    publicId: string;
    action: string;
    input: Record<string, unknown>;
    plan: Record<string, unknown>;
    /** What earlier steps handed on. */
    output: Record<string, unknown>;
  };
  /** The pinned input. */
  input: Record<string, unknown>;
  /** Counts our issued calls of this step, from 1. */
  attempt: number;
  /** `op=<operation id>.<attempt>`, to be put on what the call makes. */
  marker: string;
  /** What `issue` returned, once it did; null when the answer was lost. A person who adopts adds `externalId`. */
  reference: Record<string, unknown> | null;
  /** The answer to an earlier call of this step was lost: its effect may be there. */
  inDoubt: boolean;
  /** By the database's clock. */
  issuedAt: Date;
  /** The id of the server in its cloud, when there is one yet. */
  externalId: string | null;
  /** What the provider kept on the server's row (RemoteServer.data). */
  serverData: Record<string, unknown>;
  /** Throws ServiceError `configuration` when the operation touches none, or one that is no longer configured. */
  cloud: Cloud;
  /** For steps of our own, such as a sync; never held across a remote call. */
  database: Database;
  log: Logger;
  /** Aborted when the lease is lost, and, while `issue` runs, when `callTimeoutMs` have passed since the intent. */
  signal: AbortSignal;
  /** Throws ServiceError `expired` when it is gone. */
  readSecret(secretId: string): Promise<string>;
}

/** Handed on to later steps (merged into the operation's output), to the server's row and to the thread. */
export interface StepOutcome {
  /** `retiring.externalId`: what this operation is to delete in the cloud after something took its place; a sync leaves it be. */
  output?: Record<string, unknown>;
  /** What the cloud says of the server now; the engine brings the row in line and records the event. */
  server?: RemoteServer;
  /** `server` takes the place of the one with this external id: the row is that one's from now on. */
  replaces?: string;
  /** The server is gone in the cloud. */
  gone?: boolean;
  /** All snapshots that the server has now. */
  snapshots?: readonly RemoteSnapshot[];
  /** One line for the thread. */
  note?: string;
  /** The same for staff alone: ids in the cloud, what its operators have to do. */
  staffNote?: string;
}

export type Issued =
  | ({ kind: "done" } & StepOutcome)
  /** With what is known all the same: a part of it may stay. */
  | ({ kind: "failed"; error: ServiceError } & Pick<StepOutcome, "server" | "output">)
  | { kind: "wait"; reference: Record<string, unknown>; condition: Record<string, unknown>; note?: string };

export type Probe =
  | {
      effect: "present";
      reference: Record<string, unknown>;
      condition: Record<string, unknown>;
      note?: string;
    }
  | { effect: "absent" }
  | { effect: "unknown"; reason: string };

export type Verdict =
  /** `more`, a line for the thread: there is more of the same to ask for, so the step is issued once more. */
  | ({ kind: "done"; more?: string } & StepOutcome)
  | { kind: "failed"; error: ServiceError; server?: RemoteServer }
  /** Not there yet: watch on. */
  | { kind: "pending"; condition: Record<string, unknown>; note?: string }
  /** The cloud refused after it had accepted, did nothing, and may take it later (a lock of seconds): issue it again. */
  | { kind: "again"; error: ServiceError };

export interface StepDefinition {
  readonly name: string;
  /** From the first issue to done; past it: verify once more, then needs_attention. */
  readonly deadlineMs: number;
  /** How long after the intent its call may still be sent or be on its way; then it is cut off. */
  readonly callTimeoutMs: number;
  /**
   * Once issued, cancel is refused with this reason. A later step that fails then leaves the operation to a person
   * instead of undoing what was made: a retry goes on from there.
   */
  readonly pointOfNoReturn?: string;
  readonly evidence: "probe" | "record" | "repeatable" | "none";

  probe?(context: StepContext): Promise<Probe>;
  /** Throws ServiceError; `unknown_outcome`, `unreachable` and unexpected errors lead to the probe, the rest is a refusal. */
  issue(context: StepContext): Promise<Issued>;
  /** Asks the cloud itself. Called when the wait is settled, and once when the deadline has passed. */
  verify?(context: StepContext): Promise<Verdict>;
  /**
   * The step that undoes this one, for create-steps; guarded by our marker. Called with what is known of the step,
   * also when its own outcome is unknown.
   */
  compensation?(context: Pick<StepContext, "operation" | "input" | "reference">): PlannedStep;
}

/** What an action is. Bots, console, API, help and command sets are generated from the registry (actions/index.ts). */
import type { z } from "zod";
import type { Queryable, Transaction } from "../database/client.ts";
import type { Audience, Permission, Principal } from "./access.ts";
import type { Platform } from "./bot.ts";
import type { Clouds, ServerState } from "./cloud.ts";
import type { Problem } from "./errors.ts";
import type { Engine } from "./operations/engine.ts";
import type { PlannedStep, StepDefinition } from "./operations/step.ts";
import type { StepUpPolicy } from "./people/step-up.ts";
import type { PlanWaits } from "./servers/size-change.ts";
import type { View } from "./view.ts";

/** What a lookup lists, always filtered by principal (core/lookup.ts). */
export type LookupKind =
  | "server"
  | "plan"
  | "image"
  | "network"
  | "customer"
  | "cloud"
  | "operation"
  | "snapshot";

/**
 * One option of a command. `type` decides how text becomes a value (core/options.ts):
 * `text`, `number`, `memory` ("8G" → MiB), `disk` ("80G" → GiB), `flag` ("yes"/"no"), `pairs` ("a=1,b=2").
 */
export interface Option {
  /** As typed: `memory:8G`. Lower case, at most 32 characters (Discord). */
  name: string;
  /** The field of the action's input that it fills: `memoryMib`. */
  field: string;
  label: string;
  /** At most 100 characters (Discord). */
  help: string;
  type: "text" | "number" | "memory" | "disk" | "flag" | "pairs";
  required?: boolean;
  /** The one that a first bare word fills. */
  subject?: true;
  choices?: readonly { value: string; label: string }[];
  lookup?: LookupKind;
  /** Left out of modals: rare, or for scripts. */
  advanced?: true;
  /** Only these may give it. */
  audience?: readonly Audience[];
}

export type Source = "slack" | "discord" | "console" | "api" | "system";

export interface ActionContext {
  /** Reads only the database; inside a transaction where the caller says so. */
  database: Queryable;
  principal: Principal;
  source: Source;
  /** Clouds, policies, the registry, secrets. Its root database is out of reach inside a transaction. */
  engine: Engine;
}

export interface Policies {
  /** Whether destructive actions wait for a confirmation. */
  confirmDestructive: boolean;
  /** How long an unconfirmed operation stays. */
  confirmWithinMs: number;
  /** When customers confirm with their authenticator app; those who have one, when absent. */
  stepUp?: StepUpPolicy;
  /** How long a password may be fetched. */
  secretLifetimeMs: number;
  /** Where the cards of operations go that nobody asked for in a chat. */
  operationChannels: readonly Channel[];
  /** Where an operation that needs attention shows its card, too. */
  alertChannels: readonly Channel[];
  /** How long a deleted server is kept, switched off, before it is gone for good; 0: not at all. */
  deleteGraceMs: number;
}

export interface Channel {
  platform: Platform;
  workspace: string;
  channel: string;
}

interface ActionBase<Input> {
  /** "server.resize": group and verb of the command. */
  readonly name: string;
  /** One line for help, at most 100 characters (Discord). */
  readonly summary: string;
  readonly input: z.ZodType<Input>;
  readonly options: readonly Option[];
  readonly audience: readonly Audience[];
  readonly permission: Permission;
  readonly risk: "read" | "change" | "destructive";
  /** A customer shows first, not long ago, that it is them (people/step-up.ts). */
  readonly stepUp?: true;
}

export interface ReadAction<Input = unknown> extends ActionBase<Input> {
  readonly kind: "read";
  run(context: ActionContext, input: Input): Promise<View>;
}

/** One transaction, no remote call: cancel, confirm, abandon. */
export interface ImmediateAction<Input = unknown> extends ActionBase<Input> {
  readonly kind: "immediate";
  run(context: ActionContext & { database: Transaction }, input: Input): Promise<ImmediateResult>;
}

export interface ImmediateResult {
  view: View;
  /** Why it was refused, for the audit entry; for what must be kept of a refusal, which an error would undo. */
  denied?: string;
  /** The operation it touched or made, for the audit entry and the card. */
  operationId?: string;
  subject?: string;
}

/** What will change, told before it is done; confirmation, approval, `--dry-run` and the API's `dryRun` show it. */
export interface ChangePlan {
  /** "Resize web-1 (srv-…) of Ada to plan m". */
  title: string;
  serverId: string | null;
  customerId: string | null;
  /** The name of the cloud, null when none is touched. */
  cloud: string | null;
  /** What must not run twice at a time: `server:<id>`, `sync:<cloud>`. */
  lockKey: string;
  before: Record<string, unknown>;
  after: Record<string, unknown>;
  /** A sentence, or null when there is none. */
  downtime: string | null;
  irreversible: string[];
  /** Anything else a person should know ("set by cloud-init at first boot"). */
  notes: string[];
  /** How old the data is that this was computed from. */
  dataAsOf: Date | null;
  /** What `steps` needs beyond the above; plain JSON, no secrets. */
  details: Record<string, unknown>;
}

/** Called in the transaction that enters the operation; makes the rows that must exist before the first step. */
export interface Prepared {
  /** A server's row that was made for this order. */
  serverId?: string;
  /** Merged into the plan's details, e.g. the id of a secret. */
  details?: Record<string, unknown>;
}

/** What an end means for our rows. Pure; the engine writes it in the transaction that ends the operation. */
export interface EndEffects {
  server?: {
    planCode?: string;
    /** What was ordered and may come to count later, when the server gets that size (servers/size-change.ts); null: nothing. */
    planWaits?: (PlanWaits & { isUnknown: boolean }) | null;
    imageName?: string;
    hasAgent?: boolean | null;
    vcpus?: number;
    memoryMib?: number;
    diskGib?: number;
    deleteProtected?: boolean;
    /** When it is to be deleted; null: not any more. */
    deleteAt?: Date | null;
    deleted?: boolean;
  };
  /** The closing event, where `<action>.succeeded` would say more than is so. */
  endsAs?: { type: string; data?: Record<string, unknown> };
  /** Events beside `<action>.succeeded|failed|cancelled`. */
  events?: { type: string; data?: Record<string, unknown> }[];
  /** What the card offers to do next; `input` is the action's own, and the presser must be allowed to ask for it. */
  offers?: { action: string; input: Record<string, unknown> }[];
  /** Somebody has to look: the card is shown where alerts are, too. */
  alert?: true;
  /** A secret of this operation may be revealed once to the requester from now on; without it, what failed has none. */
  reveal?: { secretId: string; label: string };
  /** One line for the thread. */
  note?: string;
}

export interface OperationAction<Input = unknown> extends ActionBase<Input> {
  readonly kind: "operation";
  /** Moves when the meaning of pinned steps or plans changes. */
  readonly specVersion: number;
  /** Reads only the database. Throws ServiceError; `nothing_to_change` when the wish is already so. */
  plan(context: ActionContext, input: Input): Promise<ChangePlan>;
  prepare?(
    context: ActionContext & { database: Transaction },
    plan: ChangePlan,
    input: Input,
  ): Promise<Prepared>;
  /** Computed once, at entry, and pinned. The first step of a mutating operation is a preflight. */
  steps(plan: ChangePlan, clouds: Clouds): PlannedStep[];
  /** What the server is shown as while this runs, until the cloud says otherwise. */
  readonly during?: ServerState | ((plan: ChangePlan) => ServerState | undefined);
  /** May take the lock from an operation that waits for a person's decision (delete). */
  readonly supersedes?: true;
  /** Steps of this action's own, beside those of the clouds and the engine's. */
  readonly definitions?: readonly StepDefinition[];
  onEnd?(
    end: "succeeded" | "failed" | "cancelled",
    operation: { plan: ChangePlan; output: Record<string, unknown>; problem: Problem | null },
  ): EndEffects;
}

// An action's input type is its own business: the registry holds them with the type forgotten, and dispatch hands each
// one only what its own schema has parsed.
// oxlint-disable-next-line typescript/no-explicit-any
export type Action = ReadAction<any> | ImmediateAction<any> | OperationAction<any>;

export function defineRead<Input>(action: Omit<ReadAction<Input>, "kind" | "risk">): Action {
  return { ...action, kind: "read", risk: "read" };
}

export function defineImmediate<Input>(action: Omit<ImmediateAction<Input>, "kind">): Action {
  return { ...action, kind: "immediate" };
}

export function defineOperation<Input>(action: Omit<OperationAction<Input>, "kind">): Action {
  return { ...action, kind: "operation" };
}

export interface ActionRegistry {
  /** Throws ServiceError `unknown_command` with the nearest name. */
  get(name: string): Action;
  find(name: string): Action | undefined;
  /** In the order of help. */
  list(): readonly Action[];
}

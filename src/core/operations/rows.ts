/** The rows of an operation as the engine reads and writes them. */
import type { Queryable } from "../../database/client.ts";
import { type Audience, nameFor, type Principal } from "../access.ts";
import type { ChangePlan } from "../action.ts";
import type { Problem } from "../errors.ts";
import type { OperationState } from "./state.ts";

export interface OperationRow {
  id: string;
  publicId: string;
  action: string;
  specVersion: number;
  state: OperationState;
  input: Record<string, unknown>;
  plan: ChangePlan;
  planHash: string;
  output: Record<string, unknown>;
  problem: Problem | null;
  endState: "failed" | "cancelled" | null;
  serverId: string | null;
  customerId: string | null;
  cloudId: string | null;
  cloudName: string | null;
  lockKey: string | null;
  requesterKind: "staff" | "customer" | "system";
  requesterId: string;
  requesterName: string;
  source: string;
  version: number;
  logSeq: number;
  fence: number;
  expiresAt: Date | null;
  cancelRequestedAt: Date | null;
  cancelRequestedBy: string | null;
  confirmedBy: string | null;
  retriesOf: string | null;
  createdAt: Date;
  startedAt: Date | null;
  finishedAt: Date | null;
}

export const operationColumns = `o.id, o.public_id AS "publicId", o.action, o.spec_version AS "specVersion", o.state,
  o.input, o.plan, o.plan_hash AS "planHash", o.output, o.problem, o.end_state AS "endState", o.server_id AS "serverId",
  o.customer_id AS "customerId", o.cloud_id AS "cloudId", (SELECT c.name FROM clouds c WHERE c.id = o.cloud_id) AS "cloudName",
  o.lock_key AS "lockKey", o.requester_kind AS "requesterKind", o.requester_id AS "requesterId",
  o.requester_name AS "requesterName", o.source, o.version, o.log_seq AS "logSeq", o.fence, o.expires_at AS "expiresAt",
  o.cancel_requested_at AS "cancelRequestedAt", o.cancel_requested_by AS "cancelRequestedBy",
  o.confirmed_by AS "confirmedBy", o.retries_of AS "retriesOf", o.created_at AS "createdAt",
  o.started_at AS "startedAt", o.finished_at AS "finishedAt"`;

export type StepState = "planned" | "intent" | "waiting" | "done" | "failed" | "skipped";

export interface StepRow {
  seq: number;
  name: string;
  label: string;
  state: StepState;
  compensates: number | null;
  input: Record<string, unknown>;
  attempt: number;
  inDoubt: boolean;
  reference: Record<string, unknown> | null;
  output: Record<string, unknown> | null;
  problem: Problem | null;
  issuedAt: Date | null;
  callDeadline: Date | null;
  deadlineAt: Date | null;
  startedAt: Date | null;
  finishedAt: Date | null;
}

export async function readSteps(database: Queryable, operationId: string): Promise<StepRow[]> {
  return database.sql<StepRow>(
    `SELECT seq, name, label, state, compensates, input, attempt, in_doubt AS "inDoubt", reference, output, problem, issued_at AS "issuedAt",
       call_deadline AS "callDeadline", deadline_at AS "deadlineAt", started_at AS "startedAt", finished_at AS "finishedAt"
     FROM operation_steps WHERE operation_id = $1 ORDER BY seq`,
    [operationId],
  );
}

export type LogLevel = "info" | "warning" | "error" | "success";

export interface LogEntry {
  level: LogLevel;
  text: string;
  /** `staff`: names what a customer must not read (a cloud's request id, its own words); `customer`: stands for it. */
  audience?: "everyone" | Audience;
}

/** A line that names who did it. */
export function lineBy(
  person: Pick<Principal, "kind" | "name">,
  level: LogLevel,
  text: (name: string) => string,
): LogEntry[] {
  if (person.kind === "customer") return [{ level, text: text(person.name) }];
  return [
    { level, audience: "staff", text: text(person.name) },
    { level, audience: "customer", text: text(nameFor("customer", person)) },
  ];
}

/** SQL: appends to what the thread tells of operation $1, and moves the version that cards compare. */
const appendLines = `bumped AS (
    UPDATE operations SET log_seq = log_seq + jsonb_array_length($2::jsonb), version = version + jsonb_array_length($2::jsonb)
    WHERE id = $1 RETURNING log_seq)
  INSERT INTO operation_log (operation_id, seq, level, audience, text)
  SELECT $1, b.log_seq - jsonb_array_length($2::jsonb) + x.n, x.line->>'level', COALESCE(x.line->>'audience', 'everyone'),
    x.line->>'text'
  FROM bumped b, jsonb_array_elements($2::jsonb) WITH ORDINALITY AS x(line, n)`;

export async function appendLog(
  database: Queryable,
  operationId: string,
  entries: readonly LogEntry[],
): Promise<void> {
  if (entries.length === 0) return;
  await database.sql(`WITH ${appendLines}`, [operationId, JSON.stringify(entries)]);
}

/** A step's end and what the thread tells of it. */
export async function storeDone(
  database: Queryable,
  operationId: string,
  { seq, output, lines }: { seq: number; output: Record<string, unknown>; lines: readonly LogEntry[] },
): Promise<void> {
  await database.sql(
    `WITH done AS (
       UPDATE operation_steps SET state = 'done', output = $4::jsonb, problem = NULL, finished_at = clock()
       WHERE operation_id = $1 AND seq = $3),
     ${appendLines}`,
    [operationId, JSON.stringify(lines), seq, output],
  );
}

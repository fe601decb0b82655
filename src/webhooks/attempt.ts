/** One HTTP try of one delivery, and what it means. */
import type { Logger } from "pino";
import { type Connector, ConnectorError, type PostResult } from "../net/connector.ts";
import type { Claimed } from "./claim.ts";
import type { Outcome, WebhookFormat } from "./formats/format.ts";
import { findFormat } from "./formats/index.ts";
import { parseRetryAfter, pauseMs, retryDelayMs } from "./retry.ts";
import { signatureHeaders } from "./signature.ts";

export interface AttemptRecord {
  readonly claimed: Claimed;
  readonly startedAt: Date;
  readonly durationMs: number;
  readonly httpStatus: number | null;
  readonly outcome: Outcome;
  readonly error: string | null;
  /** The beginning of what the receiver said. */
  readonly response: string | null;
  readonly state: "pending" | "delivered" | "dead";
  /** For `pending`. */
  readonly nextInMs: number | null;
  /** For `throttled`: how long the endpoint gets nothing. */
  readonly pauseMs: number | null;
}

export interface AttemptContext {
  readonly connector: Connector;
  readonly log: Logger;
  readonly random: () => number;
  readonly userAgent: string;
  /** No attempt may outlive its lease. */
  readonly maxTimeoutMs: number;
  /** The keys that sign for an endpoint, by the id of its secret. */
  keys(secretId: string): Promise<readonly Buffer[]>;
}

interface Judged {
  outcome: Outcome;
  answer?: PostResult;
  error?: string;
}

const KEPT_RESPONSE_BYTES = 2_048;
const KEPT_ERROR_CHARACTERS = 500;

/** Never throws. */
export async function attempt(claimed: Claimed, context: AttemptContext): Promise<AttemptRecord> {
  const startedSteadyMs = performance.now();
  // The database's clock, carried on by our steady one: this machine's wall clock may be wrong or step.
  const startedAt = new Date(claimed.claimedAt.getTime() + startedSteadyMs - claimed.claimedAtSteadyMs);
  const { outcome, answer, error } = await tryOnce(claimed, startedAt, context);
  const retryAfterMs = parseRetryAfter(answer?.headers["retry-after"], startedAt);
  const mayRetry = outcome === "retry" || outcome === "throttled";
  const nextInMs = mayRetry
    ? retryDelayMs(claimed.attemptCount + 1, { random: context.random, retryAfterMs })
    : null;
  return {
    claimed,
    startedAt,
    durationMs: Math.round(performance.now() - startedSteadyMs),
    httpStatus: answer?.status ?? null,
    outcome,
    error: error === undefined ? null : storable(error.slice(0, KEPT_ERROR_CHARACTERS)),
    response: answer === undefined ? null : beginningOf(answer.body),
    state: outcome === "delivered" ? "delivered" : nextInMs === null ? "dead" : "pending",
    nextInMs,
    pauseMs: outcome === "throttled" ? pauseMs(retryAfterMs) : null,
  };
}

async function tryOnce(claimed: Claimed, startedAt: Date, context: AttemptContext): Promise<Judged> {
  const { endpoint, event } = claimed;
  const format = findFormat(endpoint.format);
  if (format === undefined)
    return { outcome: "retry", error: `There is no webhook format "${endpoint.format}".` };
  try {
    const rendered = format.render(event, { audience: endpoint.audience });
    const body = Buffer.from(rendered.body, "utf8");
    const keys = await context.keys(endpoint.secretId);
    const timestampSeconds = Math.floor(startedAt.getTime() / 1_000);
    const answer = await context.connector.post({
      url: endpoint.url,
      headers: {
        ...rendered.headers,
        "user-agent": context.userAgent,
        ...signatureHeaders(keys, { id: event.id, timestampSeconds, body }),
      },
      body,
      timeoutMs: Math.min(endpoint.timeoutMs, context.maxTimeoutMs),
    });
    return judge(format, answer);
  } catch (error) {
    if (error instanceof ConnectorError) return judgeFailure(format, error);
    // Ours, not the receiver's: the secret's key, the database, an event that cannot be rendered. The log has it all.
    context.log.error(
      { err: error, endpoint: endpoint.name, event: event.id, type: event.type },
      "webhook attempt failed on our side",
    );
    return { outcome: "retry", error: "internal: the attempt failed on our side; the log has the details" };
  }
}

function judge(format: WebhookFormat, answer: PostResult): Judged {
  const outcome = format.judge(answer.status, answer.headers, answer.body);
  return outcome === "delivered" ? { outcome, answer } : { outcome, answer, error: `HTTP ${answer.status}` };
}

/** An answer that only was too long still said what it had to say: its status counts. */
function judgeFailure(format: WebhookFormat, error: ConnectorError): Judged {
  const text = `${error.code}: ${error.message}`;
  return error.partial === undefined
    ? { outcome: "retry", error: text }
    : { ...judge(format, error.partial), error: text };
}

function beginningOf(body: string): string {
  return storable(Buffer.from(body, "utf8").subarray(0, KEPT_RESPONSE_BYTES).toString("utf8"));
}

/** PostgreSQL's text and json hold neither NUL nor half a surrogate pair. */
function storable(text: string): string {
  return text.replaceAll("\u0000", "\ufffd").toWellFormed();
}

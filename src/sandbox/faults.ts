/** Faults per request, the same for every simulated cloud. */
import { randomUUID } from "node:crypto";
import type { ServerResponse } from "node:http";
import { z } from "zod";
import { withoutUndefined } from "./defined.ts";

const KINDS = ["status", "status_after", "delay", "hang", "drop", "drop_after", "trickle"] as const;
export type FaultKind = (typeof KINDS)[number];

export interface Fault {
  id?: string;
  /** Default: any method. */
  method?: string;
  /** Regular expression on path and query; default: any. */
  path?: string;
  /** Default 1; 0 = for ever. */
  times?: number;
  /** 0..1; default 1. */
  probability?: number;
  kind: FaultKind;
  /** For "status" and "status_after"; default 503. */
  status?: number;
  /** The HTTP reason phrase; default: the usual one of the status. */
  reason?: string;
  /** For "status" and "status_after"; default: the error shape of the service that was called. */
  body?: unknown;
  headers?: Record<string, string>;
  /** Before the answer of "delay", "status" and "status_after" (default 100, 0, 0); per piece of "trickle" (100). */
  delayMs?: number;
}

export interface ArmedFault extends Fault {
  id: string;
  /** Uses left; Infinity = for ever. */
  left: number;
  hits: number;
}

export type FaultPresets = Readonly<Record<string, Fault>>;

/** A typing error in a fault must not become a fault that never happens: unknown keys are refused. */
const FaultInput = z.strictObject({
  preset: z.string().optional(),
  id: z.string().optional(),
  method: z.string().optional(),
  path: z.string().optional(),
  times: z.number().int().min(0).optional(),
  probability: z.number().min(0).max(1).optional(),
  kind: z.enum(KINDS).optional(),
  status: z.number().int().optional(),
  reason: z.string().optional(),
  body: z.unknown().optional(),
  headers: z.record(z.string(), z.string()).optional(),
  delayMs: z.number().min(0).optional(),
});

/** Throws when the fault's path is no regular expression: its author must see it, not some request. */
export function armFault(fault: Fault): ArmedFault {
  if (fault.path !== undefined) RegExp(fault.path);
  const times = fault.times ?? 1;
  return { ...fault, id: fault.id ?? randomUUID(), left: times === 0 ? Infinity : times, hits: 0 };
}

/** The first armed fault that wants this request; its use is counted. */
export function takeFault(
  faults: ArmedFault[],
  request: { method: string; target: string },
): ArmedFault | undefined {
  for (const fault of faults) {
    if (fault.left <= 0) continue;
    if (fault.method !== undefined && fault.method.toUpperCase() !== request.method) continue;
    if (fault.path !== undefined && !new RegExp(fault.path).test(request.target)) continue;
    if (fault.probability !== undefined && Math.random() >= fault.probability) continue;
    fault.left -= 1;
    fault.hits += 1;
    return fault;
  }
  return undefined;
}

/**
 * Header form, for one request: a kind (`drop_after`, `hang`), a kind with a number
 * (`status=503`, `delay=500`, `trickle=20`) or a preset (`gateway_429`).
 */
export function parseFaultHeader(value: string, presets: FaultPresets): Fault | undefined {
  const [name = "", argument] = value.trim().split("=");
  const preset = presets[name];
  if (preset) return preset;
  const kind = KINDS.find((candidate) => candidate === name);
  if (kind === undefined) return undefined;
  const fault: Fault = { kind };
  if (argument === undefined) return fault;
  const number = Number(argument);
  return kind.startsWith("status") ? { ...fault, status: number } : { ...fault, delayMs: number };
}

/** One fault, several, or a preset by name: `{"preset": "gateway_429", "times": 3}`. */
export function readFaults(input: unknown, presets: FaultPresets): ArmedFault[] {
  const wanted = z.union([z.array(FaultInput), FaultInput.transform((fault) => [fault])]).parse(input);
  return wanted.map((fault) => {
    const base = fault.preset === undefined ? undefined : presets[fault.preset];
    if (fault.preset !== undefined && !base) throw new TypeError(`unknown preset: ${fault.preset}`);
    const kind = fault.kind ?? base?.kind;
    if (kind === undefined) throw new TypeError("a fault needs a kind or a preset");
    const { preset: _preset, ...rest } = fault;
    return armFault(Object.assign({ ...base, kind }, withoutUndefined(rest)));
  });
}

/** A fault as JSON can hold it: Infinity is none. */
export function shownFault({ left, ...fault }: ArmedFault): object {
  return { ...fault, left: Number.isFinite(left) ? left : null };
}

/** What a fault does to a request, said by the simulator it hits. */
export interface UnderFault<Answer> {
  answer: () => Promise<Answer>;
  refuse: (fault: Fault) => Answer;
  pauseExactly: (ms: number) => Promise<void>;
  hang: Answer;
  drop: Answer;
}

export async function answerUnderFault<Answer>(
  fault: Fault | undefined,
  play: UnderFault<Answer>,
): Promise<Answer> {
  switch (fault?.kind) {
    case "hang":
      return play.hang;
    case "drop":
      return play.drop;
    case "drop_after":
      await play.answer();
      return play.drop;
    case "status":
      await play.pauseExactly(fault.delayMs ?? 0);
      return play.refuse(fault);
    case "status_after":
      await play.answer();
      await play.pauseExactly(fault.delayMs ?? 0);
      return play.refuse(fault);
    case "delay":
      await play.pauseExactly(fault.delayMs ?? 100);
      return play.answer();
    case "trickle":
    case undefined:
      return play.answer();
  }
}

/** The answer's body in small pieces: what a timeout between bytes never notices. The head is already written. */
export async function trickle(
  response: ServerResponse,
  payload: Buffer,
  pause: () => Promise<void>,
): Promise<void> {
  const size = Math.max(1, Math.ceil(payload.length / 20));
  for (let start = 0; start < payload.length && !response.destroyed; start += size) {
    response.write(payload.subarray(start, start + size));
    await pause();
  }
  response.end();
}

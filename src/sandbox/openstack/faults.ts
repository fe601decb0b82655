import { randomUUID } from "node:crypto";

export type FaultKind = "status" | "delay" | "hang" | "drop" | "drop_after" | "trickle";

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
  /** For "status"; default 503. */
  status?: number;
  /** For "status"; default: the error shape of the service that was called. */
  body?: unknown;
  headers?: Record<string, string>;
  /** For "delay" and, per piece, for "trickle". Default 100. */
  delayMs?: number;
}

export interface ArmedFault extends Fault {
  id: string;
  /** Uses left; Infinity = for ever. */
  left: number;
  hits: number;
}

const NOVA_500 =
  "Unexpected API Error. Please report this at http://bugs.launchpad.net/nova/ and attach the Nova API log if possible.";

/** Nova's 500 names the Python class of what went wrong and nothing else. */
export function computeFault(className: string): { computeFault: { code: number; message: string } } {
  return { computeFault: { code: 500, message: `${NOVA_500}\n<class '${className}'>` } };
}

function gateway(status: number, reason: string, headers: Record<string, string> = {}): Fault {
  return {
    kind: "status",
    status,
    headers: { "Content-Type": "text/html", ...headers },
    body: `<html><head><title>${status} ${reason}</title></head><body><center><h1>${status} ${reason}</h1></center><hr><center>nginx</center></body></html>`,
  };
}

/** Faults by name, for `X-Sim-Fault: gateway_429` and `POST /_sim/faults {"preset": "gateway_429"}`. */
export const faultPresets: Readonly<Record<string, Fault>> = {
  gateway_413: {
    kind: "status",
    status: 413,
    headers: { "Retry-After": "1" },
    body: { overLimit: { code: 413, message: "This request was rate-limited.", retryAfter: "1" } },
  },
  gateway_429: gateway(429, "Too Many Requests", { "Retry-After": "1" }),
  gateway_502: gateway(502, "Bad Gateway"),
  gateway_503: gateway(503, "Service Temporarily Unavailable", { "Retry-After": "1" }),
  gateway_504: gateway(504, "Gateway Time-out"),
  unauthorized: { kind: "status", status: 401 },
  nova_500: { kind: "status", status: 500, body: computeFault("sqlalchemy.exc.OperationalError") },
  messaging_timeout: {
    kind: "status",
    status: 500,
    body: computeFault("oslo_messaging.exceptions.MessagingTimeout"),
  },
  unexpected_task_state: {
    kind: "status",
    status: 500,
    body: computeFault("nova.exception.UnexpectedTaskStateError"),
  },
  neutron_down: {
    kind: "status",
    status: 500,
    body: computeFault("keystoneauth1.exceptions.connection.ConnectFailure"),
  },
  glance_down: {
    kind: "status",
    status: 500,
    body: computeFault("nova.exception.GlanceConnectionFailed"),
  },
  keystone_503: {
    kind: "status",
    status: 503,
    body: {
      message:
        "The server is currently unavailable. Please try again at a later time.<br /><br />\nThe Keystone service is temporarily unavailable.\n\n",
      code: "503 Service Unavailable",
      title: "Service Unavailable",
    },
  },
};

const KINDS: readonly FaultKind[] = ["status", "delay", "hang", "drop", "drop_after", "trickle"];

export function armFault(fault: Fault): ArmedFault {
  // A bad expression must fail here, where its author sees it, not in the middle of a request.
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
export function parseFaultHeader(value: string): Fault | undefined {
  const [name = "", argument] = value.trim().split("=");
  const preset = faultPresets[name];
  if (preset) return preset;
  const kind = KINDS.find((candidate) => candidate === name);
  if (kind === undefined) return undefined;
  const fault: Fault = { kind };
  if (argument === undefined) return fault;
  return kind === "status" ? { ...fault, status: Number(argument) } : { ...fault, delayMs: Number(argument) };
}

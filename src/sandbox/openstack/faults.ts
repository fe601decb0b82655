import type { Fault, FaultPresets } from "../faults.ts";

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
export const faultPresets: FaultPresets = {
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

import type { Fault, FaultPresets } from "../faults.ts";

function proxy(kind: Fault["kind"], status: number, reason: string): Fault {
  return { kind, status, reason, headers: { Connection: "close" } };
}

function failed(message: string): Fault {
  const reason = message.split("\n")[0] ?? "";
  return { kind: "status", status: 500, reason, body: { data: null, message } };
}

/** Faults by name, for `X-Sim-Fault: proxy_596_after` and `POST /_sim/faults {"preset": "proxy_595"}`. */
export const faultPresets: FaultPresets = {
  /** Never reached the daemon. */
  proxy_595: proxy("status", 595, "Connection refused"),
  /** Not done. */
  proxy_596: proxy("status", 596, "Connection timed out"),
  /** Done all the same. */
  proxy_596_after: proxy("status_after", 596, "Connection timed out"),
  proxy_599: proxy("status", 599, "Too many redirections"),
  proxy_599_after: proxy("status_after", 599, "Broken pipe"),
  unauthorized: { kind: "status", status: 401, reason: "Authentication failed!" },
  forbidden: {
    kind: "status",
    status: 403,
    reason: "Permission check failed",
    body: { data: null, message: "Permission check failed\n" },
  },
  no_worker_upid: failed("got no worker upid - start worker failed\n"),
  got_timeout: failed("got timeout\n"),
  no_quorum: failed("cluster not ready - no quorum?\n"),
  gateway_502: {
    kind: "status",
    status: 502,
    headers: { "Content-Type": "text/html" },
    body: "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center></body></html>",
  },
};

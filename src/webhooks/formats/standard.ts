/** The envelope of Standard Webhooks: type, timestamp, data; beside them what orders and relates events. */
import { parseExactly, safeInteger } from "./exact-json.ts";
import type { Outcome, OutgoingEvent, Recipient, WebhookFormat } from "./format.ts";

// The receiver has understood and refuses; the same bytes will be refused again. 404 is not among them: it is what a
// receiver answers while it is being deployed.
const PERMANENT = new Set([400, 401, 403, 413]);

export const standardFormat: WebhookFormat = {
  name: "standard",

  render(event, recipient) {
    return {
      body: JSON.stringify({
        type: event.type,
        timestamp: event.occurredAt.toISOString(),
        id: event.id,
        position: safeInteger(event.position),
        ...(event.sequence !== null && { sequence: safeInteger(event.sequence) }),
        ...(event.serverPublicId !== null && { server: event.serverPublicId }),
        ...(event.operationPublicId !== null && { operation: event.operationPublicId }),
        ...(event.customerRef !== null && { customer: event.customerRef }),
        data: dataFor(event, recipient),
      }),
      headers: { "content-type": "application/json" },
    };
  },

  judge(status, headers): Outcome {
    // A receiver can say so explicitly whatever the status; the names are Svix's.
    if (headers["webhook-delivery"] === "disable") return "gone";
    if (headers["webhook-delivery"] === "abort-message") return "permanent";
    if (status >= 200 && status < 300) return "delivered";
    if (status === 410) return "gone";
    if (status === 429 || (status === 503 && headers["retry-after"] !== undefined)) return "throttled";
    return PERMANENT.has(status) ? "permanent" : "retry";
  },
};

function dataFor(event: OutgoingEvent, recipient: Recipient): unknown {
  const data = parseExactly(event.dataJson);
  if (recipient.audience === "customer") return data;
  const internal = parseExactly(event.staffDataJson);
  return isObject(data) ? { ...data, internal } : { value: data, internal };
}

// Not what parseExactly makes of a number, which is an object too.
function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}

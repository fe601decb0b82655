/** What a webhook format is: how an event looks on the wire, and what the receiver's answer means. */

/** An event as the outbox has it. */
export interface OutgoingEvent {
  readonly id: string;
  /** "server.resize.succeeded" */
  readonly type: string;
  readonly occurredAt: Date;
  /** In the global feed, from 1, without gaps. */
  readonly position: bigint;
  /** Per server, from 1, without gaps; null for an event of no server. */
  readonly sequence: bigint | null;
  readonly serverPublicId: string | null;
  readonly operationPublicId: string | null;
  /** The billing system's id of the customer. */
  readonly customerRef: string | null;
  /** JSON as the database holds it, so that no number loses a digit. */
  readonly dataJson: string;
  /** The same, of what only staff may see. */
  readonly staffDataJson: string;
}

export interface Recipient {
  /** `customer`: never sees staff data. */
  readonly audience: "staff" | "customer";
}

/**
 * What became of an attempt:
 * - `delivered`
 * - `retry`      try again by the schedule
 * - `throttled`  the receiver asks for less: nothing goes to this endpoint for a while
 * - `permanent`  the same request will be refused again: give up and tell a person
 * - `gone`       the receiver does not want anything any more: disable the endpoint and tell a person
 */
export const outcomes = ["delivered", "retry", "throttled", "permanent", "gone"] as const;
export type Outcome = (typeof outcomes)[number];

export interface WebhookFormat {
  readonly name: string;
  /** The body is signed and sent as these very bytes; a pure function, so that every attempt sends the same ones. */
  render(event: OutgoingEvent, recipient: Recipient): { body: string; headers: Record<string, string> };
  /** Lower-case header names; the body is cut at the connector's cap. */
  judge(status: number, headers: Readonly<Record<string, string>>, body: string): Outcome;
}

/** Slack's end of Socket Mode: gives out addresses, greets, delivers envelopes and hears what they are answered. */
import { randomUUID } from "node:crypto";
import type { Server } from "node:http";
import { acceptWebSockets, type WebSocketEnd } from "./web-socket.ts";

export interface SlackSockets {
  /** Connections that were greeted and are open. */
  open(): number;
  /** How many were ever made. */
  made(): number;
  /** To the newest connection. Resolves with the answer, null for an empty one. */
  deliver(type: string, payload: unknown, envelopeId?: string): Promise<Record<string, unknown> | null>;
  /** Anything else that Slack says: `{ type: "disconnect", reason: "refresh_requested" }`. */
  say(message: Record<string, unknown>): void;
  kill(): void;
}

export function slackSockets(server: Server): SlackSockets {
  const ends: WebSocketEnd[] = [];
  const answers = new Map<string, (payload: Record<string, unknown>) => void>();
  let made = 0;

  acceptWebSockets(server, (end) => {
    made += 1;
    ends.push(end);
    end.onGone(() => ends.splice(ends.indexOf(end), 1));
    end.onText((text) => {
      const { envelope_id: id, payload } = JSON.parse(text) as {
        envelope_id: string;
        payload: Record<string, unknown>;
      };
      answers.get(id)?.(payload);
    });
    end.send(JSON.stringify({ type: "hello", num_connections: ends.length }));
  });

  const newest = (): WebSocketEnd => {
    const end = ends.at(-1);
    if (end === undefined) throw new Error("the bot is not connected");
    return end;
  };
  return {
    open: () => ends.length,
    made: () => made,
    async deliver(type, payload, envelopeId = randomUUID()) {
      const answered = new Promise<Record<string, unknown>>((resolve) => answers.set(envelopeId, resolve));
      newest().send(
        JSON.stringify({ envelope_id: envelopeId, type, payload, accepts_response_payload: true }),
      );
      const payloadBack = await answered;
      return Object.keys(payloadBack).length === 0 ? null : payloadBack;
    },
    say: (message) => newest().send(JSON.stringify(message)),
    kill() {
      for (const end of ends) end.kill();
    },
  };
}

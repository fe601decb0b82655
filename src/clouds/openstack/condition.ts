// What a wait watches, as it is stored on its row.
import { z } from "zod";

/** Settled when the server is not busy and its status is none of `leave`; gone when it is deleted. */
export const ServerCondition = z.object({
  kind: z.literal("server"),
  serverId: z.string(),
  leave: z.array(z.string()),
});
export type ServerCondition = z.infer<typeof ServerCondition>;

/** Settled when one of these servers has moved on; verify then looks at all of them. */
export const DiscardCondition = z.object({ kind: z.literal("discard"), serverIds: z.array(z.string()) });
export type DiscardCondition = z.infer<typeof DiscardCondition>;

export const Condition = z.discriminatedUnion("kind", [ServerCondition, DiscardCondition]);
export type Condition = z.infer<typeof Condition>;

export function serverCondition(serverId: string, leave: string[] = []): ServerCondition {
  return { kind: "server", serverId, leave };
}

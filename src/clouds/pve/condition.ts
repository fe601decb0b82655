// What a wait watches, as it is stored on its row.
import { z } from "zod";
import type { Upid } from "./upid.ts";

/** Settled when the task has ended. */
export const TaskCondition = z.object({ kind: z.literal("task"), upid: z.string() });
export type TaskCondition = z.infer<typeof TaskCondition>;

/** What no task tells (a lock, a guest that comes up): settled after a pause, and the step looks for itself. */
export const LookCondition = z.object({ kind: z.literal("look"), soon: z.boolean(), note: z.string() });
export type LookCondition = z.infer<typeof LookCondition>;

export const Condition = z.discriminatedUnion("kind", [TaskCondition, LookCondition]);

export function taskCondition({ upid }: Pick<Upid, "upid">): TaskCondition {
  return { kind: "task", upid };
}

/** `soon`: without a pause. */
export function lookCondition(note: string, { soon = false } = {}): LookCondition {
  return { kind: "look", soon, note };
}

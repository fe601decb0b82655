// One task list of each node that something is waited for on answers all waits, however many there are.
import type { Observation, OpenWait } from "../../core/cloud.ts";
import type { PveClient } from "./client.ts";
import { isRunning, listTasks } from "./cluster.ts";
import { Condition, type LookCondition } from "./condition.ts";
import type { Task } from "./schema.ts";
import { parseUpid, type Upid } from "./upid.ts";

export type Watch = (waits: readonly OpenWait[], signal?: AbortSignal) => Promise<Observation[]>;

const NOTES: Readonly<Record<string, string>> = {
  qmclone: "copying the disk",
  qmstart: "starting",
  qmstop: "switching off",
  qmshutdown: "shutting down",
  qmreboot: "restarting",
  qmsuspend: "saving its memory",
  qmresume: "restoring its memory",
  qmdestroy: "being removed",
  imgdel: "deleting its backups",
  resize: "growing the disk",
  qmsnapshot: "taking the snapshot",
  qmrollback: "going back to the snapshot",
  qmdelsnapshot: "deleting the snapshot",
};

export function createWatch(client: PveClient, lookEveryMs: number): Watch {
  /** When a look was first waited for, by a clock that cannot jump. */
  const firstSeen = new Map<string, number>();

  function observeLook(wait: OpenWait, { soon, note }: LookCondition): Observation {
    const now = client.now();
    const since = firstSeen.get(wait.id) ?? now;
    firstSeen.set(wait.id, since);
    if (!soon && now - since < lookEveryMs) return { waitId: wait.id, note };
    firstSeen.delete(wait.id);
    return { waitId: wait.id, note, result: { outcome: "settled" } };
  }

  return async (waits, signal) => {
    const open = new Set(waits.map((wait) => wait.id));
    for (const id of firstSeen.keys()) if (!open.has(id)) firstSeen.delete(id);
    const observations: Observation[] = [];
    const byNode = new Map<string, { wait: OpenWait; upid: Upid }[]>();
    for (const wait of waits) {
      const condition = Condition.safeParse(wait.condition).data;
      const upid = condition?.kind === "task" ? parseUpid(condition.upid) : null;
      if (condition?.kind === "look") observations.push(observeLook(wait, condition));
      else if (upid === null)
        // Written by another version of this program: the step's own verify knows better.
        observations.push({ waitId: wait.id, result: { outcome: "settled", detail: "unknown condition" } });
      else byNode.set(upid.node, [...(byNode.get(upid.node) ?? []), { wait, upid }]);
    }
    return [...observations, ...(await observeTasks(client, byNode, signal))];
  };
}

async function observeTasks(
  client: PveClient,
  byNode: ReadonlyMap<string, { wait: OpenWait; upid: Upid }[]>,
  signal: AbortSignal | undefined,
): Promise<Observation[]> {
  const looks = await Promise.allSettled(
    [...byNode].map(async ([node, waiting]) => {
      // By the node's own clock: it is written in the task's id.
      const since = Math.min(...waiting.map(({ upid }) => upid.startedAt));
      const tasks = new Map(
        (await listTasks(client, node, { since, signal })).map((task) => [task.upid, task]),
      );
      return waiting.map(({ wait, upid }) => observeTask(client, { wait, upid }, tasks.get(upid.upid)));
    }),
  );
  const seen = looks.flatMap((look) => (look.status === "fulfilled" ? look.value : []));
  const failed = looks.find((look) => look.status === "rejected");
  // A node that is away keeps its own waits open, not those of the others.
  if (failed !== undefined && seen.length === 0) throw failed.reason;
  if (failed !== undefined) client.log.warn({ err: failed.reason, cloud: client.cloud }, "a node's tasks");
  return seen;
}

function observeTask(
  client: PveClient,
  { wait, upid }: { wait: OpenWait; upid: Upid },
  task: Task | undefined,
): Observation {
  // Not listed (yet, or not for us): verify asks for the task itself.
  if (task === undefined) return { waitId: wait.id, result: { outcome: "settled", detail: "not listed" } };
  if (isRunning(task)) return { waitId: wait.id, note: NOTES[upid.type] ?? "the cloud is working on it" };
  if (task.status !== undefined) client.recent.ended(upid.upid, task.status);
  return { waitId: wait.id, result: { outcome: "settled", detail: task.status ?? "" } };
}

/** What is to happen at an exact moment: each of them once, and at once, before anything else goes on. */
import type { Task } from "./tasks.ts";

export interface WantedRequest {
  /** Default: any method. */
  method?: string;
  /** Regular expression on path and query; default: any. */
  path?: string;
}

export interface Hooks {
  tasks: { type: string; work: (task: Task) => void }[];
  requests: { wanted: WantedRequest; work: () => void }[];
}

/** A worker of this type is forked; it has done nothing yet. */
export function taskForked({ tasks }: Hooks, task: Task): void {
  const at = tasks.findIndex(({ type }) => type === task.type);
  if (at !== -1) tasks.splice(at, 1)[0]?.work(task);
}

/** A request has come in whole; nothing has been done about it, though its fault is chosen. */
export function requestCame(
  { requests }: Hooks,
  { method, target }: { method: string; target: string },
): void {
  const at = requests.findIndex(
    ({ wanted }) =>
      (wanted.method === undefined || wanted.method === method) &&
      (wanted.path === undefined || new RegExp(wanted.path).test(target)),
  );
  if (at !== -1) requests.splice(at, 1)[0]?.work();
}

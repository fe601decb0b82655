/** Tasks of a node: the list with its two sources, a task's status and log, and its end by hand. */
import { pause } from "../pace.ts";
import { may, type Who } from "./access.ts";
import { type Cluster, isOffline, nodeOf } from "./cluster.ts";
import * as format from "./formats.ts";
import { type Call, type Method, method } from "./router.ts";
import { boolean, integer, needed, oneOf, string } from "./schema.ts";
import type { Task } from "./tasks.ts";
import { flag, needText, number, PveError, paramError, splitList, text } from "./wire.ts";

const node = needed(format.node());
const upid = needed(string());

export const taskMethods: Method[] = [
  method("GET", "/nodes/{node}/tasks", {
    permission: "all",
    schema: {
      node,
      errors: boolean(),
      limit: integer({ minimum: 0 }),
      since: integer(),
      source: oneOf("archive", "active", "all"),
      start: integer({ minimum: 0 }),
      statusfilter: string({ format: format.statusTypeList }),
      typefilter: string(),
      until: integer(),
      userfilter: string(),
      vmid: format.vmid(),
    },
    handler: listTasks,
  }),
  method("GET", "/nodes/{node}/tasks/{upid}", {
    permission: "all",
    proxied: false,
    schema: { node, upid },
    handler: () => ["log", "status"].map((name) => ({ name })),
  }),
  method("DELETE", "/nodes/{node}/tasks/{upid}", {
    permission: "all",
    schema: { node, upid },
    handler: async (call) => {
      const task = findTask(call, "Sys.Modify");
      task.stop();
      // Five seconds for the worker's own clean-up, then SIGKILL.
      for (let waited = 0; waited < 5000 && task.endedAt === undefined; waited += 100) {
        await pause(call.cluster, 100);
      }
      task.kill();
    },
  }),
  method("GET", "/nodes/{node}/tasks/{upid}/status", {
    permission: "all",
    protected: true,
    schema: { node, upid },
    handler: (call) => {
      const task = findTask(call, "Sys.Audit");
      const { exitstatus } = task;
      return {
        ...decoded(task),
        status: task.endedAt === undefined ? "running" : "stopped",
        ...(exitstatus === undefined ? {} : { exitstatus }),
      };
    },
  }),
  method("GET", "/nodes/{node}/tasks/{upid}/log", {
    permission: "all",
    protected: true,
    schema: {
      node,
      upid,
      download: boolean(),
      limit: integer({ minimum: 0 }),
      start: integer({ minimum: 0 }),
    },
    handler: readLog,
  }),
  method("GET", "/cluster/tasks", {
    permission: "all",
    schema: {},
    handler: ({ cluster, who }) => clusterTasks(cluster, who),
  }),
];

/** A decoded UPID; a token's name is split from its user. */
function decoded(task: Task): Record<string, unknown> {
  const [user, tokenid] = task.user.split("!");
  const { upid: id, node: name, pid, pstart, starttime, type } = task;
  return {
    upid: id,
    node: name,
    pid,
    pstart,
    starttime,
    type,
    id: task.id,
    user,
    ...(tokenid === undefined ? {} : { tokenid }),
  };
}

/** An archived task. */
function archived(task: Task): Record<string, unknown> {
  const endtime = task.endedAt === undefined ? {} : { endtime: Math.floor(task.endedAt / 1000) };
  return { ...decoded(task), ...endtime, status: task.exitstatus };
}

/** A running one: its user still carries the token, and its status is the word RUNNING. */
function active(task: Task): Record<string, unknown> {
  const { tokenid: _, ...rest } = decoded(task);
  return { ...rest, user: task.user, status: "RUNNING" };
}

function owns(task: Task, who: Who): boolean {
  // A token sees its own tasks only, a user also those of their tokens.
  return task.user === who.id || task.user.split("!")[0] === who.id;
}

function listTasks(call: Call): object[] {
  const { cluster, params, who } = call;
  const home = nodeOf(cluster, call.node);
  const source = text(params, "source") ?? "archive";
  const wanted = filterOf(call, may(who.account, `/nodes/${call.node}`, ["Sys.Audit"]));
  const start = number(params, "start") ?? 0;
  let left = number(params, "limit") ?? 50;
  const rows: object[] = [];
  let count = 0;
  const take = (task: Task, running: boolean): void => {
    if (!wanted(task, running)) return;
    count += 1;
    if (count <= start || left <= 0) return;
    left -= 1;
    rows.push(running ? active(task) : archived(task));
  };
  if (source !== "archive") for (const task of home.active) take(task, true);
  if (source !== "active") {
    const { current, previous } = home.archive;
    for (const task of current.toReversed()) take(task, false);
    for (const task of previous.toReversed()) take(task, false);
  }
  call.total = count;
  return rows;
}

function filterOf({ params, who }: Call, auditor: boolean): (task: Task, running: boolean) => boolean {
  const user = text(params, "userfilter")?.toLowerCase();
  const type = text(params, "typefilter");
  const vmid = text(params, "vmid");
  const since = number(params, "since");
  const until = number(params, "until");
  const errors = flag(params, "errors") === true;
  const types = splitList(text(params, "statusfilter")?.toLowerCase());
  return (task, running) => {
    if (!auditor && !owns(task, who)) return false;
    if (user !== undefined && !task.user.toLowerCase().includes(user)) return false;
    if (type !== undefined && task.type !== type) return false;
    if (vmid !== undefined && task.id !== vmid) return false;
    if (since !== undefined && task.starttime < since) return false;
    if (until !== undefined && task.starttime > until) return false;
    // A running task has no status yet, which counts as "unknown": `errors=1` lists it too.
    const kind = running ? "unknown" : statusType(task.exitstatus);
    if (errors) return kind !== "ok";
    return types.length === 0 || types.includes(kind);
  };
}

function statusType(status: string | undefined): string {
  if (status === undefined || status === "unexpected status") return "unknown";
  if (status === "OK") return "ok";
  return /^WARNINGS: \d+$/.test(status) ? "warning" : "error";
}

const UPID =
  /^UPID:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?:[0-9A-Fa-f]{8}:[0-9A-Fa-f]{8,9}:[0-9A-Fa-f]{8}:[^:\s/]+:[^:\s/]*:[^:\s/]+:$/;

function findTask(call: Call, privilege: string): Task {
  const id = needText(call.params, "upid");
  if (!UPID.test(id)) throw paramError({ upid: "unable to parse worker upid" });
  const task = call.cluster.tasks.get(id);
  // The log is a file on the node that ran it.
  if (task?.node !== call.node) throw paramError({ upid: "no such task" });
  if (!owns(task, call.who) && !may(call.who.account, `/nodes/${call.node}`, [privilege])) {
    throw new PveError(403, `Permission check failed (/nodes/${call.node}, ${privilege})\n`);
  }
  return task;
}

function readLog(call: Call): object[] {
  const { params } = call;
  if (flag(params, "download") === true)
    throw new PveError(501, "The simulator does not play log downloads.\n");
  const { log } = findTask(call, "Sys.Audit");
  const start = number(params, "start") ?? 0;
  const limit = number(params, "limit") ?? 50;
  call.total = log.length;
  const lines = log.slice(start, limit === 0 ? undefined : start + limit);
  return lines.length === 0 && log.length === 0
    ? [{ n: 1, t: "no content" }]
    : lines.map((line, index) => ({ n: start + index + 1, t: line }));
}

/** Recent tasks of every node that is up, at most 25 finished ones each. */
function clusterTasks(cluster: Cluster, who: Who): object[] {
  return [...cluster.nodes.values()]
    .filter(({ name }) => !isOffline(cluster, name))
    .flatMap((home) => {
      const seen = (task: Task): boolean =>
        owns(task, who) || may(who.account, `/nodes/${home.name}`, ["Sys.Audit"]);
      const finished = [...home.archive.previous, ...home.archive.current].slice(-25).toReversed();
      const running = [...home.active].map((task) => {
        const { tokenid: _, ...rest } = decoded(task);
        return { task, row: { ...rest, user: task.user } };
      });
      const over = finished.map((task) => ({ task, row: { ...archived(task), saved: 1 } }));
      return [...running, ...over].filter(({ task }) => seen(task)).map(({ row }) => row);
    });
}

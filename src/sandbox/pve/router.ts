/** PVE's REST dispatch: find the method, check the right, go to its node, check the parameters, run it. */
import { pause } from "../pace.ts";
import { check, type Who } from "./access.ts";
import { type Cluster, isOffline, untilTraps } from "./cluster.ts";
import { checkParams, type Schema } from "./schema.ts";
import { type Params, PlainRefusal, PveError, paramError } from "./wire.ts";

export interface Call {
  cluster: Cluster;
  who: Who;
  params: Params;
  /** From the path; "" where there is none. */
  node: string;
  /** From the path; 0 where there is none. */
  vmid: number;
  /** `total` beside `data`. */
  total?: number;
}

export interface Method {
  method: "GET" | "POST" | "PUT" | "DELETE";
  /** `/nodes/{node}/qemu/{vmid}/config`. */
  path: string;
  pattern: RegExp;
  names: string[];
  schema: Schema;
  /** "all": anybody who is known; "world": anybody. */
  permission: "world" | "all" | Permission | ((version: Cluster["options"]["version"]) => Permission);
  /** Done by the node of its path. */
  proxied: boolean;
  /** Done by that node's daemon (pvedaemon), not by its proxy. */
  protected: boolean;
  handler: (call: Call) => unknown;
}

export interface Permission {
  /** May contain `{vmid}`, `{node}`, `{storage}`. */
  path: string;
  privileges: readonly string[];
  any?: boolean;
}

export function method(
  name: Method["method"],
  path: string,
  rest: Omit<Method, "method" | "path" | "pattern" | "names" | "proxied" | "protected"> &
    Partial<Pick<Method, "proxied" | "protected">>,
): Method {
  const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, key = ""]) => key);
  const pattern = new RegExp(`^${path.replaceAll(/\{\w+\}/g, "([^/]+)")}$`);
  const proxied = rest.proxied ?? path.startsWith("/nodes/{node}/");
  return {
    ...rest,
    method: name,
    path,
    pattern,
    names,
    proxied,
    protected: rest.protected ?? name !== "GET",
  };
}

export interface Found {
  method: Method;
  uri: Map<string, string>;
}

export function findMethod(methods: readonly Method[], name: string, path: string): Found | undefined {
  for (const candidate of methods) {
    if (candidate.method !== name) continue;
    const match = candidate.pattern.exec(path);
    if (!match) continue;
    const uri = new Map(candidate.names.map((key, index) => [key, decode(match[index + 1] ?? "")]));
    return { method: candidate, uri };
  }
  return undefined;
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

/** Path parameters win, and one that says something else beside them is refused. */
export function mergeParams(
  uri: ReadonlyMap<string, string>,
  given: ReadonlyMap<string, unknown>,
): Map<string, unknown> {
  const merged = new Map<string, unknown>(uri);
  for (const [key, value] of given) {
    const own = uri.get(key);
    if (own !== undefined && own !== String(value)) {
      throw paramError({ [key]: "duplicate parameter (already defined in URI) with conflicting values!" });
    }
    merged.set(key, value);
  }
  return merged;
}

export function checkPermission(
  cluster: Cluster,
  found: Method,
  who: Who,
  params: Map<string, unknown>,
): void {
  const wanted =
    typeof found.permission === "function" ? found.permission(cluster.options.version) : found.permission;
  if (wanted === "world" || wanted === "all") return;
  const path = wanted.path.replaceAll(/\{(\w+)\}/g, (_, key: string) => String(params.get(key)));
  check(who.account, path, wanted.privileges, wanted.any);
}

/** Runs a method on its node; a node that is away answers as pveproxy does in its place. */
export async function dispatch(
  cluster: Cluster,
  { method: found }: Found,
  { who, given }: { who: Who; given: Map<string, unknown> },
): Promise<{ data: unknown; total: number | undefined }> {
  const node = asText(given.get("node"));
  const run = async (): Promise<{ data: unknown; total: number | undefined }> => {
    const params = checkParams(found.schema, given, cluster.options.version);
    const vmid = Number(params.get("vmid") ?? 0);
    const call: Call = { cluster, who, params, node, vmid };
    const data = await found.handler(call);
    return { data, total: call.total };
  };
  if (!found.names.includes("node")) return run();
  if (!cluster.nodes.has(node)) throw unknownNode(node);
  if (!found.proxied) return run();
  if (isOffline(cluster, node)) {
    await pause(cluster, 3000);
    throw new PlainRefusal({ status: 595, reason: "No route to host", headers: { Connection: "close" } });
  }
  if (found.protected && isFrozen(cluster, node)) return frozen(cluster, node, run);
  return run();
}

function asText(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function isFrozen(cluster: Cluster, node: string): boolean {
  return cluster.traps.frozenNodes?.includes(node) === true;
}

/** The daemon took the request and hangs: the proxy gives up after 30 s, the work is done when it wakes up. */
async function frozen<T>(cluster: Cluster, node: string, run: () => Promise<T>): Promise<T> {
  const thawed = untilTraps(cluster, () => !isFrozen(cluster, node));
  const done = thawed.then(run);
  // Nobody may be there any more to hear how it ended.
  done.catch(() => undefined);
  const answered = await Promise.race([thawed.then(() => true), pause(cluster, 30_000).then(() => false)]);
  if (answered) return done;
  throw new PlainRefusal({ status: 596, reason: "Connection timed out", headers: { Connection: "close" } });
}

function unknownNode(node: string): PveError {
  return new PveError(
    500,
    `hostname lookup '${node}' failed - failed to get address info for: ${node}: Name or service not known\n`,
  );
}

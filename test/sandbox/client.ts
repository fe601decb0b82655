import { setImmediate } from "node:timers/promises";
import type { OpenStackSimulator } from "../../src/sandbox/openstack/index.ts";

// oxlint-disable-next-line typescript/no-explicit-any -- whatever the cloud says; the tests' assertions are its check
export type Json = any;

/** A plain client for the simulator's tests: no retries, no mercy, shares nothing with src/clouds. */
export interface Client {
  token: string;
  call(method: string, path: string, options?: CallOptions): Promise<Reply>;
  compute(method: string, path: string, body?: unknown, version?: string): Promise<Reply>;
  /** Ids of the seed, by name. */
  images: Map<string, string>;
  networks: Map<string, string>;
  createBody(change?: Record<string, unknown>): { server: Record<string, unknown> };
  create(change?: Record<string, unknown>): Promise<{ id: string; requestId: string }>;
  server(id: string): Promise<Json>;
  /** Polls until the server has no task and is not building; returns it, or undefined when it is gone. */
  settled(id: string): Promise<Json>;
  action(id: string, body: unknown): Promise<Reply>;
  record(id: string, requestId: string): Promise<Json>;
}

export interface CallOptions {
  body?: unknown;
  raw?: string;
  headers?: Record<string, string>;
}

export interface Reply {
  status: number;
  headers: Headers;
  text: string;
  json: Json;
}

export async function login(simulator: OpenStackSimulator, who: "bot" | "other" = "bot"): Promise<Client> {
  const credentials = who === "bot" ? simulator.credentials : simulator.otherCredentials;
  const answer = await request(`${simulator.authUrl}/auth/tokens`, "POST", {
    body: {
      auth: {
        identity: {
          methods: ["password"],
          password: {
            user: { name: credentials.username, domain: { name: "Default" }, password: credentials.password },
          },
        },
        scope: { project: { name: credentials.projectName, domain: { id: "default" } } },
      },
    },
  });
  const token = answer.headers.get("x-subject-token") ?? "";
  const call: Client["call"] = (method, path, options = {}) =>
    request(simulator.url + path, method, {
      ...options,
      headers: { "X-Auth-Token": token, ...options.headers },
    });
  const compute: Client["compute"] = (method, path, body, version = "2.90") =>
    call(method, `/compute/v2.1${path}`, {
      ...(body === undefined ? {} : { body }),
      headers: { "OpenStack-API-Version": `compute ${version}` },
    });
  const images = await byName(call, "/image/v2/images", "images");
  const networks = await byName(call, "/network/v2.0/networks", "networks");
  const server: Client["server"] = async (id) => (await compute("GET", `/servers/${id}`)).json?.server;
  const createBody: Client["createBody"] = (change = {}) => ({
    server: {
      name: "web-1",
      flavorRef: "1",
      imageRef: images.get("debian-12"),
      networks: [{ uuid: networks.get(who === "bot" ? "private" : "direct") }],
      ...change,
    },
  });
  return {
    token,
    call,
    compute,
    images,
    networks,
    createBody,
    create: async (change) => {
      const made = await compute("POST", "/servers", createBody(change));
      if (made.status !== 202) throw new Error(`create: ${made.status} ${made.text}`);
      return { id: made.json.server.id, requestId: made.headers.get("x-openstack-request-id") ?? "" };
    },
    server,
    settled: (id) =>
      until(async () => {
        const seen = await server(id);
        // DELETED is seen for a moment only; a server that is gone is settled.
        const passing = ["BUILD", "DELETED"].includes(seen?.status);
        const busy = seen !== undefined && (passing || seen["OS-EXT-STS:task_state"] !== null);
        return busy ? undefined : { server: seen };
      }).then((found) => found.server),
    action: (id, body) => compute("POST", `/servers/${id}/action`, body),
    record: async (id, requestId) =>
      (await compute("GET", `/servers/${id}/os-instance-actions/${requestId}`)).json?.instanceAction,
  };
}

async function byName(call: Client["call"], path: string, key: string): Promise<Map<string, string>> {
  const { json } = await call("GET", path, { headers: { Accept: "application/json" } });
  return new Map(json[key].map((row: { name: string; id: string }) => [row.name, row.id]));
}

/** Asks again at once until there is an answer; gives up after two seconds. */
export async function until<T>(look: () => Promise<T | undefined>): Promise<T> {
  const end = Date.now() + 2000;
  while (Date.now() < end) {
    const found = await look();
    if (found !== undefined) return found;
    // The simulator lives in this process: without this turn its timers would never fire.
    await setImmediate();
  }
  throw new Error("nothing came of it within 2 s");
}

export async function request(url: string, method: string, options: CallOptions = {}): Promise<Reply> {
  const body = options.raw ?? (options.body === undefined ? undefined : JSON.stringify(options.body));
  const response = await fetch(url, {
    method,
    redirect: "manual",
    headers: { ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...options.headers },
    ...(body === undefined ? {} : { body }),
  });
  const text = await response.text();
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    json = undefined;
  }
  return { status: response.status, headers: response.headers, text, json };
}

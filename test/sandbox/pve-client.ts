import { Agent as HttpAgent, request as httpRequest } from "node:http";
import { Agent, request as httpsRequest } from "node:https";
import { setImmediate } from "node:timers/promises";
import type { PveSimulator, PveToken } from "../../src/sandbox/pve/index.ts";

// oxlint-disable-next-line typescript/no-explicit-any -- whatever PVE says; the tests' assertions are its check
export type Json = any;

export interface Reply {
  status: number;
  /** The reason phrase: half of PVE's errors are there only. */
  reason: string;
  headers: Record<string, unknown>;
  text: string;
  json: Json;
  data: Json;
}

export interface Sending {
  /** Sent as a form, in the body of POST and PUT, else in the query. */
  form?: Record<string, string | number | string[]>;
  json?: unknown;
  raw?: string;
  headers?: Record<string, string>;
}

export interface PveClient {
  call(method: string, path: string, sending?: Sending): Promise<Reply>;
  get(path: string, form?: Sending["form"]): Promise<Reply>;
  post(path: string, form?: Sending["form"]): Promise<Reply>;
  put(path: string, form?: Sending["form"]): Promise<Reply>;
  del(path: string, form?: Sending["form"]): Promise<Reply>;
  /** The exit status of the task that the answer names; throws when the answer names none. */
  exit(reply: Reply | Promise<Reply>): Promise<string>;
  /** Clones the local template and waits. */
  clone(newid: number, form?: Sending["form"]): Promise<string>;
  close(): void;
}

/** A plain client for the simulator's tests: no retries, no mercy, shares nothing with src/clouds. */
export function pveClient(
  simulator: PveSimulator,
  token: PveToken | undefined = simulator.tokens.operator,
): PveClient {
  const tls = simulator.url.startsWith("https:");
  const agent = tls ? new Agent({ ca: simulator.ca, keepAlive: true }) : new HttpAgent({ keepAlive: true });
  const authorization: Record<string, string> = token
    ? { Authorization: `PVEAPIToken=${token.id}=${token.secret}` }
    : {};
  const call: PveClient["call"] = (method, path, sending = {}) => {
    const writes = method === "POST" || method === "PUT";
    const form = sending.form ? encode(sending.form) : undefined;
    const query = form !== undefined && !writes && form !== "" ? `?${form}` : "";
    const body =
      sending.raw ??
      (sending.json === undefined ? (writes ? form : undefined) : JSON.stringify(sending.json));
    const type = sending.json === undefined ? "application/x-www-form-urlencoded" : "application/json";
    const headers = {
      ...authorization,
      ...(body === undefined
        ? {}
        : { "Content-Type": type, "Content-Length": String(Buffer.byteLength(body)) }),
      ...sending.headers,
    };
    const url = path.startsWith("/_sim/") ? `${simulator.url}${path}` : `${simulator.url}/api2/json${path}`;
    return send(url + query, { method, headers, body, agent, tls });
  };
  const exit: PveClient["exit"] = async (reply) => {
    const { status, data, text } = await reply;
    if (typeof data !== "string" || !data.startsWith("UPID:")) throw new Error(`no task: ${status} ${text}`);
    const node = data.split(":")[1];
    return until(async () => {
      const task = await call("GET", `/nodes/${node}/tasks/${encodeURIComponent(data)}/status`);
      return task.data?.status === "stopped" ? String(task.data.exitstatus) : undefined;
    });
  };
  const post: PveClient["post"] = (path, form = {}) => call("POST", path, { form });
  return {
    call,
    get: (path, form = {}) => call("GET", path, { form }),
    post,
    put: (path, form = {}) => call("PUT", path, { form }),
    del: (path, form = {}) => call("DELETE", path, { form }),
    exit,
    clone: (newid, form = {}) => exit(post("/nodes/n1/qemu/9000/clone", { newid, full: 1, ...form })),
    close: () => {
      agent.destroy();
    },
  };
}

export function encode(form: Record<string, string | number | string[]>): string {
  return Object.entries(form)
    .flatMap(([key, value]) => (Array.isArray(value) ? value : [value]).map((item) => [key, item]))
    .map(([key, value]) => `${encodeURIComponent(String(key))}=${encodeURIComponent(String(value))}`)
    .join("&");
}

/** Asks again at once until there is an answer; gives up after five seconds. */
export async function until<T>(look: () => Promise<T | undefined> | T | undefined): Promise<T> {
  const end = Date.now() + 5000;
  while (Date.now() < end) {
    const found = await look();
    if (found !== undefined) return found;
    // The simulator lives in this process: without this turn its timers would never fire.
    await setImmediate();
  }
  throw new Error("nothing came of it within 5 s");
}

interface Outgoing {
  method: string;
  headers: Record<string, string>;
  body: string | undefined;
  agent: Agent | HttpAgent;
  tls: boolean;
}

/** fetch hides half of what PVE says and checks certificates its own way: node:https it is. */
function send(url: string, { method, headers, body, agent, tls }: Outgoing): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const outgoing = (tls ? httpsRequest : httpRequest)(url, { method, headers, agent }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        const text = Buffer.concat(chunks).toString();
        let json: Json;
        try {
          json = JSON.parse(text);
        } catch {
          json = undefined;
        }
        const { statusCode = 0, statusMessage = "" } = response;
        resolve({
          status: statusCode,
          reason: statusMessage,
          headers: response.headers,
          text,
          json,
          data: json?.data,
        });
      });
    });
    outgoing.on("error", reject);
    outgoing.end(body);
  });
}

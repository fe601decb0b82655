/** Asks Keystone, Nova and Neutron themselves, with nothing of the program's own client: the second opinion of the run. */
import { readFileSync } from "node:fs";
import { parse } from "yaml";

export interface NovaServer {
  id: string;
  name: string;
  status: string;
  tags: string[];
  metadata: Record<string, string>;
  flavor: { original_name: string };
  "OS-EXT-STS:task_state": string | null;
}

export interface Nova {
  /** Those that are there. */
  named(name: string): Promise<NovaServer[]>;
  /** Those that carry this tag. */
  tagged(tag: string): Promise<NovaServer[]>;
  /** How many of this name Nova ever made since the run began, deleted ones included. */
  everNamed(name: string): Promise<NovaServer[]>;
  removeMetadata(id: string, key: string): Promise<void>;
  remove(id: string): Promise<void>;
  portsOf(id: string): Promise<number>;
}

interface Entry {
  auth: Record<string, string>;
}
interface Session {
  token: string;
  compute: string;
  network: string;
}

export async function openNova(cloud: string, configFile: string): Promise<Nova> {
  const since = `${new Date(Date.now() - 5_000).toISOString().slice(0, 19)}Z`;
  const entry = (parse(readFileSync(configFile, "utf8")) as { clouds: Record<string, Entry> }).clouds[cloud];
  if (entry === undefined) throw new Error(`${configFile} has no cloud ${cloud}`);
  const session = await login(entry.auth);

  async function ask<T>(url: string, method = "GET"): Promise<T> {
    const response = await fetch(url, {
      method,
      headers: { "x-auth-token": session.token, "openstack-api-version": "compute 2.79" },
      signal: AbortSignal.timeout(30_000),
    });
    if (!response.ok && response.status !== 404) throw new Error(`${method} ${url}: HTTP ${response.status}`);
    const text = await response.text();
    return (text === "" ? {} : JSON.parse(text)) as T;
  }
  async function servers(query: Record<string, string>): Promise<NovaServer[]> {
    const url = `${session.compute}/servers/detail?${new URLSearchParams(query).toString()}`;
    return (await ask<{ servers: NovaServer[] }>(url)).servers;
  }
  const exactly = (name: string, found: NovaServer[]) => found.filter((server) => server.name === name);

  return {
    named: async (name) => exactly(name, await servers({ name: `^${name}$` })),
    tagged: (tag) => servers({ tags: tag }),
    everNamed: async (name) => exactly(name, await servers({ "changes-since": since })),
    removeMetadata: (id, key) => ask(`${session.compute}/servers/${id}/metadata/${key}`, "DELETE"),
    remove: (id) => ask(`${session.compute}/servers/${id}`, "DELETE"),
    portsOf: async (id) =>
      (await ask<{ ports: unknown[] }>(`${session.network}/v2.0/ports?device_id=${id}`)).ports.length,
  };
}

async function login(auth: Record<string, string>): Promise<Session> {
  const identity =
    auth["application_credential_id"] === undefined
      ? {
          methods: ["password"],
          password: {
            user: {
              name: auth["username"],
              domain: { name: auth["user_domain_name"] },
              password: auth["password"],
            },
          },
        }
      : {
          methods: ["application_credential"],
          application_credential: {
            id: auth["application_credential_id"],
            secret: auth["application_credential_secret"],
          },
        };
  const scope =
    auth["project_name"] === undefined
      ? {}
      : { scope: { project: { name: auth["project_name"], domain: { name: auth["project_domain_name"] } } } };
  const response = await fetch(`${auth["auth_url"] ?? ""}/auth/tokens`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ auth: { identity, ...scope } }),
  });
  if (response.status !== 201) throw new Error(`Keystone answered HTTP ${response.status}`);
  const { token } = (await response.json()) as {
    token: { catalog: { type: string; endpoints: { interface: string; url: string }[] }[] };
  };
  const endpoint = (type: string) =>
    token.catalog
      .find((service) => service.type === type)
      ?.endpoints.find((one) => one.interface === "public")
      ?.url.replace(/\/$/, "") ?? "";
  return {
    token: response.headers.get("x-subject-token") ?? "",
    compute: endpoint("compute"),
    network: endpoint("network"),
  };
}

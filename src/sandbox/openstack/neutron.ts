import type { Cloud } from "./cloud.ts";
import { type Answer, type Exchange, neutronError } from "./http.ts";
import { changeFloatingIp, changePort, makeFloatingIp, makePort } from "./neutron-changes.ts";
import * as views from "./neutron-views.ts";
import type { Token } from "./types.ts";
import { words } from "./words.ts";

type Fields = views.Fields;

interface Collection {
  /** Key of a single resource; the collection's is its path name with underscores. */
  single: string;
  rows: (cloud: Cloud, token: Token) => Fields[];
  missing: (id: string) => [type: string, message: string];
}

function own<T extends { projectId: string }>(token: Token, rows: Iterable<T>): T[] {
  return [...rows].filter((row) => token.admin || row.projectId === token.projectId);
}

const notFound =
  (type: string, label: string) =>
  (id: string): [string, string] => [`${type}NotFound`, `${label} ${id} could not be found.`];

const collections: Record<string, Collection> = {
  networks: {
    single: "network",
    rows: (cloud, token) =>
      [...cloud.networks.values()]
        .filter((row) => token.admin || row.external || row.shared || row.projectId === token.projectId)
        .map(views.networkView),
    missing: notFound("Network", "Network"),
  },
  subnets: {
    single: "subnet",
    // A tenant sees an external network, but not the subnet of somebody else's.
    rows: (cloud, token) =>
      [...cloud.subnets.values()]
        .filter((row) => {
          const shared = cloud.networks.get(row.networkId)?.shared === true;
          return token.admin || shared || row.projectId === token.projectId;
        })
        .map(views.subnetView),
    missing: notFound("Subnet", "Subnet"),
  },
  ports: {
    single: "port",
    rows: (cloud, token) => own(token, cloud.ports.values()).map(views.portView),
    missing: notFound("Port", "Port"),
  },
  floatingips: {
    single: "floatingip",
    rows: (cloud, token) =>
      own(token, cloud.floatingIps.values()).map((row) => views.floatingIpView(cloud, row)),
    missing: (id) => ["FloatingIPNotFound", `Floating IP ${id} could not be found`],
  },
  "security-groups": {
    single: "security_group",
    rows: (cloud, token) => own(token, cloud.securityGroups.values()).map(views.securityGroupView),
    missing: (id) => ["SecurityGroupNotFound", `Security group ${id} does not exist`],
  },
  routers: {
    single: "router",
    rows: (cloud, token) =>
      token.admin || token.projectId === cloud.router.projectId ? [views.routerView(cloud)] : [],
    missing: notFound("Router", "Router"),
  },
};

function badRequest(message: string): Answer {
  return neutronError(400, "HTTPBadRequest", message);
}

export function neutronVersions(exchange: Exchange, path: string): Answer | undefined {
  if (path === "" || path === "/") {
    const href = `${exchange.origin}/network/v2.0/`;
    const versions = [{ id: "v2.0", status: "CURRENT", links: [{ rel: "self", href }] }];
    return { status: 200, body: { versions } };
  }
  if (path.startsWith("/v2.0")) return undefined;
  return { status: 404, body: { code: 404, title: "Not Found", description: null } };
}

export function neutron(cloud: Cloud, exchange: Exchange, token: Token, path: string): Answer {
  const unknown = neutronError(404, "HTTPNotFound", "The resource could not be found.");
  const quota = /^\/v2\.0\/quotas\/([^/]+?)(\/details)?(?:\.json)?$/.exec(path);
  if (quota) return showQuota(cloud, token, quota[1] ?? "", quota[2] !== undefined);
  const match = /^\/v2\.0\/([a-z-]+?)(?:\.json)?(?:\/([^/]+?)(?:\.json)?)?$/.exec(path);
  const name = match?.[1] ?? "";
  const collection = collections[name];
  if (!collection) return unknown;
  const id = match?.[2];
  if (id === undefined) {
    if (exchange.method === "GET") return list(cloud, exchange, token, name, collection);
    if (exchange.method === "POST") return create(cloud, exchange, token, name);
    // Neutron looks for the resource named "None".
    return neutronError(404, ...collection.missing("None"));
  }
  return single(cloud, exchange, token, { name, id, collection });
}

function create(cloud: Cloud, exchange: Exchange, token: Token, name: string): Answer {
  if (name === "ports") return makePort(cloud, exchange, token);
  if (name === "floatingips") return makeFloatingIp(cloud, exchange, token);
  try {
    JSON.parse(exchange.rawBody);
  } catch {
    return badRequest("Body contains invalid data");
  }
  return neutronError(501, "HTTPNotImplemented", `The simulator does not create ${name}.`);
}

function single(
  cloud: Cloud,
  exchange: Exchange,
  token: Token,
  target: { name: string; id: string; collection: Collection },
): Answer {
  const { name, id, collection } = target;
  const row = collection.rows(cloud, token).find((candidate) => candidate["id"] === id);
  if (!row) return neutronError(404, ...collection.missing(id));
  if (exchange.method === "GET") return { status: 200, body: { [collection.single]: row } };
  const port = cloud.ports.get(id);
  const floating = cloud.floatingIps.get(id);
  if (exchange.method === "PUT" && port) return changePort(exchange, port);
  if (exchange.method === "PUT" && floating) return changeFloatingIp(cloud, exchange, floating);
  if (exchange.method !== "DELETE" || (!port && !floating))
    return neutronError(501, "HTTPNotImplemented", `The simulator does not change ${name}.`);
  if (port?.deviceOwner === "network:router_interface")
    return neutronError(
      409,
      "ServicePortInUse",
      `Port ${id} cannot be deleted directly via the port API: has device owner network:router_interface.`,
    );
  for (const other of cloud.floatingIps.values()) if (other.portId === id) other.portId = null;
  cloud.ports.delete(id);
  cloud.floatingIps.delete(id);
  return { status: 204 };
}

const CONTROLS = words("limit marker page_reverse sort_key sort_dir fields");
/** Attributes one can filter by although an answer does not show them as such. */
const EXTRA_FILTERS = words("tags tags-any not-tags not-tags-any tenant_id fixed_ips is_default");

function list(cloud: Cloud, exchange: Exchange, token: Token, name: string, collection: Collection): Answer {
  const { query } = exchange;
  const all = collection.rows(cloud, token);
  const known = knownAttributes(name, all);
  const strange = [...new Set(query.keys())].filter((key) => !CONTROLS.has(key) && !known.has(key));
  if (strange.length > 0)
    return badRequest(`[${strange.map((key) => `'${key}'`).join(", ")}] is invalid attribute for filtering`);
  const limitText = query.get("limit");
  if (limitText !== null && !/^\d+$/.test(limitText))
    return neutronError(
      400,
      "BadRequest",
      `Bad limit request: Limit must be an integer 0 or greater and not '${limitText}'.`,
    );
  const [keys, directions] = [query.getAll("sort_key"), query.getAll("sort_dir")];
  if (keys.length !== directions.length)
    return badRequest("The number of sort_keys and sort_dirs must be same");
  const odd = directions.filter((direction) => direction !== "asc" && direction !== "desc");
  if (odd.length > 0)
    return badRequest(
      `['${odd.join("', '")}'] is invalid value for sort_dirs, valid value is 'asc' and 'desc'`,
    );
  const rows = sortRows(
    all.filter((row) => matches(row, query)),
    keys,
    directions,
  );
  // Without a limit there are no pages at all; 0 means the same.
  const limit = Number(limitText ?? 0);
  const paged = limit === 0 ? { rows } : pageOf(exchange, rows, limit, name);
  if ("missing" in paged) return neutronError(404, ...collection.missing(paged.missing));
  const key = name.replaceAll("-", "_");
  const body = { [key]: paged.rows.map((row) => trim(row, query.getAll("fields"))) };
  return { status: 200, body: "links" in paged ? { ...body, [`${key}_links`]: paged.links } : body };
}

/** What one can filter an empty list by. */
const SAMPLES: Record<string, Fields> = {
  floatingips: sample(
    "id floating_ip_address floating_network_id router_id port_id fixed_ip_address status description project_id",
    "revision_number created_at updated_at",
  ),
  ports: sample(
    "id name network_id mac_address admin_state_up status device_id device_owner description project_id",
    "security_groups revision_number created_at updated_at",
  ),
};

function knownAttributes(name: string, rows: Fields[]): Set<string> {
  return new Set([...Object.keys(rows[0] ?? SAMPLES[name] ?? {}), ...EXTRA_FILTERS]);
}

function sample(...lines: string[]): Fields {
  return Object.fromEntries([...words(...lines)].map((key) => [key, null]));
}

function matches(row: Fields, query: URLSearchParams): boolean {
  for (const key of new Set(query.keys())) {
    if (CONTROLS.has(key)) continue;
    const wanted = query.getAll(key);
    const value = row[key];
    if (key === "fixed_ips") {
      const addresses = JSON.stringify(value);
      if (!wanted.every((part) => addresses.includes(`"${part.split("=").at(-1)}"`))) return false;
    } else if (Array.isArray(value)) {
      if (!wanted.every((part) => value.includes(part))) return false;
    } else if (!wanted.some((part) => part.toLowerCase() === String(value).toLowerCase())) return false;
  }
  return true;
}

function sortRows(rows: Fields[], keys: string[], directions: string[]): Fields[] {
  return rows.toSorted((left, right) => {
    for (const [index, key] of keys.entries()) {
      const [a, b] = [String(left[key]), String(right[key])];
      if (a !== b) return (a < b ? -1 : 1) * (directions[index] === "desc" ? -1 : 1);
    }
    return 0;
  });
}

function pageOf(
  exchange: Exchange,
  rows: Fields[],
  limit: number,
  name: string,
): { rows: Fields[]; links: Fields[] } | { missing: string } {
  const marker = exchange.query.get("marker");
  const place = marker === null ? -1 : rows.findIndex((row) => row["id"] === marker);
  if (marker !== null && place < 0) return { missing: marker };
  const shown = rows.slice(place + 1, place + 1 + limit);
  const link = (rel: string, row: Fields | undefined, extra: string): Fields => {
    const query = new URLSearchParams(exchange.query);
    query.delete("marker");
    if (row) query.append("marker", String(row["id"]));
    return { rel, href: `${exchange.origin}/network/v2.0/${name}?${query.toString()}${extra}` };
  };
  // `previous` is there even on the first page.
  const previous = link("previous", shown[0], "&page_reverse=True");
  const full = shown.length === limit;
  return { rows: shown, links: full ? [link("next", shown.at(-1), ""), previous] : [previous] };
}

function trim(row: Fields, fields: string[]): Fields {
  if (fields.length === 0) return row;
  return Object.fromEntries(Object.entries(row).filter(([key]) => fields.includes(key)));
}

const LIMITS = {
  network: 100,
  subnet: 100,
  subnetpool: -1,
  port: 500,
  router: 10,
  floatingip: 2,
  rbac_policy: 10,
  security_group: 10,
  security_group_rule: 100,
};

function showQuota(cloud: Cloud, token: Token, projectId: string, details: boolean): Answer {
  if (projectId !== token.projectId && !token.admin)
    return neutronError(403, "PolicyNotAuthorized", "rule:get_quota is disallowed by policy");
  if (!details) return { status: 200, body: { quota: LIMITS } };
  const used: Record<string, number> = {
    network: [...cloud.networks.values()].filter((row) => row.projectId === projectId).length,
    port: [...cloud.ports.values()].filter((row) => row.projectId === projectId).length,
    floatingip: [...cloud.floatingIps.values()].filter((row) => row.projectId === projectId).length,
    security_group: 2,
    router: projectId === cloud.router.projectId ? 1 : 0,
  };
  const quota = Object.entries(LIMITS).map(([name, limit]) => [
    name,
    { limit, used: used[name] ?? 0, reserved: 0 },
  ]);
  return { status: 200, body: { quota: Object.fromEntries(quota) } };
}

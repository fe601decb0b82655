import type { Cloud } from "./cloud.ts";
import {
  type Answer,
  type Exchange,
  findRoute,
  header,
  Refusal,
  type Route,
  route,
  webobError,
} from "./http.ts";
import { serverAction } from "./nova-actions.ts";
import { type NovaCall, novaFault } from "./nova-call.ts";
import * as catalogue from "./nova-catalogue.ts";
import { createServers } from "./nova-create.ts";
import { listActionRecords, showActionRecord } from "./nova-records.ts";
import * as servers from "./nova-servers.ts";
import * as tags from "./nova-tags.ts";
import type { Token } from "./types.ts";

export const MAX_MINOR = 93;

const routes: Route<NovaCall>[] = [
  route("GET", "/servers", servers.listServersBasic),
  route("POST", "/servers", createServers),
  route("GET", "/servers/detail", servers.listServersDetailed),
  route("GET", "/servers/:id", servers.showServer),
  route("PUT", "/servers/:id", servers.changeServer),
  route("DELETE", "/servers/:id", servers.removeServer),
  route("POST", "/servers/:id/action", serverAction),
  route("GET", "/servers/:id/tags", tags.listTags, { from: 26 }),
  route("PUT", "/servers/:id/tags", tags.putTags, { from: 26 }),
  route("DELETE", "/servers/:id/tags", tags.deleteTags, { from: 26 }),
  route("GET", "/servers/:id/tags/:tag", tags.showTag, { from: 26 }),
  route("PUT", "/servers/:id/tags/:tag", tags.putTag, { from: 26 }),
  route("DELETE", "/servers/:id/tags/:tag", tags.deleteTag, { from: 26 }),
  route("GET", "/servers/:id/metadata", tags.showMetadata),
  route("POST", "/servers/:id/metadata", tags.addMetadata),
  route("PUT", "/servers/:id/metadata", tags.replaceMetadata),
  route("GET", "/servers/:id/metadata/:key", tags.showMetadataItem),
  route("PUT", "/servers/:id/metadata/:key", tags.putMetadataItem),
  route("DELETE", "/servers/:id/metadata/:key", tags.deleteMetadataItem),
  route("GET", "/servers/:id/os-instance-actions", listActionRecords),
  route("GET", "/servers/:id/os-instance-actions/:request", showActionRecord),
  route("GET", "/servers/:id/os-interface", servers.listInterfaces),
  route("GET", "/servers/:id/ips", servers.listAddresses),
  route("GET", "/servers/:id/diagnostics", catalogue.forOperators("os-server-diagnostics")),
  route("GET", "/flavors", catalogue.listFlavorsBasic),
  route("GET", "/flavors/detail", catalogue.listFlavorsDetailed),
  route("GET", "/flavors/:id", catalogue.showFlavor),
  route("GET", "/flavors/:id/os-extra_specs", catalogue.showExtraSpecs),
  route("GET", "/limits", catalogue.limits),
  route("GET", "/os-quota-sets/:project", catalogue.showQuota),
  route("PUT", "/os-quota-sets/:project", catalogue.refuseQuotaUpdate),
  route("GET", "/os-quota-sets/:project/detail", catalogue.showQuotaDetail),
  route("GET", "/os-keypairs", catalogue.listKeys),
  route("GET", "/os-keypairs/:name", catalogue.showKey),
  route("GET", "/os-availability-zone", catalogue.listZones),
  route("GET", "/os-availability-zone/detail", catalogue.forOperators("os-availability-zone:detail")),
  route("GET", "/os-services", catalogue.forOperators("os-services:list")),
  route("GET", "/os-hypervisors", catalogue.forOperators("os-hypervisors:list")),
  // The proxies to Glance and Neutron went with 2.36.
  route("GET", "/images", () => novaFault(501, "The simulator does not play Nova's old proxies."), {
    to: 35,
  }),
  route("GET", "/os-floating-ips", () => novaFault(501, "The simulator does not play Nova's old proxies."), {
    to: 35,
  }),
];

/** The documents that need no token. */
export function novaVersions(exchange: Exchange, path: string): Answer | undefined {
  const root = `${exchange.origin}/compute`;
  const current = {
    id: "v2.1",
    status: "CURRENT",
    version: `2.${MAX_MINOR}`,
    min_version: "2.1",
    updated: "2013-07-23T11:33:21Z",
    links: [{ rel: "self", href: `${root}/v2.1/` }],
  };
  if (path === "" || path === "/") {
    const legacy = {
      id: "v2.0",
      status: "SUPPORTED",
      version: "",
      min_version: "",
      updated: "2011-01-21T11:33:21Z",
      links: [{ rel: "self", href: `${root}/v2/` }],
    };
    return { status: 200, body: { versions: [legacy, current] } };
  }
  if (path !== "/v2.1" && path !== "/v2.1/") return undefined;
  const documentation = { rel: "describedby", type: "text/html", href: "http://docs.openstack.org/" };
  const type = "application/vnd.openstack.compute+json;version=2.1";
  const version = {
    ...current,
    links: [...current.links, documentation],
    "media-types": [{ base: "application/json", type }],
  };
  return { status: 200, headers: versionHeaders("2.1"), body: { version } };
}

export async function nova(cloud: Cloud, exchange: Exchange, token: Token, path: string): Promise<Answer> {
  if (!path.startsWith("/v2.1/")) return webobError(exchange, 404, "The resource could not be found.");
  const project = /^\/v2\.1\/([0-9a-f]{32})(\/.*)$/.exec(path);
  const rest = project?.[2] ?? path.slice("/v2.1".length);
  const found = findRoute(routes, exchange.method, rest);
  // A method that a path does not have is a 404 here, not a 405.
  if (!found) return webobError(exchange, 404, "The resource could not be found.");
  const version = negotiate(exchange);
  if (typeof version !== "string") return version;
  const answer = await handle(cloud, exchange, token, found, version, project?.[1]);
  return { ...answer, headers: { ...versionHeaders(version), ...answer.headers } };
}

async function handle(
  cloud: Cloud,
  exchange: Exchange,
  token: Token,
  found: { route: Route<NovaCall>; params: string[] },
  version: string,
  urlProject: string | undefined,
): Promise<Answer> {
  const minor = Number(version.slice("2.".length));
  const supported = version.startsWith("2.") && minor >= 1 && minor <= MAX_MINOR;
  if (!supported) {
    const message = `Version ${version} is not supported by the API. Minimum is 2.1 and maximum is 2.${MAX_MINOR}.`;
    return novaFault(406, message);
  }
  const projectId = token.projectId ?? "";
  if (urlProject !== undefined && urlProject !== projectId) {
    const message = `Malformed request URL: URL's project_id '${urlProject}' doesn't match Context's project_id '${projectId}'`;
    return novaFault(400, message);
  }
  if (minor < found.route.from || minor > found.route.to)
    return novaFault(404, "The resource could not be found.");
  let body: unknown;
  try {
    body = exchange.rawBody === "" ? undefined : JSON.parse(exchange.rawBody);
  } catch {
    return novaFault(400, "Malformed request body");
  }
  const origin = cloud.traps.linkOrigin ?? exchange.origin;
  const suffix = urlProject === undefined ? "" : `/${urlProject}`;
  const base = `${origin}/compute/v2.1${suffix}`;
  const call: NovaCall = {
    cloud,
    exchange,
    token,
    projectId,
    version: minor,
    body,
    base,
    bookmarkBase: `${origin}/compute${suffix}`,
  };
  try {
    return await found.route.handler(call, ...found.params);
  } catch (error) {
    if (error instanceof Refusal) return error.answer;
    throw error;
  }
}

/** The version asked for as text, or the answer to a malformed one. No header means 2.1. */
function negotiate(exchange: Exchange): string | Answer {
  const asked = askedVersion(exchange);
  if (asked === undefined) return "2.1";
  if (asked === "latest") return `2.${MAX_MINOR}`;
  if (/^\d+\.(0|[1-9]\d*)$/.test(asked)) return asked;
  const message = `API Version String ${asked} is of invalid format. Must be of format MajorNum.MinorNum.`;
  return novaFault(400, message);
}

function askedVersion(exchange: Exchange): string | undefined {
  const modern = header(exchange, "openstack-api-version");
  for (const part of modern?.split(",") ?? []) {
    const [service, version] = part.trim().split(/\s+/);
    if (service === "compute" && version !== undefined) return version;
  }
  return header(exchange, "x-openstack-nova-api-version");
}

function versionHeaders(version: string): Record<string, string> {
  return {
    "OpenStack-API-Version": `compute ${version}`,
    "X-OpenStack-Nova-API-Version": version,
    Vary: "OpenStack-API-Version, X-OpenStack-Nova-API-Version",
  };
}

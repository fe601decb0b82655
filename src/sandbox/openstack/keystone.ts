import type { Cloud } from "./cloud.ts";
import { type Answer, type Exchange, findRoute, header, Refusal, type Route, route } from "./http.ts";
import { authenticate, DOMAIN, forbidden, keystoneError, unauthorized, validToken } from "./keystone-auth.ts";
import { SEED_REGION } from "./seed.ts";
import { isoMicrosZ } from "./time.ts";
import type { Token } from "./types.ts";

interface KeystoneCall {
  cloud: Cloud;
  exchange: Exchange;
}

const ROLE_IDS: Readonly<Record<string, string>> = {
  member: "7f9bc600ebee4ed6a7ead05a874e005a",
  reader: "dbb1dd95b33f4c4bbfef7c3e8ebffae9",
  admin: "0a5d1f6fd4a94bb6a2c6bfa3a1a7f5c1",
};

export async function keystone(cloud: Cloud, exchange: Exchange, path: string): Promise<Answer> {
  const base = `${exchange.origin}/identity/v3`;
  const version = {
    id: "v3.14",
    status: "stable",
    updated: "2020-04-07T00:00:00Z",
    links: [{ rel: "self", href: `${base}/` }],
    "media-types": [{ base: "application/json", type: "application/vnd.openstack.identity-v3+json" }],
  };
  // Discovery answers 300 Multiple Choices: a client must not take >= 300 for a failure here.
  if (path === "" || path === "/")
    return vary({
      status: 300,
      headers: { Location: `${base}/` },
      body: { versions: { values: [version] } },
    });
  if (path === "/v3" || path === "/v3/") return vary({ status: 200, body: { version } });
  const found = findRoute(routes, exchange.method, path);
  if (found) {
    try {
      return vary(await found.route.handler({ cloud, exchange }, ...found.params));
    } catch (error) {
      if (error instanceof Refusal) return vary(error.answer);
      throw error;
    }
  }
  const methods = routes.filter(({ pattern }) => pattern.test(path)).map(({ method }) => method);
  if (methods.length > 0) {
    const body = { message: "The method is not allowed for the requested URL." };
    return vary({ status: 405, headers: { Allow: `OPTIONS, ${methods.join(", ")}` }, body });
  }
  const page =
    "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n<h1>Not Found</h1>\n<p>The requested URL was not found on the server. If you entered the URL manually please check your spelling and try again.</p>\n";
  return vary({ status: 404, body: page, headers: { "Content-Type": "text/html; charset=utf-8" } });
}

const routes: Route<KeystoneCall>[] = [
  route("GET", "/v3/auth/tokens", showToken),
  route("HEAD", "/v3/auth/tokens", showToken),
  route("POST", "/v3/auth/tokens", issueToken),
  route("DELETE", "/v3/auth/tokens", revokeToken),
  route("GET", "/v3/auth/catalog", ({ cloud, exchange }) => ({
    status: 200,
    body: { catalog: catalog(cloud, exchange, requireToken(cloud, exchange)) },
  })),
  route("GET", "/v3/auth/projects", listProjects),
  route("GET", "/v3/projects", ({ cloud, exchange }) => {
    requireToken(cloud, exchange);
    throw forbidden("identity:list_projects");
  }),
];

function vary(answer: Answer): Answer {
  return { ...answer, headers: { Vary: "X-Auth-Token", ...answer.headers } };
}

function requireToken(cloud: Cloud, exchange: Exchange): Token {
  const token = validToken(cloud, header(exchange, "x-auth-token"));
  if (!token) throw unauthorized(exchange);
  return token;
}

function issueToken({ cloud, exchange }: KeystoneCall): Answer {
  const token = authenticate(cloud, exchange);
  cloud.tokens.set(token.id, token);
  return {
    status: 201,
    headers: { "X-Subject-Token": token.id },
    body: { token: describeToken(cloud, exchange, token) },
  };
}

function describeToken(cloud: Cloud, exchange: Exchange, token: Token): Record<string, unknown> {
  const user = cloud.users.get(token.userId);
  const project = token.projectId === null ? undefined : cloud.projects.get(token.projectId);
  const base = {
    methods: token.methods,
    user: { domain: DOMAIN, id: token.userId, name: user?.name, password_expires_at: null },
    audit_ids: token.auditIds,
    expires_at: isoMicrosZ(token.expiresAt),
    issued_at: isoMicrosZ(token.issuedAt),
  };
  if (!project) return base;
  const names = token.admin ? ["member", "reader", "admin"] : ["member", "reader"];
  const { id, name } = cloud.applicationCredential;
  return {
    ...base,
    project: { domain: DOMAIN, ...project },
    is_domain: false,
    roles: names.map((role) => ({ id: ROLE_IDS[role], name: role })),
    ...(exchange.query.has("nocatalog") ? {} : { catalog: catalog(cloud, exchange, token) }),
    ...(token.applicationCredentialId === null
      ? {}
      : { application_credential: { id, name, restricted: true } }),
  };
}

function catalog(cloud: Cloud, exchange: Exchange, token: Token): unknown[] {
  const compute = cloud.options.projectIdInComputeUrl ? `/compute/v2.1/${token.projectId}` : "/compute/v2.1";
  const services: [string, string, string][] = [
    ["compute", "nova", compute],
    // No version in these two, as in most clouds: the client appends /v2 and /v2.0 itself.
    ["network", "neutron", "/network"],
    ["identity", "keystone", "/identity/v3"],
    ["image", "glance", "/image"],
  ];
  return services.map(([type, name, path]) => ({
    endpoints: ["internal", "admin", "public"].map((side) => ({
      id: stableId(`${type}-${side}`),
      interface: side,
      region_id: SEED_REGION,
      url: exchange.origin + path,
      region: SEED_REGION,
    })),
    id: stableId(type),
    type,
    name,
  }));
}

function stableId(name: string): string {
  return Buffer.from(name.padEnd(16, ".")).toString("hex").slice(0, 32);
}

function subject(cloud: Cloud, exchange: Exchange, policy: string): Token {
  requireToken(cloud, exchange);
  const id = header(exchange, "x-subject-token");
  if (id === undefined) throw forbidden(policy);
  const token = validToken(cloud, id);
  if (!token) throw keystoneError(404, "Could not recognize Fernet token");
  return token;
}

function showToken({ cloud, exchange }: KeystoneCall): Answer {
  const token = subject(cloud, exchange, "identity:validate_token");
  return {
    status: 200,
    headers: { "X-Subject-Token": token.id },
    body: { token: describeToken(cloud, exchange, token) },
  };
}

function revokeToken({ cloud, exchange }: KeystoneCall): Answer {
  subject(cloud, exchange, "identity:revoke_token").revokedAt = Date.now();
  return { status: 204 };
}

function listProjects({ cloud, exchange }: KeystoneCall): Answer {
  const token = requireToken(cloud, exchange);
  const base = `${exchange.origin}/identity/v3`;
  const projects = (cloud.users.get(token.userId)?.projectIds ?? []).map((id) => ({
    id,
    name: cloud.projects.get(id)?.name,
    domain_id: DOMAIN.id,
    description: "",
    enabled: true,
    parent_id: DOMAIN.id,
    is_domain: false,
    tags: [],
    options: {},
    links: { self: `${base}/projects/${id}` },
  }));
  return {
    status: 200,
    body: { projects, links: { next: null, self: `${base}/auth/projects`, previous: null } },
  };
}

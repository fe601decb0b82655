import { randomBytes } from "node:crypto";
import type { Cloud } from "./cloud.ts";
import { type Answer, type Exchange, findRoute, header, Refusal, type Route, reason, route } from "./http.ts";
import { SEED_REGION } from "./seed.ts";
import { isoMicrosZ } from "./time.ts";
import type { Project, Token, User } from "./types.ts";

interface KeystoneCall {
  cloud: Cloud;
  exchange: Exchange;
}

const DOMAIN = { id: "default", name: "Default" };
const MALFORMED =
  "The server could not comply with the request since it is either malformed or otherwise incorrect. The client is assumed to be in error.";
const ROLE_IDS: Readonly<Record<string, string>> = {
  member: "7f9bc600ebee4ed6a7ead05a874e005a",
  reader: "dbb1dd95b33f4c4bbfef7c3e8ebffae9",
  admin: "0a5d1f6fd4a94bb6a2c6bfa3a1a7f5c1",
};

export function keystone(cloud: Cloud, exchange: Exchange, path: string): Answer | Promise<Answer> {
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
      return vary(found.route.handler({ cloud, exchange }, ...found.params) as Answer);
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

/** The token behind an X-Auth-Token, when the services would accept it now. */
export function validToken(cloud: Cloud, id: string | undefined, graceMs = 0): Token | undefined {
  const token = id === undefined ? undefined : cloud.tokens.get(id);
  if (!token || token.expiresAt <= Date.now()) return undefined;
  if (token.revokedAt !== null && token.revokedAt + graceMs <= Date.now()) return undefined;
  return token;
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

function keystoneError(status: number, message: string, extra: Record<string, unknown> = {}): Refusal {
  return new Refusal({ status, body: { error: { code: status, ...extra, message, title: reason(status) } } });
}

/** One text for every reason: Keystone does not tell a wrong password from an unknown project. */
function unauthorized(exchange: Exchange): Refusal {
  return challenge(exchange, "The request you have made requires authentication.");
}

function challenge(exchange: Exchange, message: string, extra: Record<string, unknown> = {}): Refusal {
  const refusal = keystoneError(401, message, extra);
  return new Refusal({
    ...refusal.answer,
    headers: { "WWW-Authenticate": `Keystone uri="${exchange.origin}/identity/v3"` },
  });
}

function expecting(what: string): Refusal {
  return keystoneError(400, `Expecting to find ${what}. ${MALFORMED}`);
}

function forbidden(policy: string): Refusal {
  return keystoneError(403, `You are not authorized to perform the requested action: ${policy}.`);
}

function requireToken(cloud: Cloud, exchange: Exchange): Token {
  const token = validToken(cloud, header(exchange, "x-auth-token"));
  if (!token) throw unauthorized(exchange);
  return token;
}

type Fields = Record<string, unknown>;

function fields(value: unknown): Fields | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Fields) : undefined;
}

function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function readAuth(exchange: Exchange): Fields {
  if (!header(exchange, "content-type")?.startsWith("application/json"))
    throw expecting("application/json in Content-Type header");
  let body: unknown;
  try {
    body = JSON.parse(exchange.rawBody);
  } catch {
    throw expecting("valid JSON in request body");
  }
  const auth = fields(fields(body)?.["auth"]);
  if (!auth) throw expecting("auth in request body");
  return auth;
}

function issueToken({ cloud, exchange }: KeystoneCall): Answer {
  const auth = readAuth(exchange);
  const identity = fields(auth["identity"]);
  if (!identity) throw keystoneError(400, "'identity' is a required property");
  const methods = identity["methods"];
  if (!Array.isArray(methods))
    throw keystoneError(400, "Invalid input for field 'identity': 'methods' is a required property");
  const method: unknown = methods[0];
  if (method === undefined) throw unauthorized(exchange);
  if (method !== "password" && method !== "application_credential" && method !== "token") {
    throw challenge(exchange, "Attempted to authenticate with an unsupported method.", {
      identity: {
        methods: ["external", "password", "token", "oauth1", "mapped", "application_credential"],
      },
    });
  }
  const input = fields(identity[method]);
  if (!input) throw expecting(`${method} in identity`);
  let token: Token;
  if (method === "application_credential")
    token = byApplicationCredential(cloud, exchange, input, auth["scope"]);
  else if (method === "password") token = byPassword(cloud, exchange, input, auth["scope"]);
  else token = byToken(cloud, exchange, input, auth["scope"]);
  cloud.tokens.set(token.id, token);
  return {
    status: 201,
    headers: { "X-Subject-Token": token.id },
    body: { token: describeToken(cloud, exchange, token) },
  };
}

function byPassword(cloud: Cloud, exchange: Exchange, input: Fields, scope: unknown): Token {
  const wanted = fields(input["user"]);
  if (!wanted) throw expecting("user in password");
  const user = findUser(cloud, wanted);
  if (!user || user.password !== wanted["password"]) throw unauthorized(exchange);
  return newToken(cloud, user, findProject(cloud, exchange, user, scope), ["password"]);
}

function byToken(cloud: Cloud, exchange: Exchange, input: Fields, scope: unknown): Token {
  const old = validToken(cloud, text(input["id"]));
  if (!old) throw keystoneError(404, "Could not recognize Fernet token");
  const user = cloud.users.get(old.userId);
  if (!user) throw unauthorized(exchange);
  const token = newToken(cloud, user, findProject(cloud, exchange, user, scope), [...old.methods, "token"]);
  // A token got by a token lives no longer than the first one.
  return { ...token, expiresAt: old.expiresAt, auditIds: [...token.auditIds, ...old.auditIds.slice(0, 1)] };
}

function byApplicationCredential(cloud: Cloud, exchange: Exchange, input: Fields, scope: unknown): Token {
  const credential = cloud.applicationCredential;
  const id = text(input["id"]);
  if (id === undefined) {
    const wanted = fields(input["user"]);
    if (!wanted) throw expecting("user in application credential");
    const user = findUser(cloud, wanted);
    if (user?.id !== credential.userId || input["name"] !== credential.name) throw unauthorized(exchange);
  } else if (id !== credential.id) {
    // Measured on Keystone 22: an unknown id is a 404, unlike every other failure.
    throw keystoneError(404, `Could not find Application Credential: ${id}.`);
  }
  if (input["secret"] !== credential.secret) throw unauthorized(exchange);
  if (scope !== undefined)
    throw challenge(
      exchange,
      "Error authenticating with application credential: Application credentials cannot request a scope.",
      { identity: {} },
    );
  const user = cloud.users.get(credential.userId);
  if (!user) throw unauthorized(exchange);
  const token = newToken(cloud, user, cloud.projects.get(credential.projectId), ["application_credential"]);
  return { ...token, applicationCredentialId: credential.id };
}

/** By id, or by name within a domain. Ids are exact ("default"); names ignore case, as on MariaDB. */
function findUser(cloud: Cloud, wanted: Fields): User | undefined {
  const id = text(wanted["id"]);
  if (id !== undefined) return cloud.users.get(id);
  const name = text(wanted["name"]);
  if (name === undefined)
    throw keystoneError(400, "Invalid input for field identity/password/user: id or name must be present.");
  const domain = fields(wanted["domain"]);
  if (!domain) throw expecting("domain in user");
  if (!isDefaultDomain(domain)) return undefined;
  return [...cloud.users.values()].find((user) => user.name.toLowerCase() === name.toLowerCase());
}

function isDefaultDomain(domain: Fields): boolean {
  if (domain["id"] !== undefined) return domain["id"] === DOMAIN.id;
  return text(domain["name"])?.toLowerCase() === DOMAIN.name.toLowerCase();
}

function findProject(cloud: Cloud, exchange: Exchange, user: User, scope: unknown): Project | undefined {
  if (scope === "unscoped") return undefined;
  if (scope === undefined) return cloud.projects.get(user.defaultProjectId);
  const wanted = fields(fields(scope)?.["project"]);
  if (!wanted) throw unauthorized(exchange);
  let project: Project | undefined;
  if (wanted["id"] !== undefined) project = cloud.projects.get(text(wanted["id"]) ?? "");
  else {
    const domain = fields(wanted["domain"]);
    if (!domain) throw expecting("domain in project");
    const name = text(wanted["name"])?.toLowerCase();
    if (isDefaultDomain(domain))
      project = [...cloud.projects.values()].find((candidate) => candidate.name.toLowerCase() === name);
  }
  if (!project || !user.projectIds.includes(project.id)) throw unauthorized(exchange);
  return project;
}

function newToken(cloud: Cloud, user: User, project: Project | undefined, methods: string[]): Token {
  const issuedAt = Date.now();
  return {
    id: `gAAAAAB${randomBytes(132).toString("base64url")}`,
    userId: user.id,
    projectId: project?.id ?? null,
    admin: user.admin,
    methods,
    auditIds: [randomBytes(16).toString("base64url")],
    issuedAt,
    expiresAt: issuedAt + cloud.options.tokenTtlSeconds * 1000,
    revokedAt: null,
    applicationCredentialId: null,
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

function stableId(text: string): string {
  return Buffer.from(text.padEnd(16, ".")).toString("hex").slice(0, 32);
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

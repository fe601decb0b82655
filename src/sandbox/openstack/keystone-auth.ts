import { randomBytes } from "node:crypto";
import { JsonObject } from "./bodies.ts";
import type { Cloud } from "./cloud.ts";
import { type Exchange, header, Refusal, reason } from "./http.ts";
import type { Project, Token, User } from "./types.ts";

export const DOMAIN = { id: "default", name: "Default" };
const MALFORMED =
  "The server could not comply with the request since it is either malformed or otherwise incorrect. The client is assumed to be in error.";

export function keystoneError(status: number, message: string, extra: Record<string, unknown> = {}): Refusal {
  return new Refusal({ status, body: { error: { code: status, ...extra, message, title: reason(status) } } });
}

/** One text for nearly every reason: Keystone does not tell a wrong password from an unknown project. */
export function unauthorized(exchange: Exchange): Refusal {
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

export function forbidden(policy: string): Refusal {
  return keystoneError(403, `You are not authorized to perform the requested action: ${policy}.`);
}

/** The token behind an X-Auth-Token, when the services would accept it now. */
export function validToken(cloud: Cloud, id: string | undefined, graceMs = 0): Token | undefined {
  const token = id === undefined ? undefined : cloud.tokens.get(id);
  if (!token || token.expiresAt <= Date.now()) return undefined;
  if (token.revokedAt !== null && token.revokedAt + graceMs <= Date.now()) return undefined;
  return token;
}

type Fields = Record<string, unknown>;

function fields(value: unknown): Fields | undefined {
  return JsonObject.safeParse(value).data;
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

/** A new token for what the body of POST /auth/tokens proves, or a refusal. */
export function authenticate(cloud: Cloud, exchange: Exchange): Token {
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
  if (method === "application_credential")
    return byApplicationCredential(cloud, exchange, input, auth["scope"]);
  return method === "password"
    ? byPassword(cloud, exchange, input, auth["scope"])
    : byToken(cloud, exchange, input, auth["scope"]);
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

// Keystone v3: one token for the cloud, shared by all calls, renewed before it ends.
// Shapes: https://docs.openstack.org/api-ref/identity/v3/#authentication-and-token-management
import { ServiceError } from "../../core/errors.ts";
import type { HttpClient, HttpResponse } from "../http.ts";
import { cloudTextOf, errorOf } from "./errors.ts";
import type { OpenStackAuth, OpenStackCloudOptions } from "./options.ts";
import { type CatalogueEntry, KeystoneToken } from "./schema.ts";

export type Service = "compute" | "image" | "network";

export interface Session {
  token: string;
  projectId: string | undefined;
  catalogue: readonly CatalogueEntry[];
}

export interface Identity {
  /** The present session, or a new one. Throws `unauthorized`, `unreachable`, `timeout`, `unsupported`. */
  session(): Promise<Session>;
  /** The service said that this token is not good. A newer one stays. */
  invalidate(token: string): void;
  /** The service's URL without a trailing slash. Throws `unsupported` when the catalogue has none that fits. */
  endpoint(session: Session, service: Service): string;
}

/** As keystoneauth does: a token this close to its end may end on its way. */
const RENEW_BEFORE_MS = 120_000;
/** After Keystone itself has refused us: repeated bad passwords lock the user (security_compliance). */
const REFUSED_PAUSE_MS = 60_000;

interface Held {
  session: Session;
  renewAt: number;
}

export function createIdentity(
  options: OpenStackCloudOptions,
  http: HttpClient,
  now: () => number,
): Identity {
  let held: Held | undefined;
  let flight: Promise<Session> | undefined;
  let refused: { until: number; error: ServiceError } | undefined;

  async function authenticate(): Promise<Session> {
    const url = `${identityUrl(options.auth.authUrl)}/auth/tokens`;
    const label = "identity POST /auth/tokens";
    const response = await http.send({
      method: "POST",
      url,
      label,
      // Asking for a token twice makes two tokens and changes nothing else.
      changing: false,
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body: JSON.stringify(credentials(options)),
    });
    const secrets = secretsOf(options.auth);
    if (response.status === 401) {
      const text = cloudTextOf(response, secrets);
      const error = new ServiceError(
        "unauthorized",
        "The cloud refuses our credential (user, password, project, domain or application credential: it does not say which). The operators must check it in the configuration.",
        {
          facts: { cloud: options.name },
          staffDetail: `${options.name}: ${label}: HTTP 401: ${text.message}${response.requestId === undefined ? "" : ` (request ${response.requestId})`}`,
        },
      );
      refused = { until: now() + REFUSED_PAUSE_MS, error };
      throw error;
    }
    if (response.status !== 201 && response.status !== 200) {
      throw errorOf({ cloud: options.name, label, changing: false, response, secrets });
    }
    refused = undefined;
    held = read(options, response, now());
    return held.session;
  }

  return {
    session() {
      if (held !== undefined && now() < held.renewAt) return Promise.resolve(held.session);
      if (flight !== undefined) return flight;
      if (refused !== undefined && now() < refused.until) return Promise.reject(refused.error);
      // Not bound to the caller's signal: others wait for the same token.
      flight = authenticate().finally(() => {
        flight = undefined;
      });
      return flight;
    },
    invalidate(token) {
      if (held?.session.token === token) held = undefined;
    },
    endpoint: (session, service) => endpointOf(options, session, service),
  };
}

export function identityUrl(authUrl: string): string {
  const bare = authUrl.replace(/\/+$/u, "");
  return bare.endsWith("/v3") ? bare : `${bare.replace(/\/v2\.0$/u, "")}/v3`;
}

export function secretsOf(auth: OpenStackAuth): string[] {
  return [auth.password, auth.applicationCredentialSecret].filter((secret) => secret !== undefined);
}

function credentials({ auth, name }: OpenStackCloudOptions): unknown {
  if (auth.applicationCredentialSecret !== undefined) {
    const secret = auth.applicationCredentialSecret;
    const credential =
      auth.applicationCredentialId === undefined
        ? { name: auth.applicationCredentialName, secret, user: userOf(auth, name) }
        : { id: auth.applicationCredentialId, secret };
    // An application credential carries its own scope; asking for one is refused.
    return {
      auth: { identity: { methods: ["application_credential"], application_credential: credential } },
    };
  }
  return {
    auth: {
      identity: {
        methods: ["password"],
        password: { user: { ...userOf(auth, name), password: auth.password } },
      },
      scope: { project: projectOf(auth) },
    },
  };
}

function userOf(auth: OpenStackAuth, cloud: string): Record<string, unknown> {
  if (auth.userId !== undefined) return { id: auth.userId };
  if (auth.username === undefined) {
    throw new ServiceError(
      "unauthorized",
      "The cloud's credential names no user. The operators must complete it.",
      {
        facts: { cloud },
      },
    );
  }
  return { name: auth.username, domain: domainOf(auth.userDomainId, auth.userDomainName) };
}

function projectOf(auth: OpenStackAuth): Record<string, unknown> {
  if (auth.projectId !== undefined) return { id: auth.projectId };
  return { name: auth.projectName, domain: domainOf(auth.projectDomainId, auth.projectDomainName) };
}

/** The id of the first domain is `default` everywhere; its name `Default` is another thing and is not taken as an id. */
function domainOf(id: string | undefined, name: string | undefined): Record<string, string> {
  if (id !== undefined) return { id };
  return name === undefined ? { id: "default" } : { name };
}

function read(options: OpenStackCloudOptions, response: HttpResponse, nowMs: number): Held {
  const token = response.headers["x-subject-token"];
  const body = KeystoneToken.safeParse(jsonOf(response.text));
  if (token === undefined || !body.success) {
    throw new ServiceError(
      "unreachable",
      "What answers at the cloud's address is not OpenStack's identity service. The operators must check the address.",
      {
        facts: { cloud: options.name },
        staffDetail: `${options.name}: identity POST /auth/tokens: HTTP ${response.status} without a usable token`,
      },
    );
  }
  const { expires_at, project, catalog } = body.data.token;
  // How long it lives by Keystone's own clock: ours may be wrong.
  const livesMs = new Date(expires_at).getTime() - (response.date?.getTime() ?? nowMs);
  // A token that lives less than the margin is renewed at half of its life, or every call would ask for one.
  const renewInMs = livesMs > 2 * RENEW_BEFORE_MS ? livesMs - RENEW_BEFORE_MS : livesMs / 2;
  return {
    session: { token, projectId: project?.id, catalogue: catalog ?? [] },
    renewAt: nowMs + (Number.isFinite(renewInMs) ? Math.max(0, renewInMs) : 0),
  };
}

export function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

// Service types and the aliases that catalogues use: https://service-types.openstack.org/service-types.json
const TYPES: Readonly<Record<Service, readonly string[]>> = {
  compute: ["compute"],
  image: ["image"],
  network: ["network"],
};
/** Catalogues list these two with or without it. */
const VERSION_PATHS: Readonly<Record<Service, string>> = { compute: "", image: "/v2", network: "/v2.0" };

function endpointOf(options: OpenStackCloudOptions, session: Session, service: Service): string {
  const override = TYPES[service]
    .map((type) => options.endpointOverrides?.[type])
    .find((url) => url !== undefined);
  if (override !== undefined) return versioned(override, service);
  const wanted = options.interface ?? "public";
  const entries = session.catalogue
    .filter((entry) => TYPES[service].includes(entry.type))
    .flatMap((entry) => entry.endpoints)
    .filter((endpoint) => endpoint.interface === wanted || endpoint.interface === `${wanted}URL`);
  const regions = [...new Set(entries.map((endpoint) => endpoint.region_id ?? endpoint.region ?? ""))];
  const region = options.region ?? (regions.length === 1 ? regions[0] : undefined);
  const match = entries.find((endpoint) => (endpoint.region_id ?? endpoint.region ?? "") === region);
  if (match !== undefined) return versioned(match.url, service);
  throw new ServiceError(
    "unsupported",
    `The cloud's catalogue has no ${wanted} ${service} service${options.region === undefined ? "" : ` in region ${options.region}`}. The operators must set its region${regions.length === 0 ? "" : ` (one of ${regions.join(", ")})`} and interface in the configuration.`,
    { facts: { cloud: options.name, service, regions } },
  );
}

function versioned(url: string, service: Service): string {
  const bare = url.replace(/\/+$/u, "");
  return /\/v\d+(\.\d+)?(\/[^/]+)?$/u.test(bare) ? bare : `${bare}${VERSION_PATHS[service]}`;
}

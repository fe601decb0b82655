/**
 * An OpenStack cloud's settings, from where they may stand: the entry in ratatosk.yaml, an entry of clouds.yaml that it
 * names (https://docs.openstack.org/openstacksdk/latest/user/config/configuration.html), or plain OPENSTACK_* variables.
 */
import type { z } from "zod";
import { defined, readCloudsYaml } from "./clouds-yaml.ts";
import type { Path } from "./document.ts";
import type { EnvironmentReader } from "./environment.ts";
import { parsePart, type Reading } from "./issues.ts";
import type { Problems } from "./problems.ts";
import { type OpenStackAuth, OpenStackEntry } from "./schema.ts";

/** One project in one region; what clouds/openstack is built from. */
export interface OpenStackSettings {
  type: "openstack";
  name: string;
  auth: {
    authUrl: string;
    userId?: string;
    username?: string;
    userDomainId?: string;
    userDomainName?: string;
    password?: string;
    projectId?: string;
    projectName?: string;
    projectDomainId?: string;
    projectDomainName?: string;
    applicationCredentialId?: string;
    applicationCredentialName?: string;
    applicationCredentialSecret?: string;
  };
  region?: string;
  interface: "public" | "internal" | "admin";
  /** The network of servers whose plan names none. */
  network?: string;
  /** How many operations may work on it at a time. */
  maxConcurrent: number;
  timeoutMs: number;
  connectTimeoutMs: number;
  verifyTls: boolean;
  /** PEM file. */
  caFile?: string;
  endpointOverrides?: Record<string, string>;
}

type Auth = z.output<typeof OpenStackAuth>;
const DEFAULT_TIMEOUT_S = 30;
const DEFAULT_CONNECT_TIMEOUT_MS = 5_000;

export interface OpenStackReading extends Reading {
  environment: EnvironmentReader;
  cwd: string;
}

/** The entry `clouds.<name>`; undefined when something is wrong with it, which was told then. */
export function readOpenStackEntry(name: string, reading: OpenStackReading): OpenStackSettings | undefined {
  const path: Path = ["clouds", name];
  const entry = parsePart(OpenStackEntry, path, reading);
  if (entry === undefined) return undefined;
  const where = `${reading.document.where(path)}: clouds.${name}`;
  if ((entry.cloud === undefined) === (entry.auth === undefined)) {
    reading.problems.add(
      `${where} needs either "cloud" or "auth"`,
      'name an entry of clouds.yaml with "cloud", or give the credential in "auth"',
    );
    return undefined;
  }
  const named = entry.cloud === undefined ? undefined : readCloudsYaml(entry.cloud, where, reading);
  const auth = entry.auth ?? named?.auth;
  if (
    auth === undefined ||
    !isCompleteAuth(auth, `${where}${named ? " (clouds.yaml)" : ".auth"}`, reading.problems)
  ) {
    return undefined;
  }
  const endpoints = defined({ ...named?.endpoints, ...entry.endpoints });
  return {
    type: "openstack",
    name,
    auth: withDomains(auth),
    ...defined({
      region: entry.region ?? named?.region,
      network: entry.network,
      caFile: entry.ca ?? named?.caFile,
    }),
    interface: entry.interface ?? named?.interface ?? "public",
    maxConcurrent: entry.maxConcurrent,
    timeoutMs: entry.timeoutMs ?? timeoutMs(reading.environment),
    connectTimeoutMs: entry.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS,
    verifyTls: entry.verifyTls ?? named?.verifyTls ?? true,
    ...(Object.keys(endpoints).length > 0 && { endpointOverrides: endpoints }),
  };
}

/** The cloud `openstack` of plain OPENSTACK_* variables; undefined when there are none, or when they are not complete. */
export function readOpenStackEnvironment(
  environment: EnvironmentReader,
  problems: Problems,
): OpenStackSettings | undefined {
  const texts = defined({
    userId: environment.text("OPENSTACK_USER_ID"),
    username: environment.text("OPENSTACK_USERNAME"),
    password: environment.text("OPENSTACK_PASSWORD"),
    projectId: environment.text("OPENSTACK_PROJECT_ID"),
    projectName: environment.text("OPENSTACK_PROJECT_NAME"),
    domainId: environment.text("OPENSTACK_DOMAIN_ID"),
    domainName: environment.text("OPENSTACK_DOMAIN_NAME"),
  });
  const given = environment.text("OPENSTACK_AUTH_URL");
  if (given === undefined && Object.keys(texts).length === 0) return undefined;
  const authUrl = environment.url("OPENSTACK_AUTH_URL", ["https:", "http:"]);
  if (given === undefined) {
    problems.add(
      "OPENSTACK_AUTH_URL is missing, but other OPENSTACK_ variables are set",
      "set it to https://…/v3, or unset the others",
    );
  }
  const complete = isCompleteAuth({ authUrl: authUrl ?? "", ...texts }, "The OPENSTACK_ variables", problems);
  if (authUrl === undefined || !complete) return undefined;
  return {
    type: "openstack",
    name: "openstack",
    auth: withDomains({ authUrl, ...texts }),
    ...defined({ region: environment.text("OPENSTACK_REGION") }),
    interface: "public",
    maxConcurrent: 10,
    timeoutMs: timeoutMs(environment),
    connectTimeoutMs: DEFAULT_CONNECT_TIMEOUT_MS,
    verifyTls: true,
  };
}

function timeoutMs(environment: EnvironmentReader): number {
  return (
    environment.integer("OPENSTACK_TIMEOUT", {
      min: 1,
      max: 600,
      fallback: DEFAULT_TIMEOUT_S,
      unit: "seconds",
    }) * 1000
  );
}

function isCompleteAuth(auth: Auth, where: string, problems: Problems): boolean {
  const missing: string[] = [];
  const isApplicationCredential =
    auth.applicationCredentialId !== undefined || auth.applicationCredentialName !== undefined;
  if (isApplicationCredential) {
    if (auth.applicationCredentialSecret === undefined) missing.push("the application credential's secret");
    if (
      auth.applicationCredentialId === undefined &&
      auth.username === undefined &&
      auth.userId === undefined
    ) {
      missing.push("the application credential's id, or the user whose credential of that name it is");
    }
  } else {
    if (auth.username === undefined && auth.userId === undefined) missing.push("a user name or user id");
    if (auth.password === undefined) missing.push("a password");
    if (auth.projectId === undefined && auth.projectName === undefined)
      missing.push("a project id or project name");
  }
  if (missing.length > 0) {
    problems.add(
      `${where} lack ${missing.join(", ")}`.replace(/(clouds\.\S+(?: \(clouds\.yaml\))?) lack/, "$1 lacks"),
      "add what is missing",
    );
  }
  return missing.length === 0;
}

// An id needs no domain; a name is looked up in one, "Default" on most clouds. An application credential has a scope already.
function withDomains({ domainId, domainName, ...auth }: Auth): OpenStackSettings["auth"] {
  const fallback = domainId === undefined ? { name: domainName ?? "Default" } : { id: domainId };
  const domains: Partial<OpenStackSettings["auth"]> = {};
  if (auth.username !== undefined && auth.userDomainId === undefined && auth.userDomainName === undefined) {
    if (fallback.id === undefined) domains.userDomainName = fallback.name;
    else domains.userDomainId = fallback.id;
  }
  if (
    auth.projectName !== undefined &&
    auth.projectDomainId === undefined &&
    auth.projectDomainName === undefined
  ) {
    if (fallback.id === undefined) domains.projectDomainName = fallback.name;
    else domains.projectDomainId = fallback.id;
  }
  return { ...defined(auth), authUrl: auth.authUrl, ...domains };
}

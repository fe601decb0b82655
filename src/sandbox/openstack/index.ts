import { once } from "node:events";
import { armFault, type Fault } from "../faults.ts";
import type { Cloud, RequestLogEntry } from "./cloud.ts";
import { createCloud, SEED_APPLICATION_CREDENTIAL_SECRET, SEED_PASSWORD, SEED_REGION } from "./seed.ts";
import { createHttpServer } from "./server.ts";
import {
  describeServer,
  makeStranger,
  revokeAllTokens,
  type SimulatedServer,
  type StrangerInput,
} from "./sim-api.ts";
import type { OpenStackSimulatorOptions, Quota, Traps } from "./types.ts";

export type { Fault } from "../faults.ts";
export type { RequestLogEntry } from "./cloud.ts";
export { faultPresets } from "./faults.ts";
export { sentinelNames } from "./knobs.ts";
export type { SimulatedServer, StrangerInput } from "./sim-api.ts";
export type { OpenStackSimulatorOptions, Quota, Traps } from "./types.ts";

export interface OpenStackCredentials {
  region: string;
  projectId: string;
  projectName: string;
  projectDomainId: string;
  projectDomainName: string;
  userId: string;
  username: string;
  userDomainId: string;
  userDomainName: string;
  password: string;
  applicationCredentialId: string;
  applicationCredentialSecret: string;
}

export interface OpenStackSimulator {
  /** http://127.0.0.1:PORT */
  url: string;
  authUrl: string;
  credentials: OpenStackCredentials;
  /** User `other` of project `customer-b`: to prove isolation. */
  otherCredentials: OpenStackCredentials;
  state: {
    /** All servers that ever were, deleted ones too; a fresh copy at each look. */
    readonly servers: SimulatedServer[];
    readonly requests: RequestLogEntry[];
    /** How often, by "METHOD /path/{id} status". */
    readonly counts: Record<string, number>;
    readonly faults: readonly Fault[];
    /** May be changed at any time. */
    quota: Quota;
    traps: Traps;
  };
  /** Returns the fault's id. */
  addFault(fault: Fault): string;
  clearFaults(): void;
  /** A server somebody else made, running at once. */
  addStranger(input?: StrangerInput): SimulatedServer;
  /** Every token issued so far stops working. */
  revokeTokens(): void;
  close(): Promise<void>;
}

/** An OpenStack cloud on one port: Keystone, Nova, Glance and Neutron below path prefixes. */
export async function startOpenStackSimulator(
  options: OpenStackSimulatorOptions = {},
): Promise<OpenStackSimulator> {
  const cloud = createCloud(options);
  const server = createHttpServer(cloud, options.log ?? ignore);
  server.listen(options.port ?? 0, options.host ?? "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  const port = typeof address === "object" ? address?.port : undefined;
  const url = `http://${options.host ?? "127.0.0.1"}:${port}`;
  return {
    url,
    authUrl: `${url}/identity/v3`,
    credentials: credentialsOf(cloud, "bot", "hostops"),
    otherCredentials: credentialsOf(cloud, "other", "customer-b"),
    state: inspectable(cloud),
    addFault: (fault) => {
      const armed = armFault(fault);
      cloud.faults.push(armed);
      return armed.id;
    },
    clearFaults: () => {
      cloud.faults.length = 0;
    },
    addStranger: (input = {}) => describeServer(cloud, makeStranger(cloud, input)),
    revokeTokens: () => {
      revokeAllTokens(cloud);
    },
    close: async () => {
      cloud.closed = true;
      for (const timer of cloud.timers) clearTimeout(timer);
      cloud.timers.clear();
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

function ignore(): void {
  // No log asked for.
}

function inspectable(cloud: Cloud): OpenStackSimulator["state"] {
  return {
    get servers() {
      return [...cloud.servers.values()].map((server) => describeServer(cloud, server));
    },
    get requests() {
      return cloud.requests;
    },
    get counts() {
      return Object.fromEntries(cloud.counts);
    },
    get faults() {
      return cloud.faults;
    },
    get quota() {
      return cloud.quota;
    },
    set quota(quota) {
      cloud.quota = quota;
    },
    get traps() {
      return cloud.traps;
    },
    set traps(traps) {
      cloud.traps = traps;
    },
  };
}

function credentialsOf(cloud: Cloud, username: string, projectName: string): OpenStackCredentials {
  const user = [...cloud.users.values()].find(({ name }) => name === username);
  const project = [...cloud.projects.values()].find(({ name }) => name === projectName);
  const credential = cloud.applicationCredential;
  const own = user?.id === credential.userId;
  return {
    region: SEED_REGION,
    projectId: project?.id ?? "",
    projectName,
    projectDomainId: "default",
    projectDomainName: "Default",
    userId: user?.id ?? "",
    username,
    userDomainId: "default",
    userDomainName: "Default",
    password: SEED_PASSWORD,
    // The seed has one application credential, of `bot`.
    applicationCredentialId: own ? credential.id : "",
    applicationCredentialSecret: own ? SEED_APPLICATION_CREDENTIAL_SECRET : "",
  };
}

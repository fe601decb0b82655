import type { Logger } from "pino";

export interface OpenStackAuth {
  /** With or without /v3 at its end. */
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
}

/** What the configuration says of one OpenStack cloud: one project in one region. */
export interface OpenStackCloudOptions {
  /** Its name in the configuration. */
  name: string;
  auth: OpenStackAuth;
  /** Needed when the catalogue lists more than one. */
  region?: string;
  /** Default "public". */
  interface?: "public" | "internal" | "admin";
  /** Default 30000. */
  timeoutMs?: number;
  /** Default 5000. */
  connectTimeoutMs?: number;
  /** Default true. */
  verifyTls?: boolean;
  /** PEM file. */
  caFile?: string;
  /** Service type ("compute", "image", "network") → its URL, instead of the catalogue's. */
  endpointOverrides?: Record<string, string>;
}

/** What the program hands in beside the configuration. */
export interface OpenStackRuntime {
  log: Logger;
  now?: () => number;
  /** The pause before a reading call is repeated. */
  sleep?: (ms: number, signal: AbortSignal | undefined) => Promise<void>;
}

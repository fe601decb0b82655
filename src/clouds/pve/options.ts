import type { Logger } from "pino";

export type PveCredential =
  /** `user@realm!id` and its uuid. */
  | { kind: "token"; tokenId: string; tokenSecret: string }
  /** A ticket of two hours is taken with it and renewed. */
  | { kind: "password"; username: string; password: string };

/** What the configuration says of one PVE cluster. */
export interface PveCloudOptions {
  /** Its name in the configuration. */
  name: string;
  /** `https://host:8006`, of any node. */
  url: string;
  credential: PveCredential;
  /** Inclusive. Every VMID of ours comes from it, and none is used twice. */
  vmidRange: readonly [number, number];
  /** Default 30000. */
  timeoutMs?: number;
  /** Default 5000. */
  connectTimeoutMs?: number;
  /** Default true. */
  verifyTls?: boolean;
  /** PEM file. */
  caFile?: string;
  /** SHA-256 of the certificate; then no CA is asked. */
  fingerprint?: string;
  /** Where full clones go; default: where the template is. */
  storage?: string;
  /** Default "full". */
  clone?: "full" | "linked";
  /** Name servers for cloud-init; default: the node's. */
  nameservers?: readonly string[];
  searchDomain?: string;
  /** What `rescue` boots from: `local:iso/rescue.iso`, on every node. */
  rescueIso?: string;
  /** What customers may put into a drive, too: its public name → `local:iso/debian-13.iso`. */
  isos?: Readonly<Record<string, string>>;
}

/** What the program hands in beside the configuration. */
export interface PveRuntime {
  log: Logger;
  now?: () => number;
  /** The pause before a reading call is repeated. */
  sleep?: (ms: number, signal: AbortSignal | undefined) => Promise<void>;
  /** The longest pause before a step looks again for what no task tells. Default 3000. */
  lookEveryMs?: number;
}

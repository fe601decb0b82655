/** A PVE cluster's settings: the entry in ratatosk.yaml, with PROXMOX_* variables for what it does not say. */
import { defined } from "./clouds-yaml.ts";
import type { Path } from "./document.ts";
import type { EnvironmentReader } from "./environment.ts";
import { parsePart, type Reading } from "./issues.ts";
import { PveEntry } from "./schema.ts";

/** What clouds/pve is built from. */
export interface PveSettings {
  type: "pve";
  name: string;
  url: string;
  credential:
    | { kind: "token"; tokenId: string; tokenSecret: string }
    | { kind: "password"; username: string; password: string };
  vmidRange: readonly [number, number];
  timeoutMs: number;
  connectTimeoutMs: number;
  verifyTls: boolean;
  /** PEM file. */
  caFile?: string;
  fingerprint?: string;
  /** The bridge of servers whose plan names none. */
  network?: string;
  storage?: string;
  clone: "full" | "linked";
  nameservers?: readonly string[];
  searchDomain?: string;
  /** What a rescue boots from: `local:iso/rescue.iso`. */
  rescueIso?: string;
  /** What anybody may put into a server's drive: its public name → `local:iso/debian-13.iso`. */
  isos?: Readonly<Record<string, string>>;
  /** How many operations may work on it at a time. */
  maxConcurrent: number;
}

/** The entry `clouds.<name>`; undefined when something is wrong with it, which was told then. */
export function readPveEntry(
  name: string,
  reading: Reading & { environment: EnvironmentReader },
): PveSettings | undefined {
  const path: Path = ["clouds", name];
  const entry = parsePart(PveEntry, path, reading);
  if (entry === undefined) return undefined;
  const credential = credentialOf(entry);
  if (credential === undefined) {
    reading.problems.add(
      `${reading.document.where(path)}: clouds.${name} needs either tokenId and tokenSecret, or username and password`,
      "make an API token under Datacenter → Permissions → API Tokens and give both of its parts",
    );
    return undefined;
  }
  const { environment } = reading;
  return {
    type: "pve",
    name,
    url: entry.url.replace(/\/+$/, ""),
    credential,
    vmidRange: entry.vmidRange,
    timeoutMs: entry.apiTimeoutMs ?? seconds(environment, "PROXMOX_API_TIMEOUT", 30),
    connectTimeoutMs: entry.connectTimeoutMs ?? seconds(environment, "PROXMOX_CONNECT_TIMEOUT", 5),
    verifyTls: entry.verifyTls ?? environment.flag("PROXMOX_VERIFY_SSL", true),
    clone: entry.clone,
    maxConcurrent: entry.maxConcurrent,
    ...defined({
      caFile: entry.ca,
      fingerprint: entry.fingerprint,
      network: entry.network,
      storage: entry.storage,
      nameservers: entry.nameservers,
      searchDomain: entry.searchDomain,
      rescueIso: entry.rescueIso,
      isos: entry.isos,
    }),
  };
}

function credentialOf(entry: {
  tokenId?: string | undefined;
  tokenSecret?: string | undefined;
  username?: string | undefined;
  password?: string | undefined;
}): PveSettings["credential"] | undefined {
  const { tokenId, tokenSecret, username, password } = entry;
  const hasToken = tokenId !== undefined || tokenSecret !== undefined;
  const hasPassword = username !== undefined || password !== undefined;
  if (hasToken === hasPassword) return undefined;
  if (tokenId !== undefined && tokenSecret !== undefined) return { kind: "token", tokenId, tokenSecret };
  if (username !== undefined && password !== undefined) return { kind: "password", username, password };
  return undefined;
}

function seconds(
  environment: EnvironmentReader,
  name: "PROXMOX_API_TIMEOUT" | "PROXMOX_CONNECT_TIMEOUT",
  fallback: number,
): number {
  return environment.integer(name, { min: 1, max: 600, fallback, unit: "seconds" }) * 1000;
}

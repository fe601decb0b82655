/** Environment variables: which names there are, and reading one with its rule. An empty variable counts as not set. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseEnv } from "node:util";
import { adviceFor, nearestName, type Problems } from "./problems.ts";

export type Env = Readonly<Record<string, string | undefined>>;

/** Every variable that means something to us; docs/configuration.md explains them (a test compares). */
export const environmentNames = [
  "PORT",
  "HOST",
  "LOG_LEVEL",
  "DATABASE_URL",
  "REDIS_URL",
  "RATATOSK_CONFIG",
  "RATATOSK_DATA_DIR",
  "RATATOSK_PUBLIC_URL",
  "RATATOSK_ROLES",
  "RATATOSK_SECRET_KEY",
  "SLACK_API_URL",
  "SLACK_APP_TOKEN",
  "SLACK_BOT_TOKEN",
  "SLACK_COMMAND_PREFIX",
  "SLACK_SIGNING_SECRET",
  "DISCORD_API_URL",
  "DISCORD_APPLICATION_ID",
  "DISCORD_GUILD_ID",
  "DISCORD_PUBLIC_KEY",
  "DISCORD_TOKEN",
  "OPENSTACK_AUTH_URL",
  "OPENSTACK_DOMAIN_ID",
  "OPENSTACK_DOMAIN_NAME",
  "OPENSTACK_PASSWORD",
  "OPENSTACK_PROJECT_ID",
  "OPENSTACK_PROJECT_NAME",
  "OPENSTACK_REGION",
  "OPENSTACK_SYNC_ENABLED",
  "OPENSTACK_SYNC_INTERVAL",
  "OPENSTACK_TIMEOUT",
  "OPENSTACK_USERNAME",
  "OPENSTACK_USER_ID",
  "OS_CLIENT_CONFIG_FILE",
  "PROXMOX_API_TIMEOUT",
  "PROXMOX_CONNECT_TIMEOUT",
  "PROXMOX_VERIFY_SSL",
] as const;
export type EnvironmentName = (typeof environmentNames)[number];

const NAMES: ReadonlySet<string> = new Set(environmentNames);

/** The environment, with a `.env` of the working directory beneath it. */
export function withDotEnv(env: Env, cwd: string, problems: Problems): Env {
  try {
    return { ...parseEnv(readFileSync(join(cwd, ".env"), "utf8")), ...env };
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) {
      problems.add(".env cannot be read", "make it readable or remove it");
    }
    return env;
  }
}

/** A name that is all ours must be known; one that only begins like ours may be somebody else's, unless it is nearly ours. */
export function reportUnknownNames(env: Env, problems: Problems): void {
  for (const name of Object.keys(env)) {
    if (NAMES.has(name)) continue;
    if (name.startsWith("RATATOSK_")) {
      problems.add(
        `The environment variable ${name} is not known`,
        adviceFor(name, environmentNames, "remove it"),
      );
    } else if (/^(SLACK|DISCORD|OPENSTACK|PROXMOX)_/.test(name)) {
      const guess = nearestName(name, environmentNames);
      if (guess !== undefined && env[guess] === undefined) {
        problems.add(`The environment variable ${name} is not known`, `did you mean "${guess}"?`);
      }
    }
  }
}

export interface EnvironmentReader {
  text(name: EnvironmentName): string | undefined;
  integer(name: EnvironmentName, rule: { min: number; max: number; fallback: number; unit?: string }): number;
  flag(name: EnvironmentName, fallback: boolean): boolean;
  oneOf<const Value extends string>(name: EnvironmentName, values: readonly Value[], fallback: Value): Value;
  /** Without a slash at its end. */
  url(name: EnvironmentName, protocols: readonly string[]): string | undefined;
}

export function readEnvironment(env: Env, problems: Problems): EnvironmentReader {
  const text = (name: EnvironmentName): string | undefined => {
    const value = env[name]?.trim();
    return value === "" ? undefined : value;
  };
  return {
    text,
    integer(name, { min, max, fallback, unit }) {
      const value = text(name);
      if (value === undefined) return fallback;
      const number = /^\d+$/.test(value) ? Number(value) : Number.NaN;
      if (number >= min && number <= max) return number;
      problems.add(
        `${name} is not a whole number${unit === undefined ? "" : ` of ${unit}`} from ${min} to ${max}`,
        `write digits only, for example ${name}=${fallback}`,
      );
      return fallback;
    },
    flag(name, fallback) {
      const value = text(name)?.toLowerCase();
      if (value === undefined) return fallback;
      if (["true", "1", "yes", "on"].includes(value)) return true;
      if (["false", "0", "no", "off"].includes(value)) return false;
      problems.add(`${name} is neither true nor false`, `write ${name}=${fallback}`);
      return fallback;
    },
    oneOf(name, values, fallback) {
      const value = text(name)?.toLowerCase();
      const known = values.find((candidate) => candidate === value);
      if (value === undefined || known !== undefined) return known ?? fallback;
      problems.add(
        `${name} is not one of ${values.join(", ")}`,
        adviceFor(value, values, `write ${name}=${fallback}`),
      );
      return fallback;
    },
    url(name, protocols) {
      const value = text(name);
      if (value === undefined || isUrl(value, protocols)) return value?.replace(/\/+$/, "");
      const example = `${protocols[0] ?? "https:"}//…`;
      problems.add(
        `${name} is not an address that begins with ${protocols.map((p) => `${p}//`).join(" or ")}`,
        `write it as ${example}`,
      );
      return undefined;
    },
  };
}

export function isUrl(text: string, protocols: readonly string[]): boolean {
  const url = URL.parse(text);
  // A database may be behind a socket, and then has no host.
  return (
    url !== null &&
    protocols.includes(url.protocol) &&
    (url.hostname !== "" || url.protocol.startsWith("postgres"))
  );
}

/** All settings, read once at start. A new setting is added here, in schema.ts, in docs/configuration.md and in the examples. */
import { resolve } from "node:path";
import { type DiscordSettings, readDiscord, readSlack, type SlackSettings } from "./chat.ts";
import { readDocument } from "./document.ts";
import {
  type Env,
  type EnvironmentReader,
  readEnvironment,
  reportUnknownNames,
  withDotEnv,
} from "./environment.ts";
import { adviceFor, ConfigurationError, collectProblems, type Problems } from "./problems.ts";
import {
  type ChannelSettings,
  type CloudSettings,
  type CustomerSettings,
  type PlanSettings,
  type PolicySettings,
  readSections,
  type StaffSettings,
  type WebhookSettings,
} from "./sections.ts";

export type { DiscordSettings, SlackSettings } from "./chat.ts";
export type {
  ChannelSettings,
  CloudSettings,
  CustomerSettings,
  PlanSettings,
  PolicySettings,
  StaffSettings,
  WebhookSettings,
} from "./sections.ts";

export const roles = ["bots", "worker", "dispatcher", "api"] as const;
export type Role = (typeof roles)[number];
export const logLevels = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;

export interface Settings {
  mode: "embedded" | "postgres";
  /** No cloud is configured: the simulated ones are started. */
  sandbox: boolean;
  host: string;
  port: number;
  /** Under which people and platforms reach us; without a slash at its end. */
  publicUrl: string | undefined;
  logLevel: (typeof logLevels)[number];
  roles: readonly Role[];
  dataDir: string;
  databaseUrl: string | undefined;
  redisUrl: string | undefined;
  /** 32 bytes in base64 or hex. */
  secretKey: string | undefined;
  slack: SlackSettings | undefined;
  discord: DiscordSettings | undefined;
  clouds: readonly CloudSettings[];
  staff: readonly StaffSettings[];
  customers: readonly CustomerSettings[];
  plans: readonly PlanSettings[];
  webhooks: readonly WebhookSettings[];
  channels: ChannelSettings;
  policies: PolicySettings;
  sync: { enabled: boolean; intervalMs: number };
}

export interface ReadSettingsOptions {
  env: Env;
  cwd: string;
  /** The value of `--roles=`, when given. */
  roles?: string | undefined;
}

/** Throws ConfigurationError with everything that is wrong. */
export function readSettings(options: ReadSettingsOptions): Settings {
  const problems = collectProblems();
  const env = withDotEnv(options.env, options.cwd, problems);
  const environment = readEnvironment(env, problems);
  reportUnknownNames(env, problems);
  const named = environment.text("RATATOSK_CONFIG");
  const document = readDocument({
    path: resolve(options.cwd, named ?? "ratatosk.yaml"),
    required: named !== undefined,
    env,
    problems,
  });
  const settings = {
    ...readProcess(environment, options, problems),
    slack: readSlack(environment, problems),
    discord: readDiscord(environment, problems),
    ...readSections({ document, problems }, environment, options.cwd),
  };
  if (problems.list().length > 0) throw new ConfigurationError(problems.list());
  return { ...settings, sandbox: settings.clouds.length === 0 };
}

function readProcess(environment: EnvironmentReader, options: ReadSettingsOptions, problems: Problems) {
  const databaseUrl = environment.url("DATABASE_URL", ["postgresql:", "postgres:"]);
  const wanted = options.roles ?? environment.text("RATATOSK_ROLES");
  const chosen = readRoles(wanted, problems);
  if (
    databaseUrl === undefined &&
    environment.text("DATABASE_URL") === undefined &&
    chosen.length < roles.length
  ) {
    problems.add(
      `Only the roles ${chosen.join(", ")} are chosen, but the embedded database serves this one process`,
      "leave out --roles, or set DATABASE_URL so that other processes can do the rest",
    );
  }
  const secretKey = environment.text("RATATOSK_SECRET_KEY");
  if (secretKey !== undefined && !isKey(secretKey)) {
    problems.add(
      "RATATOSK_SECRET_KEY is not a key of 32 bytes in base64 or hex",
      "make one with: openssl rand -base64 32",
    );
  }
  // Their values are for clouds that may not be configured; a wrong one is told all the same.
  environment.integer("OPENSTACK_TIMEOUT", { min: 1, max: 600, fallback: 30, unit: "seconds" });
  environment.integer("PROXMOX_API_TIMEOUT", { min: 1, max: 600, fallback: 30, unit: "seconds" });
  environment.integer("PROXMOX_CONNECT_TIMEOUT", { min: 1, max: 600, fallback: 5, unit: "seconds" });
  environment.flag("PROXMOX_VERIFY_SSL", true);
  return {
    mode: databaseUrl === undefined ? ("embedded" as const) : ("postgres" as const),
    databaseUrl,
    redisUrl: environment.url("REDIS_URL", ["redis:", "rediss:"]),
    host: environment.text("HOST") ?? "127.0.0.1",
    port: environment.integer("PORT", { min: 0, max: 65_535, fallback: 3000 }),
    publicUrl: environment.url("RATATOSK_PUBLIC_URL", ["https:", "http:"]),
    logLevel: environment.oneOf("LOG_LEVEL", logLevels, "info"),
    roles: chosen,
    dataDir: resolve(options.cwd, environment.text("RATATOSK_DATA_DIR") ?? ".data"),
    secretKey,
    sync: {
      enabled: environment.flag("OPENSTACK_SYNC_ENABLED", true),
      intervalMs:
        environment.integer("OPENSTACK_SYNC_INTERVAL", {
          min: 10,
          max: 86_400,
          fallback: 300,
          unit: "seconds",
        }) * 1000,
    },
  };
}

function readRoles(wanted: string | undefined, problems: Problems): Role[] {
  if (wanted === undefined) return [...roles];
  const names = wanted
    .split(",")
    .map((name) => name.trim().toLowerCase())
    .filter((name) => name !== "");
  if (names.length === 0) problems.add("--roles names no role", `choose from ${roles.join(", ")}`);
  for (const name of names) {
    if (!roles.some((role) => role === name)) {
      problems.add(`There is no role "${name}"`, adviceFor(name, roles, `choose from ${roles.join(", ")}`));
    }
  }
  return roles.filter((role) => names.includes(role));
}

function isKey(text: string): boolean {
  if (/^[0-9a-f]{64}$/i.test(text)) return true;
  return /^[A-Za-z0-9+/_-]+={0,2}$/.test(text) && Buffer.from(text, "base64").length === 32;
}

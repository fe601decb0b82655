/** The same settings as the process's, and clouds built from them. */
import { pino } from "pino";
import { type CloudRegistry, createClouds } from "../clouds/index.ts";
import { adviceFor } from "../config/problems.ts";
import { type CloudSettings, readSettings, type Settings } from "../config/settings.ts";
import { ServiceError } from "../core/errors.ts";
import type { Terminal } from "./terminal.ts";

/** Throws ConfigurationError. */
export function settingsOf({ env, cwd }: Terminal): Settings {
  return readSettings({ env, cwd });
}

/** The log goes to standard error, and says only what went wrong: standard output belongs to the command. */
export function logOf(terminal: Terminal) {
  return pino({ level: terminal.env["LOG_LEVEL"] ?? "error" }, terminal.stderr);
}

/** All, or the named one. Throws ServiceError `configuration` when there is none of that name. */
export function chosenClouds(settings: Settings, name: string | undefined): readonly CloudSettings[] {
  const { clouds } = settings;
  if (clouds.length === 0) {
    throw new ServiceError(
      "configuration",
      "No cloud is configured. Add one under clouds in ratatosk.yaml (docs/configuration.md).",
    );
  }
  if (name === undefined) return clouds;
  const found = clouds.find((cloud) => cloud.name === name);
  if (found !== undefined) return [found];
  const names = clouds.map((cloud) => cloud.name);
  throw new ServiceError(
    "configuration",
    `There is no cloud "${name}"; ${adviceFor(name, names, `there are ${names.join(", ")}.`)}`,
  );
}

export function openClouds(chosen: readonly CloudSettings[], terminal: Terminal): CloudRegistry {
  return createClouds(chosen, logOf(terminal));
}

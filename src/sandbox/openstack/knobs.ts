import type { Cloud } from "./cloud.ts";
import type { Server } from "./types.ts";

/** How one server is to misbehave. */
export interface Knobs {
  fail: string | undefined;
  /** Seconds per step as asked for, whatever the simulator's speed. */
  delayMs: number | undefined;
  noAgent: boolean;
  noCapacity: boolean;
  /** Its compute host is dead. */
  dead: boolean;
  silentResize: boolean;
  confirmWindowMs: number | undefined;
}

/**
 * Names with which a person can play a failure by hand. A name counts when it is the sentinel or
 * starts with it and a dash: `sim-fail-spawn`, `sim-fail-spawn-2`.
 */
export const sentinelNames: Readonly<Record<string, string>> = {
  "sim-fail-spawn": "the build fails on every host: ERROR, retries exhausted",
  "sim-fail-abort": "the build is aborted on the first host: ERROR",
  "sim-fail-migrate": "a resize fails on the source host: ERROR",
  "sim-fail-resize": "a resize fails on the target host: ERROR; a hard reboot brings it back",
  "sim-fail-password": "changePassword is 409",
  "sim-fail-power": "stop fails: stays ACTIVE, only the action record tells",
  "sim-no-agent": "changePassword is 409 QEMU guest agent is not enabled",
  "sim-no-host": "the build ends in ERROR: No valid host was found. ",
  "sim-silent-resize": "a resize falls back to ACTIVE without a fault",
  "sim-auto-confirm": "a resize confirms itself at once",
  "sim-slow": "every step takes 20 s",
  "sim-stuck": "its compute host dies after the build: stop hangs, changePassword is 500 and hangs",
  "sim-quota": "the create is refused: 403 Quota exceeded",
  "sim-429": "the first create of that name is 429 with Retry-After: 1",
  "sim-drop": "the create's connection is cut, nothing was made",
  "sim-lost-answer": "the server is made, the answer is lost",
  "sim-gateway-timeout": "the server is made, a gateway answers 504",
  "sim-messaging-timeout": "the create is 500 MessagingTimeout, nothing was made",
};

export function sentinelOf(name: string): string | undefined {
  return Object.keys(sentinelNames)
    .filter((sentinel) => name === sentinel || name.startsWith(`${sentinel}-`))
    .toSorted((left, right) => right.length - left.length)[0];
}

/** From the server's metadata (the same keys as on the real test cloud), its name, and the cloud's traps. */
export function knobsOf(cloud: Cloud, server: Pick<Server, "name" | "metadata" | "launchedAt">): Knobs {
  const { metadata, name } = server;
  const sentinel = sentinelOf(name);
  const seconds = Number(metadata["osr_delay"]);
  const asked = metadata["osr_delay"] !== undefined && Number.isFinite(seconds) ? seconds * 1000 : undefined;
  const failing = sentinel?.startsWith("sim-fail-") === true ? sentinel.slice("sim-fail-".length) : undefined;
  return {
    fail: metadata["osr_fail"] ?? failing,
    delayMs: asked ?? (sentinel === "sim-slow" ? 20_000 : undefined),
    noAgent: (metadata["osr_no_agent"] ?? "") !== "" || sentinel === "sim-no-agent",
    noCapacity: cloud.traps.noCapacity === true || sentinel === "sim-no-host",
    dead: cloud.traps.deadCompute === true || (sentinel === "sim-stuck" && server.launchedAt !== null),
    silentResize: sentinel === "sim-silent-resize",
    confirmWindowMs: sentinel === "sim-auto-confirm" ? 0 : cloud.traps.resizeConfirmWindowMs,
  };
}

// What the team grants a server of CPU time and network belongs to the server as it is sold, not to a snapshot of its disk.
import { z } from "zod";
import type { Issued, PlannedStep, StepContext, StepDefinition } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import { properties } from "../config.ts";
import { neverGivenUp } from "../doubt.ts";
import type { Parameters } from "../form.ts";
import type { VmConfig } from "../schema.ts";
import { change, requireShown } from "./setting.ts";
import { getTarget, seen } from "./target.ts";

const CPU_KEYS = ["cpulimit", "cpuunits"] as const;
const NO_LIMIT = null;

/** Null: not limited, or as PVE has it by itself. */
const Limits = z.record(z.string(), z.string().nullable());
/** By key: `cpulimit`, `cpuunits`, and of each card (`net0`) its `rate`. */
export type Limits = z.infer<typeof Limits>;

export function limitsOf(config: VmConfig): Limits {
  const cards = Object.entries(config).filter(([key]) => isCard(key));
  return {
    ...Object.fromEntries(CPU_KEYS.map((key) => [key, config[key] ?? NO_LIMIT])),
    ...Object.fromEntries(cards.map(([key, card]) => [key, properties(card)["rate"] ?? NO_LIMIT])),
  };
}

function isCard(key: string): boolean {
  return /^net\d+$/u.test(key);
}

export function planLimits(input: { externalId: string }): PlannedStep {
  return { name: "pve.keep_limits", label: "Keep its limits", input };
}

/** As `limits` of the operation's output. Before a start, so that it never runs without them; all of it is absolute. */
export function limitsStep(client: PveClient): StepDefinition {
  return neverGivenUp({
    name: "pve.keep_limits",
    deadlineMs: 10 * 60_000,
    callTimeoutMs: 2 * 60_000,
    evidence: "repeatable",
    issue: (context) => issue(client, context),
  });
}

async function issue(client: PveClient, context: StepContext): Promise<Issued> {
  const wanted = Limits.parse(context.operation.output["limits"]);
  const vm = await getTarget(client, context);
  if (differencesOf(vm.config, wanted).length === 0) {
    return { kind: "done", ...(await seen(client, context, vm)), note: "they are as they were." };
  }
  const after = await change(client, context, vm, parametersOf(vm.config, wanted));
  requireShown(client, after, "the server's limits", differencesOf(after.config, wanted));
  return { kind: "done", ...(await seen(client, context, after)), note: "they are as they were before." };
}

/** A card that is not there any more, or not yet, has none. */
function differencesOf(config: VmConfig, wanted: Limits): string[] {
  const now = limitsOf(config);
  return Object.entries(wanted)
    .filter(([key, limit]) => (now[key] ?? NO_LIMIT) !== limit && !(isCard(key) && config[key] === undefined))
    .map(([key, limit]) => `${key}: ${now[key] ?? "no limit"} (not ${limit ?? "none"})`);
}

function parametersOf(config: VmConfig, wanted: Limits): Parameters {
  const now = limitsOf(config);
  const others = Object.entries(wanted).filter(([key, limit]) => (now[key] ?? NO_LIMIT) !== limit);
  const doomed = others.filter(([key, limit]) => !isCard(key) && limit === NO_LIMIT).map(([key]) => key);
  const set = others.flatMap(([key, limit]) => {
    if (!isCard(key)) return limit === NO_LIMIT ? [] : [[key, limit] as const];
    const card = config[key];
    return card === undefined ? [] : [[key, withRate(card, limit)] as const];
  });
  return {
    ...Object.fromEntries(set),
    ...(doomed.length === 0 ? {} : { delete: doomed.join(",") }),
  };
}

function withRate(card: string, rate: string | null): string {
  const parts = card.split(",").filter((part) => !part.startsWith("rate="));
  return [...parts, ...(rate === NO_LIMIT ? [] : [`rate=${rate}`])].join(",");
}

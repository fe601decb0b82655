import { z } from "zod";
import type { Issued, PlannedStep, StepContext, StepDefinition } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import type { FoundVm } from "../cluster.ts";
import { properties, tagsOf } from "../config.ts";
import type { Parameters } from "../form.ts";
import { isKept, keptOf, type Retiring, retiringOf } from "../retiring.ts";
import type { VmConfig } from "../schema.ts";
import { change, requireShown } from "./setting.ts";
import { carries, getTarget, seen } from "./target.ts";

const Input = z.object({
  vcpus: z.number(),
  /** The keys that the order brought; else those of the old system stay. */
  newKeys: z.boolean(),
});

export function planTakeOver(input: z.infer<typeof Input>): PlannedStep {
  return { name: "pve.take_over", label: "Take over its network and addresses", input };
}

/**
 * A clone always gets new MAC addresses, so the old ones are written before the first start: they and the addresses belong to
 * the server. Both VMs have them from here on, and never run at the same time. All of it is absolute.
 */
export function takeOverStep(client: PveClient): StepDefinition {
  return {
    name: "pve.take_over",
    deadlineMs: 10 * 60_000,
    callTimeoutMs: 2 * 60_000,
    evidence: "repeatable",
    issue: (context) => issue(client, context),
  };
}

async function issue(client: PveClient, context: StepContext): Promise<Issued> {
  const retiring = retiringOf(context);
  const vm = await getTarget(client, context);
  const wanted = wantedOf(context, retiring, vm);
  const surplus = Object.keys(keptOf(vm.config)).filter((key) => isTaken(context, key) && !(key in wanted));
  const after = await change(client, context, vm, parametersOf({ wanted, surplus, retiring, vm }));
  const differences = differencesOf(context, { after, wanted, surplus });
  requireShown(client, after, "the server's network settings", differences);
  return {
    kind: "done",
    ...(await seen(client, context, after)),
    note: "it has the server's network and addresses.",
  };
}

function isTaken(context: StepContext, key: string): boolean {
  const { newKeys } = Input.parse(context.input);
  return isKept(key) && !(newKeys && key === "sshkeys");
}

function wantedOf(context: StepContext, retiring: Retiring, vm: FoundVm): VmConfig {
  const { vcpus } = Input.parse(context.input);
  const kept = Object.fromEntries(
    // Whether it starts with its node is for pve.autostart: not while the old one may.
    Object.entries(retiring.kept).filter(([key]) => isTaken(context, key) && key !== "onboot"),
  );
  const { sockets } = retiring;
  const split =
    sockets > 0 && vcpus % sockets === 0 ? { sockets: `${sockets}`, cores: `${vcpus / sockets}` } : {};
  const tags = [...new Set([...tagsOf(vm.config["tags"]), ...retiring.tags])].join(";");
  return { ...kept, ...split, tags };
}

interface Change {
  wanted: VmConfig;
  surplus: readonly string[];
}

/** What the old one's description said besides our marker stays, below the new one's. */
function parametersOf({
  wanted,
  surplus,
  retiring,
  vm,
}: Change & { retiring: Retiring; vm: FoundVm }): Parameters {
  const own = (vm.config["description"] ?? "").trimEnd();
  const known = new Set(own.split("\n").map((line) => line.trim()));
  const kept = retiring.description
    .split("\n")
    .filter((line) => line.trim() !== "" && !known.has(line.trim()));
  return {
    ...wanted,
    description: kept.length === 0 ? undefined : [own, ...kept].join("\n"),
    delete: surplus.length === 0 ? undefined : surplus.join(","),
  };
}

function differencesOf(
  { operation }: StepContext,
  { after, wanted, surplus }: Change & { after: FoundVm },
): string[] {
  const { config } = after;
  return [
    ...Object.entries(wanted)
      .filter(([key, value]) => !isSame(config[key] ?? "", value))
      .map(([key, value]) => `${key}: ${config[key] ?? "none"} (not ${value})`),
    ...surplus.filter((key) => key in config).map((key) => `${key} still`),
    ...(carries(after, operation.id) ? [] : ["no marker of ours"]),
  ];
}

/** PVE writes the parts of a card in an order of its own, MAC addresses in capitals, and tags sorted. */
function isSame(shown: string, wanted: string): boolean {
  return normal(shown) === normal(wanted);
}

function normal(text: string): string {
  return Object.entries(properties(text.toLowerCase()))
    .map(([key, value]) => `${key}=${value.split(";").toSorted().join(";")}`)
    .toSorted()
    .join(",");
}

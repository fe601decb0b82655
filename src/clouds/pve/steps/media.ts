// What a rescue and an ISO share: settings of drives and boot order, set and read back.
import { ServiceError } from "../../../core/errors.ts";
import type { Issued, StepContext, StepDefinition, StepOutcome } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import type { FoundVm } from "../cluster.ts";
import type { Parameters } from "../form.ts";
import { type DriveNote, newNote } from "../media.ts";
import type { VmConfig } from "../schema.ts";
import { wantedConfig } from "../vm.ts";
import { change, requireShown } from "./setting.ts";
import { getTarget } from "./target.ts";

/** `written`, so that asking again never takes what we have set for the original. `what` the drive is for: "the rescue media". */
export function noteFor(
  client: PveClient,
  { vmid }: FoundVm,
  { config, written, what }: { config: VmConfig; written: DriveNote | null; what: string },
): DriveNote {
  const note = written ?? newNote(config);
  if (note !== null) return note;
  throw new ServiceError("unsupported", `The server has no free drive for ${what}, so nothing was changed.`, {
    facts: { cloud: client.cloud },
    staffDetail: `${client.cloud}: VM ${vmid} has no free or empty slot of ide0-3 and sata0-5`,
  });
}

/** PVE may show another boot order, one that it has changed by itself: then it is set again. */
export function requireBootSettings(
  client: PveClient,
  vm: FoundVm,
  config: VmConfig,
  expected: Readonly<Record<string, boolean>>,
): void {
  const wrong = Object.keys(expected).filter((key) => expected[key] !== true);
  const differences = wrong.map((key) => `${key}: ${config[key] ?? "none"}`);
  requireShown(client, vm, "the settings of the server", differences, { retryable: true });
}

export interface MediaSetting<Input> {
  name: string;
  pointOfNoReturn?: string;
  parse(input: unknown, context: StepContext): Input;
  parameters(vm: FoundVm, config: VmConfig, input: Input): Parameters;
  /** Whether each of them is there, as PVE shows it then. */
  expected(config: VmConfig, input: Input): Record<string, boolean>;
  /** What it tells when they are. */
  outcome?(context: StepContext, vm: FoundVm, input: Input): StepOutcome | Promise<StepOutcome>;
}

/** One call. With what waits for a restart, because that is what the next step goes on from. */
export function mediaSetting<Input>(
  client: PveClient,
  { name, pointOfNoReturn, parse, parameters, expected, outcome = () => ({}) }: MediaSetting<Input>,
): StepDefinition {
  return {
    name,
    deadlineMs: 10 * 60_000,
    callTimeoutMs: 2 * 60_000,
    ...(pointOfNoReturn === undefined ? {} : { pointOfNoReturn }),
    evidence: "repeatable",
    async issue(context): Promise<Issued> {
      const input = parse(context.input, context);
      const vm = await getTarget(client, context);
      const config = await wantedConfig(client, vm, context.signal);
      if (Object.values(expected(config, input)).every(Boolean)) {
        return { kind: "done", ...(await outcome(context, vm, input)) };
      }
      const after = await change(client, context, vm, parameters(vm, config, input));
      const wanted = await wantedConfig(client, after, context.signal);
      requireBootSettings(client, after, wanted, expected(wanted, input));
      return { kind: "done", ...(await outcome(context, after, input)) };
    },
  };
}

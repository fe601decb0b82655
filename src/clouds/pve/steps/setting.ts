// A setting that PVE takes at once: set, then read back. PVE may accept one and show another.
import { ServiceError } from "../../../core/errors.ts";
import type { StepContext } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import { type FoundVm, findVm } from "../cluster.ts";
import type { Parameters } from "../form.ts";
import { setConfig } from "../vm.ts";
import { requireUnlocked, vanished } from "./target.ts";
import { explained } from "./task.ts";

/** The VM as it is afterwards. Throws `cloud_conflict` for a locked one, `cloud_not_found` when it is gone. */
export async function change(
  client: PveClient,
  context: Pick<StepContext, "signal">,
  vm: FoundVm,
  parameters: Parameters,
  secrets: readonly string[] = [],
): Promise<FoundVm> {
  await set(client, context, vm, parameters, secrets);
  return lookAgain(client, context, vm);
}

/** Only the first half, for a step that tells a refusal from a look that failed. */
export async function set(
  client: PveClient,
  { signal }: Pick<StepContext, "signal">,
  vm: FoundVm,
  parameters: Parameters,
  secrets: readonly string[] = [],
): Promise<void> {
  await requireUnlocked(client, vm, signal);
  await explained(client, { vm, signal }, () => setConfig(client, vm, parameters, { signal, secrets }));
}

export async function lookAgain(
  client: PveClient,
  { signal }: Pick<StepContext, "signal">,
  { node, vmid }: FoundVm,
): Promise<FoundVm> {
  const after = await findVm(client, vmid, { hint: node, signal });
  if (after === null) throw vanished(client);
  return after;
}

/** Throws `cloud_failed` unless there are no differences; what they are is for staff. `what`: "the keys". */
export function requireShown(
  client: PveClient,
  { vmid }: FoundVm,
  what: string,
  differences: readonly string[],
  { retryable = false } = {},
): void {
  if (differences.length === 0) return;
  throw new ServiceError(
    "cloud_failed",
    `The cloud accepted ${what} and shows something else. Our operators must look at it.`,
    {
      retryable,
      facts: { cloud: client.cloud, shownOtherwise: true },
      staffDetail: `${client.cloud}: VM ${vmid} shows ${differences.join(", ")}`,
    },
  );
}

// What taking, deleting and going back to a snapshot share: which one is meant, and what PVE's lock says of the work on it.
import { reworded, ServiceError } from "../../../core/errors.ts";
import type { StepContext, Verdict } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import type { FoundVm } from "../cluster.ts";
import { lookCondition } from "../condition.ts";
import type { ListedSnapshot, SnapshotList } from "../snapshots.ts";
import { requireUnlocked } from "./target.ts";
import { refusal } from "./task.ts";

interface Meant {
  name: string;
  /** As an ISO time; any of that name without it. */
  takenAt?: string | undefined;
}

/** The one that was meant, or undefined when it is gone. Throws `drifted` for another one of that name. */
export function namedIn(
  client: PveClient,
  { snapshots }: SnapshotList,
  { name, takenAt }: Meant,
): ListedSnapshot | undefined {
  const found = snapshots.find((one) => one.name === name);
  if (found === undefined || isMeant(found, { name, takenAt })) return found;
  throw new ServiceError(
    "drifted",
    `The snapshot ${name} is not the one that was meant: it was taken at another time. Nothing was changed.`,
    {
      facts: { cloud: client.cloud, snapshot: name },
      staffDetail: `${client.cloud}: ${name} was taken ${found.takenAt?.toISOString() ?? "never"}, not ${takenAt}`,
    },
  );
}

export function isMeant(one: ListedSnapshot, { name, takenAt }: Meant): boolean {
  return one.name === name && (takenAt === undefined || one.takenAt?.toISOString() === takenAt);
}

/** Null without this lock. One that nothing of PVE's holds was left by a task that died. */
export async function heldByLock(
  client: PveClient,
  context: StepContext,
  vm: FoundVm,
  { lock, note }: { lock: string; note: string },
): Promise<Verdict | null> {
  if (vm.config["lock"] !== lock) return null;
  try {
    await requireUnlocked(client, vm, context.signal);
  } catch (error) {
    if (!(error instanceof ServiceError) || error.code !== "cloud_conflict") throw error;
    if (error.facts["stuckLock"] === true) return { kind: "failed", error: brokenOff(vm, error) };
  }
  return { kind: "pending", condition: lookCondition(note) };
}

/** The lock that the task met may have gone while it was looked at: then it is simply asked again. */
export function refused(
  client: PveClient,
  context: StepContext,
  { error, vm }: { error: ServiceError; vm: FoundVm },
): Promise<Verdict> {
  const isFree = typeof error.facts["lock"] === "string" && (vm.config["lock"] ?? "") === "";
  if (isFree) return Promise.resolve({ kind: "again", error });
  return refusal(client, context, { error, vm });
}

function brokenOff({ config }: FoundVm, cause: ServiceError): ServiceError {
  const lock = config["lock"] ?? "";
  return reworded(
    cause,
    `The work on this server's snapshots was broken off in the cloud and left it locked (${lock}). Our operators must unlock it before anything else can be done with it.`,
    { code: "cloud_failed", facts: { lock, stuckLock: true } },
  );
}

import { z } from "zod";
import { ServiceError } from "../../../core/errors.ts";
import type {
  Issued,
  PlannedStep,
  StepContext,
  StepDefinition,
  Verdict,
} from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import type { FoundVm } from "../cluster.ts";
import { bootDiskOf, type Disk, diskGibOf, disksOf } from "../config.ts";
import { inDoubtAfterAnyWrite } from "../doubt.ts";
import { resizeDisk } from "../vm.ts";
import { findTarget, getTarget, recordOf, requireUnlocked, seen, vanished } from "./target.ts";
import { explained, judgeTask, refusal, staffNoteOf, waitFor } from "./task.ts";

const Input = z.object({ externalId: z.string().optional(), diskGib: z.number() });
const GIB = 2 ** 30;

export function planDisk(input: z.infer<typeof Input>): PlannedStep {
  return { name: "pve.resize_disk", label: "Grow the disk", input };
}

/** Of a server that somebody uses: what has grown stays, so nobody can take the order back from here on. */
export function planGrowth(input: { externalId: string; diskGib: number }): PlannedStep {
  return { name: "pve.grow_disk", label: "Grow the disk", input };
}

export function growthStep(client: PveClient): StepDefinition {
  return inDoubtAfterAnyWrite({
    ...diskStep(client),
    name: "pve.grow_disk",
    pointOfNoReturn: "The disk is growing, and a disk never shrinks, so the resize goes on to its end.",
  });
}

/** To an absolute size (PVE's "+10G" would grow it twice), so it may be asked for again. */
export function diskStep(client: PveClient): StepDefinition {
  return {
    name: "pve.resize_disk",
    deadlineMs: 30 * 60_000,
    callTimeoutMs: 2 * 60_000,
    evidence: "repeatable",
    issue: (context) => issue(client, context),
    verify: (context) => verify(client, context),
  };
}

async function issue(client: PveClient, context: StepContext): Promise<Issued> {
  const { diskGib } = Input.parse(context.input);
  const vm = await getTarget(client, context);
  const disk = diskOf(client, context, vm);
  if (disk.bytes >= diskGib * GIB) return alreadyThere(client, context, { vm, disk, diskGib });
  await requireUnlocked(client, vm, context.signal);
  const upid = await explained(client, { vm, signal: context.signal }, () =>
    resizeDisk(client, vm, { disk: disk.key, gib: diskGib }, { signal: context.signal }),
  );
  if (upid !== null) return waitFor(upid);
  const verdict = await verify(client, { ...context, reference: {} });
  if (verdict.kind === "done") return verdict;
  throw verdict.kind === "pending" ? notGrown(client, vm) : verdict.error;
}

async function alreadyThere(
  client: PveClient,
  context: StepContext,
  { vm, disk, diskGib }: { vm: FoundVm; disk: Disk; diskGib: number },
): Promise<Issued> {
  const isBigger = disk.bytes > diskGib * GIB;
  const note = isBigger
    ? `the disk has ${diskGibOf(vm.config)} GiB already, more than the ${diskGib} GiB that were asked for; a disk never shrinks.`
    : `the disk has ${diskGib} GiB already.`;
  const { server, output } = await seen(client, context, vm);
  return {
    kind: "done",
    ...(server === undefined ? {} : { server }),
    output: { ...output, disk: "same" },
    note,
  };
}

/** The one that was recorded when the server was made; a later look may find another one first. */
function diskOf(client: PveClient, context: StepContext, vm: FoundVm): Disk {
  const { bootDisk } = recordOf(context, vm.vmid);
  const recorded = disksOf(vm.config).find((disk) => disk.key === bootDisk);
  const disk = recorded ?? bootDiskOf(vm.config);
  if (disk !== null) return disk;
  throw new ServiceError("cloud_invalid", "The server has no disk that could grow.", {
    facts: { cloud: client.cloud },
    staffDetail: `${client.cloud}: VM ${vm.vmid} has no disk`,
  });
}

async function verify(client: PveClient, context: StepContext): Promise<Verdict> {
  const { diskGib } = Input.parse(context.input);
  const judged = await judgeTask(client, context, "grow the disk");
  if (judged.kind === "running") return judged.verdict;
  const vm = await findTarget(client, context);
  if (vm === null) return { kind: "failed", error: vanished(client) };
  const grown = diskOf(client, context, vm).bytes >= diskGib * GIB;
  if (judged.kind === "failed" && !grown) return refusal(client, context, { error: judged.error, vm });
  if (!grown) return { kind: "failed", error: notGrown(client, vm) };
  const { server, output } = await seen(client, context, vm);
  return {
    kind: "done",
    ...(server === undefined ? {} : { server }),
    output: { ...output, disk: "grown" },
    note: `the disk has ${diskGibOf(vm.config)} GiB now.`,
    ...(judged.kind === "ok" ? staffNoteOf(judged.warnings) : {}),
  };
}

function notGrown(client: PveClient, { vmid }: FoundVm): ServiceError {
  return new ServiceError(
    "cloud_failed",
    "The cloud says that the disk was grown, and shows its old size. Our operators must look at it.",
    { facts: { cloud: client.cloud }, staffDetail: `${client.cloud}: VM ${vmid}` },
  );
}

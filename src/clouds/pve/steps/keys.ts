import { z } from "zod";
import { ServiceError } from "../../../core/errors.ts";
import type { Issued, PlannedStep, StepContext, StepDefinition } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import { findVm } from "../cluster.ts";
import { hasCloudInit } from "../config.ts";
import { remoteServerOf } from "../server.ts";
import { renewCloudInit, setConfig } from "../vm.ts";
import { encodeKeys } from "./configure.ts";
import { isOff } from "./power.ts";
import { getTarget, requireUnlocked, vanished } from "./target.ts";
import { explained } from "./task.ts";

const Input = z.object({ externalId: z.string(), sshKeys: z.array(z.string()) });

export function planKeys(order: { externalId: string; sshKeys: readonly string[] }): PlannedStep[] {
  const input: z.infer<typeof Input> = { externalId: order.externalId, sshKeys: [...order.sshKeys] };
  return [{ name: "pve.keys", label: "Set the keys for its next boot", input }];
}

/** All of them, so doing it twice is doing it once. The guest reads them at its next boot; nothing tells whether it has. */
export function keysStep(client: PveClient): StepDefinition {
  return {
    name: "pve.keys",
    deadlineMs: 10 * 60_000,
    callTimeoutMs: 2 * 60_000,
    evidence: "repeatable",
    issue: (context) => issue(client, context),
  };
}

async function issue(client: PveClient, context: StepContext): Promise<Issued> {
  const { sshKeys } = Input.parse(context.input);
  const { signal } = context;
  const vm = await getTarget(client, context);
  if (!hasCloudInit(vm.config)) {
    throw new ServiceError(
      "unsupported",
      "The cloud cannot hand keys to this server: it has no cloud-init drive. Add them inside it, to ~/.ssh/authorized_keys.",
      { facts: { cloud: client.cloud }, staffDetail: `${client.cloud}: VM ${vm.vmid}` },
    );
  }
  await requireUnlocked(client, vm, signal);
  const sshkeys = encodeKeys(sshKeys);
  await explained(client, { vm, signal }, () => setConfig(client, vm, { sshkeys }, { signal }));
  await renewCloudInit(client, vm, { signal });
  const after = await findVm(client, vm.vmid, { hint: vm.node, signal });
  if (after === null) throw vanished(client);
  requireStored(client, after, sshKeys);
  const off = await isOff(client, after, signal);
  return {
    kind: "done",
    server: await remoteServerOf(client, after, signal),
    output: { keysActive: off ? "at_next_start" : "after_next_boot" },
    note: off ? "it is off; it reads them at its next start." : "it reads them at its next boot.",
  };
}

/** PVE shows the list as it was sent, percent-encoded. */
function requireStored(
  client: PveClient,
  { vmid, config }: { vmid: number; config: Record<string, string> },
  wanted: readonly string[],
): void {
  const shown = decodeURIComponent(config["sshkeys"] ?? "")
    .split("\n")
    .filter((line) => line !== "");
  if (shown.length === wanted.length && shown.every((key, at) => key === wanted[at])) return;
  throw new ServiceError(
    "cloud_failed",
    "The cloud accepted the keys and shows other ones. Our operators must look at it.",
    { facts: { cloud: client.cloud }, staffDetail: `${client.cloud}: VM ${vmid} shows ${shown.length} keys` },
  );
}

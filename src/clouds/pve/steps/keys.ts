import { z } from "zod";
import { ServiceError } from "../../../core/errors.ts";
import type { Issued, PlannedStep, StepContext, StepDefinition } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import { hasCloudInit } from "../config.ts";
import { inDoubtForGood } from "../doubt.ts";
import type { VmConfig } from "../schema.ts";
import { remoteServerOf } from "../server.ts";
import { activeWhen, renewDrive } from "./cloud-init.ts";
import { encodeKeys } from "./configure.ts";
import { isOff } from "./power.ts";
import { change, requireShown } from "./setting.ts";
import { getTarget } from "./target.ts";

const Input = z.object({ externalId: z.string(), sshKeys: z.array(z.string()) });

export function planKeys(order: { externalId: string; sshKeys: readonly string[] }): PlannedStep[] {
  const input: z.infer<typeof Input> = { externalId: order.externalId, sshKeys: [...order.sshKeys] };
  return [{ name: "pve.keys", label: "Set the keys for its next boot", input }];
}

/** All of them, so doing it twice is doing it once. The guest reads them at its next boot; nothing tells whether it has. */
export function keysStep(client: PveClient): StepDefinition {
  return inDoubtForGood({
    name: "pve.keys",
    deadlineMs: 10 * 60_000,
    callTimeoutMs: 2 * 60_000,
    evidence: "repeatable",
    issue: (context) => issue(client, context),
  });
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
  const after = await change(client, context, vm, { sshkeys: encodeKeys(sshKeys) });
  requireShown(client, after, "the keys", differencesOf(after.config, sshKeys));
  const { isRenewed, ...notes } = await renewDrive(client, after, { signal });
  const off = await isOff(client, after, signal);
  const moment = isRenewed ? "at its next boot" : "when it is stopped and started";
  return {
    kind: "done",
    server: await remoteServerOf(client, after, signal),
    output: { keysActive: activeWhen({ isOff: off, isRenewed }) },
    note: off ? "it is off; it reads them at its next start." : `it reads them ${moment}.`,
    ...notes,
  };
}

/** PVE shows the list as it was sent, percent-encoded. */
function differencesOf(config: VmConfig, wanted: readonly string[]): string[] {
  const shown = decodeURIComponent(config["sshkeys"] ?? "")
    .split("\n")
    .filter((line) => line !== "");
  const isSame = shown.length === wanted.length && shown.every((key, at) => key === wanted[at]);
  return isSame ? [] : [`${shown.length} keys`];
}

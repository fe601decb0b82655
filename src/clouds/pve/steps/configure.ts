import type { z } from "zod";
import { ProvisionOrder } from "../../../core/cloud.ts";
import type { Issued, PlannedStep, StepContext, StepDefinition } from "../../../core/operations/step.ts";
import type { PveClient } from "../client.ts";
import type { FoundVm } from "../cluster.ts";
import { bridgeOf, cardOn, coresOf, memoryMibOf, properties, tagsOf } from "../config.ts";
import type { Parameters } from "../form.ts";
import type { VmConfig } from "../schema.ts";
import { TAG } from "../server.ts";
import { change, requireShown } from "./setting.ts";
import { getTarget } from "./target.ts";

const Input = ProvisionOrder.pick({
  name: true,
  size: true,
  networkId: true,
  passwordSecretId: true,
  defaultUser: true,
  sshKeys: true,
  sockets: true,
  address: true,
})
  // A rebuilt server has its own cards: pve.take_over.
  .partial({ networkId: true });
type Input = z.infer<typeof Input>;

export function planConfigure(order: Input): PlannedStep {
  return {
    name: "pve.configure",
    label: "Set its size, network and first password",
    input: Input.parse(order),
  };
}

/** Before the first start, or the guest would come up as its template. All of it absolute, so it may be asked for again. */
export function configureStep(client: PveClient): StepDefinition {
  return {
    name: "pve.configure",
    deadlineMs: 10 * 60_000,
    callTimeoutMs: 2 * 60_000,
    evidence: "repeatable",
    issue: (context) => issue(client, context),
  };
}

async function issue(client: PveClient, context: StepContext): Promise<Issued> {
  const input = Input.parse(context.input);
  const vm = await getTarget(client, context);
  const password = await context.readSecret(input.passwordSecretId);
  const parameters = parametersOf(client, { vm, input, password });
  const after = await change(client, context, vm, parameters, [password]);
  requireShown(client, after, "the settings of the server", differencesOf(after, input));
  // What has to be recorded of it, the step that made it has seen.
  return { kind: "done" };
}

function parametersOf(
  client: PveClient,
  { vm, input, password }: { vm: FoundVm; input: Input; password: string },
): Parameters {
  const { config } = vm;
  const { nameservers, searchDomain } = client.options;
  return {
    name: input.name,
    ...sizeParameters(vm, { ...input.size, sockets: input.sockets }),
    tags: [...new Set([...tagsOf(config["tags"]), TAG])].join(";"),
    net0: input.networkId === undefined ? undefined : cardOn(config["net0"], input.networkId),
    ciuser: input.defaultUser ?? defaultUserOf(config),
    cipassword: password,
    sshkeys: input.sshKeys === undefined ? undefined : encodeKeys(input.sshKeys),
    ipconfig0: ipConfigOf(input.address),
    nameserver: nameservers === undefined ? undefined : nameservers.join(" "),
    searchdomain: searchDomain,
  };
}

/** Said explicitly, so that a later password is set for the same user as the first one. */
export function defaultUserOf(config: VmConfig): string {
  return config["ciuser"] ?? (config["ostype"]?.startsWith("win") === true ? "Administrator" : "root");
}

/** PVE wants the list itself percent-encoded, spaces as %20; the form encodes it once more. */
export function encodeKeys(keys: readonly string[]): string {
  return encodeURIComponent(`${keys.join("\n")}\n`);
}

/** "ip=192.0.2.10/24,gw=192.0.2.1"; by DHCP without an address. */
function ipConfigOf(address: Input["address"]): string {
  if (address === undefined) return "ip=dhcp";
  const kind = address.cidr.includes(":") ? "6" : "";
  return `ip${kind}=${address.cidr}${address.gateway === undefined ? "" : `,gw${kind}=${address.gateway}`}`;
}

/** The sockets that it has are kept where the wanted number of CPUs divides by them and no other split is asked for. */
export function sizeParameters(
  vm: FoundVm,
  size: { vcpus: number; memoryMib: number; sockets?: number | undefined },
): Parameters {
  const { sockets: before } = coresOf(vm.config);
  const kept = before > 0 && size.vcpus % before === 0 ? before : 1;
  const sockets = size.sockets ?? kept;
  const balloon = Number(vm.config["balloon"] ?? 0);
  return {
    sockets,
    cores: size.vcpus / sockets,
    memory: size.memoryMib,
    // PVE refuses a lower bound above the memory itself.
    ...(balloon > size.memoryMib ? { balloon: size.memoryMib } : {}),
  };
}

function differencesOf({ config }: FoundVm, input: Input): string[] {
  const { cores, sockets } = coresOf(config);
  return [
    cores * sockets === input.size.vcpus ? "" : `${cores * sockets} CPU`,
    input.sockets === undefined || sockets === input.sockets ? "" : `${sockets} sockets`,
    memoryMibOf(config) === input.size.memoryMib ? "" : `${memoryMibOf(config)} MiB`,
    (input.networkId ?? bridgeOf(config["net0"])) === bridgeOf(config["net0"])
      ? ""
      : `bridge ${bridgeOf(config["net0"]) ?? "none"}`,
    sameProperties(config["ipconfig0"], ipConfigOf(input.address))
      ? ""
      : `ipconfig0 ${config["ipconfig0"] ?? "none"}`,
  ].filter((text) => text !== "");
}

/** PVE may write them back in another order. */
function sameProperties(shown: string | undefined, asked: string): boolean {
  const [a, b] = [properties(shown ?? ""), properties(asked)];
  return Object.keys(b).every((key) => a[key] === b[key]);
}

/** A cloud that answers at once, in this process: what remains is our own work. */
import type { Cloud, RemoteServer } from "../src/core/cloud.ts";
import { ServiceError } from "../src/core/errors.ts";
import type { StepDefinition } from "../src/core/operations/step.ts";

function serverOf(externalId: string): RemoteServer {
  return {
    externalId,
    name: externalId.replace("ext-", "web-"),
    state: "active",
    providerStatus: "ACTIVE",
    busy: false,
    vcpus: 1,
    memoryMib: 2048,
    diskGib: 10,
    addresses: ["192.0.2.1"],
    markers: [],
  };
}

const power: StepDefinition = {
  name: "instant.power",
  deadlineMs: 60_000,
  callTimeoutMs: 10_000,
  evidence: "repeatable",
  issue: (context) =>
    Promise.resolve({ kind: "done", server: serverOf(String(context.input["externalId"])) }),
};

function notPlayed(): never {
  throw new ServiceError("unsupported", "The bench's cloud can only switch power.");
}

export const instantCloud: Cloud = {
  name: "instant",
  provider: "openstack",
  settleMs: 0,
  watchEveryMs: 2_000,
  usesFlavors: true,
  steps: [power],
  powerVerbs: ["start", "stop", "reboot"],
  provision: notPlayed,
  resize: notPlayed,
  password: notPlayed,
  remove: notPlayed,
  survivesRemoval: [],
  power: ({ externalId, verb }) => [{ name: power.name, label: `Power: ${verb}`, input: { externalId } }],
  preflightProvision: notPlayed,
  inspect: (externalId) => Promise.resolve(serverOf(externalId)),
  findByMarker: () => Promise.resolve([]),
  listServers: () => Promise.resolve([]),
  listFlavors: () => Promise.resolve([]),
  listImages: () => Promise.resolve([]),
  listNetworks: () => Promise.resolve([]),
  watch: () => Promise.resolve([]),
  check: () => Promise.resolve([]),
  close: () => Promise.resolve(),
};

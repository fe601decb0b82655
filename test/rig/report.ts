/** The rig's figures, and what must be true of them. */
import { loadavg } from "node:os";
import { settleMs } from "./build.ts";
import type { Disturbed } from "./disturb.ts";
import type { Findings } from "./inspect.ts";
import type { LifeNotes, Lived } from "./lived.ts";
import type { Wanted } from "./options.ts";
import { rigPoints } from "./points.ts";
import type { Order } from "./stage.ts";
import type { Supervisor } from "./supervise.ts";
import type { Told } from "./told.ts";

export interface Outcome {
  wanted: Wanted;
  findings: Findings;
  told: Told;
  lived: Lived;
  lifeNotes: LifeNotes;
  supervisor: Supervisor;
  disturbed: Readonly<Disturbed>;
  orders: readonly Order[];
  /** Entrances that died after a commit, and orders that the next one was then answered as known. */
  entrance: { crashes: number; recognised: number };
  strangers: { before: number; changed: string[]; thieves: number };
  enteredMs: number;
  tookMs: number;
  /** How long a cloud can have held a request, its own pauses included. */
  heldMs: number;
}

export function print(outcome: Outcome): void {
  const { wanted, findings } = outcome;
  console.log(`kill rig, seed ${wanted.seed}${wanted.withoutProbe ? ", WITHOUT PROBE" : ""}`);
  for (const [name, value] of [...causes(outcome), ...results(outcome)]) {
    console.log(`  ${`${name}:`.padEnd(38)} ${value}`);
  }
  for (const problem of findings.problems.slice(0, 20)) console.log(`  ! ${problem}`);
  for (const problem of outcome.told.untrue.slice(0, 20)) console.log(`  ! ${problem}`);
  for (const problem of outcome.strangers.changed.slice(0, 20)) console.log(`  ! stranger ${problem}`);
  for (const problem of lifeProblems(outcome).slice(0, 40)) console.log(`  ! ${problem}`);
  if (wanted.withoutProbe) return;
  for (const twin of findings.twins.slice(0, 40)) console.log(`  2 ${twin}`);
}

function lifeProblems({ lived, lifeNotes }: Outcome): string[] {
  return [
    ...lived.problems,
    ...[...lifeNotes.refused.values()].map((what) => `refused: ${what}`),
    ...lifeNotes.twice.map((what) => `entered twice: ${what}`),
    ...lived.notGone.map((what) => `deleted, but not gone: ${what}`),
    ...lived.wrongSize,
    ...lived.wrongSnapshots,
    ...lived.lostNetwork,
  ];
}

type Line = [name: string, value: string | number];

function causes({
  wanted,
  findings,
  supervisor,
  disturbed,
  orders,
  entrance,
  enteredMs,
  heldMs,
}: Outcome): Line[] {
  const failing = orders.filter((order) => order.meantToFail).length;
  const counts = { ...supervisor.crashes, after_commit: entrance.crashes };
  const crashes = rigPoints.map((point) => `${point} ${counts[point]}`).join(", ");
  return [
    ["orders", `${orders.length}, of which ${failing} with a build that fails`],
    ["clouds", wanted.clouds.join(", ")],
    ["entered in", `${(enteredMs / 1000).toFixed(1)} s`],
    ["workers at a time", wanted.workers],
    ["workers killed at random", supervisor.kills],
    ["suspended beyond their lease", supervisor.freezes],
    ["crashes by name", crashes],
    ["asked again after a crashed entrance", `${entrance.recognised} answered with the first order`],
    ["workers with a clock 10 min off", supervisor.wrongClocks],
    ["around them", list({ ...disturbed })],
    ["began while a server was away", `${supervisor.failedStarts} gave up and were started again`],
    ...Object.entries(findings.faults).map(([cloud, faults]): Line => [`faults of ${cloud}`, list(faults)]),
    ["requests held", `at most ${heldMs} ms; "not there" counts after ${settleMs} ms`],
  ];
}

function results({ findings, told, lived, lifeNotes, strangers, tookMs }: Outcome): Line[] {
  return [
    ["adoptions", `${findings.adoptions} orders went on with a server whose answer was lost`],
    ["servers per order", list(findings.histogram)],
    ["ended as", list(findings.states)],
    ["succeeded without a person", `${(findings.withoutPerson * 100).toFixed(2)} % of those that could`],
    ["failed as meant, nothing left", findings.failedAsMeant],
    [
      "servers that lived on",
      `${lived.servers}: ${lived.changes} changes, succeeded ${lived.succeeded}, failed ${lived.failed}, needs_attention ${lived.needAttention}, refused ${lifeNotes.refused.size}; rebuilt ${lived.rebuilt}, deleted ${lived.deleted}`,
    ],
    [
      "crashes of those who asked for changes",
      `${lifeNotes.crashes}; asked again ${lifeNotes.recognised}, entered twice ${lifeNotes.twice.length}; rounds broken off ${lifeNotes.troubles.length} ${lifeNotes.troubles.at(-1) ?? ""}`,
    ],
    ["failed, because a VMID was stolen", findings.robbed],
    [
      "strangers' VMs and templates",
      `${strangers.before} and ${strangers.thieves} thieves, changed ${strangers.changed.length}`,
    ],
    ["needs_attention", findings.needAttention],
    ["stuck", findings.stuck],
    ["orders with duplicates", findings.duplicates],
    ["marked servers that no row refers to", findings.unreferenced],
    [
      "events",
      `${findings.events} of ${told.servers} servers, servers with gaps ${findings.serversWithGaps}`,
    ],
    [
      "deliveries",
      `${told.deliveries}: missing ${told.missing}, invented ${told.invented}, twice ${told.duplicates}, refused ${told.refused}, unverified ${told.unverified}`,
    ],
    [
      "sequence as received",
      `servers with gaps ${told.serversWithGaps}, last event untrue ${told.untrue.length}`,
    ],
    ["duration", `${(tookMs / 1000).toFixed(1)} s`],
    [
      "machine load",
      loadavg()
        .map((load) => load.toFixed(1))
        .join(" "),
    ],
  ];
}

function list(counts: Record<string, number>): string {
  return Object.entries(counts)
    .map(([name, count]) => `${name}: ${count}`)
    .join(", ");
}

/** Prints each check and the sum; true when all hold. */
export function judge(outcome: Outcome): boolean {
  const checks = outcome.wanted.withoutProbe
    ? counterProof(outcome)
    : [...ofTheClouds(outcome), ...ofTheLives(outcome), ...ofTheEvents(outcome), ...ofTheRun(outcome)];
  for (const [name, ok] of checks) console.log(`${ok ? "ok    " : "FAILED"} ${name}`);
  const failed = checks.filter(([, ok]) => !ok).length;
  console.log(`${checks.length - failed} passed, ${failed} failed`);
  return failed === 0;
}

type Check = [name: string, ok: boolean];

function counterProof({ findings }: Outcome): Check[] {
  return [["without the probe there are duplicates, so the rig can fail", findings.duplicates > 0]];
}

function ofTheClouds({ findings, orders, strangers }: Outcome): Check[] {
  const meantToFail = orders.filter((order) => order.meantToFail).length;
  return [
    [
      "one server for each order that succeeded, the one our row names; none when it was deleted",
      findings.wrongServer === 0,
    ],
    ["no order has two servers", findings.duplicates === 0],
    ["orders that failed left nothing", findings.leftBehind === 0 && findings.failedAsMeant === meantToFail],
    ["99 % succeeded without a person", findings.withoutPerson >= 0.99],
    ["none is stuck", findings.stuck === 0],
    ["no marked server is unknown to us", findings.unreferenced === 0],
    ["strangers' VMs are what they were", strangers.changed.length === 0],
    ["no order blames a thief that there was not", findings.robbed <= strangers.thieves],
  ];
}

function ofTheLives({ wanted, lived, lifeNotes }: Outcome): Check[] {
  if (wanted.life === 0) return [];
  const { changes, succeeded } = lived;
  return [
    ["all changes were asked for, and have ended", lived.unfinished === 0 && lifeNotes.refused.size === 0],
    ["no change was entered twice", lifeNotes.twice.length === 0],
    ["what was asked again was known already", lifeNotes.crashes === 0 || lifeNotes.recognised > 0],
    // One of a small run is more than a hundredth.
    ["99 % of the changes succeeded without a person", changes - succeeded <= Math.max(1, changes / 100)],
    ["deleted servers are gone", lived.notGone.length === 0],
    ["size on PVE, in our row and as asked for are the same", lived.wrongSize.length === 0],
    ["our rows of snapshots are those of PVE", lived.wrongSnapshots.length === 0],
    ["a rebuilt server has the MAC address and network of before", lived.lostNetwork.length === 0],
  ];
}

function ofTheEvents({ findings, told }: Outcome): Check[] {
  return [
    ["events of each server are without gaps", findings.serversWithGaps === 0],
    ["every event was delivered, and nothing else", told.missing === 0 && told.invented === 0],
    ["every delivery was signed", told.unverified === 0],
    ["each server's sequence was received without gaps", told.serversWithGaps === 0],
    ["each server's last event tells what the cloud has", told.untrue.length === 0],
    ["the audit chain holds", findings.brokenAuditLinks === 0],
  ];
}

function ofTheRun({ wanted, findings, lived, supervisor, entrance, heldMs }: Outcome): Check[] {
  return [
    [
      "no slot is held and no wait is open",
      findings.needAttention + lived.needAttention > 0 || findings.heldSlots + findings.openWaits === 0,
    ],
    ["the clouds held no request longer than we wait for it", heldMs < settleMs],
    ["no worker died by itself", supervisor.accidents === 0],
    wanted.timesEachPoint === null
      ? [`at least ${wanted.kills} kills`, supervisor.kills + supervisor.freezes >= wanted.kills]
      : [
          `${wanted.timesEachPoint} crashes at each point`,
          supervisor.openPoints().length === 0 && entrance.crashes >= wanted.timesEachPoint,
        ],
  ];
}

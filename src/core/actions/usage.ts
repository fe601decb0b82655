/** What a server has sent and received, and how much of it its month includes. */
import { z } from "zod";
import { defineImmediate, defineRead } from "../action.ts";
import { ServiceError } from "../errors.ts";
import { duration } from "../operations/card.ts";
import { recordEvent } from "../operations/events.ts";
import { named } from "../servers/change.ts";
import { findServer } from "../servers/find.ts";
import { bannersFor, viewerOf } from "../servers/maintenance.ts";
import { minuteOf } from "../time.ts";
import { GAP_MS } from "../traffic/book.ts";
import { describeBytes, describeShare } from "../traffic/bytes.ts";
import {
  type Cause,
  type CountedServer,
  findDeleted,
  type Usage,
  type UsageGap,
  type UsageMonth,
  usageOf,
} from "../traffic/usage.ts";
import type { View } from "../view.ts";
import { serverOption } from "./options.ts";

const UsageInput = z.object({ server: z.string() });
type UsageInput = z.infer<typeof UsageInput>;

export const serverUsage = defineRead<UsageInput>({
  name: "server.usage",
  summary: "Show what a server has sent and received",
  audience: ["staff", "customer"],
  permission: "server.read",
  input: UsageInput,
  options: [serverOption],
  async run({ database, principal, engine }, input) {
    const server =
      (await findDeleted(database, principal, input.server)) ??
      Object.assign(await findServer(database, principal, input.server), { isDeleted: false });
    const usage = await usageOf(database, principal, server);
    const banners = await bannersFor(database, viewerOf(principal), { serverIds: [server.id] });
    // Its cloud may be configured no more; what was counted stays.
    const cloud = engine.clouds.list().find(({ name }) => name === server.cloudName);
    const isCounted = cloud?.traffic !== undefined || usage.measuredAt !== null;
    return {
      ...(isCounted ? viewOf(usage, server) : notCounted(usage)),
      title: `Traffic of ${server.name}${server.isDeleted ? ", which is deleted" : ""}`,
      ...banners,
    };
  },
});

function notCounted(usage: Usage): Omit<View, "title"> {
  const text = "Traffic is not counted on this server's cloud: it has no counters for single servers.";
  return {
    tone: "neutral",
    text,
    fields: [{ label: "Allowance", value: allowanceText(usage.allowanceGib) }],
  };
}

function viewOf(usage: Usage, { isDeleted }: Pick<CountedServer, "isDeleted">): Omit<View, "title"> {
  const present = usage.months.find(({ month, ofAnother }) => month === usage.month && ofAnother === null);
  const before = usage.months.filter((month) => month !== present);
  const total = present === undefined ? 0n : present.inBytes + present.outBytes;
  const { allowanceGib } = usage;
  const isOver = allowanceGib !== null && total >= BigInt(allowanceGib) * 2n ** 30n;
  const late = isDeleted ? [] : lateness(usage);
  const notes = [...late, ...gapTexts(usage.gaps)];
  return {
    tone: isOver || late.length > 0 ? "warning" : "neutral",
    ...(notes.length === 0 ? {} : { text: notes.join("\n") }),
    fields: [
      { label: "Month", value: `${usage.month} (UTC)` },
      ...(present === undefined ? [] : figuresOf(present)),
      {
        label: "Allowance",
        value: `${allowanceText(allowanceGib)}${allowanceGib === null || present === undefined ? "" : `; ${describeShare(total, allowanceGib)} of it used`}`,
      },
      ...(present === undefined ? [] : [{ label: "Counted since", value: minuteOf(present.countedFrom) }]),
    ],
    table: {
      columns: ["Month", "In", "Out", "Total", "Allowance", "Used", "Counted since"],
      rows: before.map(rowOf),
      empty: "No earlier month was counted.",
    },
    footer:
      usage.measuredAt === null
        ? "Not counted yet."
        : `Counted until ${minuteOf(usage.measuredAt)}, by the cloud's own counters.`,
  };
}

function figuresOf({ inBytes, outBytes }: UsageMonth) {
  return [
    { label: "In", value: describeBytes(inBytes) },
    { label: "Out", value: describeBytes(outBytes) },
    { label: "Total", value: describeBytes(inBytes + outBytes) },
  ];
}

function rowOf({ month, inBytes, outBytes, allowanceGib, ofAnother, countedFrom }: UsageMonth): string[] {
  const total = inBytes + outBytes;
  return [
    ofAnother === null ? month : `${month} (${ofAnother})`,
    describeBytes(inBytes),
    describeBytes(outBytes),
    describeBytes(total),
    allowanceGib === null ? "unlimited" : `${allowanceGib} GiB`,
    allowanceGib === null ? "-" : describeShare(total, allowanceGib),
    minuteOf(countedFrom),
  ];
}

function allowanceText(allowanceGib: number | null): string {
  return allowanceGib === null ? "unlimited" : `${allowanceGib} GiB a month, in and out together`;
}

const causes: Record<Cause, string> = {
  cloud: "the cloud did not answer",
  figures: "the cloud had no figures that are surely this server's",
  us: "nobody asked the cloud",
};

/** Only when it is later than a gap would be told. */
function lateness({ now, measuredAt, cause }: Usage): string[] {
  if (measuredAt === null || now.getTime() - measuredAt.getTime() <= GAP_MS) return [];
  return [
    `Since ${minuteOf(measuredAt)} (${duration(now.getTime() - measuredAt.getTime())} ago) nothing could be counted: ${causes[cause]}. If the server keeps running, what it sends meanwhile is counted afterwards.`,
  ];
}

const gapsShown = 10;

function gapTexts(gaps: readonly UsageGap[]): string[] {
  const shown = gaps.slice(0, gapsShown).map(gapText);
  const more = gaps.length - shown.length;
  return more === 0 ? shown : [...shown, `There are ${more} older gaps.`];
}

function gapText({ from, to, kind, cause, inBytes, outBytes }: UsageGap): string {
  const time = `from ${minuteOf(from)} to ${minuteOf(to)}`;
  if (kind === "lost") {
    return `Not counted ${time}: ${causes[cause]}, and the server was switched off or started anew in that time.`;
  }
  if (kind === "reset") {
    return `Not counted ${time}: its counters fell, as they do when a network card is taken out.`;
  }
  return `${describeBytes(inBytes + outBytes)} were sent and received ${time}, across a month's end; how much before it is not known, and all of it is booked in the later month.`;
}

const BandwidthInput = z.object({
  server: z.string(),
  allowanceGib: z
    .int("must be a whole number of GiB")
    .min(0, "must be 0 (unlimited) or more")
    .max(2_000_000_000, "must be at most 2000000000")
    .optional(),
});
type BandwidthInput = z.infer<typeof BandwidthInput>;

export const serverBandwidth = defineImmediate<BandwidthInput>({
  name: "server.bandwidth",
  summary: "Set how much traffic a server's month includes",
  audience: ["staff"],
  permission: "server.change",
  risk: "change",
  input: BandwidthInput,
  options: [
    serverOption,
    {
      name: "allowance",
      field: "allowanceGib",
      label: "Allowance",
      help: "GiB a month, in and out together; 0: unlimited; left out: what its plan has",
      type: "number",
    },
  ],
  async run({ database: tx, principal, engine }, input) {
    const server = await findServer(tx, principal, input.server);
    const wanted = input.allowanceGib ?? null;
    const changed = await tx.sql<{ allowanceGib: number | null }>(
      `UPDATE servers s SET bandwidth_gib = $2::int FROM (SELECT id, bandwidth_gib FROM servers WHERE id = $1 FOR UPDATE) old
       WHERE s.id = old.id AND old.bandwidth_gib IS DISTINCT FROM $2::int
       RETURNING NULLIF(COALESCE(s.bandwidth_gib, (SELECT p.bandwidth_gib FROM plans p WHERE p.code = s.plan_code)), 0) AS "allowanceGib"`,
      [server.id, wanted],
    );
    const [now] = changed;
    if (now === undefined) {
      const already =
        wanted === null
          ? "has its plan's allowance"
          : `has ${wanted === 0 ? "no limit" : `${wanted} GiB a month`}`;
      throw new ServiceError("nothing_to_change", `Nothing to change: ${named(server)} ${already} already.`);
    }
    await recordEvent(tx, {
      type: "server.bandwidth.changed",
      serverId: server.id,
      customerId: server.customerId,
      data: { allowanceGib: now.allowanceGib, of: wanted === null ? "plan" : "server" },
    });
    tx.afterCommit(() => engine.wake.nudge("events"));
    return { subject: server.publicId, view: bandwidthSet(named(server), now.allowanceGib) };
  },
});

function bandwidthSet(name: string, allowanceGib: number | null): View {
  return {
    title: `Traffic of ${name}`,
    tone: "success",
    text: `Its month includes ${allowanceGib === null ? "any amount: unlimited" : `${allowanceGib} GiB, in and out together`}. It counts for the whole of this month; nothing is throttled beyond it.`,
  };
}

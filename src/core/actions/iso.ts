/** ISO images in a server's CD drive: those that the operators offer, by names of theirs. */
import { z } from "zod";
import {
  type ActionContext,
  type ChangePlan,
  defineOperation,
  defineRead,
  type EndEffects,
} from "../action.ts";
import type { Cloud, IsoProcedures } from "../cloud.ts";
import { ServiceError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { preflightServer } from "../operations/preflight.ts";
import { shortened } from "../option-values.ts";
import { allowedIn, requireState } from "../servers/allowed.ts";
import { changeOf, externalIdOf } from "../servers/change.ts";
import { findServer, listServers } from "../servers/find.ts";
import { requireProcedure } from "../servers/procedure.ts";
import { serverOption } from "./options.ts";

function proceduresOf(cloud: Cloud): IsoProcedures {
  return requireProcedure(cloud, "isos", "This server's cloud has no CD drive that we can put an ISO into.");
}

const ListInput = z.object({ server: z.string().optional() });
type ListInput = z.infer<typeof ListInput>;

export const isoList = defineRead<ListInput>({
  name: "iso.list",
  summary: "List the ISO images that can be put into a server's CD drive",
  audience: ["staff", "customer"],
  permission: "server.read",
  input: ListInput,
  options: [{ ...serverOption, required: false, help: "Only what this one can have: its name or public id" }],
  async run(context, input) {
    const { database, principal, engine } = context;
    const server = input.server === undefined ? null : await findServer(database, principal, input.server);
    if (server !== null) proceduresOf(engine.clouds.get(server.cloudName));
    const names = server === null ? await cloudsOf(context) : new Set([server.cloudName]);
    const offered = engine.clouds
      .list()
      .filter(({ name }) => names.has(name))
      .flatMap(({ name, isos }) => (isos?.offered ?? []).map((iso) => ({ iso, cloud: name })));
    const staff = principal.kind !== "customer";
    // Customers do not see on which cloud a server is, so a name is listed once.
    const rows = staff
      ? offered.map(({ iso, cloud }) => [iso, cloud])
      : [...new Set(offered.map(({ iso }) => iso))].map((iso) => [iso]);
    return {
      title: server === null ? "ISO images" : `ISO images for ${server.name}`,
      tone: "neutral",
      ...(server === null || server.iso === null ? {} : { text: `${server.iso} is in its CD drive.` }),
      table: {
        columns: ["ISO", ...(staff ? ["Cloud"] : [])],
        rows,
        empty: "None is offered. Our operators can offer some (isos).",
      },
      ...(rows.length === 0 ? {} : { footer: "/iso mount puts one into a server's CD drive." }),
    };
  },
});

/** Of a customer, to see on which clouds they are. */
const MOST_SERVERS = 10_000;

/** Where the asker has a server; all of them for staff. */
async function cloudsOf({ database, principal, engine }: ActionContext): Promise<Set<string>> {
  if (principal.kind !== "customer") return new Set(engine.clouds.list().map(({ name }) => name));
  const { rows } = await listServers(database, principal, {}, MOST_SERVERS);
  return new Set(rows.map(({ cloudName }) => cloudName));
}

const MountInput = z.object({
  server: z.string(),
  iso: z.string().max(100),
  boot: z.boolean().optional(),
});
type MountInput = z.infer<typeof MountInput>;

const MountDetails = z.object({
  server: z.string(),
  order: z.object({ externalId: z.string(), iso: z.string(), boot: z.boolean() }),
});
type MountDetails = z.infer<typeof MountDetails>;

export const isoMount = defineOperation<MountInput>({
  name: "iso.mount",
  summary: "Put an ISO image into a server's CD drive",
  audience: ["staff", "customer"],
  permission: "server.change",
  risk: "change",
  specVersion: 1,
  input: MountInput,
  options: [
    serverOption,
    {
      name: "iso",
      field: "iso",
      label: "ISO",
      help: "Its name (/iso list)",
      type: "text",
      required: true,
    },
    {
      name: "boot",
      field: "boot",
      label: "Boot from it",
      help: "yes: it boots from the ISO until that is taken out",
      type: "flag",
    },
  ],
  plan: planMount,
  steps(plan, clouds) {
    const { order } = MountDetails.parse(plan.details);
    return [
      preflightServer({ externalId: order.externalId, states: [...allowedIn.iso] }),
      ...proceduresOf(clouds.get(plan.cloud ?? "")).mount(order),
    ];
  },
  onEnd(end, { plan, output }) {
    if (end !== "succeeded") {
      return output["isoIn"] === true
        ? { note: "The ISO is in its CD drive all the same; /iso unmount takes it out." }
        : {};
    }
    const { server, order } = MountDetails.parse(plan.details);
    const { iso, boot } = order;
    return {
      events: output["isoSame"] === true ? [] : [{ type: "server.iso.mounted", data: { iso, boot } }],
      ...mountedNow(server, { iso, boot, ...Counts.parse(output) }),
    };
  },
});

/** As the cloud's procedure has handed it on. */
const Counts = z.object({
  isoWaits: z.array(z.enum(["drive", "boot"])).default([]),
  isoOff: z.boolean().default(false),
});

const AT_RESTART = "when it has been stopped and started; a restart from inside is not enough";

function mountedNow(
  server: string,
  { iso, boot, isoWaits, isoOff }: { iso: string; boot: boolean } & z.infer<typeof Counts>,
): EndEffects {
  const until = boot ? " until /iso unmount" : "";
  if (isoOff) {
    return { note: `${iso} is in its CD drive${boot ? `, and it boots from there${until}` : ""}.` };
  }
  const offers = isoWaits.length > 0 ? [{ action: "server.restart", input: { server } }] : [];
  if (isoWaits.includes("drive")) {
    const what = boot ? `a CD drive with ${iso} and boots from there${until},` : `a CD drive with ${iso}`;
    return { offers, note: `It gets ${what} ${AT_RESTART}.` };
  }
  if (!boot) return { offers, note: `${iso} is in its CD drive now.` };
  const starts = isoWaits.includes("boot") ? AT_RESTART : "at its next start";
  return { offers, note: `${iso} is in its CD drive now. It boots from there${until}, ${starts}.` };
}

async function planMount(context: ActionContext, input: MountInput): Promise<ChangePlan> {
  const server = await findServer(context.database, context.principal, input.server);
  const { offered } = proceduresOf(context.engine.clouds.get(server.cloudName));
  requireState(server, "given an ISO", allowedIn.iso);
  const iso = offeredIso(offered, input.iso);
  const boot = input.boot === true;
  return {
    ...changeOf(server, `Put the ISO ${iso} into the CD drive of`),
    before: server.iso === null ? {} : { iso: server.iso },
    after: { iso, ...(boot ? { bootsFrom: "the ISO" } : {}) },
    notes: boot ? ["It boots from the ISO at each start until that is taken out: /iso unmount."] : [],
    details: {
      server: server.publicId,
      order: { externalId: externalIdOf(server), iso, boot },
    } satisfies MountDetails,
  };
}

/** Whatever its case. Throws `unsupported` where none is offered, `not_found` with those that are. */
function offeredIso(offered: readonly string[], typed: string): string {
  if (offered.length === 0) {
    throw new ServiceError(
      "unsupported",
      "This server's cloud has no ISO images yet. Our operators can offer some (isos).",
    );
  }
  const found = offered.find((name) => name.toLowerCase() === typed.toLowerCase());
  if (found !== undefined) return found;
  const guess = nearest(typed, offered);
  const some = `${offered.slice(0, 8).join(", ")}${offered.length > 8 ? ", …" : ""}`;
  throw new ServiceError(
    "not_found",
    `No ISO "${shortened(typed)}". ${guess === undefined ? `There are ${some}.` : `Did you mean ${guess}?`}`,
    { facts: { option: "iso" } },
  );
}

const UnmountInput = z.object({ server: z.string() });
type UnmountInput = z.infer<typeof UnmountInput>;

const UnmountDetails = z.object({ server: z.string(), externalId: z.string(), iso: z.string().nullable() });
type UnmountDetails = z.infer<typeof UnmountDetails>;

export const isoUnmount = defineOperation<UnmountInput>({
  name: "iso.unmount",
  summary: "Take the ISO image out of a server's CD drive",
  audience: ["staff", "customer"],
  permission: "server.change",
  risk: "change",
  specVersion: 1,
  input: UnmountInput,
  options: [serverOption],
  async plan(context, input): Promise<ChangePlan> {
    const server = await findServer(context.database, context.principal, input.server);
    proceduresOf(context.engine.clouds.get(server.cloudName));
    requireState(server, "freed of its ISO", allowedIn.iso);
    return {
      ...changeOf(server, "Take the ISO out of the CD drive of"),
      before: server.iso === null ? {} : { iso: server.iso },
      after: { iso: "none" },
      details: {
        server: server.publicId,
        externalId: externalIdOf(server),
        iso: server.iso,
      } satisfies UnmountDetails,
    };
  },
  steps(plan, clouds) {
    const { externalId } = UnmountDetails.parse(plan.details);
    return [
      preflightServer({ externalId, states: [...allowedIn.iso] }),
      ...proceduresOf(clouds.get(plan.cloud ?? "")).unmount({ externalId }),
    ];
  },
  onEnd(end, { plan, output }) {
    if (end !== "succeeded") {
      return output["isoTaken"] === true
        ? { note: "The ISO is out of its CD drive; another /iso unmount brings its boot order back." }
        : {};
    }
    const { server, iso } = UnmountDetails.parse(plan.details);
    if (output["isoTaken"] !== true) return { note: "No ISO was in its CD drive." };
    const { isoWaits } = Counts.parse(output);
    return {
      events: [{ type: "server.iso.unmounted", data: { iso } }],
      offers: isoWaits.length > 0 ? [{ action: "server.restart", input: { server } }] : [],
      note: unmountedNow(isoWaits),
    };
  },
});

function unmountedNow(waits: readonly string[]): string {
  if (waits.includes("drive")) return `The ISO goes out ${AT_RESTART}.`;
  const order = waits.includes("boot") ? ` Its old boot order counts ${AT_RESTART}.` : "";
  return `The ISO is out of its CD drive.${order}`;
}

/** Every way in, tried by one customer on everything that is not theirs. Throws Violation at the first that gives. */

import type { Action, LookupKind, Option } from "../../src/core/action.ts";
import { ServiceError } from "../../src/core/errors.ts";
import { readLines, renderCard } from "../../src/core/operations/card.ts";
import { optionsFor } from "../../src/core/options.ts";
import { newId } from "../../src/database/id.ts";
import { claim } from "../../src/webhooks/claim.ts";
import { fanOut } from "../../src/webhooks/fan-out.ts";
import { findFormat } from "../../src/webhooks/formats/index.ts";
import type { CustomerPrincipal, Tenants } from "../support/tenants.ts";
import { digest, factFinder, outcomeOf, textOf, Violation } from "./isolation-facts.ts";

export const lookupKinds: readonly LookupKind[] = [
  "server",
  "plan",
  "image",
  "network",
  "customer",
  "cloud",
  "operation",
  "snapshot",
];

/** Of the shape of ours, and nobody's. */
export const unknownServer = "srv-zzzzzzzz";
export const unknownOperation = "op-zzzzzzzz";
export const unknownToken = "zzzzzzzzzzzzzzzzzzzzzzzz";

export interface Ids {
  servers: string[];
  operations: string[];
  tokens: string[];
}

/** What there is of others (`foreign`), or of their own. */
export async function idsOf(
  { world }: Tenants,
  customer: CustomerPrincipal,
  whose: "own" | "foreign",
): Promise<Ids> {
  const own = `s.customer_id IS NOT DISTINCT FROM $1::uuid`;
  const ownOperation = `o.customer_id IS NOT DISTINCT FROM $1::uuid AND (o.server_id IS NULL OR ${own})`;
  const is = whose === "own" ? "" : "NOT";
  const texts = async (sql: string) =>
    (await world.database.sql<{ text: string }>(sql, [customer.customerId])).map(({ text }) => text);
  const from = `operations o LEFT JOIN servers s ON s.id = o.server_id`;
  return {
    servers: await texts(
      `SELECT public_id AS text FROM servers s WHERE ${is} (${own}) ${whose === "own" ? "AND deleted_at IS NULL" : ""} ORDER BY s.id`,
    ),
    operations: await texts(
      `SELECT o.public_id AS text FROM ${from} WHERE ${is} (${ownOperation}) ORDER BY o.id`,
    ),
    tokens: await texts(
      `SELECT c.token AS text FROM capabilities c JOIN ${from} ON o.id = c.operation_id WHERE ${is} (${ownOperation}) ORDER BY c.token`,
    ),
  };
}

/** A value that fits, so that an action gets past its other options. */
export function plausible(option: Option): string {
  if (option.choices !== undefined) return option.choices[0]?.value ?? "";
  const byLookup: Partial<Record<LookupKind, string>> = {
    plan: "m",
    image: "debian-12",
    operation: unknownOperation,
  };
  if (option.lookup !== undefined) return byLookup[option.lookup] ?? unknownServer;
  const byType = { text: "zq-plausible", number: "2", memory: "4G", disk: "20G", flag: "yes", pairs: "a=1" };
  return byType[option.type];
}

export function required(action: Action, viewer: CustomerPrincipal): Record<string, string> {
  return Object.fromEntries(
    optionsFor(action, viewer)
      .filter((option) => option.required === true)
      .map((option) => [option.name, plausible(option)]),
  );
}

/** The options of an action that name something that may be another's. */
export function pointers(action: Action): { option: Option; kind: "servers" | "operations" }[] {
  const kinds = { server: "servers", operation: "operations" } as const;
  return action.options.flatMap((option) => {
    const { lookup } = option;
    return lookup === "server" || lookup === "operation" ? [{ option, kind: kinds[lookup] }] : [];
  });
}

interface Sweep {
  tenants: Tenants;
  viewer: CustomerPrincipal;
  foreign: Ids;
  own: Ids;
  /** Throws when what they were given holds what they must not know. */
  look(where: string, typed: readonly string[], given: unknown): void;
}

export async function sweep(tenants: Tenants, viewer: CustomerPrincipal): Promise<number> {
  const find = await factFinder(tenants);
  let looks = 0;
  const all: Sweep = {
    tenants,
    viewer,
    foreign: await idsOf(tenants, viewer, "foreign"),
    own: await idsOf(tenants, viewer, "own"),
    look(where, typed, given) {
      looks += 1;
      const leak = find(viewer, typed, given);
      if (leak !== null) throw new Violation(`${where} told ${viewer.id} ${leak}: ${textOf(given)}`);
    },
  };
  const before = await digest(tenants, viewer.customerId);
  await lookups(all);
  await buttons(all);
  await ownThings(all);
  await cards(all);
  await strangersIds(all);
  await forms(all);
  await keys(all);
  if ((await digest(tenants, viewer.customerId)) !== before) {
    throw new Violation(`${viewer.id} changed something of others`);
  }
  await webhooks(all);
  return looks;
}

/** Foreign ids where ids are taken: the same words as for unknown ones, and a line in the audit trail. */
async function strangersIds({ tenants, viewer, foreign, look }: Sweep): Promise<void> {
  const { world, ask } = tenants;
  for (const action of world.engine.registry.list()) {
    for (const { option, kind } of pointers(action)) {
      for (const [index, id] of someOf(foreign[kind]).entries()) {
        const unknown = kind === "servers" ? unknownServer : unknownOperation;
        const dryRun = index % 2 === 0;
        const given = { ...required(action, viewer), [option.name]: id };
        const typed = index % 3 === 2 ? { ...given, [option.name]: id.toUpperCase() } : given;
        const answer = await denied(tenants, viewer, () => ask(viewer, action.name, typed, { dryRun }));
        look(`${action.name} ${option.name}:${id}`, [id], answer);
        const twin = await outcomeOf(
          ask(viewer, action.name, { ...given, [option.name]: unknown }, { dryRun }),
        );
        requireTwins(`${action.name} ${option.name}`, [answer, id], [twin, unknown]);
      }
    }
  }
}

/** Enough of each sort: the first and last, and some between. */
function someOf(ids: readonly string[]): string[] {
  const step = Math.max(1, Math.floor(ids.length / 5));
  return [...new Set([...ids.filter((_, index) => index % step === 0), ...ids.slice(-2)])];
}

function requireTwins(
  where: string,
  [answer, id]: [unknown, string],
  [twin, unknown]: [unknown, string],
): void {
  const plain = (given: unknown, what: string) =>
    textOf(given).toLowerCase().replaceAll(what.toLowerCase(), "#");
  if (!(answer instanceof ServiceError))
    throw new Violation(`${where}: ${id} was answered: ${textOf(answer)}`);
  if (plain(answer, id) === plain(twin, unknown)) return;
  throw new Violation(
    `${where}: foreign and unknown read differently: ${textOf(answer)} and ${textOf(twin)}`,
  );
}

/** Runs it, and wants one more `denied` in the audit trail for what was refused as theirs or unknown. */
export async function denied(
  tenants: Tenants,
  viewer: CustomerPrincipal,
  work: () => Promise<unknown>,
): Promise<unknown> {
  const count = async () =>
    (
      await tenants.world.database.sql<{ n: number }>(
        `SELECT count(*)::int AS n FROM audit_entries WHERE principal_id = $1 AND outcome = 'denied'`,
        [viewer.id],
      )
    )[0]?.n ?? 0;
  const before = await count();
  const answer = await outcomeOf(work());
  const refused = answer instanceof ServiceError && ["forbidden", "not_found"].includes(answer.code);
  if (refused && (await count()) === before) throw new Violation(`no denied entry for ${textOf(answer)}`);
  return answer;
}

async function lookups({ tenants, viewer, foreign, look }: Sweep): Promise<void> {
  const { world, customers } = tenants;
  const names = await world.database.sql<{ text: string }>(
    `SELECT name AS text FROM servers WHERE customer_id IS DISTINCT FROM $1 AND name <> 'web-1'
     UNION SELECT unnest(addresses) FROM servers WHERE customer_id IS DISTINCT FROM $1
     UNION SELECT unnest(ARRAY[ref, name, email]) FROM customers WHERE id <> $1
     UNION SELECT external_id FROM images`,
    [viewer.customerId],
  );
  const texts = [
    "",
    "zq",
    "o",
    "%",
    "_",
    "\\",
    ...names.map(({ text }) => text),
    ...foreign.servers,
    ...foreign.operations,
  ];
  for (const kind of lookupKinds) {
    for (const text of texts) {
      for (const options of text === "" ? [{}, { cloud: "os1" }, { cloud: "os2" }] : [{}]) {
        const choices = await world.entrance.lookup({ kind, text, limit: 100, options }, viewer);
        // What begins with what was typed is no news only where it is the viewer's own.
        look(`lookup of ${kind} "${text}"`, [], choices);
      }
    }
    const [own, wrong] = await Promise.all(
      ["os1", "os2"].map((cloud) =>
        world.entrance.lookup({ kind, text: "", limit: 100, options: { cloud } }, viewer),
      ),
    );
    if (textOf(own) !== textOf(wrong)) throw new Violation(`lookup of ${kind} tells which clouds there are`);
  }
  if (customers.length < 3) throw new Error("too few customers");
}

async function buttons({ tenants, viewer, foreign, look }: Sweep): Promise<void> {
  const { entrance } = tenants.world;
  if (foreign.tokens.length === 0) throw new Error("nobody has buttons");
  for (const verb of ["press", "reveal"] as const) {
    for (const token of foreign.tokens) {
      const answer = await outcomeOf(entrance[verb](token, viewer, "console"));
      look(`${verb} of another's button`, [], answer);
      const twin = await outcomeOf(entrance[verb](unknownToken, viewer, "console"));
      requireTwins(verb, [answer, token], [twin, unknownToken]);
    }
  }
}

/** What they may see of their own must not hold what is the team's or another customer's. */
async function ownThings({ tenants, viewer, foreign, own, look }: Sweep): Promise<void> {
  const { world, ask } = tenants;
  for (const action of world.engine.registry.list()) {
    const places = pointers(action);
    if (action.kind === "read") {
      look(action.name, [], await outcomeOf(ask(viewer, action.name, required(action, viewer))));
      for (const option of optionsFor(action, viewer)) {
        const values = option.choices?.map(({ value }) => value) ?? [
          "",
          "zq",
          "10.",
          "%",
          ...foreign.servers,
        ];
        for (const value of values) {
          const given = { ...required(action, viewer), [option.name]: value };
          look(
            `${action.name} ${option.name}:${value}`,
            [value],
            await outcomeOf(ask(viewer, action.name, given)),
          );
        }
      }
    }
    for (const { option, kind } of places) {
      for (const id of own[kind]) {
        // Whatever changes something is only looked at here; the property does it for real.
        if (action.kind === "immediate") continue;
        const given = { ...required(action, viewer), [option.name]: id };
        look(
          `${action.name} ${id}`,
          [id],
          await outcomeOf(ask(viewer, action.name, given, { dryRun: true })),
        );
      }
    }
  }
  for (const token of own.tokens) {
    const reveal = await outcomeOf(world.entrance.reveal(token, viewer, "console"));
    if (
      typeof reveal === "object" &&
      reveal !== null &&
      "release" in reveal &&
      typeof reveal.release === "function"
    ) {
      await reveal.release();
    } else look("reveal of an own button", [], reveal);
  }
  await heldLocks({ tenants, viewer, look });
}

/** The real thing on servers that somebody is at work on: who holds them is told, but not everything about it. */
async function heldLocks({
  tenants,
  viewer,
  look,
}: Pick<Sweep, "tenants" | "viewer" | "look">): Promise<void> {
  const held = await tenants.world.database.sql<{ server: string }>(
    `SELECT s.public_id AS server FROM servers s JOIN operations o ON o.lock_key = 'server:' || s.id
     WHERE s.customer_id = $1 AND o.state = 'needs_attention'`,
    [viewer.customerId],
  );
  if (held.length === 0) throw new Error("no server is held");
  for (const { server } of held) {
    const answer = await outcomeOf(tenants.ask(viewer, "server.power", { server, action: "reboot" }));
    if (!(answer instanceof ServiceError)) throw new Violation(`${server} was not held: ${textOf(answer)}`);
    look(`a held ${server}`, [server], answer);
  }
}

/** What the projector shows in a customer's channel. */
export async function cards({
  tenants,
  viewer,
  look,
}: Pick<Sweep, "tenants" | "viewer" | "look">): Promise<void> {
  const { database } = tenants.world;
  const shown = await database.sql<{ audience: string; own: boolean; channel: string }>(
    `SELECT c.audience, c.channel, o.customer_id = $2 AS own
     FROM cards c JOIN operations o ON o.id = c.operation_id WHERE c.channel = $1 OR (c.audience = 'customer' AND o.customer_id = $2)`,
    [`dm-${viewer.id}`, viewer.customerId],
  );
  if (shown.length === 0) throw new Error(`${viewer.id} has no cards`);
  for (const { audience, own, channel } of shown) {
    if (audience !== "customer" || !own || channel !== `dm-${viewer.id}`) {
      throw new Violation(
        `a card for ${audience} of ${own ? "an own" : "a foreign"} operation in ${channel}`,
      );
    }
  }
  const mine = await database.sql<{ id: string; publicId: string }>(
    `SELECT id, public_id AS "publicId" FROM operations WHERE customer_id = $1`,
    [viewer.customerId],
  );
  for (const { id, publicId } of mine) {
    // Also those that have no card with them: they might get one. The id was told when it was theirs.
    look("a card", [publicId], (await renderCard(database, id, "customer")).view);
    look("a thread", [publicId], await readLines(database, id, 0, "customer"));
  }
}

async function forms({ tenants, viewer, foreign, look }: Sweep): Promise<void> {
  const { world } = tenants;
  for (const action of world.engine.registry.list()) {
    const given = Object.fromEntries(action.options.map((option) => [option.name, foreign.servers[0] ?? ""]));
    for (const values of [{}, given]) {
      look(
        `form of ${action.name}`,
        foreign.servers,
        await outcomeOf(world.entrance.form(action.name, values, viewer)),
      );
    }
    look(`${action.name} without anything`, [], await outcomeOf(tenants.ask(viewer, action.name, {})));
    const topic = { topic: action.name };
    look(`help ${action.name}`, [], await outcomeOf(tenants.ask(viewer, "help", topic)));
  }
}

/** What Ada knows of the servers that were hers: all but what they are called now. */
async function pastOf({ world, sold }: Tenants): Promise<string[]> {
  const rows = await world.database.sql<{ text: string }>(
    `SELECT unnest(addresses || public_id) AS text FROM servers WHERE id = ANY($1::uuid[])
     UNION SELECT public_id FROM operations WHERE server_id = ANY($1::uuid[])`,
    [sold.map(({ serverId }) => serverId)],
  );
  return rows.map(({ text }) => text);
}

/** Somebody who guesses the key of another's request. */
async function keys({ tenants, viewer, own, look }: Sweep): Promise<void> {
  const rows = await tenants.world.database.sql<{ key: string }>(
    `SELECT idempotency_key AS key FROM operations WHERE customer_id <> $1 LIMIT 10`,
    [viewer.customerId],
  );
  const server = own.servers[0] ?? "";
  for (const { key } of rows) {
    const work = tenants.ask(viewer, "server.power", { server, action: "reset" }, { key });
    look("the key of another's request", [server], await outcomeOf(work));
  }
}

/** An endpoint of their own for every event: what would be sent to it. */
async function webhooks({ tenants, viewer, look }: Sweep): Promise<void> {
  const { database } = tenants.world;
  while ((await fanOut(database)).events > 0);
  // An earlier look has leased them.
  await database.sql(
    `UPDATE deliveries d SET lease_by = NULL, lease_until = NULL, next_attempt_at = clock()
     FROM endpoints e WHERE e.id = d.endpoint_id AND e.name = $1`,
    [`of-${viewer.id}`],
  );
  const { claimed } = await claim(database, {
    owner: `sweep-${newId()}`,
    claimNumber: 1,
    leaseMs: 60_000,
    laneLimit: 10_000,
    loads: new Map(),
  });
  const past = await pastOf(tenants);
  const theirs = claimed.filter(({ endpoint }) => endpoint.name === `of-${viewer.id}`);
  if (theirs.length === 0) throw new Error(`nothing is sent to ${viewer.id}`);
  for (const { endpoint, event } of theirs) {
    const sent = findFormat(endpoint.format)?.render(event, { audience: endpoint.audience });
    // Events are never changed: those from before the sale name what was then the viewer's.
    look(`webhook ${event.type}`, viewer === tenants.ada ? past : [], sent);
  }
}

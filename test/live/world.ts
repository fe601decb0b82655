/** What every act works with: the people, the two clouds' views of the truth, and the orders that were given. */
import type { Receiver } from "../../src/sandbox/receiver.ts";
import type { Nova, NovaServer } from "./nova.ts";
import type { Program } from "./program.ts";
import { type Report, until } from "./report.ts";
import { type Message, type Person, type Reply, type Slack, visible } from "./slack.ts";

export interface World {
  report: Report;
  slack: Slack;
  nova: Nova;
  receiver: Receiver;
  alice: Person;
  bob: Person;
  carol: Person;
  /** Makes the names of this run its own. */
  named(what: string): string;
  orders: Order[];
  program: Program;
  /** Ends the program and starts it again on the same data. */
  restart(): Promise<void>;
}

/** A server that was ordered, and how many Nova holds for it. */
interface Order {
  operation: string;
  name: string;
  how: string;
  expected: number;
  shown: number;
  ever: number;
}

export interface Ended {
  operation: string;
  card: Message;
  /** As it stands on the screen. */
  text: string;
  /** "Done.", "Failed: …" */
  outcome: string;
  thread: string;
}

const outcomes = /^(Done|Failed|Cancelled|Expired|Needs attention)\b.*$/m;

/** Types a command and prints what came up for the person alone. */
export async function type(world: World, who: Person, line: string, channel?: string): Promise<Reply> {
  world.report.did(who.name, line);
  const reply = await who.command(line, channel);
  world.report.saw(reply.text);
  return reply;
}

export async function press(world: World, who: Person, card: Message, label: string): Promise<Reply> {
  world.report.did(who.name, `presses [ ${label} ]`);
  const reply = await who.press(card, label);
  const secret = secretShown(reply.text);
  world.report.saw(secret === "" ? reply.text : reply.text.replace(secret, "(the password)"));
  return reply;
}

/** The password in a reveal's modal, or "" when there is none. */
export function secretShown(text: string): string {
  return text.split("\n").find((line) => /^\S{16,}$/.test(line)) ?? "";
}

/** Follows an operation until its card has ended and its thread has told the requester; prints both. */
export async function follow(
  world: World,
  operation: string,
  what: string,
  withinMs = 60_000,
): Promise<Ended> {
  const { slack, alice, report } = world;
  const from = performance.now();
  const card = await until(`the end of ${operation}`, withinMs, async () => {
    const found = await slack.card(operation, alice.id);
    return found !== undefined && outcomes.test(found.text) && found;
  });
  report.time(what, performance.now() - from);
  const thread = await until(`the end of the thread of ${operation}`, 10_000, async () => {
    const lines = await slack.thread(card, alice.id);
    return (lines.at(-1) ?? "").includes("<@U") && lines.join("\n");
  });
  const last = (await slack.card(operation, alice.id)) ?? card;
  report.note(`the card of ${operation}, after ${((performance.now() - from) / 1000).toFixed(1)} s:`);
  report.saw(visible(last));
  report.note("its thread:");
  report.saw(thread);
  return { operation, card: last, text: visible(last), outcome: outcomes.exec(last.text)?.[0] ?? "", thread };
}

/** Waits until an operation's card shows this. */
export async function showing(
  world: World,
  operation: string,
  what: RegExp,
  withinMs = 20_000,
): Promise<Message> {
  return until(`"${String(what)}" on the card of ${operation}`, withinMs, async () => {
    const card = await world.slack.card(operation, world.alice.id);
    return card !== undefined && what.test(visible(card)) && card;
  });
}

/** Counts in Nova what an order made: by name, and by the operation's tag that each of them carries. */
export async function count(
  world: World,
  order: { operation: string; name: string; how: string },
  expected: number,
): Promise<NovaServer | undefined> {
  const { nova, report, orders } = world;
  const servers = await nova.named(order.name);
  const tags = new Set(servers.flatMap((server) => server.tags.filter((tag) => /^op=[^.]+$/.test(tag))));
  const tagged = (await Promise.all([...tags].map((tag) => nova.tagged(tag)))).flat();
  const ever = (await nova.everNamed(order.name)).length;
  const shown = servers.length === tagged.length ? servers.length : Number.NaN;
  report.check(`servers in Nova of ${order.name} and its tag`, expected, shown);
  if (expected === 1) report.check(`servers that Nova ever made as ${order.name}`, 1, ever);
  orders.push({ ...order, expected, shown, ever });
  return servers[0];
}

/** Orders a server, follows it, and finds it in Nova. */
export async function provision(
  world: World,
  name: string,
  { plan = "t", metadata }: { plan?: string; metadata?: string } = {},
): Promise<{ ended: Ended; server: NovaServer }> {
  const extra = metadata === undefined ? "" : ` metadata:${metadata}`;
  const reply = await type(
    world,
    world.alice,
    `/server provision ${name} customer:ada plan:${plan} image:debian-12${extra}`,
  );
  const ended = await follow(world, reply.operation, "provision");
  world.report.check("the card's end", "Done.", ended.outcome);
  const server = await count(world, { operation: reply.operation, name, how: "provision" }, 1);
  if (server === undefined) throw new Error(`Nova has no ${name}, so there is nothing to go on with`);
  world.report.check("its state in Nova", "ACTIVE", server.status);
  return { ended, server };
}

/** An order on an existing server, followed to its end. */
export async function change(
  world: World,
  line: string,
  expected: RegExp,
  withinMs?: number,
): Promise<Ended> {
  const reply = await type(world, world.alice, line);
  if (reply.operation === "") throw new Error(`"${line}" was not taken: ${reply.text}`);
  const ended = await follow(world, reply.operation, line.split(" ").slice(0, 2).join(" "), withinMs);
  world.report.check("the card's end", expected, ended.outcome);
  return ended;
}

/** Deletes with the confirmation's button, and looks in Nova whether it is gone. */
export async function remove(world: World, name: string): Promise<Ended> {
  const { alice, nova, report } = world;
  const ids = (await nova.named(name)).map((server) => server.id);
  const reply = await type(world, alice, `/server delete ${name}`);
  const card = await showing(world, reply.operation, /Waiting for confirmation/);
  await press(world, alice, card, "Confirm");
  const ended = await follow(world, reply.operation, "delete");
  report.check("the card's end", "Done.", ended.outcome);
  report.check(`servers in Nova of ${name}`, 0, (await nova.named(name)).length);
  for (const id of ids) report.check(`ports in Neutron of ${name}`, 0, await nova.portsOf(id));
  return ended;
}

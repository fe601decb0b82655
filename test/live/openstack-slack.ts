/**
 * `npm run live`: the main job on a real OpenStack, with Slack played by the stand-in, and what Nova itself says of it.
 *
 *   slack-up.sh 4621 http://127.0.0.1:4620/slack/events
 *   TEST_OPENSTACK_CLOUD=osr OS_CLIENT_CONFIG_FILE=/var/lib/osr/clouds.yaml TEST_SLACK_HARNESS=http://127.0.0.1:4621 npm run live
 *
 * With `-- --outages` it also stops nova-api and hangs Keystone for less than 90 s each, and brings them back.
 * TEST_DATABASE_URL and TEST_REDIS_URL are used when set, else everything is embedded. TEST_LIVE_PORT: instead of 4620.
 */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { startReceiver } from "../../src/sandbox/receiver.ts";
import {
  badInputs,
  build,
  cancel,
  connect,
  fillForm,
  look,
  password,
  power,
  removeAsked,
  resize,
} from "./main-job.ts";
import { type Nova, openNova } from "./nova.ts";
import { createDatabase, type ProgramOptions, startProgram } from "./program.ts";
import { createReport, type Report } from "./report.ts";
import { createSlack } from "./slack.ts";
import { computeAway, failedBuild, failedResize, identityHung, noAgent } from "./truths.ts";
import { remove, type World } from "./world.ts";

const { values: flags } = parseArgs({ options: { outages: { type: "boolean", default: false } } });
const cloud = process.env["TEST_OPENSTACK_CLOUD"];
const cloudsFile = process.env["OS_CLIENT_CONFIG_FILE"];
const slackUrl = process.env["TEST_SLACK_HARNESS"]?.replace(/\/$/, "");
const port = Number(process.env["TEST_LIVE_PORT"] ?? 4620);

async function main(where: { cloud: string; cloudsFile: string; slackUrl: string }): Promise<number> {
  const report = createReport((line) => console.log(line));
  const folder = mkdtempSync(join(tmpdir(), "ratatosk-live-"));
  const secret = `whsec_${randomBytes(32).toString("base64")}`;
  const receiver = await startReceiver({ secret });
  const server = process.env["TEST_DATABASE_URL"];
  const database = server === undefined ? undefined : await createDatabase(server);
  const options: ProgramOptions = {
    ...where,
    folder,
    port,
    webhook: { url: receiver.url, secret },
    databaseUrl: database?.url,
    redisUrl: process.env["TEST_REDIS_URL"],
  };
  const nova = await openNova(where.cloud, where.cloudsFile);
  const slack = createSlack(where.slackUrl);
  const known = (await slack.violations()).length;
  await slack.deliverTo(`http://127.0.0.1:${port}/slack/events`);
  const run = Date.now().toString(36).slice(-4);
  const names: string[] = [];
  const world: World = {
    report,
    slack,
    nova,
    receiver,
    orders: [],
    alice: slack.person("U01ALICE", "Alice"),
    bob: slack.person("U02BOB", "Bob"),
    carol: slack.person("U03CAROL", "Carol"),
    named(what) {
      const name = `${what}-${run}`;
      names.push(name);
      return name;
    },
    program: await startProgram(options),
    async restart() {
      await world.program.stop();
      world.program = await startProgram(options);
    },
  };
  report.note(
    `OpenStack ${where.cloud}, Slack at ${where.slackUrl}, the program is process ${world.program.pid}, its log ${folder}/program.log`,
  );
  try {
    await play(world);
  } catch (error) {
    report.check(
      "the run goes to its end",
      "nothing in the way",
      error instanceof Error ? (error.stack ?? error.message) : String(error),
    );
  } finally {
    await world.program.stop();
    await sweep(nova, names, report);
  }
  const violations = (await slack.violations()).slice(known);
  await receiver.close();
  await database?.drop();
  conclude(world, violations);
  if (report.failures.length === 0) rmSync(folder, { recursive: true, force: true });
  return report.failures.length === 0 ? 0 : 1;
}

async function play(world: World): Promise<void> {
  await connect(world);
  const name = await build(world);
  const second = await fillForm(world);
  await look(world, name);
  await resize(world, name);
  await password(world, name);
  await power(world, name);
  await cancel(world);
  await badInputs(world, name);
  await removeAsked(world, name);
  await remove(world, second);
  await failedBuild(world);
  await failedResize(world);
  await noAgent(world);
  if (!flags.outages) return;
  await computeAway(world);
  await identityHung(world);
}

/** Only after a failure is there anything to sweep: each act removes what it made. */
async function sweep(nova: Nova, names: readonly string[], report: Report): Promise<void> {
  for (const name of names) {
    const left = await nova.named(name);
    report.check(`servers of ${name} left in Nova`, 0, left.length);
    for (const server of left) await nova.remove(server.id);
  }
}

function conclude(
  world: World,
  violations: readonly { rule: string; where?: string; detail?: unknown }[],
): void {
  const { report, slack, receiver, orders } = world;
  report.title("What this run did");
  const { counts } = slack;
  report.note(
    `${counts.commands} commands, ${counts.modals} modals opened, ${counts.submissions} submitted, ${counts.buttons} buttons pressed, ` +
      `${counts.suggestions} suggestion lists; the slowest acknowledgement took ${slack.slowestAckMs()} ms`,
  );
  for (const { rule, where, detail } of violations)
    report.note(`violation ${rule} ${where ?? ""} ${JSON.stringify(detail ?? "")}`);
  report.check("violations of Slack's rules", 0, violations.length);
  report.note(
    "orders: servers in Nova that carry the order's tag when it ended; servers ever made under that name",
  );
  for (const { operation, name, how, expected, shown, ever } of orders) {
    report.note(
      `  ${operation}  ${name.padEnd(10)} ${how.padEnd(16)} expected ${expected}, found ${shown}; ever ${ever}`,
    );
  }
  const verified = receiver.deliveries.filter((delivery) => delivery.verified).length;
  report.note(
    `${receiver.deliveries.length} webhooks received: ${tally(receiver.deliveries.map(({ type }) => type))}`,
  );
  report.check("webhooks verified by the package standardwebhooks", receiver.deliveries.length, verified);
  report.check("webhooks came at all", true, verified > 0);
  report.note("time from the answer to the card's end:");
  for (const { what, ms } of report.times) report.note(`  ${what.padEnd(34)} ${(ms / 1000).toFixed(1)} s`);
  for (const failure of report.failures) report.note(`FAILED: ${failure}`);
  console.log(`\n${report.passed} passed, ${report.failures.length} failed`);
}

function tally(types: readonly string[]): string {
  const counts = Object.entries(Object.groupBy(types, (type) => type));
  return counts.map(([type, all]) => `${type} ${all?.length ?? 0}`).join(", ");
}

if (cloud === undefined || cloudsFile === undefined || slackUrl === undefined) {
  console.log(
    "skipped: set TEST_OPENSTACK_CLOUD (an entry of clouds.yaml), OS_CLIENT_CONFIG_FILE (that file) and " +
      "TEST_SLACK_HARNESS (base URL of Slack's stand-in); the top of test/live/openstack-slack.ts has the commands.",
  );
  process.exit(0);
}
process.on("SIGINT", () => process.exit(130)).on("SIGTERM", () => process.exit(143));
process.exit(await main({ cloud, cloudsFile, slackUrl }));

/** Signed Slack command → acknowledged, 50 a second, against Bolt with nothing behind it. */
import { setTimeout as delay } from "node:timers/promises";
import { Pool } from "undici";
import { createPostgresDatabase } from "../test/support/postgres.ts";
import { signed } from "../test/support/slack-api.ts";
import type { TargetOptions } from "./ack-target.ts";
import { type Child, startChild } from "./child.ts";
import { figure, heading, median, ms, note, percentile, ratio } from "./report.ts";
import { type Backend, backends } from "./stage.ts";

const signingSecret = "bench-signing-secret";
const perSecond = 50;
/** They take turns, so that a busy minute of the machine hits all of them. */
const turns = 4;
const warmUpSeconds = 3;
const atMost = 5;

type Target = Child<{ url: string }>;

export async function benchAck({ short }: { short: boolean }): Promise<void> {
  const turnSeconds = short ? 1 : 5;
  const seconds = turns * turnSeconds;
  const bolt = await startChild<{ url: string }>("ack-target.ts", { what: "bolt", signingSecret });
  try {
    for (const backend of backends()) {
      heading(`ack: signed command → acknowledged, ${perSecond}/s for ${seconds} s each, ${backend.name}`);
      const bot = await startBot(backend, perSecond * (seconds + warmUpSeconds));
      try {
        await measure({ bolt, ratatosk: bot.target }, turnSeconds);
      } finally {
        await bot.stop();
      }
    }
  } finally {
    await bolt.stop();
  }
}

async function startBot(
  { redisUrl }: Backend,
  servers: number,
): Promise<{ target: Target; stop(): Promise<void> }> {
  const serverUrl = redisUrl === undefined ? undefined : process.env["TEST_DATABASE_URL"];
  const created = serverUrl === undefined ? undefined : await createPostgresDatabase(serverUrl);
  const options: TargetOptions = {
    what: "ratatosk",
    signingSecret,
    servers,
    ...(created === undefined ? {} : { url: created.url }),
    ...(redisUrl === undefined ? {} : { redisUrl }),
  };
  const target = await startChild<{ url: string }>("ack-target.ts", options);
  return {
    target,
    async stop() {
      await target.stop();
      await created?.drop();
    },
  };
}

async function measure(targets: { bolt: Target; ratatosk: Target }, turnSeconds: number): Promise<void> {
  const subjects = [
    { name: "Bolt alone", target: targets.bolt, text: () => "list", expected: "ok" },
    { name: "/server help (no database)", target: targets.ratatosk, text: () => "help", expected: "resize" },
    { name: "/server list (20 rows)", target: targets.ratatosk, text: () => "list", expected: "web-" },
    {
      name: "/server power (enters an operation)",
      target: targets.ratatosk,
      text: (index: number) => `power web-${index} action:reboot`,
      expected: "is on its way",
    },
  ].map((subject) => Object.assign(subject, { load: createLoad(subject), latencies: [] as number[] }));

  for (const { load } of subjects) await load.run(warmUpSeconds);
  for (let turn = 0; turn < turns; turn += 1) {
    for (const { load, latencies } of subjects) latencies.push(...(await load.run(turnSeconds)));
  }
  for (const { name, latencies, load } of subjects) {
    const [p50, p99] = [median(latencies), percentile(latencies, 0.99)];
    figure(name, `p50 ${ms(p50)}, p99 ${ms(p99)}, max ${ms(percentile(latencies, 1))}`);
    await load.close();
  }
  const [baseline, ...ours] = subjects;
  for (const { name, latencies } of ours) {
    ratio(
      `${name} to Bolt at p50`,
      { ours: median(latencies), baseline: median(baseline?.latencies ?? []) },
      atMost,
    );
  }
  note("Slack's own limit is 3 s.");
}

/** One command every 20 ms, whether the one before was answered or not; times count from when it was due. */
function createLoad({
  target,
  text,
  expected,
}: {
  target: Target;
  text(index: number): string;
  expected: string;
}) {
  const pool = new Pool(target.ready.url, { connections: perSecond });
  let sent = 0;

  async function command(index: number): Promise<void> {
    const body = new URLSearchParams({
      command: "/server",
      text: text(index),
      user_id: "U1",
      user_name: "sam",
      team_id: "T1",
      channel_id: "C1",
      channel_name: "ops",
      api_app_id: "A1",
      token: "v",
      response_url: "http://127.0.0.1:9/",
      trigger_id: `bench.${index}`,
    }).toString();
    const { headers } = signed(body, { secret: signingSecret });
    const answer = await pool.request({
      path: "/slack/events",
      method: "POST",
      headers: headers as Record<string, string>,
      body,
    });
    const said = await answer.body.text();
    if (answer.statusCode !== 200 || !said.includes(expected))
      throw new Error(`"${text(index)}" was answered ${answer.statusCode} ${said}`);
  }

  return {
    async run(seconds: number): Promise<number[]> {
      const began = performance.now();
      const asked: Promise<number>[] = [];
      for (let n = 0; n < seconds * perSecond; n += 1) {
        const dueAt = began + (n * 1000) / perSecond;
        if (dueAt > performance.now()) await delay(dueAt - performance.now());
        sent += 1;
        asked.push(command(sent).then(() => performance.now() - dueAt));
      }
      return Promise.all(asked);
    },
    close: () => pool.close(),
  };
}

/** What answers Slack in the bench `ack`: our bot as api/ serves it, or Bolt with nothing behind it. Started by ack.ts. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { App, ExpressReceiver, LogLevel } from "@slack/bolt";
import { createApiServer } from "../src/api/server.ts";
import { createSlackBot } from "../src/bots/slack/app.ts";
import { openDatabase } from "../src/database/client.ts";
import { createJobs } from "../src/jobs/jobs.ts";
import { startedWith, tell } from "./child.ts";
import { instantCloud } from "./instant-cloud.ts";
import { engineOn, furnish, log, sam } from "./stage.ts";

export interface TargetOptions {
  what: "bolt" | "ratatosk";
  signingSecret: string;
  url?: string;
  redisUrl?: string;
  /** Running servers: each is rebooted once. */
  servers?: number;
}

const options = startedWith() as TargetOptions;
tell({ url: options.what === "bolt" ? await serveBolt() : await serveRatatosk() });

async function serveBolt(): Promise<string> {
  const receiver = new ExpressReceiver({ signingSecret: options.signingSecret, endpoints: "/slack/events" });
  const app = new App({
    receiver,
    logLevel: LogLevel.ERROR,
    authorize: () => Promise.resolve({ botToken: "xoxb-bench" }),
  });
  app.command(/^\//u, ({ ack }) => ack("ok"));
  const server = createServer(receiver.app);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** The roles bots and api: what runs the operations is another process, as it may be in production. */
async function serveRatatosk(): Promise<string> {
  const { url, redisUrl, servers = 0, signingSecret } = options;
  const database = await openDatabase({ url });
  await furnish(database, instantCloud, { slots: 10, servers });
  const jobs = await createJobs({ database, redisUrl, log, alone: database.mode === "embedded" });
  const { engine, entrance } = engineOn(database, instantCloud, jobs.wake);
  const bot = createSlackBot({
    token: "xoxb-bench",
    ingress: { kind: "http", signingSecret },
    entrance: { ...entrance, identify: () => Promise.resolve(sam) },
    registry: engine.registry,
    log,
  });
  const api = createApiServer({
    receivers: bot.http === undefined ? [] : [bot.http],
    checks: [],
    log,
    version: "bench",
  });
  return (await api.listen({ host: "127.0.0.1", port: 0 })).url;
}

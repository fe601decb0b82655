/** Starts and stops the process: flags, signals, exit codes. */
import { parseArgs } from "node:util";
import { destination } from "pino";
import { type App, openApp } from "./app.ts";
import { ConfigurationError } from "./config/problems.ts";
import { readSettings, roles, type Settings } from "./config/settings.ts";
import { isServiceError, problemOf, ServiceError } from "./core/errors.ts";
import { type Sandbox, startSandbox } from "./demo/sandbox.ts";
import { createLog } from "./log.ts";

/** sysexits.h: EX_CONFIG. */
const exitConfiguration = 78;
const exitUsage = 2;
const stopWithinMs = 20_000;

const usage = `Usage: npm start -- [options]
  --console           talk to it in this terminal (the sandbox does anyway)
  --as staff:NAME     in whose hands the console is; also customer:REF
  --roles=LIST        of bots, worker, dispatcher, api (default: all)
  --help`;

interface Started {
  app: App;
  sandbox: Sandbox | null;
  /** Settles when the process is to stop, with its exit code. */
  ended: PromiseWithResolvers<number>;
}

/** From the first moment on: a start, too, may have to wait for a database or a cloud. */
function listenToSignals(): PromiseWithResolvers<number> {
  const ended = Promise.withResolvers<number>();
  // Rejected before anybody waits for it, it would end the process without a word.
  ended.promise.catch(() => undefined);
  const stop = () => {
    ended.resolve(0);
    // A close that waits for a server which is away might never return, so the end is bounded here.
    setTimeout(() => process.exit(0), stopWithinMs);
  };
  process.once("SIGTERM", stop).once("SIGINT", stop);
  return ended;
}

function readFlags() {
  const { values } = parseArgs({
    options: {
      console: { type: "boolean", default: false },
      as: { type: "string" },
      roles: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  return values;
}

async function main(): Promise<number> {
  const values = readFlags();
  if (values.help) {
    console.log(usage);
    return 0;
  }
  const ended = listenToSignals();
  const first = readSettings({ env: process.env, cwd: process.cwd(), roles: values.roles });
  const wantsConsole = values.console || values.as !== undefined || first.sandbox;
  const log = createLog(levelOf(first, wantsConsole), destination({ dest: 2, sync: true }));
  const sandbox = first.sandbox
    ? await startSandbox((delivery) =>
        log.info({ event: delivery.type, verified: delivery.verified }, "webhook received"),
      )
    : null;
  const settings =
    sandbox === null
      ? first
      : readSettings({
          env: { ...process.env, RATATOSK_CONFIG: sandbox.configPath },
          cwd: process.cwd(),
          roles: values.roles,
        });
  const app = await openApp(settings, {
    log,
    inMemory: sandbox !== null,
    ...(wantsConsole
      ? { console: { as: values.as ?? defaultHands(settings), input: process.stdin, output: process.stdout } }
      : {}),
  });
  return serve({ app, sandbox, ended }, settings);
}

/** The most capable member of staff: the console is at the operator's own terminal. */
function defaultHands(settings: Settings): string {
  const ranks = ["owner", "admin", "operator", "support", "viewer"];
  const [best] = settings.staff.toSorted((a, b) => ranks.indexOf(a.role) - ranks.indexOf(b.role));
  if (best === undefined) {
    throw new ConfigurationError([
      "The console needs somebody's hands — add staff: to ratatosk.yaml, or give --as customer:REF",
    ]);
  }
  return `staff:${best.id}`;
}

async function serve({ app, sandbox, ended }: Started, settings: Settings): Promise<number> {
  const starting = app.start().then(() => {
    console.log(bannerOf(app, sandbox, settings));
    return app.console?.run().then(ended.resolve);
  });
  // What fails ends the process; a signal does so even while the start waits for a cloud that does not answer.
  starting.catch(ended.reject);
  const code = await ended.promise;
  setTimeout(() => process.exit(code), stopWithinMs);
  await app.close();
  await sandbox?.close();
  return code;
}

function bannerOf(app: App, sandbox: Sandbox | null, settings: Settings): string {
  const lines = [sandbox?.banner];
  if (settings.mode === "embedded") {
    lines.push(
      sandbox === null
        ? `Embedded database in ${settings.dataDir}: one process only; a power cut may lose the last writes. DATABASE_URL lifts both.`
        : "Embedded database, in memory.",
    );
  }
  const url = app.url();
  const { slack } = settings;
  const receivers = slack === undefined || slack.appToken !== undefined ? "" : ", /slack/events";
  if (url !== null) lines.push(`Listening on ${url} (/healthz, /readyz${receivers}).`);
  if (settings.roles.length < roles.length) lines.push(`Running as ${settings.roles.join(", ")}.`);
  return lines.filter((line) => line !== undefined).join("\n");
}

/** With a console the terminal belongs to it: the log keeps to warnings, on standard error. */
function levelOf(settings: Settings, besideConsole: boolean): string {
  return besideConsole && process.env["LOG_LEVEL"] === undefined ? "warn" : settings.logLevel;
}

/** Tells why the process ends; only what nobody expected comes with its stack. */
function tell(error: unknown): number {
  if (error instanceof ConfigurationError) {
    console.error(error.message);
    return exitConfiguration;
  }
  if (error instanceof TypeError && "code" in error && String(error.code).startsWith("ERR_PARSE_ARGS")) {
    console.error(`${error.message}\n${usage}`);
    return exitUsage;
  }
  if (!(error instanceof ServiceError)) {
    console.error(error);
    return 1;
  }
  const { message, staffDetail } = problemOf(error);
  console.error(staffDetail === undefined ? message : `${message}\n${staffDetail}`);
  return isServiceError(error, "configuration") ? exitConfiguration : 1;
}

try {
  process.exit(await main());
} catch (error) {
  process.exit(tell(error));
}

/** Starts and stops the process: flags, signals, exit codes. */
import { parseArgs } from "node:util";
import { destination, pino } from "pino";
import { type App, openApp } from "./app.ts";
import { ConfigurationError } from "./config/problems.ts";
import { readSettings, type Settings } from "./config/settings.ts";
import { isServiceError } from "./core/errors.ts";
import { type Sandbox, startSandbox } from "./demo/sandbox.ts";

/** sysexits.h: EX_CONFIG. */
const exitConfiguration = 78;
const stopWithinMs = 20_000;

const usage = `Usage: npm start -- [options]
  --console           talk to it in this terminal (the sandbox does anyway)
  --as staff:NAME     in whose hands the console is; also customer:REF
  --roles=LIST        of bots, worker, dispatcher, api (default: all)
  --help`;

interface Started {
  app: App;
  sandbox: Sandbox | null;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      console: { type: "boolean", default: false },
      as: { type: "string" },
      roles: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(usage);
    return 0;
  }
  const first = readSettings({ env: process.env, cwd: process.cwd(), roles: values.roles });
  const log = createLog(first, values.console || first.sandbox);
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
  const wantsConsole = values.console || values.as !== undefined || sandbox !== null;
  const app = await openApp(settings, {
    log,
    inMemory: sandbox !== null,
    ...(wantsConsole
      ? { console: { as: values.as ?? defaultHands(settings), input: process.stdin, output: process.stdout } }
      : {}),
  });
  return serve({ app, sandbox }, settings);
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

async function serve({ app, sandbox }: Started, settings: Settings): Promise<number> {
  const ended = Promise.withResolvers<number>();
  const stop = () => ended.resolve(0);
  process.on("SIGTERM", stop).on("SIGINT", stop);
  await app.start();
  console.log(bannerOf(app, sandbox, settings));
  app.console?.run().then(
    (code) => ended.resolve(code),
    (error: unknown) => ended.reject(error),
  );
  const code = await ended.promise;
  // close() of a queue whose Redis is away never returns, so the end is bounded here.
  setTimeout(() => process.exit(code), stopWithinMs).unref();
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
  return lines.filter((line) => line !== undefined).join("\n");
}

/** With a console the terminal belongs to it: the log keeps to warnings, on standard error. */
function createLog(settings: Settings, besideConsole: boolean) {
  const quiet = besideConsole && process.env["LOG_LEVEL"] === undefined;
  return pino({ level: quiet ? "warn" : settings.logLevel }, destination({ dest: 2, sync: true }));
}

try {
  process.exit(await main());
} catch (error) {
  if (error instanceof ConfigurationError || isServiceError(error, "configuration")) {
    console.error(error.message);
    process.exit(exitConfiguration);
  }
  console.error(error);
  process.exit(1);
}

/** The command line's words; what each does is in the file of its name. */
import { Command, InvalidArgumentError, Option } from "commander";
import { syncResources } from "../core/sync/pass.ts";
import type { Terminal } from "./terminal.ts";

/** `finished` gets the exit code of the command that ran. Each command's code is loaded only when it runs. */
export function createProgram(terminal: Terminal, finished: (code: number) => void): Command {
  const program = new Command("ratatosk")
    .description("Ratatosk's command line. To start the service itself: npm start")
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void terminal.stdout.write(text),
      writeErr: (text) => void terminal.stderr.write(text),
    })
    .showSuggestionAfterError()
    .showHelpAfterError("(add --help for what there is)");
  addManifest(program, terminal, finished);
  addClouds(program, terminal, finished);
  addWebhook(program, terminal, finished);
  program
    .command("doctor")
    .description("try configuration, database, Redis and clouds; changes nothing")
    .action(async () => finished(await (await import("./doctor.ts")).examine(terminal)));
  program
    .command("console")
    .description("the chat in this terminal, on the configured clouds; also runs commands from a pipe")
    .requiredOption("--as <who>", "staff:ID or customer:REF, as in ratatosk.yaml")
    .action(async ({ as }: { as: string }) =>
      finished(await (await import("./console.ts")).openConsole(terminal, as)),
    );
  return program;
}

type Finished = (code: number) => void;

function addManifest(program: Command, terminal: Terminal, finished: Finished): void {
  const manifest = program
    .command("manifest")
    .description("what a chat platform must be told about our commands");
  manifest
    .command("slack")
    .description("print the app manifest (api.slack.com/apps, From a manifest)")
    .option("--url <url>", "where Slack reaches this service (default: RATATOSK_PUBLIC_URL)")
    .option("--socket", "for Socket Mode: no public address", false)
    .option("--name <name>", "the app's name in Slack")
    .action(async (options: { url?: string; socket: boolean; name?: string }) =>
      finished((await import("./manifest.ts")).printSlackManifest(terminal, options)),
    );
  manifest
    .command("discord")
    .description("print the application commands")
    .action(async () => finished((await import("./manifest.ts")).printDiscordCommands(terminal)));
}

function addClouds(program: Command, terminal: Terminal, finished: Finished): void {
  program
    .command("connection")
    .description("the connections to the clouds")
    .command("test")
    .argument("[cloud]", "its name in ratatosk.yaml (default: all)")
    .description("try the credential against each service")
    .option("--verbose", "also the settings, secrets masked, and how much there is", false)
    .action(async (cloud: string | undefined, { verbose }: { verbose: boolean }) =>
      finished(await (await import("./connection.ts")).testConnection(terminal, { cloud, verbose })),
    );
  program
    .command("sync")
    .description("the copy of the clouds' catalogues and servers")
    .command("run")
    .description("read them now")
    .addOption(
      new Option("--type <type...>", "only these (default: everything)").choices(syncResources).default([]),
    )
    .option("--cloud <name>", "only this one (default: all)")
    .option("--force", "believe a list that is much shorter than before", false)
    .action(
      async ({
        type,
        cloud,
        force,
      }: {
        type: (typeof syncResources)[number][];
        cloud?: string;
        force: boolean;
      }) => finished(await (await import("./sync.ts")).runSyncs(terminal, { types: type, cloud, force })),
    );
}

function addWebhook(program: Command, terminal: Terminal, finished: Finished): void {
  const webhook = program.command("webhook").description("for whoever builds a receiver of our webhooks");
  webhook
    .command("secret")
    .description("print a new signing secret")
    .action(async () => finished((await import("./webhook.ts")).printWebhookSecret(terminal)));
  webhook
    .command("verify")
    .description("check a received delivery; its body comes on standard input")
    .option("-H, --header <header...>", 'as received: "webhook-id: …", also -timestamp and -signature', [])
    .option("--webhook <name>", "whose secret in ratatosk.yaml")
    .option("--secret-file <file>", "the file with the secret (or the variable WEBHOOK_SECRET)")
    .option("--tolerance <seconds>", "how far the timestamp may be from now", seconds, 300)
    .action(async (options: { header: string[]; webhook?: string; secretFile?: string; tolerance: number }) =>
      finished(
        await (await import("./webhook.ts")).verifyWebhook(terminal, {
          headers: options.header,
          name: options.webhook,
          secretFile: options.secretFile,
          toleranceSeconds: options.tolerance,
        }),
      ),
    );
}

function seconds(text: string): number {
  if (!/^\d{1,10}$/.test(text)) throw new InvalidArgumentError("Write a number of seconds.");
  return Number(text);
}

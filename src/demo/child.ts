/** The program itself as a process of its own, with its console on a pipe: what the demo types into and kills. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Stage } from "./stage.ts";

export interface Child {
  pid: number | undefined;
  type(line: string): Promise<void>;
  kill(): void;
  /** The exit code; null when it was killed. */
  ended: Promise<number | null>;
}

export interface ChildOptions {
  stage: Stage;
  configPath: string;
  dataDir: string;
}

/** Resolves when it listens. Throws when it ends before that. */
export async function startChild({ stage, configPath, dataDir }: ChildOptions): Promise<Child> {
  const main = fileURLToPath(new URL("../main.ts", import.meta.url));
  const child = spawn(process.execPath, [...process.execArgv, main, "--console", "--as", "staff:rita"], {
    env: {
      ...environment(),
      RATATOSK_CONFIG: configPath,
      RATATOSK_DATA_DIR: dataDir,
      PORT: "0",
      LOG_LEVEL: "error",
    },
    stdio: ["pipe", "pipe", "inherit"],
  });
  const started = Promise.withResolvers<void>();
  createInterface({ input: child.stdout }).on("line", (line) => {
    if (line.startsWith("Listening on")) started.resolve();
    stage.console(line);
  });
  const ended = new Promise<number | null>((resolve) => child.once("exit", (code) => resolve(code)));
  void ended.then((code) =>
    started.reject(new Error(`The program ended before it listened (exit code ${code}).`)),
  );
  await started.promise;
  return {
    pid: child.pid,
    kill: () => child.kill("SIGKILL"),
    ended,
    type: (line) =>
      new Promise((resolve, reject) => {
        child.stdin.write(`${line}\n`, (error) => (error ? reject(error) : resolve()));
      }),
  };
}

/** The demo is the same whatever is configured here for real. */
function environment(): NodeJS.ProcessEnv {
  const own = /^(RATATOSK_|SLACK_|DISCORD_|OPENSTACK_|OS_|DATABASE_URL$|REDIS_URL$|HOST$|PORT$|LOG_LEVEL$)/;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !own.test(name)));
}

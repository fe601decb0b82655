/** One call of the command line: arguments in, exit code out. */
import { CommanderError } from "commander";
import { ConfigurationError } from "../config/problems.ts";
import { isServiceError, problemOf, ServiceError } from "../core/errors.ts";
import { createProgram } from "./program.ts";
import type { Terminal } from "./terminal.ts";

/** sysexits.h: EX_CONFIG, as src/main.ts. */
const exitConfiguration = 78;

/** Exit codes: 0 all is well, 1 something is not, 2 a call that makes no sense, 78 a wrong configuration. */
export async function runCommandLine(args: readonly string[], terminal: Terminal): Promise<number> {
  let code = 0;
  const program = createProgram(terminal, (finished) => {
    code = finished;
  });
  try {
    await program.parseAsync(args, { from: "user" });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    terminal.stderr.write(`${textOf(error, terminal)}\n`);
    const configuration = error instanceof ConfigurationError || isServiceError(error, "configuration");
    return configuration ? exitConfiguration : 1;
  }
}

function textOf(error: unknown, terminal: Terminal): string {
  if (error instanceof ServiceError) {
    const { message, staffDetail } = problemOf(error);
    return staffDetail === undefined ? message : `${message}\n${staffDetail}`;
  }
  if (!(error instanceof Error)) return String(error);
  return terminal.env["LOG_LEVEL"] === "debug" ? (error.stack ?? error.message) : error.message;
}

/** Starts the command line: `npm run cli -- doctor`, or `ratatosk doctor` when installed. */
import { runCommandLine } from "./run.ts";

// Not process.exit: what was written to a pipe must arrive first.
process.exitCode = await runCommandLine(process.argv.slice(2), {
  env: process.env,
  cwd: process.cwd(),
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
});

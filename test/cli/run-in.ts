/** The command line as a person starts it, in a folder of its own. */
import { join } from "node:path";
import { PassThrough, Writable } from "node:stream";
import { runCommandLine } from "../../src/cli/run.ts";

export interface Given {
  env?: Record<string, string>;
  stdin?: Buffer;
}

export interface Ran {
  code: number;
  out: string;
  err: string;
}

export async function runIn(folder: string, args: string[], given: Given = {}): Promise<Ran> {
  const sink = () => {
    const chunks: Buffer[] = [];
    const stream = new Writable({
      write(chunk: Buffer, _encoding, done) {
        chunks.push(chunk);
        done();
      },
    });
    return { stream, text: () => Buffer.concat(chunks).toString() };
  };
  const [out, err] = [sink(), sink()];
  const stdin = new PassThrough();
  stdin.end(given.stdin ?? Buffer.alloc(0));
  const env = { RATATOSK_DATA_DIR: join(folder, "data"), ...given.env };
  const code = await runCommandLine(args, {
    env,
    cwd: folder,
    stdin,
    stdout: out.stream,
    stderr: err.stream,
  });
  return { code, out: out.text(), err: err.text() };
}

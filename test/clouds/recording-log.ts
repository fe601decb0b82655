import { Writable } from "node:stream";
import { pino } from "pino";

/** Everything that was logged, at every level. */
export function recordingLog() {
  let text = "";
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      text += chunk.toString();
      done();
    },
  });
  return { log: pino({ level: "trace" }, stream), logged: () => text };
}

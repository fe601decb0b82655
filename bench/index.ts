/** npm run bench [-- ack|waits|pve|engine|start …]: figures as ratios to a baseline of the same run, never a pass or a fail. */
import { availableParallelism, cpus, totalmem } from "node:os";
import { parseArgs } from "node:util";
import { benchAck } from "./ack.ts";
import { benchEngine } from "./engine.ts";
import { benchPve } from "./pve.ts";
import { note } from "./report.ts";
import { withoutServer } from "./stage.ts";
import { benchStart } from "./start.ts";
import { benchWaits } from "./waits.ts";

const benches: Record<string, (options: { short: boolean }) => Promise<void>> = {
  ack: benchAck,
  waits: benchWaits,
  pve: benchPve,
  engine: benchEngine,
  start: benchStart,
};

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { short: { type: "boolean", default: false } },
});
const unknown = positionals.filter((name) => !(name in benches));
if (unknown.length > 0) {
  console.error(`There is no bench ${unknown.join(", ")}; there are ${Object.keys(benches).join(", ")}.`);
  process.exit(2);
}
console.log(
  `${cpus()[0]?.model ?? "unknown processor"}, ${availableParallelism()} cores, ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.version}`,
);
if (values.short) note("--short: it only shows that the benches work; these figures mean nothing.");
if (withoutServer !== undefined) note(withoutServer);
for (const [name, run] of Object.entries(benches)) {
  if (positionals.length === 0 || positionals.includes(name)) await run({ short: values.short });
}
// A pool or a timer of a library must not hold up the end of the figures.
process.exit(0);

/** PGlite alone on a directory, until it has answered once. Started by start.ts. */
import { PGlite } from "@electric-sql/pglite";

const database = await PGlite.create(process.argv[2] ?? "");
await database.query("SELECT 1");
console.log("ready");
process.on("SIGTERM", () => {
  void database.close().then(() => process.exit(0));
});
// Nothing else holds the process.
setInterval(() => undefined, 60_000);
